"""SOCKS4 and 4a, client and server side (SOCKS4.protocol and SOCKS4A.protocol, Ying-Da Lee).

::

    request  VN=4 CD DSTPORT(2) DSTIP(4) USERID NUL [name NUL, if DSTIP is 0.0.0.x: 4a]
    reply    VN=0 CD DSTPORT(2) DSTIP(4)
"""

from __future__ import annotations

from ..errors import (
    InvalidTargetError,
    ProxyProtocolError,
    ProxyUnsupportedError,
    reply_error,
)
from ..hosts import pack_ip, unpack_ip
from ..proxy import Secret
from .steps import NOWHERE, REPLY, SECOND_REPLY, Step, unexpected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proxy import Proxy
    from .server import Request
    from .steps import Address, Handshake, Prediction

# As in `codes`, whose enums take longer to import than this whole module.
_CONNECT, _BIND = 1, 2
_GRANTED, _REJECTED = 0x5A, 0x5B
_GRANTED_NOWHERE = b"\0\x5a\0\0\0\0\0\0"
_MAX_FIELD = 256  # of a user id or a name, with its NUL: what a server is willing to read


def handshake(
    command: int,
    host: str,
    port: int,
    *,
    user_id: bytes = b"",
    remote_dns: bool = True,
    early_data: bytes = b"",
) -> Handshake[Address]:
    """Ask for CONNECT or BIND.

    Args:
        early_data: the application's first bytes, right behind the request.

    Raises (before anything is sent):
        ProxyUnsupportedError: an IPv6 target, a name without 4a, UDP ASSOCIATE.
        InvalidTargetError: 0.0.0.x, which announces a name in SOCKS4a.
    """
    message = _request(command, host, port, user_id, remote_dns)
    return _read_reply(Secret(message + early_data), REPLY)


def predictor(proxy: Proxy) -> Callable[[str, int], Prediction]:
    """A CONNECT at a server that agrees."""
    login, remote_dns = proxy.login, not proxy.local_dns
    user_id = b"" if login is None else login[0]
    is_plain = login is None and remote_dns

    def predict(host: str, port: int) -> Prediction:
        if is_plain and host[-1:] > "9" and ":" not in host:  # as in _request, without a call
            name = host.encode("ascii")
            message = b"\4\1%c%c\0\0\0\1\0%b\0" % (port >> 8, port & 255, name)
        else:
            message = Secret(_request(_CONNECT, host, port, user_id, remote_dns))
        return ((message, 8, _GRANTED_NOWHERE, b"\0\x5a"),), _conclude

    return predict


def _conclude(answers: list[bytes]) -> Address:
    (answer,) = answers
    return unpack_ip(answer[4:8]), answer[2] << 8 | answer[3]


def _request(command: int, host: str, port: int, user_id: bytes, remote_dns: bool) -> bytes:
    if command not in (_CONNECT, _BIND):
        raise ProxyUnsupportedError(
            message="SOCKS4 does CONNECT and BIND only", hint="Use a SOCKS5 proxy: socks5h://"
        )
    # a name mostly ends in a letter, and an address never does without a colon
    packed, name = None if host[-1:] > "9" and ":" not in host else pack_ip(host), b""
    if packed is None:
        if not remote_dns:
            raise ProxyUnsupportedError(
                message="SOCKS4 takes addresses only", hint="Use socks4a:// for names"
            )
        packed, name = b"\0\0\0\1", host.encode("ascii") + b"\0"
    elif len(packed) == 16:
        raise ProxyUnsupportedError(
            message="SOCKS4 has no IPv6", hint="Use a SOCKS5 proxy: socks5h://"
        )
    elif packed[:3] == b"\0\0\0" and packed[3]:
        raise InvalidTargetError(f"{host} announces a name in SOCKS4a; it is no address")
    return b"\4%c%b%b%b\0%b" % (command, port.to_bytes(2, "big"), packed, user_id, name)


def second_reply() -> Handshake[Address]:
    """The reply that comes when a peer has connected to the port that BIND opened."""
    return _read_reply(b"", SECOND_REPLY)


def _read_reply(message: bytes, awaiting: str) -> Handshake[Address]:
    answer = yield Step(message, 8, awaiting, 2)
    if answer == _GRANTED_NOWHERE:  # the usual case
        return NOWHERE
    # VN is 0; 4 is sent too
    if answer[0] not in (0, 4):
        raise unexpected(answer[0], "SOCKS4", awaiting)
    if answer[1] != _GRANTED:
        raise reply_error("SOCKS4", answer[1], awaiting)
    if len(answer) < 8:
        answer += yield Step(b"", 8 - len(answer), awaiting, already=len(answer))
    return unpack_ip(answer[4:8]), answer[2] << 8 | answer[3]


def serve(head: bytes, login_required: bool = False) -> Handshake[Request]:
    """Read a client's request; `head` is its first two bytes."""
    from .server import Request

    head += yield Step(b"", 6, "the request")
    user_id = yield from _read_field("the user id")
    host = unpack_ip(head[4:8])
    if head[4:7] == b"\0\0\0" and head[7]:
        name = yield from _read_field("the name")
        host = name.decode("utf-8", "backslashreplace")
    request = Request(
        "SOCKS4", head[1], host, head[2] << 8 | head[3], username=user_id.decode("utf-8", "replace")
    )
    if login_required:  # SOCKS4 has no password to check
        yield Step(reply(_REJECTED), 0, REPLY)
        raise ProxyProtocolError(message="a SOCKS4 client, where a login is required")
    return request


def _read_field(awaiting: str) -> Handshake[bytes]:
    """Up to a NUL, without a byte more: application data may follow at once (privoxy's socks5t)."""
    field = b""
    while len(field) < _MAX_FIELD:
        seen = yield Step(b"", _MAX_FIELD - len(field), awaiting, 1, True)
        end = seen.find(b"\0")
        field += yield Step(b"", end + 1 if end >= 0 else len(seen), awaiting)
        if end >= 0:
            return field[:-1]
    raise ProxyProtocolError(message=f"{awaiting} has no end", phase=awaiting)


def reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """A reply; what SOCKS4 cannot express (a name, IPv6) becomes 0.0.0.0."""
    packed = pack_ip(host)
    if packed is None or len(packed) != 4:
        packed = bytes(4)
    return b"\0%c%b%b" % (code, port.to_bytes(2, "big"), packed)
