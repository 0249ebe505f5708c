"""A Tor client without a network: everything that it answers without a circuit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import socksy

from .servers import Places
from .targets import Targets

Start = Callable[[str], Places]

# v3 names have 56 letters and digits, the last of them a checksum and a version
MALFORMED = f"{'a' * 56}.onion"
SOMEWHERE = ("www.test.example", 80)


@pytest.fixture
def place(start: Start) -> str:
    """The SocksPort with ExtendedErrors."""
    return start("tor")["tor"]


def refusal(proxy: Any, address: tuple[str, int]) -> socksy.ProxyReplyError:
    with pytest.raises(socksy.ProxyReplyError) as caught:
        socksy.create_connection(address, timeout=10, proxy=proxy)
    return caught.value


def test_malformed_onion_name(place: str):
    error = refusal(f"socks5h://{place}", (MALFORMED, 80))
    assert error.code == 0xF6
    assert error.reply == "onion address invalid"


def test_malformed_onion_name_without_extended_errors(start: Start):
    place = start("tor")["tor without ExtendedErrors"]
    assert refusal(f"socks5h://{place}", (MALFORMED, 80)).code == 1


def test_malformed_onion_name_on_a_unix_socket(start: Start):
    place = start("tor")["tor on a Unix socket"]
    assert refusal(f"socks5h://{place}", (MALFORMED, 80)).code == 1


def test_malformed_onion_name_with_socks4a(place: str):
    assert refusal(f"socks4a://{place}", (MALFORMED, 80)).code == 0x5B


def test_malformed_onion_name_through_the_http_tunnel_port(start: Start):
    place = start("tor")["tor HTTPTunnelPort"]
    error = refusal(f"http://{place}", (MALFORMED, 80))
    assert error.protocol == "HTTP"


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_onion_names_are_never_looked_up_here(place: str, targets: Targets, scheme: str):
    name = f"{'b' * 56}.onion"
    with pytest.raises(socksy.ProxyUnsupportedError):
        socksy.create_connection((name, 80), timeout=10, proxy=f"{scheme}://{place}")
    assert not [query for query in targets.queries if query.name.endswith(".onion")]


@pytest.mark.parametrize("login", ["", "user:password@", "%3CtorS0X%3E0:token@"])
def test_every_login_is_taken(place: str, login: str):
    """Tor picks the method with a login if it is offered: an isolation token, not a check."""
    error = refusal(f"socks5h://{login}{place}", (MALFORMED, 80))
    assert error.code == 0xF6


def test_no_login_is_asked_for_with_require_auth(place: str):
    proxy = socksy.Proxy.from_url(f"socks5h://user:password@{place}", require_auth=True)
    assert refusal(proxy, (MALFORMED, 80)).code == 0xF6


def test_empty_user_name_and_password(place: str):
    """Against RFC 1929, but Tor takes it."""
    proxy = socksy.Proxy.from_url(f"socks5h://{place}", allow_empty_username=True).replace(
        username="", password=""
    )
    assert refusal(proxy, (MALFORMED, 80)).code == 0xF6


def test_reserved_user_name(place: str):
    """Tor answers an isolation format it does not know with a request's reply (05 01) here."""
    with pytest.raises(socksy.ProxyAuthenticationError):
        socksy.create_connection(
            SOMEWHERE, timeout=10, proxy=f"socks5h://%3CtorS0X%3E1:token@{place}"
        )


@pytest.mark.parametrize("host", ["127.0.0.1", "10.99.0.1"])
def test_private_addresses_are_refused(place: str, targets: Targets, host: str):
    assert refusal(f"socks5h://{place}", (host, targets.http)).code == 1


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_names_are_not_looked_up_when_there_is_no_circuit(
    place: str, targets: Targets, scheme: str
):
    """Tor gives up after its SocksTimeout, 2 s here; one of its timers says 01 then, one 06."""
    name = "tor.www.test.example"
    error = refusal(f"{scheme}://{place}", (name, 80))
    assert error.code in ((1, 6) if scheme == "socks5h" else (0x5B,))
    assert isinstance(error, TimeoutError) == (error.code == 6)
    assert name not in [query.name for query in targets.queries]


def test_our_deadline_comes_first(place: str):
    with pytest.raises(socksy.ProxyTimeoutError) as caught:
        socksy.create_connection(SOMEWHERE, timeout=0.3, proxy=f"socks5h://{place}")
    assert caught.value.phase == "the reply"


def test_an_http_proxy_where_socks_is_spoken(place: str):
    """Tor answers with a page that says so."""
    with pytest.raises(socksy.ProxyReplyError) as caught:
        socksy.create_connection(SOMEWHERE, timeout=10, proxy=f"http://{place}")
    assert (caught.value.protocol, caught.value.code) == ("HTTP", 501)
