"""BIND: the proxy listens for us."""

import errno
import socket

import pytest

import socksy
from socksy.sockets.stream import SocksSocket

from ..support import read_exactly, serving

SCHEMES = ["socks4", "socks4a", "socks5", "socks5h"]


@pytest.fixture(params=[None, 5])
def bound(request, socks_server_factory):
    """A function that makes sockets for which the proxy listens, with and without a timeout."""
    sockets = []

    def bind(scheme="socks5h", peer=("127.0.0.1", 0)):
        server = socks_server_factory()
        sock = SocksSocket(proxy=server.url(scheme))
        sockets.append(sock)
        sock.settimeout(request.param)
        sock.bind_remote(peer)
        return sock

    yield bind
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_peer_that_connects_to_the_proxy_is_accepted(bound, scheme):
    """getsockname() is where it has to connect; accept() gives the connection and its address."""
    sock = bound(scheme)

    with socket.create_connection(sock.getsockname()) as peer:
        sock.listen()
        conn, address = sock.accept()
        with conn:
            assert address == peer.getsockname() == conn.getpeername()
            conn.sendall(b"ping")
            assert peer.recv(4) == b"ping"
            peer.sendall(b"pong")
            assert conn.recv(4) == b"pong"


def test_only_one_peer_is_accepted(bound):
    """A BIND is good for one; and the listening socket's descriptor is not the connection's."""
    sock = bound()
    with socket.create_connection(sock.getsockname()) as peer:
        conn, _ = sock.accept()
        with conn:
            with pytest.raises(OSError) as caught:
                sock.accept()
            assert caught.value.errno == errno.EINVAL
            sock.close()
            peer.sendall(b"x")
            assert conn.recv(1) == b"x"


def test_a_non_blocking_accept_comes_back_for_the_peer(bound):
    """BlockingIOError until somebody has connected."""
    sock = bound()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.accept()
    with socket.create_connection(sock.getsockname()) as peer:
        import select

        assert select.select([sock], [], [], 5)[0] == [sock]
        conn, _ = sock.accept()
        with conn:
            peer.sendall(b"x")
            conn.settimeout(5)
            assert conn.recv(1) == b"x"


def test_the_timeout_counts_while_nobody_connects(bound):
    """The error says what was awaited."""
    sock = bound()
    sock.settimeout(0.05)
    with pytest.raises(socksy.ProxyTimeoutError) as caught:
        sock.accept()
    assert caught.value.phase == "the second BIND reply"


# -- what real proxies do

SOCKS5_REPLIES = b"\5\0\0\1\x7f\0\0\1\x12\x34" + b"\5\0\0\1\x7f\0\0\x09\x56\x78"
SOCKS4_REPLIES = b"\0\x5a\x12\x34\x7f\0\0\1" + b"\0\x5a\x56\x78\x7f\0\0\x09"


def answering(scheme, replies):
    """A proxy that says all this to a BIND, in one segment."""

    def handler(connection):
        if scheme.startswith("socks5"):
            read_exactly(connection, 3)
            connection.sendall(b"\5\0")
        connection.recv(100)
        connection.sendall(replies)
        connection.recv(1)

    return handler


@pytest.mark.parametrize(
    ("scheme", "replies"), [("socks5h", SOCKS5_REPLIES), ("socks4a", SOCKS4_REPLIES)]
)
def test_both_replies_in_one_segment(scheme, replies):
    """And what the peer says right behind them."""
    with serving(answering(scheme, replies + b"banner")) as address:
        with SocksSocket(proxy=f"{scheme}://127.0.0.1:{address[1]}") as sock:
            sock.bind_remote(("127.0.0.9", 0))
            assert sock.getsockname() == ("127.0.0.1", 0x1234)
            conn, peer = sock.accept()
            with conn:
                assert peer == ("127.0.0.9", 0x5678)
                assert read_exactly(conn, 6) == b"banner"


def test_an_unspecified_address_is_the_proxys_own():
    """0.0.0.0 in the first reply (SOCKS4.protocol says so; SOCKS5 servers do it too)."""
    replies = b"\5\0\0\1\0\0\0\0\x12\x34"
    with serving(answering("socks5h", replies)) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.bind_remote()
            assert sock.getsockname() == ("127.0.0.1", 0x1234)
            assert sock.bound_address == ("0.0.0.0", 0x1234)


def test_another_peer_than_the_expected_one_is_refused():
    """The proxy should have checked: the connection is not handed out."""
    with serving(answering("socks5h", SOCKS5_REPLIES)) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.bind_remote(("127.0.0.8", 0))
            with pytest.raises(socksy.ProxyProtocolError) as caught:
                sock.accept()
    assert caught.value.errno == errno.ECONNABORTED


def test_a_refused_peer_is_not_handed_out_by_asking_again():
    """The second accept() fails as well."""
    with serving(answering("socks5h", SOCKS5_REPLIES)) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.bind_remote(("127.0.0.8", 0))
            for _ in range(2):
                with pytest.raises(OSError):
                    sock.accept()


def test_a_proxy_that_gives_up_waiting():
    """It says so with a reply, or just closes."""
    with serving(answering("socks5h", b"\5\0\0\1\x7f\0\0\1\x12\x34" + b"\5\6")) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.bind_remote()
            with pytest.raises(socksy.ProxyTTLExpiredError):
                sock.accept()


def test_a_proxy_that_does_no_bind():
    """The reply says so."""
    with serving(answering("socks5h", b"\5\7")) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            with pytest.raises(socksy.CommandNotSupportedError):
                sock.bind_remote()


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        ("http://127.0.0.1:9", socksy.ProxyUnsupportedError),
        (None, socksy.ProxyUnsupportedError),
    ],
)
def test_bind_needs_a_socks_proxy(proxy, error):
    """HTTP has no such thing; a plain socket has bind() and listen()."""
    with SocksSocket(proxy=proxy) as sock, pytest.raises(error):
        sock.bind_remote()


def test_bind_on_a_connected_socket(socks_server, bound):
    """Is refused, as is a second one."""
    sock = bound()
    with pytest.raises(OSError) as caught:
        sock.bind_remote()
    assert caught.value.errno == errno.EISCONN


def test_a_wrong_peer_is_refused_before_anything_is_sent(socks_server):
    """Like a wrong target."""
    with SocksSocket(proxy=socks_server.url()) as sock:
        with pytest.raises(socksy.InvalidTargetError):
            sock.bind_remote(("a b", 0))
    assert socks_server.requests == []
