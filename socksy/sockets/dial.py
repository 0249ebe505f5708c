"""Getting through: one deadline over resolving, the proxy's addresses, all hops, the handshake.

Written once, for every way of waiting: what may have to wait is a generator that yields a `Wait`
and is sent whether that came about before its time was up. `run` drives it with `poll` in the
caller's thread; `pending` drives hundreds of them in one thread of its own.

With a deadline the descriptor is non-blocking for the whole time, so that a server dripping bytes
cannot stretch it; without one, there is nothing to yield: plain blocking calls.

The descriptor of the application's socket is used where its family fits the proxy. Where it does
not fit, or was spent on an address that failed, a *spare* is made like it, which ends up under the
same number. To other threads the socket is `Busy` meanwhile.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from functools import partial
from time import monotonic

from ..errors import (
    ProxyConnectionError,
    ProxyError,
    ProxyProtocolError,
    ProxyReplyError,
    ProxyTimeoutError,
)
from ..hosts import pack_ip
from ..protocol import handshake, name_the_leg, predictor, tunnel
from ..protocol.steps import NOWHERE, REPLY, Step, closed_early, timed_out
from ..proxy import SOCKS4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator
    from typing import Any, NoReturn, TypeAlias

    from ..protocol import Leg
    from ..protocol.steps import Address, Handshake, Prediction
    from ..proxy import Chain, Proxy
    from .lookup import Endpoint
    from .options import Options
    from .stream import SocksSocket

    #: a socket, the `poll` event it should have, and until when (None: for ever)
    Wait: TypeAlias = "tuple[socket.socket, int, float | None]"
    Attempting: TypeAlias = "Callable[[Chain, str, int, int], Generator[Wait, bool, Address]]"

#: Seconds after which a connect that nobody waits for fails with ETIMEDOUT. A plain socket takes
#: about two minutes; Tor may need that long to build a circuit.
PATIENCE = 180.0

CONNECTING = "the connection to the proxy"

# The base class' own: on a SocksSocket connect would lead back here, and an SSLSocket that is about
# to connect would encrypt what is meant for the proxy.
_connect = socket.SocketType.connect
_connect_ex = socket.SocketType.connect_ex
send = socket.SocketType.send
recv = socket.SocketType.recv
_setblocking = socket.SocketType.setblocking
_settimeout = socket.SocketType.settimeout
_bind = socket.SocketType.bind
_getsockname = socket.SocketType.getsockname
# The C member; socket.family makes an enum of it, in Python.
family_of: Callable[[socket.socket], int] = socket.SocketType.family.__get__

# Windows cannot put one socket under the number of another: a non-blocking connect waits there.
CAN_REPLACE = sys.platform != "win32"
_CONNECT = 1  # as in `protocol.codes`
POLLIN, POLLOUT = select.POLLIN, select.POLLOUT
_IPV4 = socket.AF_INET
_INET = (socket.AF_INET, socket.AF_INET6)
MSG_PEEK = int(socket.MSG_PEEK)
_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK)
# What send() says of a connection that was there.
_BROKEN = (errno.ECONNRESET, errno.EPIPE)
_IN_USE = (errno.EISCONN, errno.EALREADY)
# How much of a head is looked at: most are shorter, and what is larger comes from malloc().
_GLANCE = 448
#: Seconds; poll() counts milliseconds in a C int, and settimeout() takes more than fit there.
_LONGEST = 2_000_000.0


def watching(sock: socket.socket, event: int) -> select.poll:
    """A poll object for `event`; EBADF if another thread has closed the socket."""
    poller = select.poll()
    try:
        poller.register(sock, event)
    except ValueError:
        raise os_error(errno.EBADF) from None
    return poller


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def wait(sock: socket.socket, event: int, deadline: float | None) -> bool:
    """Wait for `event` (POLLIN or POLLOUT) until the deadline; False if that passes first."""
    poller = watching(sock, event)
    if deadline is None:
        return bool(poller.poll())
    left = deadline - monotonic()
    # poll() goes on after a signal with what is left; it counts milliseconds and rounds up
    return left > 0 and bool(poller.poll(left * 1000))


def is_in_use(sock: socket.socket) -> bool:
    """Whether a descriptor is connected already, or listens."""
    try:
        socket.SocketType.getpeername(sock)
    except OSError:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
    return True


def run(task: Generator[Wait, bool, Any]) -> Any:
    """Drive a task to its end in this thread, and return its result."""
    watched, awaited = None, 0
    try:
        sock, event, until = next(task)
        while True:
            if sock is not watched or event != awaited:
                poller = watching(sock, event)
                watched, awaited = sock, event
            left = None if until is None else (until - monotonic()) * 1000
            # poll() goes on after a signal with what is left; it rounds milliseconds up
            ready = bool((left is None or left > 0) and poller.poll(left))
            sock, event, until = task.send(ready)
    except StopIteration as stop:
        return stop.value
    finally:
        task.close()  # Ctrl-C while waiting: let it clean up now


class Tunnel:
    """What a connected socket knows of its way.

    Attributes:
        target: what `getpeername` tells.
        bound: BND.ADDR and BND.PORT of the last reply.
        legs: who was asked for what, the nearest proxy first.
        names: as in `Dial`.
        over_unix: the connection is one to a Unix socket.
    """

    # As in `Dial`: what most of them have is in a slot. Filled by who makes it, without a call.
    __slots__ = ("__dict__", "bound", "legs", "target")

    target: tuple[Any, ...]
    bound: Address
    legs: tuple[Leg, ...]
    names: tuple[Any, Any] | None = None
    over_unix = False


class Dial:
    """One attempt of one socket to get through to a target.

    Args:
        own: the application's socket, unconnected.
        timeout: seconds for all of it, or None.
        local: where the application bound it, if it did.
        options: what the application has set on it.

    Attributes:
        deadline (float | None): on the clock of `time.monotonic`.
        legs: who was asked for what, the nearest proxy first.
        names: the own and the other end's address, if the descriptor came from a spare: the own
            object cannot read addresses of another family.
        spare: a descriptor made like the own one, if that did not do.
        early_data: the application's first bytes, to go out with the last request.
        at_once, trial, late_data: which proxies get all messages at once, in how many seconds they
            must have answered then, and what is sent after that (see `pipelining`).
    """

    # Thousands may be under way: what each of them has is in a slot, the rest mostly of the class.
    __slots__ = ("__dict__", "_local", "_options", "_own", "_spent", "deadline", "legs")

    legs: tuple[Leg, ...]
    names: tuple[Any, Any] | None = None
    spare: socket.socket | None = None
    early_data = b""
    late_data = b""
    at_once: Container[Proxy] = ()
    trial: float | None = None

    def __init__(
        self,
        own: socket.socket,
        timeout: float | None,
        local: tuple[Any, ...] | None,
        options: Options,
    ) -> None:
        self._own = own
        self._local = local
        self._options = options
        self._spent = False
        self.legs = ()
        self.deadline = None if timeout is None else monotonic() + min(timeout, _LONGEST)

    def disown(self) -> None:
        """After a fork, in the child: nothing that was made here is ours to clean up."""
        if self.spare is not None:
            self.spare.close()
            self.spare = None
        self._spent = False

    def _fits(self, chain: Chain, host: str) -> bool:
        """Whether nothing is special, as for `straight`, on a non-blocking socket."""
        proxy = chain[0]
        return (
            proxy.straight is not None
            and len(chain) == 1
            and family_of(self._own) == _IPV4
            and self._local is None
            and not (proxy.local_dns and pack_ip(host) is None)
            and self.deadline is not None
            and self._own.gettimeout() == 0
        )

    def through(
        self, chain: Chain, host: str, port: int, command: int
    ) -> Generator[Wait, bool, Address]:
        """Get through; the task returns BND.ADDR and BND.PORT.

        Whatever it raises, no connection is left behind: the application's descriptor is
        unconnected again, and its timeout as it was.
        """
        if self._fits(chain, host):
            return self._straight(chain[0], host, port, command)
        return self._by_any_way(chain, host, port, command)

    def _straight(
        self, proxy: Proxy, host: str, port: int, command: int
    ) -> Generator[Wait, bool, Address]:
        """`_by_any_way` if nothing is special. Thousands may be in here: it is one generator."""
        self.legs = legs = ((proxy, host, port),)
        try:
            talk = handshake(legs[0], command, self.early_data)
        except ProxyError as error:
            name_the_leg(error, legs, 0)
            raise
        return drive(self._own, talk, self.deadline, self)

    def begin(self) -> int:
        """Start connecting the own descriptor to the only proxy; returns what `connect_ex` does."""
        endpoint = self.legs[0][0].endpoint
        assert endpoint is not None
        self._spent = True
        return _connect_ex(self._own, endpoint)

    def not_connected(self, number: int) -> NoReturn:
        """What has become of that, if it is neither 0 nor under way."""
        self._spent = number not in _IN_USE
        raise _no_connection(number)

    def give_up(self, error: BaseException) -> None:
        """Say in the error whose it is, and leave no connection behind."""
        if isinstance(error, ProxyError):
            name_the_leg(error, self.legs, 0)
        if self._spent:
            self._renew()

    def _by_any_way(
        self, chain: Chain, host: str, port: int, command: int
    ) -> Generator[Wait, bool, Address]:
        own = self._own
        timeout = own.gettimeout()
        attempt: Attempting = self.attempt
        if any(proxy.pipelined for proxy in chain):
            from . import pipelining

            attempt = partial(pipelining.attempt, self)
            if self.deadline is None:  # silence must be found out all the same
                self.deadline = monotonic() + _LONGEST
        # On a socket that is not blocking as it is, this costs no system calls.
        switched = timeout != 0 and self.deadline is not None
        try:
            if switched:
                own.setblocking(False)
            if chain[-1].local_dns and pack_ip(host) is None:
                bound = yield from self._try_each_address(attempt, chain, host, port, command)
            else:
                bound = yield from attempt(chain, host, port, command)
            if self.spare is not None:
                if timeout is None:
                    self.spare.setblocking(True)
                from .options import put_under

                self._spent = True  # from now on, if Ctrl-C comes in between
                put_under(self.spare, own)
            return bound
        except BaseException:
            self._drop_the_spare()
            if self._spent:
                self._renew()
            raise
        finally:
            if switched:
                own.settimeout(timeout)

    def _try_each_address(
        self, attempt: Attempting, chain: Chain, host: str, port: int, command: int
    ) -> Generator[Wait, bool, Address]:
        """Local DNS: ask for one address after the other, as a plain socket would."""
        from .lookup import target_addresses

        family = socket.AF_INET if chain[-1].scheme == SOCKS4 else 0
        addresses = yield from target_addresses(host, port, family, self.deadline)
        for address in addresses[:-1]:
            try:
                return (yield from attempt(chain, address, port, command))
            except (ProxyReplyError, ProxyProtocolError) as error:
                # The last proxy refused this address, or hung up when asked, as OpenSSH does.
                if error.phase != REPLY or error.hop != error.hops:
                    raise
        return (yield from attempt(chain, addresses[-1], port, command))

    def attempt(
        self, chain: Chain, host: str, port: int, command: int
    ) -> Generator[Wait, bool, Address]:
        """Ask once, over a connection of its own; returns BND.ADDR and BND.PORT."""
        single = len(chain) == 1
        if single:
            legs: tuple[Leg, ...] = ((chain[0], host, port),)
        else:
            legs = yield from self._legs(chain, host, port)
        self.legs = legs
        try:
            # what cannot be asked is refused here, before we connect
            if single:
                talk = handshake(legs[0], command, self.early_data, chain[0] in self.at_once)
            else:
                talk = tunnel(legs, command, self.early_data, self.at_once)
            sock = yield from self._reach(chain[0])
            deadline = self.deadline
            if self.trial is not None and deadline is not None:
                deadline = min(deadline, monotonic() + self.trial)
            bound: Address = yield from drive(sock, talk, deadline)
            if self.late_data:
                yield from _send(sock, Step(self.late_data, 0, REPLY), 0, self.deadline)
            return bound
        except ProxyError as error:
            if error.proxy is None:
                name_the_leg(error, legs, 0)
            raise

    def _legs(self, chain: Chain, host: str, port: int) -> Generator[Wait, bool, tuple[Leg, ...]]:
        """Who is asked for what; the name of a hop is looked up if the proxy before wants that."""
        from .lookup import target_addresses

        legs: list[Leg] = []
        for proxy, following in zip(chain, chain[1:]):  # noqa: B905, RUF007 - the last has none
            name = following.host
            if proxy.local_dns and pack_ip(name) is None:
                family = socket.AF_INET if proxy.scheme == SOCKS4 else 0
                found = yield from target_addresses(name, following.port, family, self.deadline)
                name = found[0]
            legs.append((proxy, name, following.port))
        return (*legs, (chain[-1], host, port))

    def _reach(self, proxy: Proxy) -> Generator[Wait, bool, socket.socket]:
        """A connection to the nearest proxy: the first of its addresses that answers.

        Each address has an equal share of the time that is left.

        Raises:
            OSError: EISCONN, EALREADY: the application's descriptor is in use, and stays as it is.
        """
        if proxy.endpoint is not None:
            endpoints: list[Endpoint] = [(_IPV4, proxy.endpoint)]
        else:
            from .lookup import proxy_endpoints

            endpoints = yield from proxy_endpoints(proxy, self.deadline)
        for left in range(len(endpoints), 0, -1):
            family, address = endpoints[-left]
            try:
                sock = self._socket_for(family)
                if self.deadline is None:
                    _connect(sock, address)
                else:
                    yield from self._connect(sock, address, self.deadline, left)
                if sock is self.spare:  # now: a reset may come right behind the reply
                    self.names = sock.getsockname(), sock.getpeername()
                return sock
            except OSError as exc:
                self._leave_alone_if_in_use(exc)
                if left == 1:
                    raise _unreachable(exc, len(endpoints)) from exc
        raise ProxyConnectionError(errno.EHOSTUNREACH, "the proxy's name has no address")

    def _leave_alone_if_in_use(self, exc: OSError) -> None:
        """Raise at once, and keep what the application is connected to by other ways."""
        if exc.errno in _IN_USE:
            self._spent = False
            raise exc

    def _socket_for(self, family: int) -> socket.socket:
        own = self._own
        if own.fileno() == -1:  # a spare would get through all the same
            raise os_error(errno.EBADF)
        self._drop_the_spare()
        if not self._spent and family_of(own) == family:
            self._spent = True
            if self._local is not None and _getsockname(own)[1] == 0:
                _bind(own, self._local)  # it could not be had again after a failure
            return own
        if not self._spent and is_in_use(own):
            raise os_error(errno.EISCONN)
        from .options import bind_like, set_again

        self.spare = spare = socket.socket(family, socket.SOCK_STREAM)
        set_again(self._options, spare)
        if self._local is not None:
            if self._local[1]:
                self._free_the_port()
            bind_like(self._local, spare)
        spare.setblocking(self.deadline is None)  # whatever the default is
        return spare

    def _drop_the_spare(self) -> None:
        spare = self.spare
        if spare is not None:
            if self._local is not None:
                from .options import reset_on_close

                reset_on_close(spare)
            spare.close()
            self.spare = None

    def _free_the_port(self) -> None:
        """Two descriptors cannot be bound to one port: the own one lets go of it."""
        from .options import put_under, reset_on_close, unconnected_like

        self._spent = True
        fresh = unconnected_like(self._own)
        reset_on_close(self._own)
        put_under(fresh, self._own)

    def _connect(
        self, sock: socket.socket, address: Any, deadline: float, left: int
    ) -> Generator[Wait, bool, None]:
        number = _connect_ex(sock, address)
        if number == errno.EAGAIN and family_of(sock) not in _INET:
            number = yield from _try_again(sock, address, deadline)
        if number in _IN_PROGRESS:
            if left > 1:
                now = monotonic()
                deadline = now + (deadline - now) / left
            if not (yield sock, POLLOUT, deadline):
                raise ProxyTimeoutError(phase=CONNECTING)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise os_error(number)

    def _renew(self) -> None:
        """Put a fresh descriptor under the application's number.

        A tunnel that was not finished must never carry application data: now send and recv fail as
        on any socket that is not connected, and connect may be tried again.

        Raises:
            OSError: EBADF, another thread has closed the socket.
        """
        from .options import put_under, reset_on_close, set_again, unconnected_like

        own, local = self._own, self._local
        if own.fileno() == -1:
            raise os_error(errno.EBADF)
        try:
            fresh = unconnected_like(own)
            try:
                set_again(self._options, fresh)
                if local is not None:
                    reset_on_close(own)  # the port is wanted again
                put_under(fresh, own)
            finally:
                fresh.close()
        except OSError:  # out of descriptors, say
            cut_off(own)
            return
        if local is not None:
            try:
                _bind(own, local)
            except OSError:  # somebody was faster: the next connect tries again, and says so
                pass

    def set_option(self, level: int, option: int, *value: Any) -> None:
        """Set while this goes on, and already on the own one: on the spare, too."""
        if self.spare is not None:
            from .options import set_again

            set_again({(level, option): value}, self.spare)

    def abandon(self) -> None:
        """Nobody knows of the connection: a signal came after the handshake had succeeded."""
        if self._spent and self._own.fileno() != -1 and is_in_use(self._own):
            self._renew()


def cut_off(own: socket.socket) -> None:
    """Make a descriptor useless: nothing can be sent, and nothing of the proxy's read."""
    try:
        socket.SocketType.shutdown(own, socket.SHUT_RDWR)
    except OSError:  # not connected, or no more: something may have come before that
        pass
    try:
        while recv(own, 65536):
            pass
    except OSError:  # nothing more will come
        pass


def _try_again(sock: socket.socket, address: Any, deadline: float) -> Generator[Wait, bool, int]:
    """connect_ex to a Unix socket with more connections waiting than it takes, until it takes ours.

    The kernel says EAGAIN, which is final, and poll() does not say when to ask again.
    """
    pause = 0.001
    never, other = socket.socketpair()
    with never, other:
        while (number := _connect_ex(sock, address)) == errno.EAGAIN:
            if monotonic() >= deadline:
                raise ProxyTimeoutError(phase=CONNECTING)
            yield never, POLLIN, min(deadline, monotonic() + pause)
            pause = min(2 * pause, 0.1)
    return number


def _no_connection(number: int) -> OSError:
    """What a connect to the only address has come to: EISCONN as it is, else with the proxy."""
    exc = os_error(number)
    if number in _IN_USE:
        return exc
    error = _unreachable(exc, 1)
    error.__cause__ = exc
    return error


def _unreachable(exc: OSError, addresses: int) -> ProxyError:
    if isinstance(exc, ProxyError):
        return exc
    if isinstance(exc, TimeoutError) and exc.errno is None:  # Python's own, from a timeout
        return ProxyTimeoutError(phase=CONNECTING)
    text = exc.strerror or str(exc)
    if addresses > 1:
        text += f" (the last of {addresses} addresses)"
    hint = None
    if exc.errno == errno.ECONNREFUSED:
        hint = "Nothing listens there: is the proxy running, and is this its port?"
    return ProxyConnectionError(
        exc.errno or errno.EHOSTUNREACH, f"cannot connect to the proxy: {text}", hint=hint
    )


def drive(
    sock: socket.socket,
    talk: Handshake[Any],
    deadline: float | None,
    dial: Dial | None = None,
    step: Step | None = None,
) -> Generator[Wait, bool, Any]:
    """Run a client's handshake over a connected socket, and return its result.

    Args:
        deadline: if not None, the descriptor is non-blocking.
        dial: whose own socket this is, if it is not even connected and nobody else would clean up.
        step: where the handshake stands, if it has begun.
    """
    try:
        if dial is not None:
            number = dial.begin()
            if number in _IN_PROGRESS:
                if not (yield sock, POLLOUT, deadline):
                    raise ProxyTimeoutError(phase=CONNECTING)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                dial.not_connected(number)
        if step is None:
            step = next(talk)
        while True:
            message, got = step.send, b""
            try:
                if message:
                    try:
                        sent = send(sock, message)
                    except BlockingIOError:
                        sent = 0
                    if sent != len(message):
                        yield from _send(sock, step, sent, deadline)
                    # An answer is not here yet; the rest of a message that has begun mostly is.
                    if deadline is not None and not (yield sock, POLLIN, deadline):
                        raise timed_out(step.awaiting)
                try:
                    got = recv(sock, step.need, MSG_PEEK if step.peek else 0)
                    if not got:
                        raise closed_early(step.awaiting, step.already)
                except BlockingIOError:
                    if deadline is None:  # SO_RCVTIMEO
                        raise timed_out(step.awaiting) from None
                if len(got) < step.enough:
                    got = yield from _receive(sock, step, got, bool(got), deadline)
            except OSError as exc:
                talk.throw(_as_proxy_error(exc, step))  # comes out again, knowing its proxy
                raise
            try:
                step = talk.send(got)
            except StopIteration as stop:
                return stop.value
    except BaseException as error:
        if dial is not None:
            dial.give_up(error)
        raise


def straight(
    sock: SocksSocket, proxy: Proxy, target: tuple[str, int], timeout: float | None
) -> None:
    """CONNECT as by `Dial.through`, waiting in this thread, as it mostly goes: in a straight line.

    That is one proxy that is `straight`, for an IPv4 socket that waits and is neither bound nor
    connected: its own descriptor will do.

    Args:
        target: a clean host and a port; `getpeername` tells this very tuple.
        timeout: the socket's own, not 0.
    """
    home: type = sock.__class__
    guise = busy_guises.get(home) or busy_guise(home)  # other threads may use it meanwhile
    host, port = target
    leg = proxy, host, port
    spent = False
    deadline = None
    try:
        sock._busy_with = Dial  # the class itself: it has no spare
        sock.__class__ = guise
        predict = proxy.predict or predictor(proxy)
        prediction = predict(host, port)  # what cannot be asked is refused here
        if timeout is not None:
            deadline = monotonic() + (timeout if timeout < _LONGEST else _LONGEST)
            _setblocking(sock, False)
        spent = True
        number = _connect_ex(sock, proxy.straight)  # type: ignore[arg-type] # not None here
        if number and (deadline is None or number not in _IN_PROGRESS):
            spent = number not in _IN_USE  # else, by other ways, it stays as it is
            raise _no_connection(number)
        bound = _as_predicted(sock, leg, prediction, deadline, number)
        tunnel = Tunnel()
        tunnel.target, tunnel.bound, tunnel.legs = target, bound, (leg,)
        sock._tunnel = tunnel
    except BaseException as exc:
        if sock._tunnel is None:  # else it was a signal, too late
            _fail_straight(sock, leg, spent, exc)
        raise
    finally:
        try:
            if deadline is not None:
                _settimeout(sock, timeout)
        finally:
            sock.__class__ = home
            sock._busy_with = None


def _fail_straight(sock: SocksSocket, leg: Leg, spent: bool, error: BaseException) -> None:
    """Clean up after `straight`, as a `Dial` does; `spent`: its descriptor is."""
    dial = Dial(sock, None, sock._local, sock._options)
    dial.legs = (leg,)
    dial._spent = spent
    dial.give_up(error)
    if isinstance(error, ProxyError):
        sock.last_error = error
        sock._may_go_straight = False  # a success would have to forget it


def _as_predicted(
    sock: socket.socket, leg: Leg, prediction: Prediction, deadline: float | None, number: int
) -> Address:
    """The handshake. As long as the proxy says what it mostly does, there is no step, no generator.

    What they take is little, but comes right after the kernel has let others run: it is paid in
    cache misses. Whatever else happens than was predicted, the real handshake takes over.

    Args:
        number: what `connect_ex` has returned. If the connection is under way, it is not waited
            for: on this machine it is mostly there by now, else send() will say so.
    """
    exchanges, conclude = prediction
    heard: list[bytes] = []
    poller = error = None
    is_usual = True
    for message, length, usual, expected in exchanges:
        sent, got = 0, None
        try:
            if message:
                sent = send(sock, message)
                if sent != len(message):
                    break
                if deadline is not None:
                    if poller is None:
                        poller = select.poll()  # as `watching`, without a call
                        poller.register(sock, POLLIN)
                    left = deadline - monotonic()
                    if left <= 0 or not poller.poll(left * 1000):
                        break
            if not length:  # a head: the rule is that of `http`, here without a call
                seen = recv(sock, _GLANCE, MSG_PEEK)
                length = seen.find(b"\n\r\n") + 3
                if length < 3 or not seen.startswith(expected):
                    break
                if seen.find(b"\n\n", 0, length) >= 0:
                    break
                recv(sock, length)
                continue
            got = recv(sock, length)
        except (OSError, ValueError) as exc:  # ValueError: poll's, if it has been closed
            error = exc
            break
        if got != usual:
            if len(got) != length or not got.startswith(expected):
                break
            is_usual = False
        heard.append(got)
    else:
        return NOWHERE if is_usual else conclude(heard)  # type: ignore[misc] # a head is usual
    if number and not heard and not sent and isinstance(error, OSError):
        error = _make_sure(sock, error, deadline)
    return _take_over(sock, handshake(leg), deadline, heard, sent, got, error)  # type: ignore[no-any-return] # Any: a result


def _make_sure(sock: socket.socket, error: OSError, deadline: float | None) -> OSError | None:
    """Wait until a connection is there, after sending without that has failed.

    Returns:
        What is still wrong: it was there, and is no more.

    Raises:
        ProxyError: it will never be.
    """
    if error.errno in _BROKEN:
        return error
    if not isinstance(error, BlockingIOError) and error.errno != errno.ENOTCONN:  # which BSD says
        raise _unreachable(error, 1) from error
    if not wait(sock, POLLOUT, deadline):
        raise ProxyTimeoutError(phase=CONNECTING)
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise _no_connection(number)
    return None


def _take_over(
    sock: socket.socket,
    talk: Handshake[Any],
    deadline: float | None,
    heard: list[bytes],
    sent: int,
    got: bytes | None,
    error: Exception | None,
) -> Any:
    """`drive`, in this thread, from the middle.

    Args:
        heard: the answers of exchanges that are over.
        sent, got: how much of the next message has left, and what has come; None: nothing yet.
        error: what has come instead.
    """
    step = next(talk)
    for answer in heard:
        step = talk.send(answer)
    try:
        if isinstance(error, ValueError):
            raise os_error(errno.EBADF) from None
        if isinstance(error, BlockingIOError) and deadline is None:  # SO_RCVTIMEO, SO_SNDTIMEO
            raise timed_out(step.awaiting) from None
        if error is not None and not isinstance(error, BlockingIOError):
            raise error
        if sent != len(step.send):
            run(_send(sock, step, sent, deadline))
        if got == b"":
            raise closed_early(step.awaiting, step.already)
        got = run(_receive(sock, step, got or b"", got is not None, deadline))
    except OSError as exc:
        talk.throw(_as_proxy_error(exc, step))
        raise
    try:
        step = talk.send(got)
    except StopIteration as stop:
        return stop.value
    return run(drive(sock, talk, deadline, step=step))


def _send(
    sock: socket.socket, step: Step, sent: int, deadline: float | None
) -> Generator[Wait, bool, None]:
    """Send a step's message, from byte `sent` on."""
    message = memoryview(step.send)[sent:]  # which does not show in a traceback, as a slice would
    while message:
        try:
            message = message[send(sock, message) :]
        except BlockingIOError:
            if deadline is None or not (yield sock, POLLOUT, deadline):  # None: SO_SNDTIMEO
                raise timed_out(step.awaiting) from None


def _receive(
    sock: socket.socket, step: Step, got: bytes, ready: bool, deadline: float | None
) -> Generator[Wait, bool, bytes]:
    """Receive enough of a step's answer, which begins with `got`.

    Args:
        ready: try before waiting.
    """
    while len(got) < step.enough:
        if not ready and deadline is not None and not (yield sock, POLLIN, deadline):
            raise timed_out(step.awaiting)
        try:
            data = recv(sock, step.need - len(got), MSG_PEEK if step.peek else 0)
        except BlockingIOError:
            if deadline is None:  # SO_RCVTIMEO
                raise timed_out(step.awaiting) from None
            ready = False
            continue
        if not data:
            raise closed_early(step.awaiting, step.already + len(got))
        got += data
    return got


def _as_proxy_error(exc: OSError, step: Step) -> ProxyError:
    if isinstance(exc, ProxyError):
        return exc
    error = ProxyProtocolError(
        message=f"the connection to the proxy broke: {exc.strerror}",
        phase=step.awaiting,
        hint=closed_early(step.awaiting, step.already).hint,
    )
    error.__cause__ = exc
    return error


# -- guises

# Classes that a socket has as long as it is in some state. State by object, not by ``if``: the
# methods of a connected socket never ask how far its connect has come.

# As it is when socksy is imported: later a patch may have put a class of ours there.
Plain = socket.socket

# Moves data: needs the connection.
DATA = (
    "send",
    "sendall",
    "sendto",
    "sendmsg",
    "sendfile",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
)
DATA_OF_TLS = "read", "write", "do_handshake", "unwrap"
# Makes another object of the descriptor.
COPIES = "dup", "detach", "share"
# Makes no sense on a connecting socket.
OTHER = "bind", "listen", "accept", "bind_remote", "set_proxy"


def guise(
    home: type, front: type, back: type, methods: dict[str, Any], combine: Any = None
) -> type:
    """A class for a socket of class `home` while it is in some state.

    Args:
        front: answers what the application calls.
        back: comes right before `socket.socket`: a method of a subclass, whatever its name, may
            call ``super().send()``, and is not to find the base class' own yet.
        methods: more of the front; those that `home` does not have are left out.
        combine: by default the function of `kinds`, which serves classes of programs too.
    """
    if combine is None:
        from .kinds import combine
    members = {name: method for name, method in methods.items() if hasattr(home, name)}
    members |= {
        "_undisguised": home,
        "__module__": home.__module__,
        "__qualname__": home.__qualname__,
    }
    made: type = combine(home.__name__, (front, home, back), members)
    return made


_kept: dict[tuple[type, type], type] = {}


def kept_guise(home: type, front: type) -> type:
    """The guise of a connected socket of class `home`, the same each time, and put on once."""
    if issubclass(home, front):
        return home
    found = _kept.get((home, front))
    if found is None:
        found = _kept[home, front] = guise(home, front, Plain, {})
    return found


def at_home(sock: SocksSocket, home: type) -> type:
    """The class of a socket that got through, which had `home` before: one with what is special."""
    if sock._tunnel is not None and sock._tunnel.over_unix:
        from .over_unix import OverUnix

        home = kept_guise(home, OverUnix)
    if sock._listener is not None:
        from .remote import Listening

        home = kept_guise(home, Listening)
    return home


def settle(sock: SocksSocket) -> None:
    """Give a socket that got through, or is the heir of one that did, its class."""
    home = at_home(sock, type(sock))
    if home is not type(sock):  # to assign it costs memory, even if it is the same
        sock.__class__ = home


# -- a connect that another thread waits in


def _refuses(number: int) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        raise os_error(number)

    return method


class Busy(Plain):
    """A socket for others than the thread that is connecting it, by way of `_busy_with`.

    What they sent would end up in the handshake, and what they received would be missing there.
    """

    _undisguised: Any
    _busy_with: Dial | type[Dial] | None  # None: it has ended, and the class is the own one again

    proxy_peername = proxy_sockname = None

    def connect_ex(self, address: Any) -> int:
        """As the kernel's."""
        return errno.EALREADY

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """On whichever descriptor may be the one in the end."""
        dial = self._busy_with
        self._undisguised.setsockopt(self, level, option, *value)
        if isinstance(dial, Dial):
            dial.set_option(level, option, *value)

    def shutdown(self, how: int) -> None:
        """End the handshake, as this ends a connect in the kernel."""
        dial = self._busy_with
        if dial is not None:
            socket.SocketType.shutdown(self if dial.spare is None else dial.spare, how)
        else:
            self.shutdown(how)

    def detach(self) -> int:
        """Nobody goes on with a half-made tunnel."""
        dial, home = self._busy_with, self._undisguised
        if dial is not None:
            cut_off(self)
            self.__class__ = home
        return self.detach()


_not_connected, _not_now = _refuses(errno.ENOTCONN), _refuses(errno.EALREADY)
_front = {
    **dict.fromkeys((*DATA, *DATA_OF_TLS, "getpeername"), _not_connected),
    **dict.fromkeys((*OTHER, "connect", "dup", "share"), _not_now),
}
_Behind = type("_Behind", (Plain,), dict.fromkeys((*DATA, "getpeername"), _not_connected))

#: the class of a socket -> its guise
busy_guises: dict[type, type] = {}


def busy_guise(home: type, combine: Any = None) -> type:
    """What is not in `busy_guises` yet."""
    busy_guises[home] = made = guise(home, Busy, _Behind, _front, combine)
    return made
