"""What a BIND leaves behind: a proxy that listens for us."""

from __future__ import annotations

import errno
import os
import select
import socket
from time import monotonic

from ..errors import ProxyProtocolError
from ..hosts import pack_ip
from ..protocol.route import bind_peer, name_the_leg
from ..protocol.steps import SECOND_REPLY, Pump, timed_out
from .dial import recv, wait
from .options import put_under

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..protocol.route import Leg
    from ..protocol.steps import Address


class RemoteListener:
    """The second half of a BIND, resumable, so that a non-blocking accept() can come back to it.

    Attributes:
        address: where the proxy listens; an unspecified address is the proxy's own.
    """

    def __init__(self, legs: tuple[Leg, ...], bound: Address, proxy_address: Any) -> None:
        host, port = bound
        if host in ("", "0.0.0.0", "::") and isinstance(proxy_address, tuple):
            host = proxy_address[0]
        self.address = host, port
        self._legs = legs
        self._expected = legs[-1][1]
        self._pump = Pump(bind_peer(legs))

    def wait(self, sock: socket.socket) -> Address:
        """Wait, as long as the socket's timeout says, for the peer; return its address."""
        pump = self._pump
        timeout = sock.gettimeout()
        deadline = None if timeout is None else monotonic() + timeout
        while not pump.done:
            if timeout and not wait(sock, select.POLLIN, deadline or 0.0):
                error = timed_out(SECOND_REPLY)  # not into the pump: accept() may be called again
                name_the_leg(error, self._legs, len(self._legs) - 1)
                raise error
            pump.receive(recv(sock, pump.missing))
        peer: Address = pump.result
        self._check(peer[0])
        return peer

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
        taken = os.dup(sock.fileno())
        put_under(socket.socket(sock.family, sock.type, sock.proto), sock)
        self._pump = _Spent()
        return taken


class _Spent(Pump):
    """In the place of a Pump that has done its one job: accept() after that raises EINVAL."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    @property
    def done(self) -> bool:  # type: ignore[override]
        raise OSError(errno.EINVAL, "a BIND accepts one connection; ask for another")
