"""Recorded bytes of a handshake, field by field, under the names that the standards give them.

A field is cut from what really passed; nothing in here computes a byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from ..errors import reply_name
from ..hosts import unpack_ip
from ..protocol.codes import AddressType, Command, Method
from ..proxy import HTTP, SOCKS4, SOCKS4A

if TYPE_CHECKING:
    from ..proxy import Proxy

SAID, HEARD = "->", "<-"


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        message: what it is part of, e.g. ``"the greeting"``.
        direction: `SAID` to the proxy, or `HEARD` from it.
        data: its bytes.
        name: as in the standard.
        meaning: in words.
        secret: its bytes are not to be shown.
    """

    message: str
    direction: str
    data: bytes
    name: str
    meaning: str
    secret: bool = False


class _CutShort(Exception):
    """The recording ends here, or what comes is another protocol."""


class _Recording:
    """What passed in each direction, taken from the front."""

    def __init__(self, tape: Sequence[tuple[str, bytes]]) -> None:
        self._left = {
            way: b"".join(data for heading, data in tape if heading == way) for way in (SAID, HEARD)
        }

    def message(self, name: str, direction: str) -> _Message:
        return _Message(self, name, direction)

    def take(self, direction: str, count: int) -> bytes:
        left = self._left[direction]
        self._left[direction] = left[count:]
        return left[:count]

    def left(self, direction: str) -> bytes:
        return self._left[direction]


class _Message:
    def __init__(self, recording: _Recording, name: str, direction: str) -> None:
        self._recording = recording
        self._name = name
        self._direction = direction

    def take(
        self, count: int, name: str, meaning: str = "", secret: bool = False
    ) -> tuple[Field, bytes]:
        """The next field, and its bytes."""
        data = self._recording.take(self._direction, count)
        if not data and count:
            raise _CutShort
        return Field(self._name, self._direction, data, name, meaning, secret), data

    def until(self, mark: bytes, name: str, meaning: str = "") -> Field:
        """Everything up to a mark, without it."""
        end = self._recording.left(self._direction).find(mark)
        if end < 0:
            raise _CutShort
        return self.take(end, name, meaning)[0]

    def left(self) -> bytes:
        return self._recording.left(self._direction)


def fields_of(chain: Sequence[Proxy], tape: Sequence[tuple[str, bytes]]) -> list[Field]:
    """The fields of the handshakes with each proxy of a chain, as far as they got.

    Args:
        tape: what passed between us and the nearest proxy, with its direction, in order.
    """
    recording = _Recording(tape)
    fields: list[Field] = []
    try:
        for number, proxy in enumerate(chain, 1):
            of_hop = f"hop {number}: " if len(chain) > 1 else ""
            for field in _handshake(proxy, recording):
                name = of_hop + field.message
                fields.append(
                    Field(
                        name, field.direction, field.data, field.name, field.meaning, field.secret
                    )
                )
    except _CutShort:
        rest = recording.left(HEARD)
        if rest:
            fields.append(Field("what came", HEARD, rest[:64], "?", "not what was to be expected"))
    return fields


def _handshake(proxy: Proxy, recording: _Recording) -> Iterator[Field]:
    if proxy.scheme == HTTP:
        return _http(recording)
    if proxy.scheme in (SOCKS4, SOCKS4A):
        return _socks4(recording)
    return _socks5(recording)


# -- SOCKS5: RFC 1928, and RFC 1929 for the login


def _socks5(recording: _Recording) -> Iterator[Field]:
    greeting = recording.message("greeting", SAID)
    yield greeting.take(1, "VER", "SOCKS5")[0]
    field, count = greeting.take(1, "NMETHODS", "how many follow")
    yield field
    methods = ", ".join(_method(number) for number in greeting.left()[: count[0]])
    yield greeting.take(count[0], "METHODS", methods)[0]
    choice = recording.message("choice", HEARD)
    yield _version(choice, 5)
    number = choice.left()[:1]
    yield choice.take(1, "METHOD", _method(number[0]) if number else "")[0]
    if number[0] == Method.USERNAME_PASSWORD:
        yield from _login(recording)
    elif number[0] != Method.NO_AUTHENTICATION:
        return
    request = recording.message("request", SAID)
    yield request.take(1, "VER", "SOCKS5")[0]
    yield request.take(1, "CMD", _command(request.left()))[0]
    yield request.take(1, "RSV", "reserved")[0]
    yield from _address(request, "DST", "the target")
    reply = recording.message("reply", HEARD)
    yield _version(reply, 5)
    field, code = reply.take(1, "REP", _reply("SOCKS5", reply.left()))
    yield field
    yield reply.take(1, "RSV", "reserved")[0]
    yield from _address(reply, "BND", "from where")
    if code != b"\0":
        _end()


def _login(recording: _Recording) -> Iterator[Field]:
    login = recording.message("login", SAID)
    yield login.take(1, "VER", "of the login (RFC 1929)")[0]
    for length, name, what in (("ULEN", "UNAME", "user"), ("PLEN", "PASSWD", "password")):
        field, count = login.take(1, length, f"length of the {what}")
        yield field
        secret = name == "PASSWD"
        text = login.left()[: count[0]].decode("utf-8", "replace")
        yield login.take(count[0], name, "not shown" if secret else text, secret)[0]
    answer = recording.message("answer", HEARD)
    yield answer.take(1, "VER", "of the login (RFC 1929)")[0]
    field, status = answer.take(1, "STATUS", "welcome" if answer.left()[:1] == b"\0" else "refused")
    yield field
    if status != b"\0":
        _end()


def _address(message: _Message, prefix: str, what: str) -> Iterator[Field]:
    field, atyp = message.take(1, "ATYP", _address_type(message.left()))
    yield field
    if atyp[0] == AddressType.DOMAINNAME:
        length = 1 + message.left()[0] if message.left() else 0
        name = message.left()[1:length].decode("utf-8", "backslashreplace")
        yield message.take(length, f"{prefix}.ADDR", f"{what}: {name}")[0]
    elif atyp[0] in (AddressType.IPV4, AddressType.IPV6):
        length = 4 if atyp[0] == AddressType.IPV4 else 16
        yield message.take(length, f"{prefix}.ADDR", f"{what}: {_ip(message.left()[:length])}")[0]
    else:
        _end()
    yield message.take(2, f"{prefix}.PORT", _port(message.left()))[0]


# -- SOCKS4 and 4a: SOCKS4.protocol, SOCKS4A.protocol


def _socks4(recording: _Recording) -> Iterator[Field]:
    request = recording.message("request", SAID)
    yield request.take(1, "VN", "SOCKS4")[0]
    yield request.take(1, "CD", _command(request.left()))[0]
    yield request.take(2, "DSTPORT", _port(request.left()))[0]
    packed = request.left()[:4]
    has_name = packed[:3] == b"\0\0\0" and packed[3:] != b"\0"
    meaning = "0.0.0.x (4a): a name follows" if has_name else f"the target: {_ip(packed)}"
    yield request.take(4, "DSTIP", meaning)[0]
    user_id = request.until(b"\0", "USERID", "no user id")
    if user_id.data:
        user_id = replace(user_id, meaning=user_id.data.decode("utf-8", "replace"))
    yield user_id
    yield request.take(1, "NULL", "ends the user id")[0]
    if has_name:
        name = request.until(b"\0", "NAME")
        text = name.data.decode("utf-8", "replace")
        yield replace(name, meaning=f"the target: {text}")
        yield request.take(1, "NULL", "ends the name")[0]
    reply = recording.message("reply", HEARD)
    yield _version(reply, 0, "VN")
    field, code = reply.take(1, "CD", _reply("SOCKS4", reply.left()))
    yield field
    yield reply.take(2, "DSTPORT", _port(reply.left()))[0]
    yield reply.take(4, "DSTIP", f"from where: {_ip(reply.left()[:4])}")[0]
    if code != b"\x5a":
        _end()


# -- HTTP CONNECT: RFC 9110, section 9.3.6


def _http(recording: _Recording) -> Iterator[Field]:
    yield from _head(recording.message("request", SAID), "request line")
    answer = recording.message("answer", HEARD)
    status = answer.left()[:12].split()[1:2]
    yield from _head(answer, "status line")
    if status and not status[0].startswith(b"2"):
        _end()


def _head(message: _Message, first: str) -> Iterator[Field]:
    text = first
    while text:
        end = message.left().find(b"\n") + 1 or 1
        text = message.left()[:end].decode("latin-1").rstrip("\r\n")
        name = first or text.partition(":")[0] or "empty line"
        first = ""
        secret = name.lower() == "proxy-authorization"
        if secret:
            yield message.take(end, "Proxy-Auth", "not shown", secret)[0]
        else:
            yield message.take(end, name, text or "ends the head")[0]


# -- meanings


def _version(message: _Message, expected: int, name: str = "VER") -> Field:
    """The version of an answer; anything else is another protocol, which is not cut up."""
    if message.left()[:1] != bytes((expected,)):
        _end()
    return message.take(1, name, "SOCKS5" if expected == 5 else "version of the reply")[0]


def _end() -> NoReturn:
    raise _CutShort


def _method(number: int) -> str:
    names = {0: "no authentication", 1: "GSSAPI", 2: "username/password", 255: "none of them"}
    return names.get(number, f"method {number:#04x}")


def _command(data: bytes) -> str:
    try:
        return Command(data[0]).name.replace("_", " ")
    except (IndexError, ValueError):
        return "unknown"


def _reply(protocol: str, data: bytes) -> str:
    if not data:
        return ""
    good = {"SOCKS5": 0x00, "SOCKS4": 0x5A}[protocol]
    return "granted" if data[0] == good else reply_name(protocol, data[0])


def _address_type(data: bytes) -> str:
    names = {
        1: "an IPv4 address follows",
        3: "length and name follow",
        4: "an IPv6 address follows",
    }
    return names.get(data[0], "unknown") if data else ""


def _ip(packed: bytes) -> str:
    return unpack_ip(packed) if len(packed) in (4, 16) else "?"


def _port(data: bytes) -> str:
    return f"port {int.from_bytes(data[:2], 'big')}"
