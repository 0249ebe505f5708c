"""Waiting and relaying, in threads that can be told to stop.

Rule: no thread of the embedded proxy waits for anything but through a `Lifeline`. Cutting that ends
every wait at once, so nothing is ever left behind.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING

from ..names import unpatched
from ..protocol.datagram import pack_header, parse_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    #: an address family, and what connect() and sendto() take for it
    Endpoint: TypeAlias = "tuple[int, tuple[str, int]]"
    Heard: TypeAlias = "Callable[[socket.socket, bytes], None]"

READ, WRITE = select.POLLIN, select.POLLOUT
_CHUNK = 65536
_AGAIN = (BlockingIOError, InterruptedError)


class Dropped(Exception):
    """The lifeline has been cut: this thread is to end."""


class Lifeline:
    """What a group of threads hangs on."""

    def __init__(self) -> None:
        self._watched, self._held = socket.socketpair()

    def cut(self) -> None:
        """End every wait, now and later, with `Dropped`."""
        self._held.close()

    def close(self) -> None:
        """Give back what is left, when no thread waits any more."""
        self._held.close()
        self._watched.close()

    def wait(
        self, *interests: tuple[socket.socket, int], deadline: float | None = None
    ) -> set[int]:
        """The descriptors that are ready; none if the deadline (of `time.monotonic`) has passed.

        Raises:
            Dropped: the lifeline has been cut.
        """
        if self._watched.fileno() < 0:
            raise Dropped
        poller = select.poll()
        poller.register(self._watched, READ)
        for sock, events in interests:
            poller.register(sock, events)
        # rounded up: poll() counts in milliseconds, and not for longer than 24 days
        left = None
        if deadline is not None:
            left = min(max(0.0, (deadline - monotonic()) * 1000 + 1), 2**31 - 1)
        ready = {fd for fd, _ in poller.poll(left)}
        if self._watched.fileno() in ready:
            raise Dropped
        return ready


def connect(lifeline: Lifeline, family: int, address: Any, deadline: float | None) -> socket.socket:
    """A connected socket, non-blocking.

    Raises:
        OSError: of the connection; ETIMEDOUT if the deadline has passed.
    """
    sock = unpatched(socket.socket, family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        number = sock.connect_ex(address)
        if number == errno.EINPROGRESS:
            if not lifeline.wait((sock, WRITE), deadline=deadline):
                number = errno.ETIMEDOUT
            else:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        no_delay(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def no_delay(sock: socket.socket) -> None:
    """Send each message when it is said."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close_with_reset(sock: socket.socket) -> None:
    """Close so that the other side sees ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send_all(lifeline: Lifeline, sock: socket.socket, data: bytes, deadline: float | None) -> None:
    """Send everything, in one segment if it fits.

    Raises:
        TimeoutError: the deadline has passed.
    """
    while data:
        try:
            data = data[sock.send(data) :]
        except _AGAIN:
            if not lifeline.wait((sock, WRITE), deadline=deadline):
                raise TimeoutError(errno.ETIMEDOUT, "the client takes no data") from None


def discard(lifeline: Lifeline, sock: socket.socket, deadline: float | None) -> None:
    """Read until the other side has closed, or the deadline has passed."""
    while lifeline.wait((sock, READ), deadline=deadline):
        try:
            if not sock.recv(_CHUNK):
                return
        except _AGAIN:
            continue


class _Direction:
    """What flows from one socket to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket, heard: Heard | None) -> None:
        self.source = source
        self.sink = sink
        self.heard = heard
        self.buffer = b""
        self.done = False

    def step(self, ready: set[int]) -> None:
        """Move what can be moved; an end of file is passed on, and this direction is done."""
        try:
            if not self.buffer:
                if self.source.fileno() not in ready:
                    return
                self.buffer = self.source.recv(_CHUNK)
                if self.buffer and self.heard is not None:
                    self.heard(self.source, self.buffer)
                if not self.buffer:
                    self.done = True
                    self.sink.shutdown(socket.SHUT_WR)
                    return
            self.buffer = self.buffer[self.sink.send(self.buffer) :]
        except _AGAIN:
            return


def relay(
    lifeline: Lifeline, one: socket.socket, other: socket.socket, heard: Heard | None = None
) -> None:
    """Move bytes both ways until both sides have ended their stream.

    Each direction ends by itself (half-close). A connection that breaks breaks the other one.

    Args:
        heard: called with what has come, and from which of the two, before it goes on.
    """
    directions = [_Direction(one, other, heard), _Direction(other, one, heard)]
    try:
        while directions:
            interests: dict[socket.socket, int] = {}
            for direction in directions:
                waits_for = direction.sink if direction.buffer else direction.source
                event = WRITE if direction.buffer else READ
                interests[waits_for] = interests.get(waits_for, 0) | event
            ready = lifeline.wait(*interests.items())
            for direction in directions:
                direction.step(ready)
            directions = [direction for direction in directions if not direction.done]
    except OSError:
        close_with_reset(one)
        close_with_reset(other)


class DatagramRelay:
    """One UDP association (RFC 1928, section 7).

    Args:
        control: the TCP connection whose end ends the association.
        inner: the socket to which the client sends.
        client: where its datagrams may come from; None or 0 for any address or port, which the
            first datagram then settles.
        route: a host and port to (family, socket address); raises OSError if there is none.
        change: what a datagram to the client becomes.
    """

    def __init__(
        self,
        lifeline: Lifeline,
        control: socket.socket,
        inner: socket.socket,
        *,
        client: tuple[str | None, int],
        route: Callable[[str, int], Endpoint],
        change: Callable[[bytes], Iterable[bytes]],
    ) -> None:
        self._lifeline = lifeline
        self._control = control
        self._inner = inner
        self._expected = client
        self._route = route
        self._change = change
        self._client: Any = None
        self._outer: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Relay until the control connection ends."""
        try:
            while True:
                readable = [self._control, self._inner, *self._outer.values()]
                ready = self._lifeline.wait(*((sock, READ) for sock in readable))
                if self._control.fileno() in ready and self._control_ended():
                    return
                if self._inner.fileno() in ready:
                    self._from_client()
                for sock in list(self._outer.values()):
                    if sock.fileno() in ready:
                        self._from_target(sock)
        finally:
            for sock in self._outer.values():
                sock.close()

    def _control_ended(self) -> bool:
        try:
            return not self._control.recv(_CHUNK)
        except _AGAIN:
            return False
        except OSError:
            return True

    def _from_client(self) -> None:
        try:
            datagram, source = self._inner.recvfrom(_CHUNK)
        except OSError:
            return
        if not self._is_client(source):
            return
        header = parse_header(datagram)
        if header is None:
            return
        begin, (host, port) = header
        try:
            family, address = self._route(host, port)
            self._outer_socket(family).sendto(datagram[begin:], address)
        except OSError:
            return  # as a network would: lost

    def _is_client(self, source: Any) -> bool:
        """Whether a datagram is the client's (section 7: drop those of any other source)."""
        if self._client is not None:
            return bool(source == self._client)
        host, port = self._expected
        if host not in (None, source[0]) or port not in (0, source[1]):
            return False
        self._client = source
        return True

    def _outer_socket(self, family: int) -> socket.socket:
        sock = self._outer.get(family)
        if sock is None:
            sock = self._outer[family] = unpatched(socket.socket, family, socket.SOCK_DGRAM)
            sock.setblocking(False)
        return sock

    def _from_target(self, sock: socket.socket) -> None:
        try:
            data, source = sock.recvfrom(_CHUNK)
            header = pack_header(source[0].partition("%")[0], source[1])
            for datagram in self._change(header + data):
                self._inner.sendto(datagram, self._client)
        except OSError:
            return
