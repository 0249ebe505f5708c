"""How a handshake is written, and how it is driven.

Two rules:

* A SOCKS handshake is strictly say, then hear. So each one is a generator: it yields a `Step`
  (bytes to send, then how many must come back) and is sent exactly the bytes that came. It returns
  what was agreed, or raises one of our errors. No I/O, no clock, no DNS, no logging in here.
* No step asks for more than the message at hand holds. What lies behind a reply belongs to the
  application.

A driver is therefore a loop of six lines::

    step = next(handshake)
    while True:
        send(step.send)
        data = receive between step.enough and step.need bytes
        step = handshake.send(data)          # StopIteration.value is the result

and what goes wrong outside (end of file, deadline) is thrown into the generator, so that whoever
wraps it can say which proxy and which hop. `Pump` is that loop turned inside out, for drivers that
are called when a socket is ready.
"""

from __future__ import annotations

from ..errors import ProxyError, ProxyProtocolError, ProxyTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    #: yields what to do, is sent what came, returns what was agreed
    Handshake: TypeAlias = "Generator[Step, bytes, T]"
    Address: TypeAlias = "tuple[str, int]"
    #: The exchanges that are to be expected: what to send; how many bytes must come back; what they
    #: mostly are; how they begin otherwise. And what makes the result of the answers, if these are
    #: not all the usual ones, which tell no address: `NOWHERE`.
    #: 0 bytes: a head, which is looked at first, to take all of it up to its empty line and nothing
    #: else, if it begins like that and its lines end in CR LF.
    Prediction: TypeAlias = "tuple[tuple[Exchange, ...], Conclude | None]"
    Exchange: TypeAlias = "tuple[bytes, int, bytes, bytes | tuple[bytes, ...]]"
    Conclude: TypeAlias = "Callable[[list[bytes]], Address]"

#: what most servers tell as the bound address: none
NOWHERE = "0.0.0.0", 0

#: how much of a head is looked at at once
PIECE = 4096

METHOD_CHOICE = "the method choice"
LOGIN_ANSWER = "the login answer"
REPLY = "the reply"
SECOND_REPLY = "the second BIND reply"
HTTP_ANSWER = "the HTTP answer"


class Step:
    """One exchange.

    Attributes:
        send: bytes to send first, in one piece if possible.
        need: how many bytes may be received then; 0 for none.
        awaiting: what they are, e.g. ``"the method choice"``.
        enough: hand the bytes over as soon as this many have come (by default all of `need`). A
            refusal can be judged by its first two bytes, and some servers send no more.
        peek: look at up to `need` bytes, but leave them where they are.
        already: how many bytes of the same message have come in steps before.
    """

    __slots__ = ("already", "awaiting", "enough", "need", "peek", "send")

    def __init__(
        self,
        send: bytes,
        need: int,
        awaiting: str,
        enough: int = 0,
        peek: bool = False,
        already: int = 0,
    ) -> None:
        self.send = send
        self.need = need
        self.awaiting = awaiting
        self.enough = enough or need
        self.peek = peek
        self.already = already


_CLOSED_HINTS = {
    METHOD_CHOICE: "It may want another protocol (SOCKS4, HTTP, TLS), or deny this client",
    LOGIN_ANSWER: "Some proxies close like this when they refuse the login",
    REPLY: "OpenSSH (ssh -D) closes like this when the target refuses or is unknown",
    SECOND_REPLY: "The proxy gave up waiting for the peer",
}


def closed_early(awaiting: str, got: int) -> ProxyProtocolError:
    """The error for an end of file in the middle of a handshake, after `got` bytes of a message."""
    if got:
        message = f"the proxy closed the connection {got} bytes into its answer"
        return ProxyProtocolError(message=message, phase=awaiting)
    return ProxyProtocolError(
        message="the proxy closed the connection without an answer",
        phase=awaiting,
        hint=_CLOSED_HINTS.get(awaiting),
    )


def timed_out(awaiting: str) -> ProxyTimeoutError:
    """The error for a deadline that passed in the middle of a handshake."""
    hint = None
    if awaiting == METHOD_CHOICE:  # which no server has to think about
        hint = "Is it a SOCKS5 server? Those answer a greeting at once"
    return ProxyTimeoutError(phase=awaiting, hint=hint)


def unexpected(first: int, protocol: str, awaiting: str) -> ProxyProtocolError:
    """The error for an answer whose first byte is of another protocol, with a guess whose."""
    return ProxyProtocolError(
        message=f"the answer is not {protocol}: it begins with {first:#04x}",
        phase=awaiting,
        hint=_LOOKS_LIKE.get(first),
    )


_LOOKS_LIKE = {
    0x00: "It looks like SOCKS4; use socks4a://",
    0x04: "It looks like SOCKS4; use socks4a://",
    0x05: "It looks like SOCKS5; use socks5h://",
    0x15: "It looks like TLS; this port wants an encrypted connection",
    0x16: "It looks like TLS; this port wants an encrypted connection",
    0x48: "It looks like an HTTP proxy; use http://",
    0x53: "It looks like an SSH server; the SOCKS port is the one given to ssh -D",
}


class Pump:
    """A handshake that is resumed by whoever has bytes for it.

    First send `outgoing` (telling `sent`), then receive at most `missing` bytes (telling
    `receive`), until `done`; then `result` is what the handshake returned. Its errors come out of
    `receive`, `sent` and `fail`.
    """

    __slots__ = ("_got", "_handshake", "_step", "done", "outgoing", "result")

    def __init__(self, handshake: Handshake[Any]) -> None:
        self._handshake = handshake
        self.done = False
        self.result: Any = None
        self.outgoing = b""
        self._got = b""
        self._advance(None)

    @property
    def missing(self) -> int:
        """How many bytes may be received now; 0 while there is something to send, or when done."""
        return 0 if self.done or self.outgoing else self._step.need - len(self._got)

    @property
    def peek(self) -> bool:
        """Whether those bytes are only looked at."""
        return self._step.peek

    @property
    def awaiting(self) -> str:
        """What the handshake is at, for errors."""
        return self._step.awaiting

    def sent(self, count: int) -> None:
        """Take note that the first `count` bytes of `outgoing` have left."""
        self.outgoing = self.outgoing[count:]
        if not self.outgoing and self._step.need == 0:
            self._advance(b"")

    def receive(self, data: bytes) -> None:
        """Take the bytes that came; empty means end of file."""
        if not data:
            self.fail(closed_early(self._step.awaiting, self._step.already + len(self._got)))
        self._got += data
        if len(self._got) >= self._step.enough:
            got, self._got = self._got, b""
            self._advance(got)

    def fail(self, error: ProxyError) -> None:
        """Give up: raises `error`, completed by the handshake with which proxy and target."""
        try:
            self._handshake.throw(error)
        except StopIteration:
            pass
        raise error  # a handshake that swallows its failure must not pass for a success

    def _advance(self, data: bytes | None) -> None:
        try:
            # None starts a generator: the same as next()
            self._step = self._handshake.send(data)  # type: ignore[arg-type]
        except StopIteration as stop:
            self.result = stop.value
            self.done = True
        else:
            self.outgoing = self._step.send
            if not self.outgoing and self._step.need == 0:
                self._advance(b"")
