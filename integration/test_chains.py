"""Chains of real proxies of different kinds, and HTTP CONNECT."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import socksy

from .servers import Places
from .talk import assert_echoes, fetch, read_all
from .targets import BANNER, Targets

Url = Callable[[str, str], str]
Start = Callable[[str], Places]
Chain = list[tuple[str, str]]
Proxies = Callable[[Chain], list[str]]

#: the names of servers as in servers.SERVERS; "privoxy" is an HTTP proxy
CHAINS: list[Chain] = [
    [("socks5h", "danted"), ("socks5h", "microsocks"), ("socks5h", "ssh -D")],
    [("socks4", "danted"), ("socks5h", "microsocks with login"), ("socks4a", "ssh -D")],
    [("socks4a", "ssh -D"), ("socks5", "v2ray with login"), ("socks5h", "danted with login")],
    [("socks5h", "ssh -D on a Unix socket"), ("socks5h", "microsocks on ::1")],
    [("http", "privoxy")],
    [("http", "privoxy"), ("socks5h", "ssh -D")],
    [("socks5h", "danted"), ("http", "privoxy")],
    [("socks4", "danted"), ("http", "privoxy"), ("socks5h", "microsocks with login")],
]


@pytest.fixture
def proxies(url: Url, start: Start) -> Proxies:
    """The URLs of a chain, whose servers are started if need be."""

    def proxies(chain: Chain) -> list[str]:
        return [
            f"http://{start('privoxy')['privoxy']}" if name == "privoxy" else url(scheme, name)
            for scheme, name in chain
        ]

    return proxies


each_chain = pytest.mark.parametrize(
    "chain", CHAINS, ids=lambda chain: " > ".join(f"{name} ({scheme})" for scheme, name in chain)
)


@each_chain
def test_gets_through(proxies: Proxies, targets: Targets, here: str, chain: Chain):
    address = here, targets.http
    with socksy.create_connection(address, timeout=10, proxy=proxies(chain)) as sock:
        assert sock.getpeername() == address
        assert fetch(sock).startswith("socksy target at ")


@each_chain
def test_100_kb_both_ways(proxies: Proxies, targets: Targets, chain: Chain):
    address = "127.0.0.1", targets.echo
    with socksy.create_connection(address, timeout=10, proxy=proxies(chain)) as sock:
        assert_echoes(sock, 100_000)


@each_chain
def test_bytes_right_behind_the_reply_are_not_lost(
    proxies: Proxies, targets: Targets, chain: Chain
):
    address = "127.0.0.1", targets.banner
    with socksy.create_connection(address, timeout=10, proxy=proxies(chain)) as sock:
        assert read_all(sock) == BANNER


def test_the_error_names_the_hop_that_is_not_there(proxies: Proxies, targets: Targets):
    chain = proxies([("socks5h", "danted"), ("socks5h", "microsocks")])
    chain.insert(1, f"socks5h://127.0.0.1:{targets.closed}")
    with pytest.raises(socksy.ProxyConnectionError) as caught:
        socksy.create_connection(("127.0.0.1", targets.http), timeout=10, proxy=chain)
    assert (caught.value.hop, caught.value.hops) == (2, 3)


def test_the_error_names_the_hop_that_refuses_the_login(url: Url, targets: Targets):
    second = socksy.Proxy.from_url(url("socks5h", "microsocks with login"))
    chain = [url("socks5h", "ssh -D"), second.replace(password="wrong")]
    with pytest.raises(socksy.ProxyAuthenticationError) as caught:
        socksy.create_connection(("127.0.0.1", targets.http), timeout=10, proxy=chain)
    assert (caught.value.hop, caught.value.hops) == (2, 2)


def test_the_last_hop_says_that_the_target_refuses(proxies: Proxies, targets: Targets):
    chain = proxies([("socks4a", "ssh -D"), ("socks5h", "microsocks"), ("socks5h", "danted")])
    with pytest.raises(ConnectionRefusedError) as caught:
        socksy.create_connection(("127.0.0.1", targets.closed), timeout=10, proxy=chain)
    assert isinstance(caught.value, socksy.ProxyReplyError)
    assert (caught.value.code, caught.value.hop) == (5, 3)


def test_privoxy_says_that_it_cannot_connect(proxies: Proxies, targets: Targets):
    with pytest.raises(socksy.ProxyReplyError) as caught:
        socksy.create_connection(
            ("127.0.0.1", targets.closed), timeout=10, proxy=proxies([("http", "privoxy")])
        )
    assert caught.value.protocol == "HTTP"
    assert caught.value.code == 503


def test_a_socks_server_asked_with_http(proxies: Proxies, targets: Targets):
    chain = proxies([("http", "microsocks")])
    with pytest.raises(socksy.ProxyProtocolError) as caught:
        socksy.create_connection(("127.0.0.1", targets.http), timeout=10, proxy=chain)
    assert caught.value.hint is not None
