"""The non-blocking connect, as event loops and hand-written loops see it."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme

import socksy
from socksy.sockets import lookup
from socksy.sockets import pending as module
from socksy.sockets.stream import SocksSocket

from ..support import BANNER, echo, eventually, read_exactly, serving, unused_port

NAME = "only-the-proxy-knows.test"


pytestmark = pytest.mark.usefixtures("the_thread_ends")


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


@pytest.fixture
def gate():
    """A SOCKS5 proxy that says the last word when it is told to: (its URL, an event)."""
    opened = threading.Event()

    def handler(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        connection.recv(300)
        opened.wait(10)
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0" + BANNER)
        while data := connection.recv(100):
            connection.sendall(data)

    with serving(handler) as address:
        yield f"socks5h://127.0.0.1:{address[1]}", opened
        opened.set()


@contextlib.contextmanager
def pending(url, target=("a.test", 80), family=socket.AF_INET):
    """A socket whose connect is under way."""
    with SocksSocket(family, proxy=url) as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            sock.connect(target)
        assert caught.value.errno == errno.EINPROGRESS
        yield sock


def is_writable(sock, timeout=0):
    return select.select([], [sock], [], timeout)[1] == [sock]


# -- what a loop sees


def test_the_descriptor_is_not_writable_until_the_handshake_is_over(gate):
    """And not readable, and its number never changes."""
    url, opened = gate
    with pending(url) as sock:
        number = sock.fileno()
        assert select.select([sock], [sock], [sock], 0.02) == ([], [], [])
        opened.set()
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.fileno() == number
        assert sock.getpeername() == ("a.test", 80)
        assert sock.gettimeout() == 0
        assert type(sock) is SocksSocket


def test_there_is_no_connection_to_the_proxy_to_tell_of_before_it_is_there(gate):
    with pending(gate[0]) as sock:
        assert sock.proxy_sockname is sock.proxy_peername is None


@pytest.mark.parametrize("waiting", ["select", "poll", "epoll", "selectors"])
@pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http"])
def test_every_way_of_waiting_works(server, echo_server, scheme, waiting):
    """Through every protocol."""
    with pending(server.url(scheme), (NAME, echo_server[1])) as sock:
        if waiting == "select":
            assert is_writable(sock, 5)
        elif waiting == "selectors":
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_WRITE)
                assert selector.select(5)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                selector.unregister(sock)
        else:
            poller = getattr(select, waiting)()
            poller.register(sock, select.POLLOUT)
            patience = 5000 if waiting == "poll" else 5
            assert poller.poll(patience) == [(sock.fileno(), select.POLLOUT)]
            if waiting == "epoll":
                poller.close()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER


def test_connect_ex_again_and_again(gate):
    """EINPROGRESS, EALREADY, then 0 once, then EISCONN: as the kernel does."""
    url, opened = gate
    with SocksSocket(proxy=url) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        assert sock.connect_ex(("a.test", 80)) == errno.EALREADY
        with pytest.raises(BlockingIOError) as caught:
            sock.connect(("a.test", 80))
        assert caught.value.errno == errno.EALREADY
        opened.set()
        assert is_writable(sock, 5)
        assert sock.connect_ex(("a.test", 80)) == 0
        assert sock.connect_ex(("a.test", 80)) == errno.EISCONN


def test_connecting_again_with_early_data(gate):
    """As without; they are not forgotten in silence when the handshake has ended without them."""
    url, opened = gate
    with pending(url) as sock:
        for expected in (errno.EALREADY, errno.EISCONN):
            with pytest.raises(OSError) as caught:
                sock.connect(("a.test", 80), early_data=b"x")
            assert caught.value.errno == expected
            opened.set()
            assert is_writable(sock, 5)


FIRST_CALLS = {
    "send": (lambda sock: sock.send(b"ping"), 4),
    "sendall": (lambda sock: sock.sendall(b"ping"), None),
    "sendmsg": (lambda sock: sock.sendmsg([b"pi", b"ng"]), 4),
    "sendto": (lambda sock: sock.sendto(b"ping", ("192.0.2.1", 9)), 4),
    "getpeername": (lambda sock: sock.getpeername(), ("a.test", 80)),
    "proxy_peername": (lambda sock: sock.proxy_peername[0], "127.0.0.1"),
    "getsockname": (lambda sock: sock.getsockname()[0], "127.0.0.1"),
    "connect_ex": (lambda sock: sock.connect_ex(("a.test", 80)), 0),
    "connect": (lambda sock: sock.connect(("a.test", 80)), None),
    "getsockopt": (lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0),
    "setsockopt": (lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), None),
    "shutdown": (lambda sock: sock.shutdown(socket.SHUT_WR), None),
}


@pytest.mark.parametrize("call", FIRST_CALLS)
def test_any_first_call_finds_the_real_descriptor(gate, call):
    """Whatever a program does first after it was woken; nothing ends up in the placeholder."""
    url, opened = gate
    action, result = FIRST_CALLS[call]
    with pending(url) as sock:
        opened.set()
        assert is_writable(sock, 5)

        assert action(sock) == result

        assert type(sock) is SocksSocket
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER
        if call.startswith("send"):
            assert read_exactly(sock, 4) == b"ping"


class Lines(SocksSocket):
    """Has methods of its own, which call those of the base class."""

    def write_line(self, line):
        return super().send(line + b"\n")

    def read_some(self):
        return super().recv(100)

    def another(self):
        return super().dup()

    def give_away(self):
        return super().detach()

    def peer(self):
        return super().getpeername()

    def finish(self):
        return super().shutdown(socket.SHUT_WR)


@pytest.fixture
def lines(gate):
    """Such a socket whose connect is over, although it does not know."""
    url, opened = gate
    with Lines(proxy=url) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        opened.set()
        assert is_writable(sock, 5)
        yield sock


def test_a_method_of_a_subclass_that_sends_finds_the_real_descriptor(lines):
    """Whatever its name."""
    assert lines.write_line(b"ping") == 5
    lines.settimeout(5)
    assert read_exactly(lines, len(BANNER) + 5) == BANNER + b"ping\n"


def test_other_methods_of_a_subclass_find_the_real_descriptor(lines):
    lines.settimeout(5)
    assert lines.read_some() == BANNER
    lines.finish()
    assert lines.read_some() == b""


@pytest.mark.parametrize("method", [Lines.another, Lines.give_away])
def test_a_subclass_copies_the_real_descriptor(lines, method):
    copy = method(lines)
    with copy if method is Lines.another else socket.socket(fileno=copy) as other:
        other.settimeout(5)
        assert other.recv(100) == BANNER


def test_a_subclass_learns_the_real_peer(lines):
    assert lines.peer() == ("a.test", 80)


def test_a_method_of_a_subclass_is_told_that_it_is_early(gate):
    with Lines(proxy=gate[0]) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        with pytest.raises(BlockingIOError):
            sock.write_line(b"ping")
        for early in (sock.peer, sock.finish):
            with pytest.raises(OSError) as caught:
                early()
            assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize(
    "write",
    [lambda sock: socket.socket.send(sock, b"x"), lambda sock: os.write(sock.fileno(), b"x")],
    ids=["around the class", "around the object"],
)
def test_nothing_is_written_to_the_placeholder_unnoticed(gate, write):
    """Where no method of ours is asked it is an error: before the end EAGAIN, then EPIPE."""
    url, opened = gate
    with pending(url) as sock:
        with pytest.raises(BlockingIOError):
            write(sock)
        opened.set()
        assert is_writable(sock, 5)
        with pytest.raises(BrokenPipeError):
            write(sock)
        assert sock.send(b"ping") == 4
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER) + 4) == BANNER + b"ping"


def test_a_connected_placeholder_has_not_hung_up(server):
    """It is writable and nothing else, whoever asks: a loop would take it for dead."""
    events = select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDHUP
    with serving(lambda connection: connection.recv(1)) as target:
        with pending(server.url(), target) as sock, select.epoll() as epoll:
            epoll.register(sock, events)
            poller = select.poll()
            poller.register(sock, events)
            assert poller.poll(5000) == [(sock.fileno(), select.POLLOUT)]
            assert epoll.poll(5) == [(sock.fileno(), select.EPOLLOUT)]
            assert select.select([sock], [sock], [sock], 0) == ([], [sock], [])


def test_a_first_recv_finds_the_real_descriptor(gate):
    """With the data that came behind the reply."""
    url, opened = gate
    with pending(url) as sock:
        opened.set()
        assert is_writable(sock, 5)
        sock.settimeout(5)
        buffer = bytearray(3)
        assert sock.recv_into(buffer) == 3
        assert bytes(buffer) + sock.recv(100) == BANNER


@pytest.mark.parametrize("copy", ["dup", "detach"])
def test_copies_are_of_the_real_descriptor(gate, copy):
    """dup and detach wait for it if they must: a copy of the placeholder would be of no use."""
    url, opened = gate
    with pending(url) as sock:
        threading.Timer(0.05, opened.set).start()
        other = sock.dup() if copy == "dup" else socket.socket(fileno=sock.detach())
        with other:
            other.settimeout(5)
            assert read_exactly(other, len(BANNER)) == BANNER


def test_moving_data_too_early_is_eagain(gate):
    """As the kernel says on a connecting socket; who is there is not known yet."""
    url, _ = gate
    with pending(url) as sock:
        for call in (lambda: sock.send(b"x"), lambda: sock.recv(1), lambda: sock.sendall(b"x")):
            with pytest.raises(BlockingIOError):
                call()
        assert sock.proxy_peername is None
        for call in (sock.getpeername, lambda: sock.shutdown(2)):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.ENOTCONN
        for call in (lambda: sock.bind(("", 0)), sock.listen, lambda: sock.set_proxy(None)):
            with pytest.raises(BlockingIOError):
                call()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert "SocksSocket" in repr(sock)


class Slotted(SocksSocket):
    """Of another layout."""

    __slots__ = ("x",)


class Demanding(SocksSocket):
    """Its subclasses have to say something."""

    def __init_subclass__(cls, *, name):
        raise AssertionError("a subclass of the application's, this?")


@pytest.mark.parametrize("kind", [Slotted, Demanding])
def test_a_subclass_of_any_kind_may_be_pending(gate, kind):
    url, opened = gate
    with kind(proxy=url) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        opened.set()
        assert is_writable(sock, 5)
        assert sock.connect_ex(("a.test", 80)) == 0
        assert type(sock) is kind


def test_what_is_wrong_with_a_class_is_known_before_anything_has_happened(gate, mocker):
    """Nothing is pending then."""

    class Unusual(SocksSocket):
        pass

    mocker.patch.object(module, "guise", side_effect=TypeError("no such class"))
    with Unusual(proxy=gate[0]) as sock:
        sock.setblocking(False)
        with pytest.raises(TypeError, match="no such class"):
            sock.connect_ex(("a.test", 80))
        assert vars(sock).keys() == {"_route"}


def test_options_set_meanwhile_are_those_of_the_connection(gate, socks_server_factory, echo_server):
    """Also where the descriptor has to be of another family than the socket's."""
    url, opened = gate
    over_ipv6 = socks_server_factory(host="::1").url()
    for proxy, target in ((url, ("a.test", 80)), (over_ipv6, echo_server)):
        with pending(proxy, target) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.set()
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_socket_made_blocking_meanwhile_waits(gate):
    """settimeout at any moment: the next call waits for the handshake like the kernel would."""
    url, opened = gate
    with pending(url) as sock:
        sock.settimeout(0.02)
        with pytest.raises(TimeoutError):
            sock.send(b"x")
        threading.Timer(0.05, opened.set).start()
        sock.settimeout(None)
        sock.connect(("a.test", 80))
        assert sock.gettimeout() is None
        assert read_exactly(sock, len(BANNER)) == BANNER


# -- failures


def test_a_refusal_is_an_errno_for_the_loop_and_an_error_for_people(server):
    """SO_ERROR says it once; `last_error` has the rest; nothing is connected."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 5)
        with pytest.raises(OSError) as caught:
            sock.getpeername()
        assert caught.value.errno == errno.ENOTCONN
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert isinstance(sock.last_error, socksy.TargetRefusedError)
        with pytest.raises(OSError):
            sock.send(b"secret")


@pytest.mark.parametrize("call", ["send", "recv", "connect", "connect_ex"])
def test_whoever_asks_first_is_told(server, call):
    """By raising our error, or returning its errno; a second connect may succeed."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 5)
        if call == "connect_ex":
            assert sock.connect_ex(("a", 1)) == errno.ECONNREFUSED
        else:
            arguments = {"send": (b"x",), "recv": (1,), "connect": (("a.test", 1),)}[call]
            with pytest.raises(socksy.TargetRefusedError):
                getattr(sock, call)(*arguments)


def test_a_name_that_is_unknown_here_has_an_errno_a_kernel_could_report(server, monkeypatch):
    """SO_ERROR knows no resolver's numbers."""

    def unknown(*arguments):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pending(server.url("socks5"), ("nowhere.test", 80)) as sock:
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH
        assert isinstance(sock.last_error, socksy.NameLookupError)


def test_a_wrong_address_raises_at_once(server):
    """Nothing is pending then."""
    with SocksSocket(proxy=server.url()) as sock:
        sock.setblocking(False)
        with pytest.raises(socksy.InvalidTargetError):
            sock.connect(("a b", 80))
        assert type(sock) is SocksSocket


def test_what_the_protocol_rules_out_raises_at_once(server, echo_server):
    """No thread, no proxy; and the socket is as it was."""
    with SocksSocket(proxy=server.url("socks4")) as sock:
        sock.setblocking(False)
        with pytest.raises(socksy.ProxyUnsupportedError) as caught:
            sock.connect(("2001:db8::7", 80))
        assert caught.value.target == ("2001:db8::7", 80)
        assert sock.connect_ex(("2001:db8::7", 80)) == caught.value.errno
        assert isinstance(sock.last_error, socksy.ProxyUnsupportedError)
        assert server.requests == []
        assert sock.connect_ex(echo_server) == errno.EINPROGRESS
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_connect_nobody_waits_for_times_out(gate, monkeypatch):
    """After a long time; here it is shorter."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with pending(gate[0]) as sock:
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


# -- letting go


def test_closing_while_pending_releases_everything(gate):
    """The proxy sees the connection end."""
    ended = threading.Event()

    def handler(connection):
        connection.recv(3)
        connection.recv(1)
        ended.set()

    with serving(handler) as address:
        with pending(f"socks5h://127.0.0.1:{address[1]}"):
            pass
        assert ended.wait(5)


def test_dropping_while_pending_releases_everything(gate):
    """Without close(): what the garbage collector takes is given up (see the fixture)."""
    sock = SocksSocket(proxy=gate[0])
    sock.setblocking(False)
    assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
    holder = [sock]
    del sock
    with pytest.warns(ResourceWarning):
        holder.clear()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_over", [False, True])
def test_dropping_a_reference_cycle_while_pending_releases_everything(server, is_over):
    """Its handshake, or its connection, which was watched for data."""
    ended = threading.Event()

    def handler(connection):
        while connection.recv(100):
            pass
        ended.set()

    with serving(handler) as address:
        url = server.url() if is_over else f"socks5h://127.0.0.1:{address[1]}"
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(pending(url, address))
            if is_over:
                assert is_writable(sock, 5)
            attempt = sock._pending.attempt
            assert eventually(lambda: attempt.started and (attempt.done or not is_over))
            sock.owner = sock
            stack.pop_all()
        del sock
        gc.collect()
        assert ended.wait(5)


def test_closing_after_the_end_without_having_looked(server, echo_server):
    """Nobody asked for the outcome: it is released all the same."""
    for port in (echo_server[1], unused_port()):
        with pending(server.url(), ("127.0.0.1", port)) as sock:
            assert is_writable(sock, 5)


def test_the_thread_closes_what_it_is_using(server, echo_server, monkeypatch):
    """Not the caller: another socket might have that number the next moment."""
    announcing, go_on = threading.Event(), threading.Event()
    real = module.Connecting.announce

    def slow(attempt):
        announcing.set()
        assert go_on.wait(5)
        real(attempt)

    monkeypatch.setattr(module.Connecting, "announce", slow)
    for finish in ("close", "getpeername"):
        with pending(server.url(), echo_server) as sock:
            attempt = sock._pending.attempt
            assert announcing.wait(5)
            getattr(sock, finish)()
            assert attempt.peer.fileno() != -1
            go_on.set()
            assert eventually(lambda: attempt.peer.fileno() == -1)  # noqa: B023
            announcing.clear()
            go_on.clear()


def test_closing_in_another_thread_ends_the_wait(gate):
    """As for a blocking connect on a plain socket, the waiting call fails."""
    with pending(gate[0]) as sock:
        sock.settimeout(5)
        threading.Timer(0.05, sock.close).start()
        with pytest.raises(OSError) as caught:
            sock.send(b"x")
        assert caught.value.errno == errno.EBADF


def test_closing_while_another_thread_puts_the_real_descriptor_in_place(
    server, echo_server, mocker
):
    """Either comes first; the other call ends as on a plain socket, and nothing is left open."""
    real = module.put_under_watch
    closing = threading.Thread()

    def put_under(new, own, watchers, keep):
        if not closing.ident:
            closing.start()
            closing.join(0.05)
        real(new, own, watchers, keep)

    with pending(server.url(), echo_server) as sock:
        assert is_writable(sock, 5)
        closing = threading.Thread(target=sock.close)
        mocker.patch.object(module, "put_under_watch", put_under)
        assert sock.connect_ex(echo_server) in (0, errno.EBADF)
        closing.join(5)
        assert sock.fileno() == -1
    server.wait_until_idle()


CALLS = {
    "connect": [("127.0.0.1", 80)],
    "getsockopt": [socket.SOL_SOCKET, socket.SO_KEEPALIVE],
    "setsockopt": [socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1],
    "getpeername": [],
    "getsockname": [],
    "send": [b"x"],
    "recv": [1],
    "dup": [],
    "shutdown": [socket.SHUT_RD],
    "listen": [],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_began_before_another_thread_closed_the_socket(server, echo_server, name):
    """It fails as if it had begun later."""
    with pending(server.url(), echo_server) as sock:
        begun = getattr(sock, name)
        sock.close()
        with pytest.raises(OSError) as caught:
            begun(*CALLS[name])
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("name", ["getsockopt", "getpeername", "getsockname", "send", "recv"])
def test_a_call_that_began_before_another_thread_had_the_outcome(server, echo_server, name):
    """It works as if it had begun later."""
    with pending(server.url(), echo_server) as sock:
        begun = getattr(sock, name)
        assert is_writable(sock, 5)
        assert sock.getpeername() == echo_server
        assert type(sock) is SocksSocket
        sock.settimeout(5)
        begun(*CALLS[name])


@pytest.mark.parametrize("options", [{}, {"early_data": b"x"}])
def test_a_connect_that_began_before_another_thread_had_the_outcome(server, echo_server, options):
    """It is the second one."""
    with pending(server.url(), echo_server) as sock:
        begun = sock.connect
        assert is_writable(sock, 5)
        assert sock.getpeername() == echo_server
        with pytest.raises(OSError) as caught:
            begun(echo_server, **options)
        assert caught.value.errno == errno.EISCONN


@pytest.mark.parametrize("call", ["getsockname", "setsockopt", "listen"])
def test_what_has_failed_is_an_unconnected_socket(server, call):
    """Before and after somebody was told; `listen` makes use of it at once."""
    arguments = {"setsockopt": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)}.get(call, ())
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 10)
        getattr(sock, call)(*arguments)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == (call == "listen")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (call == "setsockopt")


def test_of_two_threads_that_wait_one_is_told_why(gate):
    """And neither takes the failure for a success."""
    url, opened = gate
    outcomes = []
    with pending(url.replace("socks5h", "socks4a")) as sock:
        sock.settimeout(5)

        def connect():
            try:
                outcomes.append(sock.connect(("a.test", 80)))
            except OSError as exc:
                outcomes.append(type(exc))

        threads = [threading.Thread(target=connect) for _ in range(2)]
        for thread in threads:
            thread.start()
        opened.set()
        for thread in threads:
            thread.join(5)
    assert socksy.ProxyProtocolError in outcomes
    assert None not in outcomes


def test_many_at_once_need_one_thread(gate):
    """And all of them get through."""
    url, opened = gate
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(pending(url)) for _ in range(60)]
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("socksy-negotiator") == 1
        opened.set()
        for sock in sockets:
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_many_at_once_ask_the_resolver_once(server, echo_server, monkeypatch):
    """Where the proxy is given by name: all of them share the answer, and the thread."""
    asked, go_on = [], threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments):
        asked.append(arguments[0])
        assert go_on.wait(5)
        return real(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    url = f"socks5h://localhost:{server.port}"
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(pending(url, echo_server)) for _ in range(20)]
        assert eventually(
            lambda: [len(one.waiting) for one in lookup._Question.latest.values()] == [20]
        )
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("socksy-lookup") == 1
        go_on.set()
        for sock in sockets:
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert asked == [b"localhost"]


def test_a_question_that_may_be_lost_is_asked_anew(server, echo_server, monkeypatch):
    """Who comes later does not wait for it."""
    monkeypatch.setattr(lookup, "_FRESH", 0.0)
    hanging, go_on = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def first_hangs(*arguments):
        if not hanging.is_set():
            hanging.set()
            assert go_on.wait(5)
        return real(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", first_hangs)
    url = f"socks5h://localhost:{server.port}"
    with pending(url, echo_server) as first:
        assert hanging.wait(5)
        with pending(url, echo_server) as second:
            assert is_writable(second, 5)
            assert not is_writable(first)
        go_on.set()
        assert is_writable(first, 5)


def test_a_resolver_without_a_thread_is_an_error(server, monkeypatch, mocker):
    """For everybody who would have waited for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pending(f"socks5h://127.0.0.1:{silent.getsockname()[1]}"):  # the negotiator runs
            mocker.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more"))
            with pending(f"socks5h://localhost:{server.port}") as sock:
                assert is_writable(sock, 5)
                with pytest.raises(RuntimeError):
                    sock.connect(("a.test", 80))
            mocker.stopall()


def test_waiting_costs_no_cpu(gate):
    """Nothing spins while a handshake is pending."""
    with pending(gate[0]):
        began = time.process_time()
        select.select([], [], [], 0.3)
        assert time.process_time() - began < 0.1


def test_the_first_connect_of_a_thread_does_not_wait_for_the_next(server, echo_server, monkeypatch):
    """A thread that has just been started looks at what there is to do, before it sleeps."""
    monkeypatch.setattr(module, "_IDLE", 30)
    with pending(server.url(), (NAME, echo_server[1])) as sock:
        assert select.select([], [sock], [], 10)[1]
    monkeypatch.setattr(module, "_IDLE", 0.01)
    module._negotiator._wake()


def test_the_interpreter_exits_with_connects_pending(gate):
    """At once, without a warning."""
    code = f"""
import socksy
sock = socksy.SocksSocket(proxy={gate[0]!r})
sock.setblocking(False)
print(sock.connect_ex(("a.test", 80)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert (done.stdout, done.stderr) == (f"{errno.EINPROGRESS}\n", "")


@pytest.mark.parametrize("place", ["127.0.0.1", "unix"])
def test_the_first_connect_may_be_in_a_patched_process(
    socks_server_factory, echo_server, tmp_path, place
):
    """Much is imported only then, when socket.socket is a class of ours."""
    options = {"path": str(tmp_path / "s")} if place == "unix" else {}
    server = socks_server_factory(**options)
    code = f"""
import select, socket, socksy
with socksy.wrap_module(proxy={server.url()!r}, bypass=()):
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex({echo_server!r})
        assert select.select([], [sock], [], 10)[1]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.settimeout(10)
        assert sock.recvfrom(100) == ({BANNER!r}, None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.requests) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_is_safe(gate):
    """The child's copy has failed, the parent's goes on."""
    url, opened = gate
    with pending(url) as sock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sock.send(b"from the child")
            except ConnectionAbortedError:
                sock.close()
                with SocksSocket(proxy=url) as another:
                    another.setblocking(False)
                    code = 0 if another.connect_ex(("b.test", 80)) == errno.EINPROGRESS else 2
            finally:
                os._exit(code)
        assert not is_writable(sock)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        opened.set()
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("local", [None, ("127.0.0.1", 0)])
def test_a_fork_at_any_moment_is_safe(gate, local):
    """The thread may be anywhere in its work; and the child never touches the connection."""
    url, opened = gate
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(20):
            sock = stack.enter_context(SocksSocket(proxy=url))
            if local is not None:
                sock.bind(local)
            sock.setblocking(False)
            assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
            sockets.append(sock)
            child = os.fork()
            if child == 0:
                try:
                    failed = [one.connect_ex(("a.test", 80)) for one in sockets]
                    unsent = [
                        one.send for one in sockets if not raises(one.send, b"from the child")
                    ]
                    os._exit(failed != [errno.ECONNABORTED] * len(sockets) or bool(unsent))
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        opened.set()
        for sock in sockets:
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            sock.settimeout(5)
            assert read_exactly(sock, len(BANNER)) == BANNER
            sock.sendall(b"ping")
            assert read_exactly(sock, 4) == b"ping"


def raises(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return True
    return False


# -- signal handlers that raise


class Interrupted(BaseException):
    """As KeyboardInterrupt."""


def interrupts(real, behind=True):
    """What raises once right behind a call, or in its place: Python looks for signals there."""
    calls = []

    def interrupted(*arguments, **options):
        result = None if calls or not behind else real(*arguments, **options)
        if calls:
            return real(*arguments, **options)
        calls.append(result)
        raise Interrupted

    return interrupted


@pytest.mark.parametrize(
    ("where", "name", "behind"),
    [
        (module, "_full_pair", False),
        (module, "Connecting", False),
        (module, "Connecting", True),
        (module, "put_under_watch", False),
        (module, "put_under_watch", True),
        (module._State, "__init__", True),
        (module._negotiator, "_start", False),
        (threading.Thread, "start", False),
        (threading.Thread, "start", True),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_connect_interrupted_before_it_began(server, monkeypatch, where, name, behind):
    """The socket is as it was, whatever had been done already."""
    with serving(echo) as address, SocksSocket(proxy=server.url()) as sock:
        sock.bind(("127.0.0.1", 0))
        own = sock.getsockname()
        sock.setblocking(False)
        if name == "start":  # the next attempt starts the thread
            assert eventually(lambda: module._negotiator._thread is None)
        with monkeypatch.context() as patch:
            real = getattr(where, name)
            patch.setattr(where, name, interrupts(real, behind))
            if name in ("_start",):
                assert eventually(lambda: module._negotiator._thread is None)
            with pytest.raises(Interrupted):
                sock.connect(address)
        assert type(sock) is SocksSocket
        assert sock.getsockname() == own
        assert sock.connect_ex(address) == errno.EINPROGRESS
        assert is_writable(sock, 5)
        assert sock.connect_ex(address) == 0
        assert sock.getsockname() == own


def test_a_connect_interrupted_right_behind_its_beginning(gate, monkeypatch):
    """It is under way, as on a plain socket; and nobody else has to suffer."""
    url, opened = gate
    with pending(url) as innocent, SocksSocket(proxy=url) as sock, SocksSocket(proxy=url) as other:
        sock.setblocking(False)
        other.setblocking(False)
        for one in (sock, other):
            with monkeypatch.context() as patch:
                patch.setattr(module._negotiator, "_wake", interrupts(module._negotiator._wake))
                with pytest.raises(Interrupted):
                    one.connect(("a.test", 80))
        other.close()
        assert sock.connect_ex(("a.test", 80)) == errno.EALREADY
        opened.set()
        for one in (innocent, sock):
            assert is_writable(one, 5)
            assert one.connect_ex(("a.test", 80)) == 0


@pytest.mark.parametrize("name", ["put_under_watch", "_keep_tls"])
def test_an_interrupted_end_of_a_connect_may_be_repeated(gate, monkeypatch, name):
    url, opened = gate
    with pending(url) as sock:
        opened.set()
        assert is_writable(sock, 5)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupts(getattr(module, name)))
            with pytest.raises(Interrupted):
                sock.getpeername()
        assert sock.getpeername() == ("a.test", 80)
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("when", ["before it began", "before it was submitted", "after that"])
def test_another_thread_closes_a_socket_that_is_about_to_connect(server, monkeypatch, when):
    """EBADF, and nothing is left."""
    with SocksSocket(proxy=server.url()) as sock:
        sock.setblocking(False)
        where, name = module._negotiator, "submit"
        if when == "before it began":
            where, name = module, "Connecting"
        real = getattr(where, name)

        def closing(*arguments):
            result = None if when == "before it was submitted" else real(*arguments)
            sock.close()
            return real(*arguments) if when == "before it was submitted" else result

        monkeypatch.setattr(where, name, closing)
        with pytest.raises(OSError) as caught:
            sock.connect(("a.test", 80))
        assert caught.value.errno == errno.EBADF
        assert type(sock) is SocksSocket


class Stubborn:
    """A task that cannot be ended in peace."""

    def __init__(self, task):
        self.task = task

    def send(self, ready):
        return self.task.send(ready)

    def close(self):
        self.task.close()
        raise OSError(errno.EBADF, "Bad file descriptor")


def test_what_goes_wrong_with_one_attempt_is_nothing_to_the_others(gate):
    """Not even where its descriptors were closed behind its back."""
    url, opened = gate
    with pending(url) as innocent, pending(url) as broken:
        attempt = broken._pending.attempt
        assert eventually(lambda: attempt.waiting is not None)
        attempt.task = Stubborn(attempt.task)
        broken.close()
        opened.set()
        assert is_writable(innocent, 5)
        assert innocent.connect_ex(("a.test", 80)) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_fails_its_attempts_and_is_replaced(gate):
    """As when a program that becomes a daemon closes every descriptor."""
    url, opened = gate
    with pending(url) as sock, pending(url) as late:
        attempt = sock._pending.attempt
        assert eventually(lambda: attempt.waiting is not None)
        module._negotiator._selector.close()
        module._negotiator._wake()
        assert eventually(lambda: attempt.done)
        for one in (sock, late):
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EIO
        opened.set()
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        assert is_writable(sock, 5)
        assert sock.connect_ex(("a.test", 80)) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_before_it_has_looked_fails_what_waits_for_it(gate, monkeypatch):
    """And releases what was cancelled."""
    assert eventually(lambda: module._negotiator._thread is None)
    end = threading.Event()

    def work():
        end.wait(5)
        raise RuntimeError("it ends")

    with monkeypatch.context() as patch:
        patch.setattr(module._negotiator, "_work", work)
        with pending(gate[0]) as sock, pending(gate[0]) as cancelled:
            attempt = cancelled._pending.attempt
            cancelled.close()
            end.set()
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EIO
            assert eventually(lambda: attempt.own.fileno() == -1)


def test_a_thread_that_ends_leaves_a_connection_that_nobody_has_asked_about(server, monkeypatch):
    """Only that it has data is not told any more."""
    with watched_for_data(server) as sock:
        with monkeypatch.context() as patch:
            patch.setattr(module._negotiator, "_patience", interrupts(None, False))
            patch.setattr(threading, "excepthook", lambda arguments: None)
            module._negotiator._wake()
            assert eventually(lambda: module._negotiator._thread is None)
        assert has_connected(sock)
        assert sock.send(b"x") == 1


def test_a_signal_does_not_disturb(gate):
    """Handlers run in the main thread; the negotiation goes on."""
    url, opened = gate
    old = signal.signal(signal.SIGALRM, lambda *_: opened.set())
    try:
        with pending(url) as sock:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert is_writable(sock, 5)
            assert sock.connect_ex(("a.test", 80)) == 0
    finally:
        signal.signal(signal.SIGALRM, old)


# -- TLS, families, asyncio


def until_connect_says_so(tls, address):
    """As asyncio's forerunners did it: connect() again."""
    assert tls.connect_ex(address) == 0


def until_so_error_says_so(tls, address):
    """As asyncio does it."""
    assert tls.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def without_asking(tls, address):
    """The first call is one that sends."""


def begin_with_connect(tls, address):
    with pytest.raises(BlockingIOError):
        tls.connect(address)


def begin_with_connect_ex(tls, address):
    assert tls.connect_ex(address) == errno.EINPROGRESS


@pytest.mark.parametrize("shake_hands", [True, False])
@pytest.mark.parametrize(
    ("begin", "finish"),
    [
        (begin_with_connect, until_connect_says_so),
        (begin_with_connect, until_so_error_says_so),
        (begin_with_connect, without_asking),
        (begin_with_connect_ex, until_so_error_says_so),
        (begin_with_connect_ex, without_asking),
    ],
)
def test_tls_wrapped_before_a_non_blocking_connect(server, begin, finish, shake_hands):
    """The handshake of TLS must not go into the placeholder, nor data in clear to the target.

    SSLSocket.connect() forgets its TLS when it raises, EINPROGRESS included.
    """
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    def handler(connection):
        with server_side.wrap_socket(connection, server_side=True) as tls:
            echo(tls)

    with serving(handler) as address:
        raw = SocksSocket(proxy=server.url())
        with client_side.wrap_socket(
            raw, server_hostname=NAME, do_handshake_on_connect=False
        ) as tls:
            tls.setblocking(False)
            begin(tls, (NAME, address[1]))
            assert is_writable(tls, 5)
            finish(tls, (NAME, address[1]))
            tls.settimeout(5)
            if shake_hands:
                tls.do_handshake()
            tls.sendall(b"ping")
            assert read_exactly(tls, len(BANNER) + 4) == BANNER + b"ping"
            assert tls.version()
            assert tls.getpeername() == (NAME, address[1])


def test_tls_wrapped_while_a_non_blocking_connect_is_under_way(server):
    """It waits, and knows the way."""
    with serving(echo) as address, pending(server.url(), address) as sock:
        with ssl.create_default_context().wrap_socket(
            sock, server_hostname=NAME, do_handshake_on_connect=False
        ) as tls:
            assert tls.getpeername() == address
            assert tls.proxy_peername == server.address


def test_tls_wrapped_around_a_connect_that_has_failed(server):
    """As with a plain socket, wrap_socket raises why, and the socket is gone."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 10)
        with pytest.raises(socksy.TargetRefusedError) as caught:
            ssl.create_default_context().wrap_socket(sock, server_hostname=NAME)
        for entry in caught.traceback:
            if entry.name == "_create":  # before 3.12, ssl leaves it to the garbage collector
                entry.locals["self"].close()
        assert sock.fileno() == -1
        assert isinstance(sock.last_error, socksy.TargetRefusedError)
        assert type(sock) is SocksSocket


def test_a_copy_of_a_socket_whose_connect_has_failed(server):
    """Both say so; on a plain socket it is whoever is asked first."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 10)
        with sock.dup() as copy:
            for one in (sock, copy):
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                assert type(one) is SocksSocket


def test_detaching_what_has_failed(server):
    """The descriptor is an unconnected one, and the object as if closed."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        assert is_writable(sock, 10)
        with socket.socket(fileno=sock.detach()) as plain:
            with pytest.raises(OSError) as caught:
                plain.recv(1)
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError) as caught:
            sock.recv(1)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("place", ["127.0.0.1", "::1", "unix"])
def test_every_family_of_socket_and_proxy(
    socks_server_factory, echo_server, family, place, tmp_path
):
    """As for the blocking connect."""
    options = {"path": str(tmp_path / "s")} if place == "unix" else {"host": place}
    server = socks_server_factory(**options)
    with pending(server.url(), echo_server, family) as sock:
        assert is_writable(sock, 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.family == family
        sock.settimeout(5)
        assert read_exactly(sock, len(BANNER)) == BANNER


async def talk(url, target):
    """Connect with the loop's own sock_connect, and echo through streams."""
    loop = asyncio.get_running_loop()
    sock = SocksSocket(proxy=url)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        assert await reader.readexactly(len(BANNER)) == BANNER
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        return writer.get_extra_info("peername")
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("debug", [False, True])
def test_unmodified_asyncio(server, echo_server, debug):
    """Many connections in one loop."""

    async def main():
        return await asyncio.gather(*(talk(server.url(), echo_server) for _ in range(20)))

    assert asyncio.run(main(), debug=debug) == [echo_server] * 20


def test_the_loop_never_stalls(gate):
    """While a handshake hangs, other tasks run; and giving up closes everything."""
    url, _ = gate

    async def main():
        ticks = 0
        connecting = asyncio.ensure_future(talk(url, ("127.0.0.1", 80)))
        for _ in range(50):
            await asyncio.sleep(0)
            ticks += 1
        assert not connecting.done()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        return ticks

    assert asyncio.run(main()) == 50


def test_asyncio_is_told_a_refusal(server):
    """By our own error, which says more than the number that asyncio asks for."""
    with pytest.raises(socksy.TargetRefusedError) as caught:
        asyncio.run(talk(server.url(), ("127.0.0.1", unused_port())))
    assert caught.value.proxy is not None
    assert caught.value.__cause__ is None


def test_asyncio_with_a_timeout(gate):
    """wait_for gives up in time."""
    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        asyncio.run(asyncio.wait_for(talk(gate[0], ("127.0.0.1", 80)), 0.05))


# -- when there is not enough of something


@contextlib.contextmanager
def descriptors_left(count):
    """So many more can be opened, not one more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# With IPv4: the own one, the placeholder's other end, the thread's three; with IPv6 a spare too.
@pytest.mark.parametrize(("family", "needed"), [(socket.AF_INET, 5), (socket.AF_INET6, 6)])
@pytest.mark.parametrize("left", range(8))
def test_running_out_of_descriptors(socks_server_factory, left, family, needed):
    """Is an error at whichever point, and with some more of them the same socket may connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with SocksSocket(family, proxy=f"socks5h://127.0.0.1:{silent.getsockname()[1]}") as sock:
            sock.setblocking(False)
            with descriptors_left(left):
                number = sock.connect_ex(("a.test", 80))
                if number == errno.EINPROGRESS and left < needed:
                    assert is_writable(sock, 5)
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert number == (errno.EINPROGRESS if left >= needed else errno.EMFILE)
            if number == errno.EMFILE:
                sock.set_proxy(socks_server_factory().url())
                assert sock.connect_ex(silent.getsockname()) == errno.EINPROGRESS
                assert is_writable(sock, 5)
                assert sock.connect_ex(silent.getsockname()) == 0


def test_without_a_thread_nothing_is_pending(gate, mocker):
    """What threading says comes out, and the socket is as before."""
    url, opened = gate
    mocker.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more threads"))
    with SocksSocket(proxy=url) as sock:
        sock.setblocking(False)
        with pytest.raises(RuntimeError):
            sock.connect(("a.test", 80))
        mocker.stopall()
        opened.set()
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        assert is_writable(sock, 5)
        assert sock.connect_ex(("a.test", 80)) == 0


def test_what_cannot_be_watched_has_failed(gate, monkeypatch):
    """epoll has limits too; the thread goes on with the others."""
    url, opened = gate
    real = module.selectors.DefaultSelector.register

    def register(selector, sock, mask, data=None):
        if data not in (None, others):
            raise OSError(errno.ENOSPC, "no space")
        return real(selector, sock, mask, data)

    with pending(url) as other:
        others = other._pending.attempt
        monkeypatch.setattr(module.selectors.DefaultSelector, "register", register)
        with pending(url) as sock:
            assert is_writable(sock, 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOSPC
        monkeypatch.undo()
        opened.set()
        assert is_writable(other, 5)
        assert other.connect_ex(("a.test", 80)) == 0


def test_timers_of_what_is_over_are_forgotten(server, echo_server, monkeypatch):
    """Deadlines are minutes away: a busy client must not gather them until then."""
    monkeypatch.setattr(module, "_IDLE", 5)
    for _ in range(60):
        with pending(server.url(), echo_server) as sock:
            assert is_writable(sock, 5)
    assert len(module._negotiator._timers) < 100
    monkeypatch.setattr(module, "_IDLE", 0.01)
    module._negotiator._wake()


# -- who watches the number


def has_connected(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def changes_an_epoll(sock):
    """As Twisted does."""
    with select.epoll() as poller:
        poller.register(sock, select.EPOLLIN | select.EPOLLOUT)
        assert poller.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
        assert has_connected(sock)
        poller.modify(sock, select.EPOLLIN)
        assert poller.poll(10) == [(sock.fileno(), select.EPOLLIN)]


def leaves_an_epoll_alone(sock):
    with select.epoll() as poller:
        poller.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        assert poller.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
        assert has_connected(sock)
        while poller.poll(10) != [(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)]:
            pass


def changes_a_selector(sock):
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        assert [mask for _, mask in selector.select(10)] == [selectors.EVENT_WRITE]
        assert has_connected(sock)
        selector.modify(sock, selectors.EVENT_READ)
        assert [mask for _, mask in selector.select(10)] == [selectors.EVENT_READ]


def changes_a_loop(sock):
    """As Tornado does, and Twisted on asyncio: a reader before the writer is gone."""

    async def main():
        loop = asyncio.get_running_loop()
        connected, readable = loop.create_future(), loop.create_future()
        loop.add_writer(sock, lambda: connected.done() or connected.set_result(has_connected(sock)))
        assert await asyncio.wait_for(connected, 10)
        loop.add_reader(sock.fileno(), lambda: readable.done() or readable.set_result(None))
        loop.remove_writer(sock)
        await asyncio.wait_for(readable, 10)
        loop.remove_reader(sock)

    asyncio.run(main())


def is_asked_in_a_thread_of_the_loop(sock):
    """Another thread than the loop's puts the connection in place."""

    async def main():
        loop = asyncio.get_running_loop()
        connected, readable = loop.create_future(), loop.create_future()
        loop.add_writer(sock, lambda: connected.done() or connected.set_result(None))
        await asyncio.wait_for(connected, 10)
        assert await loop.run_in_executor(None, has_connected, sock)
        loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
        await asyncio.wait_for(readable, 10)
        loop.remove_reader(sock)
        loop.remove_writer(sock)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is no epoll here")
@pytest.mark.parametrize(
    "use",
    [
        changes_an_epoll,
        leaves_an_epoll_alone,
        changes_a_selector,
        changes_a_loop,
        is_asked_in_a_thread_of_the_loop,
    ],
    ids=lambda use: use.__name__,
)
def test_who_watches_the_number_goes_on_with_the_connection(server, echo_server, use):
    """epoll keeps what was under the number when it was told to watch: that is the placeholder."""
    with pending(server.url(), echo_server) as sock:
        use(sock)
        assert sock.recv(len(BANNER)).startswith(BANNER[:1])


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is no epoll here")
def test_a_number_may_be_watched_before_connecting(gate):
    url, opened = gate
    with select.epoll() as poller, SocksSocket(proxy=url) as sock:
        poller.register(sock, select.EPOLLIN | select.EPOLLOUT)
        sock.setblocking(False)
        assert sock.connect_ex(("a.test", 80)) == errno.EINPROGRESS
        assert poller.poll(0.02) == []
        opened.set()
        assert poller.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
        assert has_connected(sock)
        poller.modify(sock, select.EPOLLIN)
        assert poller.poll(10) == [(sock.fileno(), select.EPOLLIN)]


def test_who_waits_for_data_only_hears_of_it(gate):
    """And not before there are any: nobody is told that there is something to read for nothing."""
    url, opened = gate
    with pending(url) as sock:
        opened.set()
        assert select.select([sock], [], [], 10)[0] == [sock]
        assert sock.recv(len(BANNER)) == BANNER
        assert select.select([sock], [], [], 0)[0] == []
        sock.send(b"x")
        assert select.select([sock], [], [], 10)[0] == [sock]


@contextlib.contextmanager
def watched_for_data(server):
    """A socket that is connected, and that nobody has asked about for a while; nothing comes."""
    with serving(lambda connection: connection.recv(1)) as target:
        with pending(server.url(), target) as sock:
            attempt = sock._pending.attempt
            assert eventually(lambda: attempt.done and not attempt.announced)
            yield sock


def test_who_waits_for_data_only_hears_nothing_of_being_connected(server):
    with watched_for_data(server) as sock:
        assert select.select([sock], [sock], [], 0)[:2] == ([], [sock])


def asks(sock):
    assert has_connected(sock)
    assert sock.send(b"x") == 1


@pytest.mark.parametrize("use", [asks, SocksSocket.close], ids=["asks", "closes"])
def test_who_comes_late_finds_the_connection(server, use):
    """And leaves nothing behind in the thread."""
    with watched_for_data(server) as sock:
        use(sock)
    server.wait_until_idle()


def test_a_late_child_of_fork_has_the_connection_too(server):
    with watched_for_data(server) as sock:
        child = os.fork()
        if not child:
            os._exit(0 if has_connected(sock) and sock.send(b"x") == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert has_connected(sock)
        assert select.select([sock], [], [], 10)[0] == [sock]
        assert sock.recv(1) == b""


def test_who_waits_for_data_only_hears_of_a_failure(server):
    """As from the kernel: readable, writable, and hung up."""
    with pending(server.url(), ("127.0.0.1", unused_port())) as sock:
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        assert poller.poll(10_000)[0][1] & (select.POLLIN | select.POLLHUP | select.POLLERR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
