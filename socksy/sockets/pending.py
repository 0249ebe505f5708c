"""The non-blocking connect: a handshake nobody waits for.

What an event loop does is call `connect`, get EINPROGRESS, wait until the descriptor is writable,
and ask `getsockopt(SO_ERROR)`. A proxied connect is not over when the connection to the proxy
becomes writable, so the loop must not see that descriptor yet. Three rules:

* While the handshake goes on, a *placeholder* is under the application's number: one end of a
  socket pair whose send buffer is full. It is never writable, and nothing is ever written to it.
* One daemon thread, `_Negotiator`, drives every pending `Dial` over its real descriptors. It never
  touches the application's socket. When one ends, it drains the placeholder's other end; the loop
  wakes up. For those who wait for data only, it makes the placeholder readable when there are some.
  Before that it shuts the other end down: who writes to the placeholder all the same is told EPIPE.
* The next call on the socket, whichever it is, puts the real descriptor in place, in the caller's
  own thread. Until then the object has a `Pending` guise, which keeps all this out of the
  methods of a connected socket. After a failure it stays so until somebody was told the error.

Signal handlers may raise in the caller's thread, at any moment. So the thread alone closes what it
was given, until it has let go of it; the socket is pending before the thread hears of it; and what
goes wrong with one attempt ends neither the others nor the thread.

Where descriptors cannot be replaced (Windows), connect() waits instead: see `stream`.
"""

from __future__ import annotations

import atexit
import errno
import heapq
import itertools
import os
import selectors
import socket
import sys
import threading
from collections import deque
from contextlib import ExitStack
from time import monotonic

from ..errors import ProxyError
from .dial import (
    COPIES,
    DATA,
    DATA_OF_TLS,
    OTHER,
    PATIENCE,
    POLLIN,
    POLLOUT,
    Dial,
    Plain,
    at_home,
    guise,
    os_error,
    wait,
)
from .options import put_under, unconnected_like
from .watchers import put_under_watch, remember, selector_that_asks, watchers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    from typing_extensions import Buffer

    from ..proxy import Chain
    from .dial import Wait
    from .options import Options

    _Attempt = TypeVar("_Attempt", bound="Attempt")

# Seconds without work after which the thread ends: a program that forks later has one thread less.
_IDLE = 1.0

# Seconds after which a connection that nobody has asked about is watched for data. Most are asked
# about at once, and then this costs nothing.
_UNTOUCHED = 0.05

_SMALLEST_BUFFER = 1  # the kernel makes it its own minimum
_NOSIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))
_UNDER_WAY, _CONNECTED, _FAILED = range(3)
_fileno = socket.SocketType.fileno


class Errand:
    """What the thread works on, as it shares it with others. It does not know the socket itself.

    Attributes:
        own: the descriptor that it is about.
        task: what the negotiator drives; None if it has been released.
        begun: the negotiator has found it in its inbox.
        done: set last, by the negotiator.
        announced: set after that: the negotiator has let go of it. Who takes it then may close it.
        bound: what the task returned, if it succeeded.
        error: why it failed, if it did.
    """

    __slots__ = (
        "_free",
        "_is_taken",
        "announced",
        "begun",
        "bound",
        "done",
        "error",
        "own",
        "started",
        "task",
        "waiting",
    )

    def __init__(self, task: Any, own: socket.socket) -> None:
        self._free = [True]  # pop() is atomic, and so needs no lock
        self._is_taken = False
        self.own = own
        self.task = task
        self.started = False
        self.waiting: Wait | None = None
        self.begun = self.done = self.announced = False
        self.bound: Any = None
        self.error: Exception | None = None

    def take(self) -> bool:
        """For its owner; False: the negotiator has it, and must be asked to let go."""
        if not self._is_taken:
            self._is_taken = self.take_back()
        return self._is_taken

    def take_back(self) -> bool:
        """For the negotiator, once it has let go; False: its owner has taken it."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    def let_go(self) -> None:
        """What `take_back` has taken."""
        self._free.append(True)

    def announce(self) -> None:
        """It is over. The task has told whom it concerns."""

    def afterwards(self) -> Generator[Wait, bool, Any] | None:
        """What is left to do if nobody takes it for a while."""
        return None

    def disown(self) -> None:
        """After a fork, in the child, where the thread is not: nothing goes on here."""
        try:
            self.task.close()
        except ValueError:  # it is running, in the thread that is not here
            pass
        self.task = None

    def release(self) -> None:
        """Close what is ours. Idempotent."""
        self.end_task()
        self.task = None
        _close(self.own)

    def end_task(self) -> None:
        """Whatever it was doing. There is nobody to tell of what goes wrong with that."""
        if self.task is not None:
            try:
                self.task.close()
            except Exception:  # somebody has closed its descriptors, say
                pass


class Attempt(Errand):
    """A connection on its way, while a placeholder is under the application's number.

    Attributes:
        own: to be put in place in the end.
        peer: the placeholder's other end.
    """

    __slots__ = ("peer",)

    def __init__(self, own: socket.socket, peer: socket.socket, task: Any) -> None:
        super().__init__(task, own)
        self.peer = peer

    def announce(self) -> None:
        """Wake up whoever waits: the placeholder becomes writable; after a failure it hangs up."""
        if self.error is None:
            try:
                self.peer.shutdown(socket.SHUT_RD)
            except OSError:  # the application has closed its end
                pass
            _drain(self.peer)
        else:
            _close(self.peer)

    def disown(self) -> None:
        """After a fork, in the child: the connection is the parent's. Without a word on it."""
        super().disown()
        put_under(unconnected_like(self.own), self.own)

    def release(self) -> None:
        """Close what is ours. Idempotent."""
        super().release()
        _close(self.peer)


class Connecting(Attempt):
    """A pending connect.

    Attributes:
        dial: knows the way, once it is done.
    """

    __slots__ = ("dial",)

    def __init__(
        self, own: socket.socket, peer: socket.socket, dial: Dial, way: tuple[Chain, str, int, int]
    ) -> None:
        super().__init__(own, peer, dial.through(*way))
        self.dial = dial

    def disown(self) -> None:
        """The spare too; what cleans up after a failure must not touch the connection either."""
        self.dial.disown()
        super().disown()

    def afterwards(self) -> Generator[Wait, bool, Any] | None:
        """Make the placeholder readable, too, as soon as the connection is."""
        return None if self.error is not None else self._tell_of_data()

    def _tell_of_data(self) -> Generator[Wait, bool, Any]:
        try:
            yield self.own, POLLIN, None
            self.peer.send(b"\0", _NOSIGNAL)
        except OSError:  # the placeholder is gone
            pass
        return self.bound

    def set_option(self, level: int, option: int, *value: Any) -> None:
        """On whichever descriptor may be the one in the end."""
        self.own.setsockopt(level, option, *value)
        self.dial.set_option(level, option, *value)


class Accepting(Attempt):
    """A peer that is waited for: the placeholder stands for a listening socket."""

    __slots__ = ()

    def announce(self) -> None:
        """The placeholder becomes readable."""
        _close(self.peer)


def begin(
    sock: Any,
    target: tuple[Any, ...],
    way: tuple[Chain, str, int, int],
    on_success: Callable[[Any, Any, Dial, tuple[Any, ...]], None],
    early_data: bytes = b"",
) -> None:
    """Start connecting `sock`, whose class is a `Pending` one afterwards.

    Args:
        way: chain, host, port and command for `Dial.through`.
        on_success: called with socket, bound address, dial and target in the caller's thread, when
            the real descriptor is in place.
        early_data: for the target, as in `Dial`.
    """
    home = type(sock)
    pending_guise = _pending_guise(home)  # first: whatever is wrong with it, nothing has happened

    def connecting(own: socket.socket, peer: socket.socket) -> Connecting:
        dial = Dial(own, PATIENCE, sock._local, sock._own_options())
        dial.early_data = early_data
        return Connecting(own, peer, dial, way)

    def make_pending(attempt: Connecting) -> None:
        sock._pending = state = _State(attempt, home, target, on_success)
        sock.__class__ = pending_guise
        state.arm()

    attempt = _hand_over(sock, connecting, make_pending, watchers_of(sock.fileno(), (), False))
    if _fileno(sock) == -1:  # another thread has closed it meanwhile
        _leave(sock)
        _negotiator.cancel(attempt)
        raise os_error(errno.EBADF)


def accept(
    sock: socket.socket, task: Callable[[socket.socket], Generator[Wait, bool, Any]]
) -> Attempt:
    """Wait for a peer in the background: `sock` becomes readable when the task is over.

    Args:
        task: made from the descriptor that `sock` has had, which will be the connection's.
    """

    def accepting(own: socket.socket, peer: socket.socket) -> Accepting:
        return Accepting(own, peer, task(own))

    return _hand_over(sock, accepting, lambda attempt: None, watchers_of(sock.fileno()))


def _hand_over(
    sock: socket.socket,
    make: Callable[[socket.socket, socket.socket], _Attempt],
    note: Callable[[_Attempt], None],
    watchers: list[Any],
) -> _Attempt:
    """Put a placeholder under the number of `sock`, and let the thread work with what was there.

    Args:
        make: makes the attempt of what was there and the placeholder's other end.
        note: is told of it right before the thread is.
    """
    own = placeholder = peer = attempt = None
    try:
        # a number that dup() returns would be lost if a signal came now
        own = Plain(sock.family, sock.type, sock.proto)
        os.dup2(sock.fileno(), own.fileno(), inheritable=False)
        own.setblocking(False)
        placeholder, peer = _full_pair()
        attempt = make(own, peer)
        put_under_watch(placeholder, sock, watchers)
        note(attempt)
        _negotiator.submit(attempt)
    except BaseException:
        if attempt is not None and _negotiator.has(attempt):
            _negotiator._wake()  # it has begun: a signal came right behind
        else:
            if attempt is not None:
                _take_back(sock, attempt, watchers)
            for one in (own, placeholder, peer):
                if one is not None:
                    one.close()
        raise
    return attempt


def _take_back(sock: socket.socket, attempt: Attempt, watchers: list[Any]) -> None:
    """Put what `sock` has had under its number again; the thread has not heard of it."""
    attempt.announced = True
    if _fileno(sock) != -1:  # else another thread has closed it
        put_under_watch(attempt.own, sock, watchers, keep=True)
    _leave(sock)


def _full_pair() -> tuple[socket.socket, socket.socket]:
    """A placeholder that is not writable, and the other end, which can change that."""
    placeholder, peer = socket.socketpair()
    try:
        placeholder.setblocking(False)
        peer.setblocking(False)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALLEST_BUFFER)
        filling = bytes(2048)
        while True:
            placeholder.send(filling)
    except BlockingIOError:
        return placeholder, peer
    except BaseException:
        placeholder.close()
        peer.close()
        raise


def _close(sock: socket.socket) -> None:
    try:
        sock.close()
    except OSError:  # somebody else has
        pass


def _drain(peer: socket.socket) -> None:
    try:
        while peer.recv(65536):
            pass
    except OSError:  # empty, or the application has closed its end
        pass


class _State:
    """What a pending socket knows.

    Attributes:
        askers: the selectors that have asked for the socket's number.
    """

    __slots__ = ("_cancel", "askers", "attempt", "home", "on_success", "target")

    def __init__(
        self,
        attempt: Connecting,
        home: type,
        target: tuple[Any, ...],
        on_success: Callable[[Any, Any, Dial, tuple[Any, ...]], None],
    ) -> None:
        self._cancel = _negotiator.cancel
        self.attempt = attempt
        self.home = home
        self.target = target
        self.on_success = on_success
        self.askers: list[selectors.BaseSelector] = []

    def arm(self) -> None:
        """From now on there is something to give up."""
        self.__class__ = _Live

    def disarm(self) -> None:
        self.__class__ = _State


class _Live(_State):
    """The same while there is something to give up when the socket is dropped without close().

    It ends with the socket. A weak reference to that would not do: in a reference cycle it is
    garbage itself, and never calls back.
    """

    __slots__ = ()

    def __del__(self) -> None:
        self._cancel(self.attempt)


def inherit(heir: Any, failed: _State) -> None:
    """An SSLSocket that has taken over a socket whose connect has failed is to say so."""
    heir._pending = _State(failed.attempt, type(heir), failed.target, failed.on_success)
    heir.__class__ = _pending_guise(type(heir))


# Threads may share a socket: one settles or closes it at a time. Reentrant, as the garbage
# collector may close another one at any moment.
_settling = threading.RLock()


def _settle(sock: Any) -> tuple[int, Any]:
    """Where `sock` stands, and its state; if the handshake is over, puts the real descriptor there.

    When this says `_CONNECTED`, the class is the own one again: call the method anew. (Another
    thread may have seen to it, or closed the socket: then that method will say so.)
    """
    state = sock.__dict__.get("_pending")
    if state is not None and not state.attempt.done:
        return _UNDER_WAY, state
    watchers = []
    if state is not None and state.attempt.own.fileno() != -1:
        watchers = watchers_of(_fileno(sock), state.askers)  # which may take a while
    with _settling:
        state = sock.__dict__.get("_pending")
        if state is None:
            return _CONNECTED, None
        attempt = state.attempt
        if attempt.own.fileno() != -1:
            attempt.own.settimeout(sock.gettimeout())
            put_under_watch(attempt.own, sock, watchers, keep=not attempt.take())
        if isinstance(state, _Live):
            _negotiator.cancel(attempt)  # which closes what is left of it
            state.disarm()
        if attempt.error is not None:
            return _FAILED, state
        state.on_success(sock, attempt.bound, attempt.dial, state.target)
        _keep_tls(sock)
        state.home = at_home(sock, state.home)
        _leave(sock)
        return _CONNECTED, None


def _leave(sock: Any) -> Exception | None:
    """Back to the own class; returns what went wrong, if nobody was told yet."""
    with _settling:
        state = sock.__dict__.get("_pending")
        if state is None:
            return None
        sock.__class__ = state.home
        del sock._pending
        error: Exception | None = state.attempt.error
        if isinstance(error, ProxyError):
            sock.last_error = error
        return error


def _wait(sock: socket.socket, timeout: float | None) -> None:
    """Wait until the handshake is over, as long as the socket's timeout says."""
    state = sock.__dict__.get("_pending")
    deadline = None if timeout is None else monotonic() + timeout
    while state is not None and not state.attempt.done:
        if timeout == 0:
            raise os_error(errno.EAGAIN)
        if not wait(sock, POLLOUT, deadline):
            raise TimeoutError("timed out")
        if _fileno(sock) == -1:  # by another thread
            raise os_error(errno.EBADF)


def _wait_until_over(sock: socket.socket, timeout: float | None) -> None:
    """Wait, then settle; raises the handshake's error."""
    _wait(sock, timeout)
    if _settle(sock)[0] == _FAILED:
        raise _leave(sock) or os_error(errno.ENOTCONN)


class Pending(Plain):
    """The methods of a socket while its connect is under way."""

    _pending: _State
    raises_failure: bool
    _own_options: Callable[[], Options]

    def fileno(self) -> int:
        """As ever; and who asks may be about to watch that number."""
        state = self.__dict__.get("_pending")
        selector = selector_that_asks(sys._getframe(1))
        if selector is not None and state is not None and selector not in state.askers:
            state.askers.append(selector)
            remember(selector)
        return super().fileno()

    # -- connecting

    def connect(self, address: Any, *, early_data: Buffer = b"") -> None:
        state = self.__dict__.get("_pending")
        if state is None:
            _connect_anew(self, address, early_data)
            return
        timeout = self.gettimeout()
        if timeout == 0 and not state.attempt.done:
            raise os_error(errno.EALREADY)
        _wait_until_over(self, timeout)
        if _fileno(self) == -1:  # another thread has closed it
            raise os_error(errno.EBADF)
        if state.attempt.error is not None:  # another thread was told why
            raise os_error(errno.ENOTCONN)
        if early_data:  # they would have to have come earlier
            raise os_error(errno.EISCONN)

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except OSError as exc:
            return system_errno(exc)
        return 0

    def getsockopt(self, level: int, option: int, *length: int) -> Any:
        is_error = (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        where, state = _settle(self)
        if where == _CONNECTED:
            return self.getsockopt(level, option, *length)
        if where == _FAILED:
            if is_error:
                error = _leave(self)
                if error is not None and (self.raises_failure or _passes_errors_on()):
                    raise error
                return 0 if error is None else system_errno(error)
            return state.home.getsockopt(self, level, option, *length)
        return 0 if is_error else state.attempt.own.getsockopt(level, option, *length)

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        where, state = _settle(self)
        if where == _CONNECTED:
            self.setsockopt(level, option, *value)
        elif where == _FAILED:
            state.home.setsockopt(self, level, option, *value)
        else:
            self._own_options()[level, option] = value
            state.attempt.set_option(level, option, *value)

    # -- who is there

    def getpeername(self) -> Any:
        if _settle(self)[0] != _CONNECTED:
            raise os_error(errno.ENOTCONN)
        return self.getpeername()

    @property
    def proxy_peername(self) -> Any:
        return None if _settle(self)[0] != _CONNECTED else self.proxy_peername

    @property
    def proxy_sockname(self) -> Any:
        return None if _settle(self)[0] != _CONNECTED else self.proxy_sockname

    def getsockname(self) -> Any:
        where, state = _settle(self)
        if where == _CONNECTED:
            return self.getsockname()
        if where == _FAILED:
            return state.home.getsockname(self)
        return state.attempt.own.getsockname()

    # -- the end

    def shutdown(self, how: int) -> None:
        if _settle(self)[0] != _CONNECTED:
            raise os_error(errno.ENOTCONN)
        self.shutdown(how)

    def _real_close(self, *arguments: Any) -> None:
        state = self.__dict__.get("_pending")
        _leave(self)
        if state is not None:
            _negotiator.cancel(state.attempt)
        self._real_close(*arguments)


def _connect_anew(sock: Any, address: Any, early_data: Buffer) -> None:
    """An SSLSocket's connect takes no early data."""
    if early_data:
        sock.connect(address, early_data=early_data)
    else:
        sock.connect(address)


def _keep_tls(sock: Any) -> None:
    """Make the TLS of an SSLSocket anew: its connect() drops it when it raises, as for EINPROGRESS.

    Without it the socket is a plain one, and what is sent next would go out in clear.
    """
    if getattr(sock, "_sslobj", sock) is None:
        sock._sslobj = sock.context._wrap_socket(
            sock, False, sock.server_hostname, owner=sock, session=sock._session
        )
        sock._connected = True


def system_errno(error: BaseException | None) -> int:
    """The errno a kernel could have reported: a resolver's numbers are not."""
    number = getattr(error, "errno", None) or errno.EIO
    return errno.EHOSTUNREACH if isinstance(error, socket.gaierror) else number


# They make an OSError of a number, and pass on what getsockopt raises: that says more.
_PASS_ERRORS_ON = ("asyncio.selector_events", "trio._socket")


def _passes_errors_on() -> bool:
    """Whether who has called `getsockopt` does."""
    return sys._getframe(2).f_globals.get("__name__") in _PASS_ERRORS_ON


def _when_connected(name: str) -> Callable[..., Any]:
    """What moves data waits for the connection, like the kernel would."""

    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        _wait_until_over(self, self.gettimeout())
        return getattr(self, name)(*arguments, **options)

    return method


def _when_over(name: str) -> Callable[..., Any]:
    """A copy of the placeholder would be of no use. One of a failure knows of it, too."""

    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        _wait(self, None)
        where, state = _settle(self)
        if where != _FAILED:
            return getattr(self, name)(*arguments, **options)
        try:
            return getattr(state.home, name)(self, *arguments, **options)
        finally:
            if _fileno(self) == -1:  # what is left of it needs not know
                _leave(self)

    return method


def _not_now(name: str) -> Callable[..., Any]:
    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        where, _ = _settle(self)
        if where == _UNDER_WAY:
            raise os_error(errno.EALREADY)
        if where == _FAILED:
            _leave(self)
        return getattr(self, name)(*arguments, **options)

    return method


_front = {
    **{name: _when_connected(name) for name in (*DATA, *DATA_OF_TLS)},
    **{name: _when_over(name) for name in COPIES},
    **{name: _not_now(name) for name in OTHER},
}


# The same for who has got behind the front, by super(): then it is the base class' own method.


def _base_when_connected(name: str) -> Callable[..., Any]:
    base = getattr(Plain, name)

    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        _wait_until_over(self, self.gettimeout())
        return base(self, *arguments, **options)

    return method


def _base_when_over(name: str) -> Callable[..., Any]:
    base = getattr(Plain, name)

    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        _wait(self, None)
        _settle(self)
        return base(self, *arguments, **options)

    return method


def _base_if_settled(name: str) -> Callable[..., Any]:
    base = getattr(Plain, name)

    def method(self: Pending, *arguments: Any, **options: Any) -> Any:
        if _settle(self)[0] == _UNDER_WAY:
            raise os_error(errno.ENOTCONN)
        return base(self, *arguments, **options)

    return method


_Behind = type(
    "_Behind",
    (Plain,),
    {
        **{name: _base_when_connected(name) for name in DATA},
        **{name: _base_when_over(name) for name in COPIES if hasattr(Plain, name)},
        **{name: _base_if_settled(name) for name in ("getpeername", "shutdown")},
    },
)
_guises: dict[type, type] = {}


def _pending_guise(home: type) -> type:
    """The class that a socket of class `home` has while it is pending."""
    found = _guises.get(home)
    if found is None:
        found = _guises[home] = guise(home, Pending, _Behind, _front)
    return found


class _Negotiator:
    """The thread that drives every pending attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # over starting and ending the thread
        self._reset()

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._inbox: deque[tuple[Errand, bool]] = deque()  # True: begin, False: cancel
        self._attempts: set[Errand] = set()
        self._timers: list[tuple[float, int, Errand, Wait]] = []
        self._untouched: deque[tuple[float, Errand, Generator[Wait, bool, Any]]] = deque()
        self._numbers = itertools.count()
        self._stopping = False

    def submit(self, attempt: Errand) -> None:
        """Take over an attempt.

        Raises:
            OSError: there are no descriptors left.
            RuntimeError: there is no thread to be had.
        """
        with self._lock:
            if self._thread is None:
                self._start()
            self._inbox.append((attempt, True))
            self._wake()

    def has(self, attempt: Errand) -> bool:
        """Whether the thread has been given it: `submit` may be interrupted by a signal."""
        # in this order: it begins before it leaves the inbox
        in_inbox = any(one is attempt and begins for one, begins in tuple(self._inbox))
        return in_inbox or attempt.begun

    def _start(self) -> None:
        with ExitStack() as undo:
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._ear, self._mouth = socket.socketpair()
            undo.enter_context(self._ear)
            undo.enter_context(self._mouth)
            self._ear.setblocking(False)
            self._mouth.setblocking(False)
            self._selector.register(self._ear, selectors.EVENT_READ)
            remember(self._selector)
            undo.callback(setattr, self, "_thread", None)
            self._thread = threading.Thread(target=self._run, name="socksy-negotiator", daemon=True)
            self._thread.start()  # it waits for our lock: until then this can be undone
            undo.pop_all()

    def cancel(self, attempt: Errand) -> None:
        """Give up an attempt, whatever its state. Takes no lock: the garbage collector calls it."""
        # Never closed while the thread may use it: its number may be another socket's already.
        if attempt.announced and attempt.take():
            attempt.release()
        else:
            self._inbox.append((attempt, False))
            self._wake()

    def _wake(self) -> None:
        try:
            self._mouth.send(b"\0")
        except OSError:  # full: it wakes up anyway; closed: it is gone, and so are its attempts
            pass

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return
        try:
            self._work()
        except BaseException as exc:  # somebody has closed every descriptor, say
            self._break_down(exc)
            raise

    def _work(self) -> None:
        while True:
            events = self._selector.select(self._patience())
            for key, _ in events:
                if key.data is None:
                    _drain(self._ear)
                else:
                    self._resume(key.data, True)
            self._expire()
            self._read_inbox()
            is_idle = not events and not self._untouched
            if not self._attempts and (self._stopping or is_idle) and self._ended():
                return

    def _ended(self) -> bool:
        with self._lock:
            if self._inbox:
                return False
            self._close()
            self._thread = None
            self._timers.clear()
            self._untouched.clear()
            return True

    def _close(self) -> None:
        for one in (self._selector, self._ear, self._mouth):
            try:
                one.close()
            except OSError:  # somebody else has
                pass

    def _break_down(self, exc: BaseException) -> None:
        """Everything under way has failed; the next attempt gets a new thread."""
        with self._lock:
            attempts, inbox = self._attempts, self._inbox
            self._close()
            self._reset()
        for attempt in attempts:
            self._fail(attempt, exc)
        for attempt, begins in inbox:
            if begins:
                self._fail(attempt, exc)
            else:
                attempt.release()

    def _fail(self, attempt: Errand, exc: BaseException) -> None:
        attempt.waiting = None
        attempt.end_task()
        if attempt.done:  # with what comes afterwards
            attempt.let_go()
        else:
            attempt.error = OSError(errno.EIO, f"the thread of all connects has ended: {exc!r}")
            attempt.done = True
            attempt.announce()
        attempt.announced = True

    def _patience(self) -> float | None:
        if not self._attempts:
            if self._stopping:
                return 0
            if not self._untouched:
                return _IDLE
        soonest = [events[0][0] for events in (self._timers, self._untouched) if events]
        return max(0.0, min(soonest) - monotonic()) if soonest else None

    def _read_inbox(self) -> None:
        while self._inbox:
            attempt, begins = self._inbox[0]
            if begins:  # always in one of the two: a fork may come at any moment
                self._attempts.add(attempt)
                attempt.begun = True
                self._inbox.popleft()
                if attempt.task is None:  # cancelled first
                    self._attempts.discard(attempt)
                else:
                    self._resume(attempt, True)
            else:
                self._inbox.popleft()
                self._forget_wait(attempt)
                self._attempts.discard(attempt)
                attempt.release()

    def _expire(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, attempt, waiting = heapq.heappop(self._timers)
            if attempt.waiting is waiting:
                self._resume(attempt, False)
        while self._untouched and self._untouched[0][0] <= now:
            _, attempt, more = self._untouched.popleft()
            if attempt.take_back():
                attempt.task = more
                attempt.announced = attempt.started = False
                self._attempts.add(attempt)
                self._resume(attempt, True)

    def _forget_wait(self, attempt: Errand) -> None:
        if attempt.waiting is not None:
            self._selector.unregister(attempt.waiting[0])
            attempt.waiting = None

    def _resume(self, attempt: Errand, ready: bool) -> None:
        """Let an attempt go on until it has to wait again, or is over."""
        self._forget_wait(attempt)
        try:
            waiting = attempt.task.send(ready if attempt.started else None)
            attempt.started = True
            self._watch(attempt, waiting)
        except StopIteration as stop:
            attempt.bound = stop.value
            self._finish(attempt)
        except Exception as exc:
            attempt.end_task()
            if not attempt.done:
                # whoever asks will raise it in another thread
                attempt.error = exc.with_traceback(None)
            self._finish(attempt)

    def _watch(self, attempt: Errand, waiting: Wait) -> None:
        sock, event, until = waiting
        mask = selectors.EVENT_READ if event == POLLIN else selectors.EVENT_WRITE
        self._selector.register(sock, mask, attempt)
        attempt.waiting = waiting
        if until is not None:
            if len(self._timers) > 2 * len(self._attempts) + 64:  # mostly of what is over
                self._timers = [timer for timer in self._timers if timer[2].waiting is timer[3]]
                heapq.heapify(self._timers)
            heapq.heappush(self._timers, (until, next(self._numbers), attempt, waiting))

    def _finish(self, attempt: Errand) -> None:
        if attempt.done:  # with what comes afterwards
            attempt.let_go()
        else:
            attempt.done = True
            attempt.announce()
            more = attempt.afterwards()
            if more is not None:
                self._untouched.append((monotonic() + _UNTOUCHED, attempt, more))
        attempt.announced = True
        self._attempts.discard(attempt)

    def stop(self) -> None:
        """At exit: release everything that is still pending."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            for attempt in list(self._attempts):
                self._inbox.append((attempt, False))
            self._stopping = True
            self._wake()
            thread.join(1)

    def after_fork_in_child(self) -> None:
        """The thread is not here, and what it drove belongs to the parent: it has failed for us.

        The placeholders stay full: draining them would wake the parent's loop, which shares them.
        """
        attempts = {*self._attempts, *(attempt for attempt, begins in self._inbox if begins)}
        if self._thread is not None:
            self._close()
        global _settling
        _settling = threading.RLock()
        self._lock = threading.Lock()
        self._reset()
        for attempt in attempts:
            if not attempt.done:
                attempt.error = ConnectionAbortedError(
                    errno.ECONNABORTED, "the process forked while the connect was pending"
                )
                attempt.disown()
                attempt.done = True
            elif not attempt.announced:  # what comes afterwards does not come
                attempt.let_go()
            attempt.waiting = None
            attempt.announced = True


_negotiator = _Negotiator()
submit, cancel = _negotiator.submit, _negotiator.cancel
atexit.register(_negotiator.stop)
os.register_at_fork(after_in_child=_negotiator.after_fork_in_child)
