"""Named ways in which a proxy can go wrong, for ``SocksServer(faults=...)``.

A server says a message at each of these phases, whose names are those in our errors:

    "connect", "the method choice", "the login answer", "the reply", "the second BIND reply"

("connect" is the moment a client has connected, when nothing is said; the answer to an HTTP CONNECT
counts as "the reply".) A fault changes the *script* of a phase, which in a sound server is the one
message: bytes leave as one segment each, and `Pause`, `CLOSE`, `RESET` and `STALL` do what they
say. Several faults apply in the order in which they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..protocol.codes import Command, Reply
from ..protocol.datagram import pack_header, parse_header
from ..protocol.server import Request
from ..protocol.steps import HTTP_ANSWER, LOGIN_ANSWER, METHOD_CHOICE, REPLY, SECOND_REPLY

if TYPE_CHECKING:
    from ..protocol.steps import Address

CONNECT = "connect"
PHASES = (CONNECT, METHOD_CHOICE, LOGIN_ANSWER, REPLY, SECOND_REPLY)


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class _Ending:
    name: str

    def __repr__(self) -> str:
        return self.name


#: say no more: the client reads an end of file
CLOSE = _Ending("CLOSE")
#: break the connection: the client reads ECONNRESET
RESET = _Ending("RESET")
#: say no more, and do not close
STALL = _Ending("STALL")

Script: TypeAlias = "list[bytes | Pause | _Ending]"


@dataclass(frozen=True)
class Moment:
    """Where a server stands with one client.

    Attributes:
        phase: one of `PHASES`.
        connection: which of the server's connections, counted from 1.
        request: what was asked; None before the request has come.
        code: the reply code that is about to be told; None before that is known.
        held: kept for the life of the connection, for faults that hold a message back.
    """

    phase: str
    connection: int
    request: Request | None = None
    code: int | None = None
    held: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong; write your own with the hooks you need.

    Args:
        name: what `repr` shows.
        play: ``(moment, script)`` to the script that is played instead.
        verdict: ``(moment)`` to a reply code, which is answered instead of doing what was asked;
            None to do it.
        bound: ``(moment, address)`` to the bound address that the reply tells.
        datagrams: ``(datagram)`` on its way to the client, with its header, to those sent instead.
        one_recv_per_message: read as the simplest servers do, see `one_recv_per_message`.
    """

    name: str
    play: Callable[[Moment, Script], Script] = lambda moment, script: script
    verdict: Callable[[Moment], int | None] = lambda moment: None
    bound: Callable[[Moment, Address], Address] = lambda moment, address: address
    datagrams: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]
    one_recv_per_message: bool = False

    def __repr__(self) -> str:
        return self.name


Faults: TypeAlias = "Fault | Sequence[Fault]"


def together(faults: Faults) -> Fault:
    """Several faults as one.

    Raises:
        TypeError: there are others than `Fault` among them.
    """
    if isinstance(faults, Fault):
        return faults
    several = tuple(faults) if isinstance(faults, Sequence) else (faults,)
    if not all(isinstance(fault, Fault) for fault in several):
        raise TypeError(
            "faults are made by the functions of socksy.testing.faults, as in "
            f"faults=close_before('the reply'), not {faults!r}"
        )

    def play(moment: Moment, script: Script) -> Script:
        for fault in several:
            script = fault.play(moment, script)
        return script

    def verdict(moment: Moment) -> int | None:
        codes = (fault.verdict(moment) for fault in several)
        return next((code for code in codes if code is not None), None)

    def bound(moment: Moment, address: Address) -> Address:
        for fault in several:
            address = fault.bound(moment, address)
        return address

    def datagrams(datagram: bytes) -> list[bytes]:
        wave = [datagram]
        for fault in several:
            wave = [changed for one in wave for changed in fault.datagrams(one)]
        return wave

    hasty = any(fault.one_recv_per_message for fault in several)
    return Fault(" + ".join(map(repr, several)), play, verdict, bound, datagrams, hasty)


def only_if(condition: Callable[[Moment], bool], fault: Fault) -> Fault:
    """`fault` where the condition holds: ``only_if(lambda moment: moment.connection == 1, ...)``.

    What a fault does to datagrams, or to reading, has no moment and always happens.
    """
    return replace(
        fault,
        name=f"only_if({getattr(condition, '__name__', condition)}, {fault!r})",
        play=lambda moment, script: fault.play(moment, script) if condition(moment) else script,
        verdict=lambda moment: fault.verdict(moment) if condition(moment) else None,
        bound=lambda moment, at: fault.bound(moment, at) if condition(moment) else at,
    )


def _at(name: str, phase: str, change: Callable[[Moment, Script], Script]) -> Fault:
    phase = _known(phase)
    return Fault(
        name, lambda moment, script: change(moment, script) if moment.phase == phase else script
    )


def _known(phase: str) -> str:
    phase = REPLY if phase == HTTP_ANSWER else phase
    if phase not in PHASES:
        raise ValueError(f"{phase!r} is no phase; they are {', '.join(map(repr, PHASES))}")
    return phase


# -- time


def reply_one_byte_at_a_time(interval: float = 0.0) -> Fault:
    """Every message byte by byte, each after a pause of `interval` seconds."""

    def drip(moment: Moment, script: Script) -> Script:
        dripped: Script = []
        for piece in script:
            if isinstance(piece, bytes):
                for number in piece:
                    dripped += [Pause(interval), bytes((number,))]
            else:
                dripped.append(piece)
        return dripped

    return Fault(f"reply_one_byte_at_a_time({interval})", drip)


def pause_before(phase: str, seconds: float) -> Fault:
    """The message of `phase` comes so many seconds late."""
    return _at(
        f"pause_before({phase!r}, {seconds})", phase, lambda _, script: [Pause(seconds), *script]
    )


def stall_at(phase: str, after: int = 0) -> Fault:
    """Silence instead of the message of `phase`, or after so many bytes of it."""
    return _at(
        f"stall_at({phase!r}, {after})", phase, lambda _, script: [*_first(script, after), STALL]
    )


# -- ends


def close_before(phase: str) -> Fault:
    """Close instead of saying the message of `phase`."""
    return _at(f"close_before({phase!r})", phase, lambda _, script: [CLOSE])


def close_after(phase: str) -> Fault:
    """Close right behind the message of `phase`; for "connect", at once."""
    return _at(f"close_after({phase!r})", phase, lambda _, script: [*script, CLOSE])


def cut_short(phase: str, length: int) -> Fault:
    """Close `length` bytes into the message of `phase`."""
    return _at(
        f"cut_short({phase!r}, {length})", phase, lambda _, script: [*_first(script, length), CLOSE]
    )


def reset_at(phase: str) -> Fault:
    """Break the connection (RST) instead of saying the message of `phase`."""
    return _at(f"reset_at({phase!r})", phase, lambda _, script: [RESET])


def _first(script: Script, length: int) -> Script:
    message = b"".join(piece for piece in script if isinstance(piece, bytes))
    return [message[:length]] if length else []


# -- other answers


def answer_with(code: int, phase: str = REPLY) -> Fault:
    """Answer this reply code, and do nothing of what was asked.

    Args:
        code: a SOCKS5 reply (Tor's, from 0xF0, too), for which the other protocols have their
            nearest; SOCKS4's own (0x5A and up) and HTTP's own (100 and up) go as they are. With 0
            the client is told that it has its connection, and reads an end of file.
        phase: "the second BIND reply" to let BIND begin well.

    Raises:
        ValueError: a code that none of the protocols can say, or no such phase.
    """
    if not 0 <= code < 1000:
        raise ValueError(f"a reply code has one byte, or is an HTTP status, not {code}")
    phase = _known(phase)
    return Fault(
        f"answer_with({code:#04x})",
        verdict=lambda moment: code if moment.phase == phase else None,
    )


def two_byte_replies(code: int) -> Fault:
    """Version and code, and then nothing more: not the rest, not an end of file."""

    def shorten(moment: Moment, script: Script) -> Script:
        return [*_first(script, 2), STALL]

    name = f"two_byte_replies({code:#04x})"
    return together((answer_with(code), _at(name, REPLY, shorten)))


def atyp_zero(code: int | None = None) -> Fault:
    """SOCKS5 replies have an ATYP of 0; with a `code`, that is answered too."""

    def wipe(moment: Moment, script: Script) -> Script:
        return [
            piece[:3] + b"\0" + piece[4:]
            if isinstance(piece, bytes) and piece[:1] == b"\5"
            else piece
            for piece in script
        ]

    wiped = _at("atyp_zero()", REPLY, wipe)
    return wiped if code is None else together((answer_with(code), wiped))


def instead_of(phase: str, data: bytes) -> Fault:
    """Other bytes instead of the message of `phase`; at "connect", before anything was asked."""
    return _at(f"instead_of({phase!r}, {data!r})", phase, lambda _, script: [data])


def bound_address(host: str, port: int, phase: str = REPLY) -> Fault:
    """Successful replies tell this bound address: an address, or a name, which may be empty.

    Args:
        phase: "the second BIND reply" to lie about who has connected.
    """
    phase = _known(phase)
    return Fault(
        f"bound_address({host!r}, {port})",
        bound=lambda moment, address: (host, port) if moment.phase == phase else address,
    )


# -- segments


def glue_banner(data: bytes) -> Fault:
    """`data`, as if the target had said it, in one segment with a successful reply."""

    def glue(moment: Moment, script: Script) -> Script:
        if moment.code != Reply.SUCCEEDED:
            return script
        return [piece + data if isinstance(piece, bytes) else piece for piece in script]

    return _at(f"glue_banner({data!r})", REPLY, glue)


def glue_bind_replies() -> Fault:
    """Both replies to a BIND leave in one segment."""

    def glue(moment: Moment, script: Script) -> Script:
        if moment.request is None or moment.request.command != Command.BIND:
            return script
        if moment.phase == REPLY:
            moment.held.extend(piece for piece in script if isinstance(piece, bytes))
            return []
        if moment.phase == SECOND_REPLY:
            message = [piece for piece in script if isinstance(piece, bytes)]
            return [b"".join((*moment.held, *message))]
        return script

    return Fault("glue_bind_replies()", glue)


def one_recv_per_message() -> Fault:
    """Take one recv() for one message, as microsocks does.

    A client that splits a message is hung up on; what it says ahead of time, in one segment with
    another message, is swallowed.
    """
    return Fault("one_recv_per_message()", one_recv_per_message=True)


# -- datagrams


def stray_datagrams(*strays: bytes) -> Fault:
    """These, as they are, come before each datagram from the relay."""
    return Fault(
        f"stray_datagrams{strays!r}", datagrams=lambda datagram: [*map(bytes, strays), datagram]
    )


def datagrams_from(host: str, port: int) -> Fault:
    """Datagrams from the relay name this source: another address, or a name."""

    def rename(datagram: bytes) -> list[bytes]:
        header = parse_header(datagram)
        if header is None:
            return [datagram]
        return [pack_header(host, port) + datagram[header[0] :]]

    return Fault(f"datagrams_from({host!r}, {port})", datagrams=rename)
