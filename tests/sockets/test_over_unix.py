"""A connection to a proxy on a Unix socket seems to be a TCP one."""

import contextlib
import errno
import select
import socket
import ssl

import pytest

import socksy
from socksy.sockets.dial import kept_guise
from socksy.sockets.over_unix import OverUnix
from socksy.sockets.stream import SocksSocket

from ..support import BANNER, read_exactly

pytestmark = pytest.mark.usefixtures("the_thread_ends")


@pytest.fixture
def server(socks_server_factory, tmp_path):
    return socks_server_factory(path=str(tmp_path / "s"))


@contextlib.contextmanager
def connected(server, target, timeout=5):
    """A connected socket that blocks; it was connected in this or that way."""
    with SocksSocket(proxy=server.url()) as sock:
        sock.settimeout(timeout)
        number = sock.connect_ex(target)
        if timeout == 0:
            assert number == errno.EINPROGRESS
            assert select.select([], [sock], [], 5)[1]
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert number == 0
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("timeout", [None, 5, 0])
def test_data_come_without_an_address(server, echo_server, timeout):
    """As from every connected TCP socket; the kernel would tell the path of the proxy."""
    with connected(server, echo_server, timeout) as sock:
        assert sock.recvfrom(len(BANNER)) == (BANNER, None)
        sock.sendall(b"ping" * 3)
        buffer = bytearray(4)
        assert sock.recvfrom_into(buffer, nbytes=4) == (4, None)
        assert sock.recvmsg(4)[::3] == (b"ping", None)
        assert sock.recvmsg_into([buffer])[::3] == (4, None)
        assert isinstance(sock, SocksSocket)
        assert isinstance(sock, OverUnix)
        assert "SocksSocket" in repr(sock)


def test_options_of_tcp_are_kept(server, echo_server):
    """They mean nothing, but programs set them, and ask."""
    with connected(server, echo_server) as sock:
        level, option = socket.IPPROTO_TCP, socket.TCP_KEEPIDLE
        assert sock.getsockopt(level, option) == 0
        sock.setsockopt(level, option, 77)
        assert sock.getsockopt(level, option) == 77
        assert int.from_bytes(sock.getsockopt(level, option, 4), "little") == 77
        sock.setsockopt(level, option, (78).to_bytes(4, "little"))
        assert sock.getsockopt(level, option) == 78
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM


@pytest.mark.parametrize("option", ["SO_REUSEPORT", "SO_ZEROCOPY", "SO_KEEPALIVE", "SO_OOBINLINE"])
@pytest.mark.parametrize("timeout", [5, 0])
def test_options_that_it_does_not_know_prevent_nothing(server, echo_server, option, timeout):
    """Newer kernels refuse some; of a TCP socket they were fine."""
    with SocksSocket(proxy=server.url()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option, 60), 1)
        sock.settimeout(5)
        sock.connect(echo_server)
        assert read_exactly(sock, len(BANNER)) == BANNER


def test_an_option_that_routes_is_never_left_out(server, echo_server, monkeypatch):
    """Here it is one that this kernel refuses on a Unix socket, called SO_MARK."""
    option = socket.SO_REUSEPORT
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, option, 1)
        pytest.skip("this kernel does not refuse it")
    monkeypatch.setattr(socket, "SO_MARK", option)
    with SocksSocket(proxy=server.url()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(echo_server)
        assert caught.value.errno == errno.EOPNOTSUPP


def test_copies_are_over_unix_too(server, echo_server):
    with connected(server, echo_server) as sock, sock.dup() as copy:
        assert type(copy) is type(sock)
        assert copy.recvfrom(len(BANNER)) == (BANNER, None)


def test_tls_takes_such_a_connection_over(server, echo_server):
    """Wrapped after connecting, or before."""
    for after in (True, False):
        sock = SocksSocket(proxy=server.url())
        sock.settimeout(5)
        if after:
            sock.connect(echo_server)
        context = ssl.create_default_context()
        options = {"server_hostname": "a.test", "do_handshake_on_connect": False}
        if after:
            assert sock.recv(100) == BANNER
        with context.wrap_socket(sock, **options) as tls:
            if not after:
                tls.connect(echo_server)
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert tls.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert tls.getpeername() == echo_server


def test_a_guise_is_made_once():
    guise = kept_guise(SocksSocket, OverUnix)
    assert kept_guise(SocksSocket, OverUnix) is kept_guise(guise, OverUnix) is guise


@pytest.mark.parametrize("timeout", [5, 0])
def test_what_the_proxy_accepts_is_over_unix(server, timeout):
    """BIND: the connection of the peer is the one to the proxy."""
    with SocksSocket(proxy=server.url()) as listener:
        listener.settimeout(timeout)
        try:
            listener.bind_remote()
        except BlockingIOError:
            assert select.select([], [listener], [], 5)[1]
            listener.settimeout(5)
        with socket.create_connection(listener.getsockname()) as peer:
            connection, _ = listener.accept()
            with connection:
                peer.sendall(b"ping")
                assert connection.recvfrom(4) == (b"ping", None)
