"""How the usual connect goes, and what other threads find while one of them waits in it."""

import contextlib
import errno
import socket
import threading

import pytest

import socksy
from socksy.sockets import dial
from socksy.sockets.stream import SocksSocket

from ..support import BANNER, eventually, read_exactly, serving

GREETING, REQUEST = b"\5\1\0", b"\5\1\0\3\6a.test\0\x50"
FAMILIES = [socket.AF_INET, socket.AF_INET6]


class Proxy:
    """A SOCKS5 proxy that thinks until it is told not to, and notes what it has heard."""

    def __init__(self):
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.heard = []
        self.connections = []

    def __call__(self, connection):
        self.connections.append(connection)
        self.heard.append(connection.recv(100))
        self.asked.set()
        self.go_on.wait(5)
        connection.sendall(b"\5\0")
        self.heard.append(connection.recv(100))
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0" + BANNER)
        self.heard.append(connection.recv(100))


@pytest.fixture
def proxy():
    made = Proxy()
    with serving(made) as address:
        made.url = f"socks5h://127.0.0.1:{address[1]}"
        yield made
        made.go_on.set()


class Lines(SocksSocket):
    """Has methods of its own, which call those of the base class."""

    def write_line(self, line):
        return super().send(line + b"\n")

    def read_line(self):
        return super().recv(100)


@pytest.fixture(params=[(None, "connect"), (5, "connect"), (5, "bind_remote")], ids=str)
def connecting(request, proxy):
    """A socket that is connected in another thread; (the socket, the thread, its outcome)."""
    timeout, method = request.param
    with Lines(proxy=proxy.url) as sock:
        yield sock, *connect_in_a_thread(sock, proxy, timeout, method)


def connect_in_a_thread(sock, proxy, timeout, method="connect"):
    outcome = []
    sock.settimeout(timeout)

    def connect():
        try:
            outcome.append(getattr(sock, method)(("a.test", 80)))
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=connect)
    thread.start()
    assert proxy.asked.wait(5)
    return thread, outcome


TOO_EARLY = {
    "send": lambda sock: sock.send(b"secret"),
    "sendall": lambda sock: sock.sendall(b"secret"),
    "sendmsg": lambda sock: sock.sendmsg([b"secret"]),
    "sendto": lambda sock: sock.sendto(b"secret", ("192.0.2.1", 9)),
    "recv": lambda sock: sock.recv(100),
    "recv_into": lambda sock: sock.recv_into(bytearray(100)),
    "getpeername": lambda sock: sock.getpeername(),
    "a method of a subclass that sends": lambda sock: sock.write_line(b"secret"),
    "a method of a subclass that receives": lambda sock: sock.read_line(),
}


def test_nobody_gets_into_the_handshake(connecting, proxy):
    """What is sent would be a part of it, and in clear; what is received would be missing there."""
    sock, thread, outcome = connecting
    for call in TOO_EARLY.values():
        with pytest.raises(OSError) as caught:
            call(sock)
        assert caught.value.errno == errno.ENOTCONN
    assert sock.proxy_peername is sock.proxy_sockname is None
    proxy.go_on.set()
    thread.join(5)
    assert outcome == [None]
    assert isinstance(sock, Lines)
    assert not isinstance(sock, dial.Busy)
    assert proxy.heard[0] == GREETING
    assert proxy.heard[1][3:] == REQUEST[3:]


def test_what_makes_no_sense_meanwhile_is_ealready(connecting):
    sock, _, _ = connecting
    address = ("b.test", 80)
    assert sock.connect_ex(address) == errno.EALREADY
    for call in (
        lambda: sock.connect(address),
        lambda: SocksSocket.connect(sock, address),  # it had begun before the other thread's
        lambda: SocksSocket.bind_remote(sock, address),
        lambda: sock.bind(("127.0.0.1", 0)),
        sock.listen,
        sock.dup,
        lambda: sock.set_proxy(None),
    ):
        with pytest.raises(BlockingIOError) as caught:
            call()
        assert caught.value.errno == errno.EALREADY


@pytest.mark.parametrize("family", FAMILIES)
def test_shutdown_ends_the_handshake(proxy, family):
    """As it ends a plain socket's connect; whichever descriptor is being connected."""
    with SocksSocket(family, proxy=proxy.url) as sock:
        thread, outcome = connect_in_a_thread(sock, proxy, 5)
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert isinstance(outcome[0], socksy.ProxyProtocolError)


@pytest.mark.parametrize("family", FAMILIES)
def test_options_set_meanwhile_are_those_of_the_connection(proxy, family):
    with SocksSocket(family, proxy=proxy.url) as sock:
        thread, _ = connect_in_a_thread(sock, proxy, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        proxy.go_on.set()
        thread.join(5)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("timeout", [None, 5])
def test_a_half_made_tunnel_is_not_given_away(proxy, timeout):
    """detach() leaves a descriptor that is good for nothing, and the handshake ends."""
    with SocksSocket(proxy=proxy.url) as sock:
        thread, outcome = connect_in_a_thread(sock, proxy, timeout)
        with socket.socket(fileno=sock.detach()) as given:
            with pytest.raises(BrokenPipeError):
                given.send(b"secret")
            proxy.go_on.set()
            thread.join(5)
            with contextlib.suppress(OSError):  # not even connected: if the thread was faster
                assert given.recv(100) == b""
        assert isinstance(outcome[0], OSError)
        assert eventually(lambda: proxy.heard[1:2] == [b""])


# -- a head, which has no length in front

HEADS = {
    "long": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100 + b"\r\n",
    "CR LF": b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n",
    "of HTTP/1.0, with nothing in it": b"HTTP/1.0 200 \r\n\r\n",
    "LF": b"HTTP/1.1 200 OK\nx: y\n\n",
    "LF, then CR LF": b"HTTP/1.1 200 OK\nx: y\n\r\n",
    "CR LF, then LF": b"HTTP/1.1 200 OK\r\nx: y\r\n\n",
    "another 2xx": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no text": b"HTTP/1.1 200\r\n\r\n",
    "one that waits first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("banner", [b"220 hello\r\n\r\n", b"220\n\n", b"\n\r\n\n", b"\r\n"])
@pytest.mark.parametrize("head", HEADS)
def test_what_comes_behind_a_head_is_the_applications(head, banner, timeout):
    """All in one piece; and where a head ends is the same for those who follow a prediction."""

    def answer(connection):
        read_exactly(connection, len(b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n"))
        connection.sendall(HEADS[head] + banner)
        connection.recv(1)

    with serving(answer) as (host, port), SocksSocket(proxy=f"http://{host}:{port}") as sock:
        sock.settimeout(timeout)
        sock.connect(("a.test", 80))
        assert read_exactly(sock, len(banner)) == banner


# -- a connection that is not there yet when the greeting is sent


def not_there_yet(monkeypatch, error):
    """Let the first send() fail like that, and notice what is sent."""
    real, sent = dial.send, []

    def send(sock, message):
        sent.append(bytes(message))
        if len(sent) == 1:
            raise error
        return real(sock, message)

    monkeypatch.setattr(dial, "send", send)
    return sent


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOTCONN], ids=["Linux", "BSD"])
def test_it_is_waited_for(socks_server, echo_server, monkeypatch, number):
    sent = not_there_yet(monkeypatch, OSError(number, "not yet"))
    with SocksSocket(proxy=socks_server.url()) as sock:
        sock.settimeout(5)
        sock.connect(echo_server)
        assert sent[:2] == [GREETING, GREETING]
        assert sock.gettimeout() == 5
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("number", [None, errno.EAGAIN], ids=["at once", "later"])
def test_it_may_be_refused_instead(monkeypatch, number):
    if number is not None:
        not_there_yet(monkeypatch, OSError(number, "not yet"))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{nobody.getsockname()[1]}") as sock:
            sock.settimeout(5)
            with pytest.raises(socksy.ProxyConnectionError) as caught:
                sock.connect(("a.test", 80))
    assert caught.value.errno == errno.ECONNREFUSED
    assert "is the proxy running" in str(caught.value)


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE])
def test_it_may_be_over_again(socks_server, monkeypatch, number):
    """It was there, and who was is not known to speak SOCKS."""
    not_there_yet(monkeypatch, OSError(number, "reset"))
    with SocksSocket(proxy=socks_server.url()) as sock:
        sock.settimeout(5)
        with pytest.raises(socksy.ProxyProtocolError, match="broke: reset"):
            sock.connect(("a.test", 80))


@pytest.mark.parametrize("timeout", [None, 5])
def test_after_a_failure_it_can_be_tried_again(socks_server, echo_server, timeout):
    """And why it had failed is forgotten then."""
    with SocksSocket(proxy="socks5h://127.0.0.1:1") as sock:
        sock.settimeout(timeout)
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(echo_server)
        assert sock.last_error is caught.value
        sock.set_proxy(socks_server.url())
        sock.connect(echo_server)
        assert sock.last_error is None
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("timeout", [None, 5])
def test_what_listens_without_being_bound_goes_on_listening(socks_server, timeout):
    """Only the kernel knows of it: EISCONN."""
    with SocksSocket(proxy=socks_server.url()) as sock:
        sock.settimeout(timeout)
        sock.listen()
        with pytest.raises(OSError) as caught:
            sock.connect(("a.test", 80))
        assert caught.value.errno == errno.EISCONN
        sock.settimeout(5)
        with socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
            sock.accept()[0].close()


def test_what_the_base_class_has_connected_stays_connected(socks_server, echo_server):
    """If it did so without a timeout; with one, Linux says yes to the next connect()."""
    with SocksSocket(proxy=socks_server.url()) as sock:
        socket.SocketType.connect(sock, echo_server)
        with pytest.raises(OSError) as caught:
            sock.connect(("a.test", 80))
        assert caught.value.errno == errno.EISCONN
        assert read_exactly(sock, len(BANNER)) == BANNER
