"""What a socket does, as a list of behaviours that any socket class can be put through.

    from functools import partial
    from socksy.testing import SOCKET_BEHAVIOURS, SocksServer, check_socket_like

    check_socket_like(MySocket)                       # all of them

    @pytest.mark.parametrize("behaviour", SOCKET_BEHAVIOURS)
    def test_my_socket_is_a_socket(behaviour):        # or each as a test of its own
        with SocksServer() as server:
            check_socket_like(partial(MySocket, proxy=server.url()), [behaviour])

`socket.socket` itself does all of it. Only loopback is used: the sockets connect to listeners that
the checks make, so a proxy under test has to be able to reach 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import select
import selectors
import socket
import tempfile
import threading
import warnings
import weakref
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias

    #: called as ``make(family, type, proto, fileno=...)``, all of it optional
    Make: TypeAlias = Callable[..., Any]

PATIENCE = 5.0  # seconds; nothing here takes a tenth of one
_MANY = 1_000_000
_BEHAVIOURS: dict[str, Callable[[_Bench], None]] = {}

# Whoever replaces socket.socket for the process: the other ends are plain all the same.
_Plain = socket.socket


def check_socket_like(
    make: Make, behaviours: Iterable[str] | None = None, *, refused: int = errno.ECONNREFUSED
) -> None:
    """Check that the sockets which `make` makes behave like `socket.socket`.

    Args:
        make: a socket class, or what calls one: it is given family, type, proto and ``fileno=``.
        behaviours: names from `SOCKET_BEHAVIOURS`; by default all.
        refused: the errno of a connection that is refused. A proxy may not know this one: HTTP
            answers 502 for everything, which is EHOSTUNREACH.

    Raises:
        AssertionError: a behaviour is missing; the message says which one, and what was expected.
        KeyError: there is no behaviour of that name.
    """
    bench = _Bench(make, refused)
    for name in SOCKET_BEHAVIOURS if behaviours is None else behaviours:
        check = _BEHAVIOURS[name]
        try:
            check(bench)
        except Exception as exc:
            raise AssertionError(f"{name}: {check.__doc__} But: {exc!r}") from exc


class _Bench:
    """What the checks work with."""

    def __init__(self, make: Make, refused: int) -> None:
        self.make = make
        self.refused = refused

    @contextlib.contextmanager
    def listener(self, family: int = socket.AF_INET) -> Iterator[socket.socket]:
        """A plain listening socket, which nobody has to accept from."""
        with _Plain(family, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen(5)
            listener.settimeout(PATIENCE)
            yield listener

    @contextlib.contextmanager
    def connected(self, timeout: float | None = PATIENCE) -> Iterator[tuple[Any, socket.socket]]:
        """A connected socket, and a plain one at the other end."""
        with self.listener() as listener, self.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(PATIENCE)
                yield sock, peer

    @contextlib.contextmanager
    def connecting(self) -> Iterator[tuple[Any, socket.socket]]:
        """A non-blocking socket that was told to connect, and the listener."""
        with self.listener() as listener, self.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            _one_of(sock.connect_ex(listener.getsockname()), 0, errno.EINPROGRESS)
            yield sock, listener

    def closed_port(self) -> tuple[str, int]:
        """Where nobody listens: bound, so that nobody else takes it meanwhile."""
        with _Plain() as sock:
            sock.bind(("127.0.0.1", 0))
            place: tuple[str, int] = sock.getsockname()
            return place


# -- saying what is expected (assert statements vanish under -O, and say nothing outside of tests)


def _same(got: object, expected: object) -> None:
    if got != expected:
        raise AssertionError(f"expected {expected!r}, got {got!r}")


def _one_of(got: object, *expected: object) -> None:
    if got not in expected:
        raise AssertionError(f"expected one of {expected!r}, got {got!r}")


def _true(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _raises(expected: type[BaseException] | int, call: Callable[..., Any], *arguments: Any) -> None:
    """A class of exceptions, or the errno of an OSError."""
    try:
        result = call(*arguments)
    except Exception as exc:
        if isinstance(expected, int):
            wanted = errno.errorcode[expected]
            good = isinstance(exc, OSError) and exc.errno == expected
        else:
            wanted = expected.__name__
            good = isinstance(exc, expected)
        if not good:
            raise AssertionError(f"{call} should raise {wanted}") from exc
    else:
        raise AssertionError(f"{call} should raise {expected}, but returned {result!r}")


def _read(sock: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def _talk(sock: Any, peer: socket.socket) -> None:
    """Both directions work."""
    sock.sendall(b"ping")
    _same(_read(peer, 4), b"ping")
    peer.sendall(b"pong")
    _same(_read(sock, 4), b"pong")


def _writable(sock: Any) -> None:
    _same(select.select([], [sock], [], PATIENCE)[1], [sock])


def _behaviour(check: Callable[[_Bench], None]) -> Callable[[_Bench], None]:
    _BEHAVIOURS[check.__name__] = check
    return check


# -- the object


@_behaviour
def is_as_it_was_made(bench: _Bench) -> None:
    """Family, type and protocol are what was asked for, by default AF_INET and SOCK_STREAM."""
    with bench.make() as sock:
        _same((sock.family, sock.type, sock.proto), (socket.AF_INET, socket.SOCK_STREAM, 0))
    with bench.make(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        _same(sock.proto, socket.IPPROTO_TCP)
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), socket.SOCK_STREAM)
        _true(isinstance(sock.family, socket.AddressFamily), "family is an enum")
        _true(isinstance(sock.type, socket.SocketKind), "type is an enum")


@_behaviour
def takes_flags_in_its_type(bench: _Bench) -> None:
    """SOCK_NONBLOCK and SOCK_CLOEXEC are flags; they do not show in `type`."""
    nonblocking = getattr(socket, "SOCK_NONBLOCK", 0)
    with bench.make(socket.AF_INET, socket.SOCK_STREAM | nonblocking) as sock:
        _same(sock.type, socket.SOCK_STREAM)
        _same(sock.gettimeout(), 0.0 if nonblocking else None)
    with bench.make(socket.AF_INET, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0)) as s:
        _same((s.type, s.get_inheritable()), (socket.SOCK_STREAM, False))


@_behaviour
def refuses_what_is_no_family_or_descriptor(bench: _Bench) -> None:
    """With the errors of the base class, and without leaving a descriptor behind."""
    _raises(OSError, bench.make, 9999)
    _raises(TypeError, bench.make, "AF_INET")
    _raises(ValueError, lambda: bench.make(fileno=-1))
    _raises(TypeError, lambda: bench.make(fileno="3"))
    with _Plain() as sock:
        number = sock.fileno()
    _raises(errno.EBADF, lambda: bench.make(fileno=number))


@_behaviour
def has_a_repr(bench: _Bench) -> None:
    """It shows the class, the descriptor and whether it is closed, and never fails."""
    with bench.connected() as (sock, _):
        for part in (type(sock).__name__, f"fd={sock.fileno()}", "family=", "type=", "laddr="):
            _true(part in repr(sock), f"{part} should be in {sock!r}")
    _true("[closed]" in repr(sock), repr(sock))


@_behaviour
def can_be_referred_to_weakly_and_hashed(bench: _Bench) -> None:
    """It is itself, and nothing else."""
    with bench.make() as sock, bench.make() as other:
        _true(weakref.ref(sock)() is sock, "weakref")
        _same(len({sock, other, sock}), 2)
        _true(sock != other, "equal to another")


@_behaviour
def refuses_to_be_pickled(bench: _Bench) -> None:
    """A descriptor means nothing in another process."""
    with bench.make() as sock:
        _raises(TypeError, pickle.dumps, sock)


@_behaviour
def has_the_methods_of_the_platform(bench: _Bench) -> None:
    """Everything that `socket.socket` has, and no `share` where that does not exist."""
    with bench.make() as sock:
        missing = [name for name in dir(_Plain) if not hasattr(sock, name)]
        _same(missing, [])
        _same(hasattr(sock, "share"), hasattr(_Plain, "share"))


# -- the end


def _gone(number: int, before: os.stat_result) -> None:
    """A descriptor is closed; another thread may have been given its number meanwhile."""
    try:
        after = os.fstat(number)
    except OSError as exc:
        _same(exc.errno, errno.EBADF)
    else:
        _true(not os.path.samestat(before, after), "the descriptor is still open")


@_behaviour
def closes(bench: _Bench) -> None:
    """Once and again; by `with` too; the peer hears of it."""
    with bench.connected() as (sock, peer):
        number, before = sock.fileno(), os.fstat(sock.fileno())
        sock.close()
        _same((sock.fileno(), peer.recv(1)), (-1, b""))
        sock.close()
        _gone(number, before)
    with bench.make() as sock:
        pass
    _same(sock.fileno(), -1)


@_behaviour
def fails_with_ebadf_when_closed(bench: _Bench) -> None:
    """Every method does, connected before or not."""
    with bench.connected() as (sock, _):
        sock.close()
        calls: list[Callable[[], Any]] = [
            sock.getsockname,
            sock.getpeername,
            sock.listen,
            sock.accept,
            sock.dup,
            lambda: sock.bind(("127.0.0.1", 0)),
            lambda: sock.send(b"x"),
            lambda: sock.sendall(b"x"),
            lambda: sock.sendmsg([b"x"]),
            lambda: sock.recv(1),
            lambda: sock.recv_into(bytearray(1)),
            lambda: sock.shutdown(socket.SHUT_RDWR),
            lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        ]
        for call in calls:
            _raises(errno.EBADF, call)
        _cannot_connect(sock)
    with bench.make() as sock:
        sock.close()
        _cannot_connect(sock)


def _cannot_connect(sock: Any) -> None:
    _raises(errno.EBADF, sock.connect, ("127.0.0.1", 9))
    _same(sock.connect_ex(("127.0.0.1", 9)), errno.EBADF)


@_behaviour
def warns_when_dropped(bench: _Bench) -> None:
    """What nobody closed closes itself, with a ResourceWarning."""
    holder = [bench.make()]
    number = holder[0].fileno()
    before = os.fstat(number)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        holder.clear()
        gc.collect()
    _true(any(w.category is ResourceWarning for w in caught), "no ResourceWarning")
    _gone(number, before)


@_behaviour
def detaches(bench: _Bench) -> None:
    """The descriptor lives on, the object is as if closed."""
    with bench.connected() as (sock, peer):
        number = sock.fileno()
        _same(sock.detach(), number)
        _same(sock.fileno(), -1)
        _raises(errno.EBADF, sock.recv, 1)
        with _Plain(fileno=number) as plain:
            plain.settimeout(PATIENCE)
            _talk(plain, peer)


# -- copies


@_behaviour
def duplicates(bench: _Bench) -> None:
    """A copy is of the same class, on the same connection, and survives the original."""
    with bench.connected() as (sock, peer), sock.dup() as copy:
        _true(type(copy) is type(sock), f"a {type(copy)}")
        _true(copy.fileno() != sock.fileno(), "the same descriptor")
        _same(copy.get_inheritable(), False)
        _same((copy.family, copy.type, copy.proto), (sock.family, sock.type, sock.proto))
        _same(copy.gettimeout(), sock.gettimeout())
        _same(copy.getpeername(), sock.getpeername())
        _same(copy.getsockname(), sock.getsockname())
        sock.close()
        _talk(copy, peer)


@_behaviour
def adopts_a_descriptor(bench: _Bench) -> None:
    """With fileno=, family and type are found out, and it is connected already."""
    with bench.listener() as listener, _Plain() as plain:
        plain.connect(listener.getsockname())
        peer, _ = listener.accept()
        with peer, bench.make(fileno=plain.detach()) as sock:
            sock.settimeout(PATIENCE)
            peer.settimeout(PATIENCE)
            _same((sock.family, sock.type), (socket.AF_INET, socket.SOCK_STREAM))
            _same(sock.getpeername(), listener.getsockname())
            _same(sock.getsockname(), peer.getpeername())
            _talk(sock, peer)


@_behaviour
def lives_as_long_as_its_files(bench: _Bench) -> None:
    """makefile() reads and writes, and keeps the connection until the file is closed too."""
    with bench.connected() as (sock, peer):
        with sock.makefile("rwb") as file:
            file.write(b"line\n")
            file.flush()
            _same(_read(peer, 5), b"line\n")
            sock.close()
            peer.sendall(b"answer\n")
            _same(file.readline(), b"answer\n")
            _same(sock.fileno() >= 0, True)
        _same(peer.recv(1), b"")
    with bench.connected() as (sock, peer), sock.makefile(encoding="utf-8", newline="\n") as text:
        peer.sendall("ä\n".encode())
        _same(text.readline(), "ä\n")


# -- time


@_behaviour
def has_timeouts(bench: _Bench) -> None:
    """setblocking, settimeout, gettimeout, getblocking and `timeout` tell one story."""
    with bench.make() as sock:
        _same((sock.gettimeout(), sock.getblocking(), sock.timeout), (None, True, None))
        sock.setblocking(False)
        _same((sock.gettimeout(), sock.getblocking(), sock.timeout), (0.0, False, 0.0))
        sock.settimeout(2.5)
        _same((sock.gettimeout(), sock.getblocking(), sock.timeout), (2.5, True, 2.5))
        sock.setblocking(True)
        _same(sock.gettimeout(), None)
        _raises(ValueError, sock.settimeout, -1)
        _raises(TypeError, sock.settimeout, "1")


@_behaviour
def begins_with_the_default_timeout(bench: _Bench) -> None:
    """`socket.setdefaulttimeout` counts for new sockets, accepted ones too."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3.5)
    try:
        with bench.make() as sock:
            _same(sock.gettimeout(), 3.5)
        with _local_listener(bench) as (server, client):
            conn, _ = server.accept()
            with conn, client:
                _same(conn.gettimeout(), 3.5)
    finally:
        socket.setdefaulttimeout(before)


@_behaviour
def keeps_its_timeout(bench: _Bench) -> None:
    """Connecting changes nothing about it, whether it succeeds or not."""
    for timeout in (None, 4.0):
        with bench.connected(timeout) as (sock, _):
            _same(sock.gettimeout(), timeout)
    with bench.make() as sock:
        sock.settimeout(4.0)
        _raises(OSError, sock.connect, bench.closed_port())
        _same(sock.gettimeout(), 4.0)


@_behaviour
def times_out(bench: _Bench) -> None:
    """A TimeoutError, after which the connection is as good as before; 0 is BlockingIOError."""
    with bench.connected() as (sock, peer):
        sock.settimeout(0.01)
        _raises(TimeoutError, sock.recv, 1)
        sock.setblocking(False)
        _raises(errno.EAGAIN, sock.recv, 1)
        sock.settimeout(PATIENCE)
        _talk(sock, peer)


# -- connecting


@_behaviour
def connects(bench: _Bench) -> None:
    """Both directions work; the peer's name is the one that was asked for."""
    for timeout in (None, PATIENCE):
        with bench.connected(timeout) as (sock, peer):
            _same(sock.getpeername(), peer.getsockname())
            host, port = sock.getsockname()
            _same((type(host), type(port)), (str, int))
            _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
            _talk(sock, peer)


@_behaviour
def connects_over_ipv6(bench: _Bench) -> None:
    """Names have four values then. (Passes where there is no IPv6.)"""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(bench.listener(socket.AF_INET6))
        except OSError:
            return
        sock = stack.enter_context(bench.make(socket.AF_INET6, socket.SOCK_STREAM))
        sock.settimeout(PATIENCE)
        sock.connect(listener.getsockname())
        _same(sock.getpeername(), listener.getsockname())
        _same(sock.family, socket.AF_INET6)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(PATIENCE)
            _talk(sock, peer)


@_behaviour
def connects_from_where_it_is_bound(bench: _Bench) -> None:
    """bind() before connect() chooses the local address."""
    with bench.listener() as listener, bench.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        place = sock.getsockname()
        sock.settimeout(PATIENCE)
        sock.connect(listener.getsockname())
        _same(sock.getsockname(), place)


@_behaviour
def is_not_connected_at_first(bench: _Bench) -> None:
    """No peer, nothing to read, nowhere to write to."""
    with bench.make() as sock:
        _raises(errno.ENOTCONN, sock.getpeername)
        _raises(errno.ENOTCONN, sock.recv, 1)
        _raises(errno.ENOTCONN, sock.shutdown, socket.SHUT_RDWR)
        _raises(errno.EPIPE, sock.send, b"x")


@_behaviour
def connects_once(bench: _Bench) -> None:
    """The second time is EISCONN, and disturbs nothing."""
    with bench.connected(None) as (sock, peer):
        _raises(errno.EISCONN, sock.connect, peer.getsockname())
        _same(sock.connect_ex(peer.getsockname()), errno.EISCONN)
        sock.settimeout(PATIENCE)
        _talk(sock, peer)


@_behaviour
def returns_an_errno_from_connect_ex(bench: _Bench) -> None:
    """0, or why not."""
    with bench.listener() as listener, bench.make() as sock:
        sock.settimeout(PATIENCE)
        _same(sock.connect_ex(listener.getsockname()), 0)
    with bench.make() as sock:
        _same(sock.connect_ex(bench.closed_port()), bench.refused)


@_behaviour
def tells_a_refusal(bench: _Bench) -> None:
    """With its errno; nothing can be sent then, and it can be closed."""
    with bench.make() as sock:
        _raises(bench.refused, sock.connect, bench.closed_port())
        _raises(OSError, sock.sendall, b"x")
        _raises(errno.ENOTCONN, sock.getpeername)


@_behaviour
def refuses_what_is_no_address(bench: _Bench) -> None:
    """Before anything is sent, with the builtin exceptions that `socket.socket` has for it."""
    for address in (None, "127.0.0.1:80", 80, ("127.0.0.1",), ("127.0.0.1", "80"), (1, 80)):
        with bench.make() as sock:
            _raises(TypeError, sock.connect, address)
            _raises(TypeError, sock.connect_ex, address)
    for port in (-1, 65536):
        with bench.make() as sock:
            _raises(OverflowError, sock.connect, ("127.0.0.1", port))


# -- without blocking


@_behaviour
def connects_without_blocking(bench: _Bench) -> None:
    """Writable when it is over; SO_ERROR says how; not readable."""
    with bench.connecting() as (sock, listener):
        number = sock.fileno()
        _writable(sock)
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        _same((sock.fileno(), sock.gettimeout()), (number, 0.0))
        _same(sock.getpeername(), listener.getsockname())
        _same(select.select([sock], [], [], 0)[0], [])
        sock.settimeout(PATIENCE)
        peer, _ = listener.accept()
        with peer:
            _talk(sock, peer)


@_behaviour
def tells_a_refusal_without_blocking(bench: _Bench) -> None:
    """SO_ERROR has it, once."""
    with bench.make() as sock:
        sock.setblocking(False)
        if sock.connect_ex(bench.closed_port()) == errno.EINPROGRESS:
            _writable(sock)
            _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), bench.refused)
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        _raises(OSError, sock.send, b"x")


@_behaviour
def may_be_asked_again_whether_it_is_connected(bench: _Bench) -> None:
    """connect_ex: EALREADY while it is not, 0 at most once, then EISCONN."""
    with bench.connecting() as (sock, listener):
        _one_of(sock.connect_ex(listener.getsockname()), errno.EALREADY, 0, errno.EISCONN)
        _writable(sock)
        _one_of(sock.connect_ex(listener.getsockname()), 0, errno.EISCONN)
        _same(sock.connect_ex(listener.getsockname()), errno.EISCONN)


@_behaviour
def may_become_blocking_meanwhile(bench: _Bench) -> None:
    """settimeout at any moment: what comes next waits until it is connected."""
    with bench.connecting() as (sock, listener):
        sock.settimeout(PATIENCE)
        _writable(sock)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(PATIENCE)
            _talk(sock, peer)
            _same(sock.gettimeout(), PATIENCE)


@_behaviour
def may_be_closed_while_connecting(bench: _Bench) -> None:
    """And its descriptor is gone."""
    with bench.connecting() as (sock, _):
        number, before = sock.fileno(), os.fstat(sock.fileno())
        sock.close()
        _same(sock.fileno(), -1)
        _gone(number, before)


@_behaviour
def can_be_selected(bench: _Bench) -> None:
    """select, poll, epoll and selectors see the end of connecting, then data."""
    for wait in (_with_select, _with_poll, _with_epoll, _with_selectors):
        with bench.connecting() as (sock, listener):
            _true(wait(sock, False), f"{wait.__name__}: not writable")
            _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"x")
                _true(wait(sock, True), f"{wait.__name__}: not readable")
                _same(sock.recv(1), b"x")


def _with_select(sock: Any, reading: bool) -> bool:
    readable, writable, _ = select.select([sock] * reading, [sock] * (not reading), [], PATIENCE)
    return [sock] in (readable, writable)


def _with_poll(sock: Any, reading: bool) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN if reading else select.POLLOUT)
    return bool(poller.poll(PATIENCE * 1000))


def _with_epoll(sock: Any, reading: bool) -> bool:
    if not hasattr(select, "epoll"):
        return True
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN if reading else select.EPOLLOUT)
        return [number for number, _ in epoll.poll(PATIENCE)] == [sock.fileno()]


def _with_selectors(sock: Any, reading: bool) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ if reading else selectors.EVENT_WRITE)
        found = [key.fileobj for key, _ in selector.select(PATIENCE)]
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        selector.unregister(sock)
        return found == [sock]


@_behaviour
def stays_registered(bench: _Bench) -> None:
    """An epoll, or an asyncio loop, that has watched it connecting goes on with the connection."""
    for wait in (_in_one_epoll, _in_one_loop):
        with bench.connecting() as (sock, listener), contextlib.ExitStack() as stack:
            _true(wait(sock, partial(_answer, listener, stack)), f"{wait.__name__}: not readable")
            _same(sock.recv(1), b"x")


def _answer(listener: socket.socket, stack: contextlib.ExitStack) -> None:
    peer = stack.enter_context(listener.accept()[0])
    peer.sendall(b"x")


def _in_one_epoll(sock: Any, answer: Callable[[], None]) -> bool:
    if not hasattr(select, "epoll"):
        answer()
        return True
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        _same(epoll.poll(PATIENCE), [(sock.fileno(), select.EPOLLOUT)])
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        epoll.modify(sock, select.EPOLLIN)
        answer()
        return bool(epoll.poll(PATIENCE))


def _in_one_loop(sock: Any, answer: Callable[[], None]) -> bool:
    import asyncio

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        writable, readable = asyncio.Event(), asyncio.Event()
        loop.add_writer(sock, writable.set)
        await asyncio.wait_for(writable.wait(), PATIENCE)
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        loop.add_reader(sock, readable.set)
        loop.remove_writer(sock)
        answer()
        await asyncio.wait_for(readable.wait(), PATIENCE)
        return loop.remove_reader(sock)

    return asyncio.run(main())


@_behaviour
def works_in_an_event_loop(bench: _Bench) -> None:
    """asyncio's own sock_connect and streams take it as it is."""
    import asyncio

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with bench.listener() as listener:
            sock = bench.make(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                connecting = loop.sock_connect(sock, listener.getsockname())
                await asyncio.wait_for(connecting, PATIENCE)
            except BaseException:
                sock.close()
                raise
            reader, writer = await asyncio.open_connection(sock=sock)
            peer, _ = listener.accept()
            with peer:
                writer.write(b"ping")
                await writer.drain()
                peer.settimeout(PATIENCE)
                _same(_read(peer, 4), b"ping")
                peer.sendall(b"pong")
                _same(await asyncio.wait_for(reader.readexactly(4), PATIENCE), b"pong")
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())


# -- data


@_behaviour
def sends_in_every_way(bench: _Bench) -> None:
    """send, sendall, sendmsg, sendto (the address does not count), sendfile, bytes-like data."""
    with bench.connected() as (sock, peer):
        _same(sock.send(memoryview(b"abc")), 3)
        _same(sock.send(b"def", 0), 3)
        _same(sock.sendall(bytearray(b"ghi")), None)
        _same(sock.sendmsg([b"j", b"kl"]), 3)
        _same(sock.sendto(b"mno", peer.getsockname()), 3)
        _same(_read(peer, 15), b"abcdefghijklmno")
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.seek(0)
            _same(sock.sendfile(file, 2, 5), 5)
        _same(_read(peer, 5), b"23456")


@_behaviour
def receives_in_every_way(bench: _Bench) -> None:
    """recv, recv_into, recvfrom, recvfrom_into, recvmsg, recvmsg_into, and MSG_PEEK."""
    with bench.connected() as (sock, peer):
        peer.sendall(b"abcdefghijklmnopqr")
        _same(_read(sock, 3), b"abc")
        _same(sock.recv(3, socket.MSG_PEEK), b"def")
        buffer = bytearray(3)
        _same((sock.recv_into(buffer), bytes(buffer)), (3, b"def"))
        _same(sock.recvfrom(3)[0], b"ghi")
        _same((sock.recvfrom_into(buffer)[0], bytes(buffer)), (3, b"jkl"))
        _same(sock.recvmsg(3)[:2], (b"mno", []))
        _same((sock.recvmsg_into([buffer])[0], bytes(buffer)), (3, b"pqr"))


@_behaviour
def moves_much(bench: _Bench) -> None:
    """A million bytes both ways at once, with nothing lost."""
    sent = os.urandom(_MANY)
    with bench.connected() as (sock, peer):
        got: list[bytes] = []

        def other_end() -> None:
            got.append(_read(peer, _MANY))
            peer.sendall(got[0])

        thread = threading.Thread(target=other_end)
        thread.start()
        sock.sendall(sent)
        back = _read(sock, _MANY)
        thread.join(PATIENCE)
        _true(got == [sent] and back == sent, "the data are not the same")


@_behaviour
def closes_half(bench: _Bench) -> None:
    """shutdown(SHUT_WR): the peer reads the end, and can still be heard."""
    with bench.connected() as (sock, peer):
        sock.sendall(b"last")
        sock.shutdown(socket.SHUT_WR)
        _same(_read(peer, 100), b"last")
        peer.sendall(b"still")
        _same(_read(sock, 5), b"still")
        _raises(errno.EPIPE, sock.send, b"x")
        peer.close()
        _same(sock.recv(1), b"")


# -- options


@_behaviour
def keeps_its_options(bench: _Bench) -> None:
    """What was set before connecting is set on the connection."""
    booleans = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    ]
    with bench.listener() as listener, bench.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
        for level, option in booleans:
            sock.setsockopt(level, option, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\3\0\0\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        sock.set_inheritable(True)
        sock.settimeout(PATIENCE)
        sock.connect(listener.getsockname())
        for level, option in booleans:
            _true(sock.getsockopt(level, option), f"option {level}, {option} is lost")
        linger = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        _same(linger, b"\1\0\0\0\3\0\0\0")
        _same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), size)
        _same(sock.get_inheritable(), True)


@_behaviour
def takes_options_when_connected(bench: _Bench) -> None:
    """TCP_NODELAY, as event loops and HTTP clients set it; as bytes too."""
    with bench.connected() as (sock, peer):
        for value in (1, 0):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, value)
            _same(bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)), bool(value))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, b"\1\0\0\0")
        _same(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 4), b"\1\0\0\0")
        _true(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "not set")
        _talk(sock, peer)


# -- listening, and other families


@contextlib.contextmanager
def _local_listener(bench: _Bench) -> Iterator[tuple[Any, socket.socket]]:
    """A socket under test that listens, and a plain client that has connected to it."""
    with bench.make(socket.AF_INET, socket.SOCK_STREAM) as server, _Plain() as client:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        client.connect(server.getsockname())
        yield server, client


@_behaviour
def listens(bench: _Bench) -> None:
    """bind, listen and accept serve whoever connects; accepted sockets are sockets."""
    with _local_listener(bench) as (server, client):
        conn, address = server.accept()
        with conn:
            conn.settimeout(PATIENCE)
            _same(address, client.getsockname())
            _same(conn.getpeername(), address)
            _same(conn.getsockname(), server.getsockname())
            _same(conn.get_inheritable(), False)
            _raises(errno.ENOTCONN, server.getpeername)
            _talk(conn, client)
        server.setblocking(False)
        _raises(errno.EAGAIN, server.accept)


@_behaviour
def leaves_unix_sockets_alone(bench: _Bench) -> None:
    """AF_UNIX, streams and datagrams. (Passes where there is none.)"""
    if not hasattr(socket, "AF_UNIX"):
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            place = os.path.join(folder, str(int(kind)))
            with _Plain(socket.AF_UNIX, kind) as there, bench.make(socket.AF_UNIX, kind) as sock:
                there.bind(place)
                if kind == socket.SOCK_STREAM:
                    there.listen(1)
                sock.settimeout(PATIENCE)
                sock.connect(place)
                _same((sock.family, sock.getpeername()), (socket.AF_UNIX, place))
                sock.sendall(b"x")
                end = there.accept()[0] if kind == socket.SOCK_STREAM else there.dup()
                with end:
                    _same(end.recv(1), b"x")


@_behaviour
def leaves_other_kinds_alone(bench: _Bench) -> None:
    """Raw sockets and packets: made, or refused, just as the base class does."""
    kinds = [(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)]
    if hasattr(socket, "AF_NETLINK"):
        kinds.append((socket.AF_NETLINK, socket.SOCK_RAW, 0))
    if hasattr(socket, "AF_PACKET"):
        kinds.append((socket.AF_PACKET, socket.SOCK_RAW, 0))
    for kind in kinds:
        _same(_outcome(bench.make, kind), _outcome(_Plain, kind))


def _outcome(make: Make, kind: tuple[int, int, int]) -> tuple[object, ...]:
    try:
        sock = make(*kind)
    except OSError as exc:
        return type(exc), exc.errno
    with sock:
        return sock.family, sock.type, sock.proto, sock.getsockname()


#: the names of all behaviours, in the order of their checks
SOCKET_BEHAVIOURS: tuple[str, ...] = tuple(_BEHAVIOURS)
