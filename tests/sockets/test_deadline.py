"""One deadline for the whole connect, whatever the server does with its time."""

import contextlib
import os
import socket
import struct
import threading
import time

import pytest

import socksy
from socksy.protocol import steps
from socksy.sockets import dial
from socksy.testing.faults import answer_with

from ..support import BANNER, read_exactly, serving

# What a proxy says in reply to each message: (bytes read first, answer).
EXCHANGES = {
    "socks4a": [(17, b"\0\x5a\0\0\0\0\0\0")],
    "socks5h": [(3, b"\5\0"), (14, b"\5\0\0\1\0\0\0\0\0\0")],
    "login": [(4, b"\5\2"), (11, b"\1\0"), (14, b"\5\0\0\1\0\0\0\0\0\0")],
    "http": [(37, b"HTTP/1.1 200 OK\r\n\r\n")],
}
LOGIN = {"login": "alice:pass@"}
SCHEME = {"login": "socks5h"}


def proxy_url(kind, address):
    return f"{SCHEME.get(kind, kind)}://{LOGIN.get(kind, '')}127.0.0.1:{address[1]}"


def dripping(exchanges, interval):
    def handler(connection):
        for count, answer in exchanges:
            read_exactly(connection, count)
            for byte in answer:
                time.sleep(interval)  # the fault itself: a slow server
                connection.sendall(bytes((byte,)))
        connection.recv(1)

    return handler


def connect_with_timeout(url, timeout):
    with socksy.SocksSocket(proxy=url) as sock:
        sock.settimeout(timeout)
        began = time.monotonic()
        with pytest.raises(socksy.ProxyTimeoutError) as caught:
            sock.connect(("a.test", 80))
        return caught.value, time.monotonic() - began


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_dripping_server_cannot_stretch_the_deadline(kind):
    """One byte per 0.3 s and a timeout of 1 s: it gives up at 1 s, in every protocol."""
    with serving(dripping(EXCHANGES[kind], 0.3)) as address:
        error, took = connect_with_timeout(proxy_url(kind, address), 1)

    assert isinstance(error, TimeoutError)
    assert 0.99 <= took < 1.3


@pytest.mark.parametrize("timeout", [1, None])
def test_a_flood_of_interim_answers_cannot_stretch_the_deadline(timeout):
    """There is always more to read: nobody waits, so nobody sees that the time is up."""

    def flooding(connection):
        read_exactly(connection, 37)
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)

    with serving(flooding) as address, socksy.SocksSocket(proxy=proxy_url("http", address)) as sock:
        sock.settimeout(timeout)
        with pytest.raises(socksy.ProxyProtocolError, match="interim answers"):
            sock.connect(("a.test", 80))


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http"])
@pytest.mark.parametrize("timeout", [5, None])
@pytest.mark.parametrize("pieces", [1, 3])
def test_messages_that_leave_in_pieces(
    socks_server, echo_server, scheme, timeout, pieces, monkeypatch
):
    """As the kernel may do it when its buffers are full, which no server can bring about."""
    real, turns = dial.send, []

    def send(sock, message):
        turns.append(message)
        if timeout is not None and len(turns) % 2:
            raise BlockingIOError
        return real(sock, bytes(message[:pieces]))

    with socksy.SocksSocket(proxy=socks_server.url(scheme)) as sock:
        sock.settimeout(timeout)
        with monkeypatch.context() as patch:
            patch.setattr(dial, "send", send)
            sock.connect(echo_server)
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("messages", [1, 2])
def test_a_deadline_that_has_passed_when_a_message_has_left(monkeypatch, messages):
    """As when the machine slept: what is left is less than nothing, which poll() takes for ever."""
    ahead, real = [0], dial.send

    def send(sock, message):
        sent.append(message)
        ahead[0] = 100 * (len(sent) == messages)
        return real(sock, message)

    sent = []
    monkeypatch.setattr(dial, "monotonic", lambda: time.monotonic() + ahead[0])
    monkeypatch.setattr(dial, "send", send)
    with serving(dripping(EXCHANGES["socks5h"][: messages - 1], 0)) as address:
        error, _ = connect_with_timeout(proxy_url("socks5h", address), 5)
    assert error.phase == (steps.METHOD_CHOICE if messages == 1 else steps.REPLY)


@pytest.mark.parametrize("option", ["SO_RCVTIMEO", "SO_SNDTIMEO"])
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_timeout_of_the_kernels_own_counts_for_each_answer(kind, option, mocker):
    """Set by the application on a socket that blocks: once is enough."""
    tries = []
    if option == "SO_SNDTIMEO":  # its buffers do not fill up
        mocker.patch.object(dial, "send", side_effect=BlockingIOError)
    else:
        real = dial.recv
        mocker.patch.object(dial, "recv", lambda *them: [tries.append(them), real(*them)][1])
    silence = threading.Event()
    with serving(lambda connection: silence.wait(5)) as address:
        with socksy.SocksSocket(proxy=proxy_url(kind, address)) as sock:
            timeval = struct.pack("ll", 0, 50_000)
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), timeval)
            with pytest.raises(socksy.ProxyTimeoutError) as caught:
                sock.connect(("a.test", 80))
        silence.set()
    assert caught.value.phase is not None
    assert len(tries) <= 1


@pytest.mark.parametrize(
    ("kind", "answered", "phase"),
    [
        ("socks4a", 0, steps.REPLY),
        ("socks5h", 0, steps.METHOD_CHOICE),
        ("socks5h", 1, steps.REPLY),
        ("login", 0, steps.METHOD_CHOICE),
        ("login", 1, steps.LOGIN_ANSWER),
        ("login", 2, steps.REPLY),
        ("http", 0, steps.HTTP_ANSWER),
    ],
)
def test_a_stalled_server_is_given_up_and_the_error_says_where(kind, answered, phase):
    """It goes silent after so many messages."""
    silence = threading.Event()

    def handler(connection):
        for count, answer in EXCHANGES[kind][:answered]:
            read_exactly(connection, count)
            connection.sendall(answer)
        silence.wait(5)

    with serving(handler) as address:
        error, _ = connect_with_timeout(proxy_url(kind, address), 0.1)
        silence.set()

    assert error.phase == phase
    assert error.target == ("a.test", 80)
    assert error.proxy is not None


def test_the_deadline_covers_all_hops():
    """Each of two hops takes 0.4 s: with 0.6 s the second one is in time to be given up."""

    def first(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        read_exactly(connection, 10)
        time.sleep(0.4)  # the fault itself
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        connection.recv(3)  # the second hop's greeting: never answered
        connection.recv(1)

    with serving(first) as address:
        chain = [f"socks5h://127.0.0.1:{address[1]}", "socks5h://127.0.0.1:9"]
        error, took = connect_with_timeout(chain, 0.6)

    assert (error.hop, error.hops) == (2, 2)
    assert 0.59 <= took < 0.9


def test_the_deadline_covers_a_proxy_that_does_not_accept():
    """Its backlog is full: the connection itself is what times out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        try:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                fillers.append(filler)
            error, _ = connect_with_timeout(proxy_url("socks5h", listener.getsockname()), 0.2)
        finally:
            for filler in fillers:
                filler.close()

    assert error.phase == "the connection to the proxy"


def test_the_deadline_covers_the_lookup_of_the_proxy(monkeypatch):
    """A resolver that hangs is left behind."""
    answer = threading.Event()

    def hang(*arguments):
        answer.wait(5)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    error, _ = connect_with_timeout("socks5h://proxy.test:1080", 0.1)
    answer.set()

    assert error.phase == "the name lookup"


@pytest.mark.parametrize("timeout", [None, 5])
def test_the_timeout_is_what_it_was(socks_server, echo_server, timeout):
    """After success the caller's timeout is in force again, in Python and on the descriptor."""
    with socksy.SocksSocket(proxy=socks_server.url("socks5h")) as sock:
        sock.settimeout(timeout)
        sock.connect(echo_server)

        assert sock.gettimeout() == timeout
        assert sock.getblocking() is True
        assert sock.recv(3) == b"220"


def test_the_timeout_is_what_it_was_after_a_failure():
    """The same after a failure."""
    with (
        serving(lambda connection: connection.close()) as address,
        socksy.SocksSocket(proxy=proxy_url("socks5h", address)) as sock,
    ):
        sock.settimeout(5)
        with pytest.raises(socksy.ProxyProtocolError):
            sock.connect(("a.test", 80))

        assert sock.gettimeout() == 5


@pytest.mark.parametrize("seconds", [2147483.647, 1e9])
def test_a_timeout_of_weeks_is_a_timeout_too(socks_server, echo_server, seconds):
    """A plain socket takes more seconds than poll() has milliseconds for."""
    with socksy.SocksSocket(proxy=socks_server.url()) as sock:
        sock.settimeout(seconds)
        sock.connect(echo_server)

        assert sock.gettimeout() == seconds


def test_the_default_timeout_counts():
    """`socket.setdefaulttimeout` is honoured like on any socket."""
    silence = threading.Event()
    socket.setdefaulttimeout(0.1)
    try:
        with serving(lambda connection: silence.wait(5)) as address:
            with socksy.SocksSocket(proxy=proxy_url("socks5h", address)) as sock:
                with pytest.raises(socksy.ProxyTimeoutError):
                    sock.connect(("a.test", 80))
            silence.set()
    finally:
        socket.setdefaulttimeout(None)


@pytest.fixture
def default_timeout():
    """It is for new sockets, and nothing to those that have one of their own."""
    socket.setdefaulttimeout(0.05)
    yield
    socket.setdefaulttimeout(None)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_default_timeout_is_nothing_to_a_socket_without_one(default_timeout, family):
    """Not even where the descriptor is another one in the end."""

    def handler(connection):
        connection.settimeout(None)
        connection.recv(3)
        connection.sendall(b"\5\0")
        connection.recv(100)
        time.sleep(0.15)  # longer than the default
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0ok")

    with serving(handler) as address:
        with socksy.SocksSocket(family, proxy=proxy_url("socks5h", address)) as sock:
            sock.settimeout(None)
            sock.connect(("a.test", 80))
            assert sock.recv(2) == b"ok"


def test_the_default_timeout_is_nothing_to_a_socket_that_has_failed(
    default_timeout, socks_server_factory
):
    refusing = socks_server_factory(faults=answer_with(5))
    with socksy.SocksSocket(proxy=refusing.url()) as sock:
        sock.settimeout(None)
        for _ in range(2):
            with pytest.raises(socksy.TargetRefusedError):
                sock.connect(("a.test", 80))
        assert os.get_blocking(sock.fileno())


@pytest.fixture
def crowded(tmp_path):
    """A proxy on a Unix socket with as many connections waiting as it takes: these, and it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
                waiting[-1].setblocking(False)
                waiting[-1].connect(listener.getsockname())
        yield waiting, listener


def test_a_crowded_unix_socket_is_asked_again_until_the_deadline(crowded):
    """The kernel says EAGAIN, and poll() nothing."""
    path = crowded[1].getsockname()
    with socksy.SocksSocket(proxy=f"socks5h://localhost{path}") as sock:
        sock.settimeout(0.1)
        with pytest.raises(socksy.ProxyTimeoutError) as caught:
            sock.connect(("a.test", 80))
    assert caught.value.phase == "the connection to the proxy"


@pytest.mark.parametrize("timeout", [10, None])
def test_a_crowded_unix_socket_takes_us_in_the_end(crowded, timeout):
    waiting, listener = crowded

    def serve():
        for sock in waiting:
            sock.close()
        while not (connection := listener.accept()[0]).recv(3):
            connection.close()
        with connection:
            connection.sendall(b"\5\0")
            connection.recv(100)
            connection.sendall(b"\5\0\0\1\0\0\0\0\0\0ok")

    with socksy.SocksSocket(proxy=f"socks5h://localhost{listener.getsockname()}") as sock:
        sock.settimeout(timeout)
        thread = threading.Timer(0.02, serve)
        thread.start()
        sock.connect(("a.test", 80))
        assert sock.recv(2) == b"ok"
        thread.join(10)
