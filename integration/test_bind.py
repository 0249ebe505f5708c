"""BIND: a proxy that listens for us, so that the other side can connect (active FTP, say)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

import socksy

from .servers import Places

Url = Callable[[str, str], str]
Start = Callable[[str], Places]

pytestmark = pytest.mark.usefixtures("targets")


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])
def test_the_peer_connects_and_both_sides_talk(url: Url, scheme: str):
    with socksy.SocksSocket(proxy=url(scheme, "danted")) as listener:
        listener.settimeout(10)
        listener.bind_remote(("127.0.0.1", 0))
        listener.listen(1)
        place = listener.getsockname()
        assert place[0] == "127.0.0.1"
        with socket.create_connection(place, timeout=10) as peer:
            conn, address = listener.accept()
            with conn:
                conn.settimeout(10)
                assert address == peer.getsockname()
                assert conn.getpeername() == peer.getsockname()
                peer.sendall(b"from the peer")
                assert conn.recv(100) == b"from the peer"
                conn.sendall(b"to the peer")
                assert peer.recv(100) == b"to the peer"


def test_over_ipv6(url: Url):
    with socksy.SocksSocket(socket.AF_INET6, proxy=url("socks5h", "danted on ::1")) as listener:
        listener.settimeout(10)
        listener.bind_remote(("::1", 0))
        place = listener.getsockname()
        assert place[0] == "::1"
        with socket.create_connection(place[:2], timeout=10) as peer:
            conn, address = listener.accept()
            with conn:
                assert address[:2] == peer.getsockname()[:2]


def test_what_the_peer_says_at_once_is_not_lost(url: Url):
    """Its bytes come right behind the second reply, maybe before accept() is called."""
    with socksy.SocksSocket(proxy=url("socks5h", "danted")) as listener:
        listener.settimeout(10)
        listener.bind_remote(("127.0.0.1", 0))
        with socket.create_connection(listener.getsockname(), timeout=10) as peer:
            peer.sendall(b"first")
            peer.shutdown(socket.SHUT_WR)
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(10)
                assert conn.recv(100) == b"first"
                assert conn.recv(100) == b""


def test_a_peer_that_never_comes(url: Url):
    with socksy.SocksSocket(proxy=url("socks5h", "danted")) as listener:
        listener.settimeout(10)
        listener.bind_remote(("127.0.0.1", 0))
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_with_a_login(url: Url):
    with socksy.SocksSocket(proxy=url("socks5h", "danted with login")) as listener:
        listener.settimeout(10)
        listener.bind_remote(("127.0.0.1", 0))
        with socket.create_connection(listener.getsockname(), timeout=10) as peer:
            conn, address = listener.accept()
            with conn:
                assert address == peer.getsockname()


def test_through_a_chain(url: Url):
    chain = [url("socks5h", "microsocks"), url("socks4a", "ssh -D"), url("socks5h", "danted")]
    with socksy.SocksSocket(proxy=chain) as listener:
        listener.settimeout(10)
        listener.bind_remote(("127.0.0.1", 0))
        with socket.create_connection(listener.getsockname(), timeout=10) as peer:
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(10)
                peer.sendall(b"hello")
                assert conn.recv(100) == b"hello"


@pytest.mark.parametrize("name", ["microsocks", "ss-local", "v2ray"])
def test_proxies_that_do_no_bind_say_so(url: Url, name: str):
    with socksy.SocksSocket(proxy=url("socks5h", name)) as listener:
        listener.settimeout(10)
        with pytest.raises(socksy.ProxyReplyError) as caught:
            listener.bind_remote(("127.0.0.1", 0))
        assert caught.value.code == 7


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_openssh_hangs_up(url: Url, scheme: str):
    with socksy.SocksSocket(proxy=url(scheme, "ssh -D")) as listener:
        listener.settimeout(10)
        with pytest.raises(socksy.ProxyProtocolError):
            listener.bind_remote(("127.0.0.1", 0))


def test_tor_does_no_bind(start: Start):
    with socksy.SocksSocket(proxy=f"socks5h://{start('tor')['tor']}") as listener:
        listener.settimeout(10)
        with pytest.raises(socksy.ProxyReplyError) as caught:
            listener.bind_remote(("192.0.2.1", 0))
        assert caught.value.code == 7
