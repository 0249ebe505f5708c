"""BIND: the proxy listens for us."""

import asyncio
import errno
import os
import select
import socket
import subprocess
import sys
import threading

import pytest

import socksy
from socksy.sockets import stream
from socksy.sockets.stream import SocksSocket
from socksy.testing.faults import answer_with

from ..support import BANNER, read_exactly, script, serving

pytestmark = pytest.mark.usefixtures("the_thread_ends")

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


def test_a_listening_socket_has_no_peer(bound):
    """Although its descriptor is connected, to the proxy."""
    sock = bound()
    with pytest.raises(OSError) as caught:
        sock.getpeername()
    assert caught.value.errno == errno.ENOTCONN


def test_a_closed_listener_has_no_address(bound):
    """As on a plain socket."""
    sock = bound()
    sock.close()
    with pytest.raises(OSError) as caught:
        sock.getsockname()
    assert caught.value.errno == errno.EBADF


def test_addresses_have_the_form_of_the_family(socks_server):
    """Four values for AF_INET6, where an IPv4 address is written as a mapped one."""
    with SocksSocket(socket.AF_INET6, proxy=socks_server.url()) as sock:
        sock.bind_remote()
        place = sock.getsockname()
        assert place == ("::ffff:127.0.0.1", place[1], 0, 0)
        with socket.create_connection(("127.0.0.1", place[1])) as peer:
            conn, address = sock.accept()
            with conn:
                assert address == ("::ffff:127.0.0.1", peer.getsockname()[1], 0, 0)
                assert conn.getpeername() == address


def test_in_a_chain_an_unspecified_address_is_the_last_proxys(socks_server):
    """Not the one of the proxy that we are connected to."""
    replies = b"\5\0\0\1\0\0\0\0\x12\x34"
    with serving(answering("socks5h", replies)) as address:
        last = f"socks5h://127.0.0.2:{address[1]}"
        socks_server.stop()
        with serving(forwarding(address)) as first:
            with SocksSocket(proxy=[f"socks5h://127.0.0.1:{first[1]}", last]) as sock:
                sock.bind_remote()
                assert sock.getsockname() == ("127.0.0.2", 0x1234)


def forwarding(address):
    """A proxy that connects to one address, whatever it is asked."""

    def handler(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        read_exactly(connection, 10)
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        with socket.create_connection(address) as onward:
            for count in (3, 10):
                onward.sendall(read_exactly(connection, count))
                connection.sendall(onward.recv(100))
            connection.recv(1)

    return handler


# -- non-blocking


@pytest.fixture
def listening(socks_server):
    """A non-blocking socket whose BIND was answered, in the background."""
    with SocksSocket(proxy=socks_server.url()) as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            sock.bind_remote()
        assert caught.value.errno == errno.EINPROGRESS
        assert select.select([], [sock], [], 5)[1] == [sock]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        yield sock


def test_a_non_blocking_bind_is_like_a_non_blocking_connect(listening):
    """EINPROGRESS, writable, SO_ERROR; then there is an address, and soon a peer."""
    with socket.create_connection(listening.getsockname()) as peer:
        listening.settimeout(5)
        conn, address = listening.accept()
        with conn:
            assert address == peer.getsockname()


def test_a_refused_non_blocking_bind():
    """SO_ERROR is the errno of the reply; `last_error` says more."""
    with serving(answering("socks5h", b"\5\7")) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.bind_remote()
            assert select.select([], [sock], [], 5)[1] == [sock]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EOPNOTSUPP
            assert isinstance(sock.last_error, socksy.CommandNotSupportedError)


@pytest.mark.parametrize("registered", ["before", "after"])
def test_the_connection_is_not_registered_as_the_listener(listening, registered):
    """An epoll that has watched the listener hears nothing of the connection's data."""
    with select.epoll() as epoll:
        if registered == "before":
            epoll.register(listening, select.EPOLLIN)
        with pytest.raises(BlockingIOError):
            listening.accept()
        if registered == "after":
            epoll.register(listening, select.EPOLLIN)
        assert epoll.poll(0) == []
        with socket.create_connection(listening.getsockname()) as peer:
            assert epoll.poll(5)[0][0] == listening.fileno()
            conn, _ = listening.accept()
            epoll.unregister(listening)
            with conn:
                peer.sendall(b"x")
                assert select.select([conn], [], [], 5)[0] == [conn]
                assert epoll.poll(0) == []
                assert conn.recv(1) == b"x"


def test_accept_again_and_again(listening):
    """EAGAIN until the peer has come, also after the thread has taken over; then EINVAL."""
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            listening.accept()
    listening.settimeout(0.02)
    with pytest.raises(socksy.ProxyTimeoutError):
        listening.accept()
    with socket.create_connection(listening.getsockname()):
        listening.settimeout(5)
        conn, _ = listening.accept()
        conn.close()
        with pytest.raises(OSError) as caught:
            listening.accept()
        assert caught.value.errno == errno.EINVAL


def test_a_proxy_that_gives_up_while_the_thread_waits(socks_server_factory):
    """Every accept() says so."""
    server = socks_server_factory(timeout=0.05)
    with SocksSocket(proxy=server.url()) as sock:
        sock.bind_remote()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()
        assert select.select([sock], [], [], 5)[0] == [sock]
        for _ in range(2):
            with pytest.raises(socksy.ProxyTTLExpiredError) as caught:
                sock.accept()
        assert caught.value.proxy == server.url()


def test_closing_while_the_thread_waits_releases_everything(listening, socks_server):
    """The proxy sees that nobody waits any more."""
    with pytest.raises(BlockingIOError):
        listening.accept()
    listening.close()
    socks_server.wait_until_idle()


@pytest.mark.parametrize("waiting", [False, True])
def test_the_interpreter_exits_with_a_listener_open(socks_server, waiting):
    """At once, whether the thread waits for the peer or not; the proxy sees the end."""
    code = f"""
import socksy
sock = socksy.SocksSocket(proxy={socks_server.url()!r})
sock.bind_remote()
sock.setblocking(False)
if {waiting}:
    try:
        sock.accept()
    except BlockingIOError:
        print("waiting")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert (done.stdout, done.stderr) == ("waiting\n" * waiting, "")
    socks_server.wait_until_idle()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_the_thread_waits_is_safe(listening):
    """The child's copy has failed; the parent's accepts."""
    with pytest.raises(BlockingIOError):
        listening.accept()
    child = os.fork()
    if child == 0:
        try:
            listening.accept()
        except ConnectionAbortedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    listening.settimeout(5)
    with socket.create_connection(listening.getsockname()) as peer:
        conn, address = listening.accept()
        with conn:
            assert address == peer.getsockname()
            peer.sendall(b"x")
            conn.settimeout(5)
            assert conn.recv(1) == b"x"


def test_asyncio_accepts(listening):
    """loop.sock_accept, then streams."""

    async def main():
        loop = asyncio.get_running_loop()
        accepting = asyncio.ensure_future(loop.sock_accept(listening))
        await asyncio.sleep(0)
        with socket.create_connection(listening.getsockname()) as peer:
            conn, address = await asyncio.wait_for(accepting, 5)
            assert address == peer.getsockname()
            reader, writer = await asyncio.open_connection(sock=conn)
            peer.sendall(b"ping")
            assert await reader.readexactly(4) == b"ping"
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


# -- remote_bind: code that knows bind, listen and accept only


class Active(SocksSocket):
    """As `wrap_module(..., remote_bind=True)` makes it."""

    remote_bind = True


@pytest.fixture(params=["socks4a", "socks5h"])
def active(request, socks_server):
    """A function that makes sockets which let the proxy listen."""
    sockets = []

    def make(**options):
        options = {"proxy": socks_server.url(request.param), **options}
        sockets.append(Active(**options))
        return sockets[-1]

    yield make
    for sock in sockets:
        sock.close()


def test_bind_and_listen_ask_the_proxy(active, socks_server):
    """bind() is where we connect from, getsockname() where the proxy listens."""
    sock = active()
    sock.bind(("", 0))
    sock.listen(1)
    with socket.create_connection(sock.getsockname()) as peer:
        conn, address = sock.accept()
        with conn:
            assert address == peer.getsockname()
            assert conn.getsockname() == peer.getpeername() == sock.getsockname()
            assert conn.remote_bind
    assert socks_server.requests[-1].command == 2


def test_a_non_blocking_listen_waits_for_the_address(active):
    """Code that does not know about us asks for it next."""
    sock = active()
    sock.setblocking(False)
    sock.listen()
    assert sock.gettimeout() == 0
    with pytest.raises(BlockingIOError):
        sock.accept()
    with socket.create_connection(sock.getsockname()):
        assert select.select([sock], [], [], 5)[0] == [sock]
        sock.accept()[0].close()


def slow_to_bind(connection):
    read_exactly(connection, 3)
    connection.sendall(b"\5\0")
    connection.recv(100)
    threading.Event().wait(0.05)
    connection.sendall(b"\5\0\0\1\x7f\0\0\1\x12\x34")
    connection.recv(1)


@pytest.mark.parametrize(
    ("timeout", "in_time"), [(None, True), (5, True), (0.01, False), (0, False)]
)
def test_how_long_the_proxy_may_take(active, monkeypatch, timeout, in_time):
    """The timeout says it; None is for ever, and where there is none to be asked, three minutes."""
    monkeypatch.setattr(stream, "PATIENCE", 0.01)
    with serving(slow_to_bind) as address:
        sock = active(proxy=f"socks5h://127.0.0.1:{address[1]}")
        sock.settimeout(timeout)
        if in_time:
            sock.listen()
            assert sock.getsockname() == ("127.0.0.1", 0x1234)
        else:
            with pytest.raises(socksy.ProxyTimeoutError):
                sock.listen()
        assert sock.gettimeout() == timeout


def test_the_constructor_can_say_it_too(socks_server):
    """Either way."""
    with SocksSocket(proxy=socks_server.url(), remote_bind=True) as sock:
        sock.listen()
        assert sock.getsockname() == ("127.0.0.1", socks_server.requests[-1].bound[1])
    with Active(proxy=socks_server.url(), remote_bind=False) as sock:
        sock.listen()
    assert len(socks_server.requests) == 1


def test_without_a_proxy_it_listens_here(active):
    """A plain listening socket."""
    sock = active(proxy=None)
    sock.listen()
    with socket.create_connection(("127.0.0.1", sock.getsockname()[1])) as peer:
        conn, address = sock.accept()
        conn.close()
        assert address == peer.getsockname()


def test_a_connected_socket_tells_what_the_other_side_sees(active, socks_server, echo_server):
    """Which is what an FTP client puts in its PORT command."""
    sock = active()
    sock.connect(echo_server)
    assert sock.getsockname() == sock.bound_address != sock.proxy_sockname


def test_a_proxy_that_does_not_tell_its_address(active):
    """Then it is the one at which we reach it."""
    exchanges = ((3, b"\5\0"), (10, b"\5\0\0\1\0\0\0\0\x12\x34"))
    with serving(script(*exchanges)) as address:
        sock = active(proxy=f"socks5h://127.0.0.1:{address[1]}")
        sock.connect(("127.0.0.1", 9))
        assert sock.getsockname() == ("127.0.0.1", 0x1234)


def test_the_peer_is_the_host_we_are_connected_to(active, socks_server, echo_server):
    """RFC 1928, section 4: BIND is for a connection that comes back."""
    control, listener = active(), active()
    control.connect(echo_server)
    listener.listen()
    assert socks_server.requests[-1].host == "127.0.0.1"


def test_of_several_hosts_none_is_the_peer(active, socks_server_factory, echo_server):
    """Anybody may connect then, as on any listening socket; closed connections do not count."""
    server = socks_server_factory(names={"a.test": "127.0.0.1"})
    sockets = [active(proxy=server.url()) for _ in range(4)]
    sockets[0].connect(echo_server)
    sockets[1].connect(("a.test", echo_server[1]))
    sockets[2].listen()
    assert server.requests[-1].host == "0.0.0.0"
    sockets[0].close()
    sockets[3].listen()
    assert server.requests[-1].host == "a.test"


def test_if_the_control_connection_goes_direct_so_does_the_listener(socks_server, echo_server):
    """A host that is not proxied could not reach the proxy's port either."""

    def chooser(host, port):
        return None if host == echo_server[0] else socks_server.url()

    with Active(proxy=chooser) as control, Active(proxy=chooser) as listener:
        control.connect(echo_server)
        listener.listen()
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()
        listener.accept()[0].close()
    assert socks_server.requests == []


def test_other_families_listen_here(active, tmp_path):
    """A Unix socket is nobody's business."""
    with Active(socket.AF_UNIX, proxy="socks5h://127.0.0.1:9") as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert sock.getsockname() == str(tmp_path / "s")


@pytest.mark.parametrize("timeout", [None, 5])
def test_why_the_last_bind_failed_is_known_as_of_a_connect(socks_server_factory, timeout):
    """In `last_error`."""
    refusing = socks_server_factory(faults=answer_with(7))
    with SocksSocket(proxy=refusing.url()) as sock:
        sock.settimeout(timeout)
        with pytest.raises(socksy.CommandNotSupportedError) as caught:
            sock.bind_remote()
        assert sock.last_error is caught.value


@pytest.mark.parametrize("timeout", [None, 5, 0])
def test_a_bind_leaves_alone_what_is_connected_directly(socks_server, echo_server, timeout):
    with SocksSocket(proxy=None) as sock:
        sock.settimeout(5)  # Linux says yes to a second connect() of such a socket
        sock.connect(echo_server)
        sock.set_proxy(socks_server.url())
        sock.settimeout(timeout)
        with pytest.raises(OSError) as caught:
            sock.bind_remote()
        assert caught.value.errno == errno.EISCONN
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER
    assert socks_server.requests == []
