"""BIND: a proxy that listens for us, for whom, and what is told about where.

The second reply, who has connected, is awaited on the descriptor that is to be the connection. An
event loop must not be left with that one registered under the listener's number: epoll would report
it there for ever. So the first `accept` that would block hands the waiting over to the thread of
`pending`, and a placeholder takes the number, which becomes readable when the peer has come.
"""

from __future__ import annotations

import errno
import os
import socket
from time import monotonic

from ..errors import ProxyProtocolError, ProxyTimeoutError
from ..hosts import pack_ip
from ..protocol import bind_peer, name_the_leg
from ..protocol.steps import SECOND_REPLY, Pump, timed_out
from ..proxy import choose
from .dial import CAN_REPLACE, POLLIN, Plain, recv, run, wait
from .options import put_under, unconnected_like

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, MutableMapping
    from typing import Any, TypeAlias

    from ..protocol import Leg
    from ..protocol.steps import Address
    from ..proxy import Chain, Route
    from .dial import Wait
    from .pending import Attempt
    from .stream import SocksSocket

    #: the proxies, and what is asked of the last one
    Way: TypeAlias = "tuple[Chain, str, int]"

_ANYBODY = "0.0.0.0"


# -- where


def in_family(family: int, host: str, port: int) -> tuple[Any, ...]:
    """An address as a socket of that family shows it: AF_INET6 has four values, IPv4 mapped."""
    if family != socket.AF_INET6:
        return host, port
    packed = pack_ip(host)
    return (f"::ffff:{host}" if packed and len(packed) == 4 else host), port, 0, 0


def outer_address(
    family: int, legs: tuple[Leg, ...], bound: Address, proxy_peername: Any
) -> tuple[Any, ...]:
    """Where the outside finds us: what the last proxy replied, or if that is no address, itself.

    Args:
        proxy_peername: the other end of the real connection, which is the first proxy.
    """
    host, port = bound
    packed = pack_ip(host)
    if packed is None or not any(packed):
        if len(legs) > 1:
            host = legs[-2][1]
        elif isinstance(proxy_peername, tuple):
            host = proxy_peername[0]
    return in_family(family, host, port)


# -- for whom

# Connected sockets with remote_bind, and their ways; None is direct. Made when first needed.
_primaries: MutableMapping[SocksSocket, Way | None] | None = None


def note_primary(sock: SocksSocket, way: Way | None) -> None:
    """Remember where a socket with `remote_bind` connects to: who is there may connect back."""
    global _primaries
    if _primaries is None:
        from weakref import WeakKeyDictionary

        _primaries = WeakKeyDictionary()
    _primaries[sock] = way


def replace_primary(sock: SocksSocket, heir: SocksSocket) -> None:
    """The connection of one object is another's now."""
    if _primaries is not None and sock in _primaries:
        _primaries[heir] = _primaries.pop(sock)


def way_of_the_peer(route: Route) -> Way | None:
    """The way of a BIND, and the peer that it is for; None to listen here.

    RFC 1928, section 4: BIND is for secondary connections, and names the host of the primary one.
    Which that is can be told if there is one host only; else anybody may connect.
    """
    ways = set()
    for sock, way in list((_primaries or {}).items()):
        if sock.fileno() != -1 and sock._route_now() == route:
            ways.add(None if way is None else (way[0], way[1], 0))
    if len(ways) == 1:
        return ways.pop()
    chain = choose(route, _ANYBODY, 0)
    return None if chain is None else (chain, _ANYBODY, 0)


# -- the second reply


def _hear(
    pump: Pump, sock: socket.socket, deadline: float | None
) -> Generator[Wait, bool, Address]:
    while not pump.done:
        if not (yield sock, POLLIN, deadline):
            raise timed_out(SECOND_REPLY)  # not into the pump: accept() may be called again
        pump.receive(recv(sock, pump.missing))
    return pump.result  # type: ignore[no-any-return]


class RemoteListener:
    """The second half of a BIND, resumable, so that `accept` can come back to it.

    Attributes:
        address: where the proxy listens.
    """

    def __init__(self, legs: tuple[Leg, ...], address: tuple[Any, ...]) -> None:
        self.address = address
        self._legs = legs
        self._expected = legs[-1][1]
        self._pump = Pump(bind_peer(legs))
        self._attempt: Attempt | None = None
        self._cancel: Callable[[Attempt], None]
        self._spent = False

    def __del__(self) -> None:
        if self._attempt is not None:
            self._cancel(self._attempt)

    def wait(self, sock: socket.socket) -> Address:
        """Wait, as long as the socket's timeout says, for the peer; return its address."""
        if self._spent:
            raise OSError(errno.EINVAL, "a BIND accepts one connection; ask for another")
        timeout = sock.gettimeout()
        if timeout == 0 and self._attempt is None:
            self._look_once(sock)
        else:
            try:
                self._wait(sock, None if timeout is None else monotonic() + timeout)
            except ProxyTimeoutError as error:
                name_the_leg(error, self._legs, len(self._legs) - 1)
                raise
        peer: Address = self._pump.result
        self._check(peer[0])
        return peer

    def _look_once(self, sock: socket.socket) -> None:
        """Without waiting; if the peer has not come, from now on the thread waits for it."""
        pump = self._pump
        try:
            while not pump.done:
                pump.receive(recv(sock, pump.missing))
        except BlockingIOError:
            if CAN_REPLACE:
                from . import pending

                self._cancel = pending.cancel
                self._attempt = pending.accept(sock, lambda own: _hear(pump, own, None))
            raise

    def _wait(self, sock: socket.socket, deadline: float | None) -> None:
        attempt = self._attempt
        if attempt is None:
            run(_hear(self._pump, sock, deadline))
            return
        if not attempt.done:
            if sock.gettimeout() == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            if not wait(sock, POLLIN, deadline):
                raise timed_out(SECOND_REPLY)
        if attempt.error is not None:
            raise attempt.error

    def _check(self, peer: str) -> None:
        """A proxy should let in only whom we asked for (RFC 1928, section 4)."""
        expected, came = pack_ip(self._expected), pack_ip(peer)
        if expected and came and any(expected) and any(came) and expected != came:
            raise ProxyProtocolError(
                errno.ECONNABORTED,
                f"the proxy let {peer} in, not {self._expected}",
                phase=SECOND_REPLY,
            )

    def take(self, sock: socket.socket) -> int:
        """The descriptor of the connection; the listener's number gets an unconnected one."""
        self._spent = True
        if self._attempt is not None:
            return self._attempt.own.detach()
        taken = os.dup(sock.fileno())
        put_under(unconnected_like(sock), sock)
        return taken


class Listening(Plain):
    """The guise of a socket that the proxy listens for."""

    _listener: RemoteListener | None

    def _real_close(self, *arguments: Any) -> None:
        self._listener = None  # what it has under way ends
        super()._real_close(*arguments)  # type: ignore[misc]
