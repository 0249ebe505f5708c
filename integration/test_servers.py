"""`socksy.create_connection` through real servers: what arrives, and what is said if it cannot."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from typing import Any

import pytest

import socksy

from .servers import Places, Refusal, Server, each
from .talk import assert_echoes, fetch, read_all
from .targets import BANNER, NAMES, OTHER_ADDRESS, UNROUTED_ADDRESS, Targets

SOCKS4 = ("socks4", "socks4a")

Url = Callable[[str, str], str]
Start = Callable[[str], Places]


numbers = itertools.count()


def who_asked_for(name: str, targets: Targets) -> set[str]:
    return {"we" if query.ours else "the proxy" for query in targets.queries if query.name == name}


def connect(proxy: Any, host: str, port: int) -> socksy.SocksSocket:
    return socksy.create_connection((host, port), timeout=10, proxy=proxy)


# -- getting through


@each()
def test_ipv4_literal(url: Url, targets: Targets, scheme: str, server: Server):
    with connect(url(scheme, server.name), "127.0.0.1", targets.http) as sock:
        assert fetch(sock) == "socksy target at 127.0.0.1\n"


@each("socks5", "socks5h")
def test_ipv6_literal(url: Url, targets: Targets, scheme: str, server: Server):
    with connect(url(scheme, server.name), "::1", targets.http) as sock:
        assert fetch(sock) == "socksy target at ::1\n"


@each("socks4")
def test_socks4_has_no_ipv6(url: Url, targets: Targets, scheme: str, server: Server):
    with pytest.raises(socksy.ProxyUnsupportedError):
        connect(url(scheme, server.name), "::1", targets.http)


@each()
def test_an_address_that_is_not_loopback(
    names: None, url: Url, targets: Targets, scheme: str, server: Server
):
    with connect(url(scheme, server.name), OTHER_ADDRESS, targets.http) as sock:
        assert fetch(sock) == f"socksy target at {OTHER_ADDRESS}\n"


@pytest.mark.parametrize("host", ["www.test.example", "v4.test.example", "v6.test.example"])
@each("socks4a", "socks5h")
def test_a_name_is_resolved_by_the_proxy(
    names: None, url: Url, targets: Targets, scheme: str, server: Server, host: str
):
    proxy = url(scheme, server.name)
    fresh = f"n{next(numbers)}.{host}"  # some remember answers
    with connect(proxy, fresh, targets.http) as sock:
        assert sock.getpeername()[0] == fresh
        body = fetch(sock)
    assert body in [f"socksy target at {address}\n" for _, address in NAMES[host]]
    assert who_asked_for(fresh, targets) == {"the proxy"}


@pytest.mark.parametrize("host", ["www.test.example", "v4.test.example", "v6.test.example"])
@each("socks5")
def test_a_name_is_resolved_here(
    names: None, url: Url, targets: Targets, scheme: str, server: Server, host: str
):
    proxy = url(scheme, server.name)
    fresh = f"n{next(numbers)}.{host}"
    with connect(proxy, fresh, targets.http) as sock:
        body = fetch(sock)
    assert body in [f"socksy target at {address}\n" for _, address in NAMES[host]]
    assert who_asked_for(fresh, targets) == {"we"}


@pytest.mark.parametrize("host", ["www.test.example", "v4.test.example"])
@each("socks4")
def test_socks4_resolves_to_ipv4(
    names: None, url: Url, targets: Targets, scheme: str, server: Server, host: str
):
    with connect(url(scheme, server.name), host, targets.http) as sock:
        assert fetch(sock) == "socksy target at 127.0.0.1\n"


@each("socks4")
def test_socks4_cannot_use_a_name_with_ipv6_only(
    names: None, url: Url, targets: Targets, scheme: str, server: Server
):
    with pytest.raises(socket.gaierror):
        connect(url(scheme, server.name), "v6.test.example", targets.http)


@each()
def test_localhost(url: Url, targets: Targets, scheme: str, server: Server):
    """The one name that needs no DNS server."""
    with connect(url(scheme, server.name), "localhost", targets.http) as sock:
        assert fetch(sock).startswith("socksy target at ")


# -- what flows then


@each()
def test_bytes_right_behind_the_reply_are_not_lost(
    url: Url, targets: Targets, scheme: str, server: Server
):
    with connect(url(scheme, server.name), "127.0.0.1", targets.banner) as sock:
        assert read_all(sock) == BANNER


@each()
def test_100_kb_both_ways(url: Url, targets: Targets, scheme: str, server: Server):
    with connect(url(scheme, server.name), "127.0.0.1", targets.echo) as sock:
        assert_echoes(sock, 100_000)


@each()
def test_the_target_is_the_peer(url: Url, targets: Targets, scheme: str, server: Server):
    with connect(url(scheme, server.name), "127.0.0.1", targets.echo) as sock:
        assert sock.getpeername()[:2] == ("127.0.0.1", targets.echo)
        assert sock.proxy_peername != sock.getpeername()
        assert sock.gettimeout() == 10


@each(where=lambda server: server.real_bound_address)
def test_bound_address_is_where_the_proxy_connects_from(
    url: Url, targets: Targets, scheme: str, server: Server
):
    with connect(url(scheme, server.name), "127.0.0.1", targets.echo) as sock:
        assert sock.bound_address is not None
        host, port = sock.bound_address
        assert host == "127.0.0.1"
        assert port


# -- not getting through


def outcome(proxy: str, host: str, port: int) -> Refusal | socksy.ProxyError:
    """Try to connect; the error, or GRANTED if it looked good first and then ended."""
    try:
        sock = connect(proxy, host, port)
    except socksy.ProxyError as error:
        return error
    with sock:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    return Refusal.GRANTED


def check(error: Refusal | socksy.ProxyError, server: Server, scheme: str, code: int | None):
    """The outcome is what this server gives; `code` is its SOCKS5 reply."""
    if server.refusal is Refusal.GRANTED:
        assert error is Refusal.GRANTED
    elif server.refusal is Refusal.CLOSE:
        assert isinstance(error, socksy.ProxyProtocolError)
        assert error.hint is not None
        assert "OpenSSH" in error.hint
    else:
        assert isinstance(error, socksy.ProxyReplyError)
        assert error.code == (0x5B if scheme in SOCKS4 else code)


@each()
def test_refused_by_the_target(url: Url, targets: Targets, scheme: str, server: Server):
    error = outcome(url(scheme, server.name), "127.0.0.1", targets.closed)
    check(error, server, scheme, server.refused)
    if server.refusal is Refusal.REPLY:
        assert isinstance(error, ConnectionRefusedError)


@each("socks4a", "socks5h")
def test_a_name_that_the_proxy_does_not_know(
    names: None, url: Url, targets: Targets, scheme: str, server: Server
):
    error = outcome(url(scheme, server.name), "missing.test.example", targets.http)
    check(error, server, scheme, server.unknown)


@each("socks4", "socks5")
def test_a_name_that_nobody_knows_here(
    names: None, url: Url, targets: Targets, scheme: str, server: Server
):
    with pytest.raises(socket.gaierror):
        connect(url(scheme, server.name), "missing.test.example", targets.http)
    assert who_asked_for("missing.test.example", targets) >= {"we"}


@each(where=lambda server: server.refusal is Refusal.REPLY)
def test_a_network_without_a_route(
    names: None, url: Url, targets: Targets, scheme: str, server: Server
):
    with pytest.raises(socksy.ProxyReplyError):
        connect(url(scheme, server.name), UNROUTED_ADDRESS, targets.http)


@each(where=lambda server: server.login)
def test_a_wrong_password(url: Url, targets: Targets, scheme: str, server: Server):
    proxy = socksy.Proxy.from_url(url(scheme, server.name)).replace(password="wrong")
    with pytest.raises(socksy.ProxyAuthenticationError):
        connect(proxy, "127.0.0.1", targets.http)


@each(where=lambda server: server.login)
def test_no_login_where_one_is_wanted(url: Url, targets: Targets, scheme: str, server: Server):
    proxy = socksy.Proxy.from_url(url(scheme, server.name)).replace(username=None, password=None)
    with pytest.raises(socksy.ProxyAuthenticationError):
        connect(proxy, "127.0.0.1", targets.http)


def test_socks4_where_a_login_is_wanted(url: Url, targets: Targets):
    place = url("socks4", "danted with login").rpartition("@")[2]
    with pytest.raises(socksy.ProxyReplyError) as caught:
        connect(f"socks4://{place}", "127.0.0.1", targets.http)
    assert caught.value.code == 0x5B


@pytest.mark.parametrize("name", ["danted", "microsocks", "ssh -D"])
def test_a_login_that_the_proxy_does_not_want(url: Url, targets: Targets, name: str):
    """Both methods are offered then, and these servers take the one without a login."""
    proxy = socksy.Proxy.from_url(url("socks5h", name)).replace(username="a", password="b")
    with connect(proxy, "127.0.0.1", targets.http) as sock:
        assert fetch(sock) == "socksy target at 127.0.0.1\n"


@pytest.mark.parametrize("name", ["danted", "microsocks", "ssh -D"])
def test_require_auth_refuses_a_proxy_without_logins(url: Url, targets: Targets, name: str):
    proxy = socksy.Proxy.from_url(url("socks5h", name))
    proxy = proxy.replace(username="a", password="b", require_auth=True)
    with pytest.raises(socksy.ProxyError):
        connect(proxy, "127.0.0.1", targets.http)


@pytest.mark.parametrize("scheme", SOCKS4)
def test_a_socks5_only_server_asked_with_socks4(url: Url, targets: Targets, scheme: str):
    with pytest.raises(socksy.ProxyProtocolError):
        connect(url(scheme, "microsocks"), "127.0.0.1", targets.http)


def test_nobody_listens_where_the_proxy_should_be(targets: Targets):
    with pytest.raises(socksy.ProxyConnectionError) as caught:
        connect(f"socks5h://127.0.0.1:{targets.closed}", "127.0.0.1", targets.http)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
@pytest.mark.parametrize(("kind", "hint"), [("http", "HTTP proxy"), ("sshd", "SSH server")])
def test_something_else_instead_of_a_proxy(
    start: Start, targets: Targets, kind: str, hint: str, scheme: str
):
    place = start("ssh")["sshd"] if kind == "sshd" else f"127.0.0.1:{targets.http}"
    with pytest.raises(socksy.ProxyProtocolError) as caught:
        connect(f"{scheme}://{place}", "127.0.0.1", targets.http)
    assert hint in str(caught.value)
