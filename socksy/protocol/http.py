"""HTTP CONNECT, client and server side (RFC 9110, section 9.3.6), with Basic login (RFC 7617).

A head has no length in front, so it is looked at before it is taken: reading on past its blank line
would swallow what the target says first.
"""

from __future__ import annotations

from ..errors import (
    ProxyAuthenticationError,
    ProxyProtocolError,
    ProxyUnsupportedError,
    reply_error,
)
from ..hosts import pack_ip, parse_port, unpack_ip
from ..proxy import Secret
from .steps import HTTP_ANSWER, NOWHERE, PIECE, Step, unexpected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proxy import Proxy
    from .server import Request
    from .socks5 import Check
    from .steps import Address, Handshake, Prediction

_CONNECT = 1  # as in `codes`
_MAX_HEAD = 65536  # and of all interim answers together
_PREFIX = b"HTTP/1."
_SUCCESSES = b"HTTP/1.1 200 ", b"HTTP/1.0 200 "


def handshake(
    command: int,
    host: str,
    port: int,
    *,
    login: tuple[Secret, Secret] | None = None,
    early_data: bytes = b"",
) -> Handshake[Address]:
    """Ask for a tunnel. HTTP has no bound address: the result is ``("0.0.0.0", 0)``.

    Args:
        early_data: the application's first bytes, right behind the request.

    Raises (before anything is sent):
        ProxyUnsupportedError: anything but CONNECT.
    """
    if command != _CONNECT:
        raise ProxyUnsupportedError(
            message="an HTTP proxy does CONNECT only", hint="Use a SOCKS5 proxy: socks5h://"
        )
    message = _request(host, port, login)
    return _tunnel(Secret(message + early_data), login is not None)


def predictor(proxy: Proxy) -> Callable[[str, int], Prediction]:
    """A CONNECT at a server that agrees."""
    login = proxy.login

    def predict(host: str, port: int) -> Prediction:
        if login is None and host[-1:] > "9" and ":" not in host:  # as in _request, without a call
            place = b"%b:%d" % (host.encode("ascii"), port)
            message = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place)
        else:
            message = Secret(_request(host, port, login))
        return ((message, 0, b"", _SUCCESSES),), None

    return predict


def _request(host: str, port: int, login: tuple[Secret, Secret] | None) -> bytes:
    # a name mostly ends in a letter, and an address never does without a colon
    if host[-1:] > "9" and ":" not in host:
        place = b"%b:%d" % (host.encode("ascii"), port)
    else:
        packed = pack_ip(host)
        if packed is not None:  # an IPv4-mapped address goes as IPv4
            host = unpack_ip(packed)
        place = (f"[{host}]" if ":" in host else host).encode("ascii") + b":%d" % port
    if login is None:
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place)
    credentials = _base64(b":".join(login))
    return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic %b\r\n\r\n" % (
        place,
        place,
        credentials,
    )


def _success(seen: bytes) -> int:
    """How long the head is with which an answer begins, if it is all there and a plain success."""
    end = seen.find(b"\n\r\n") + 3
    # find(): "in" asks first whether b"\n\n" is a number, and throws the exception away
    return end if end > 3 and seen.startswith(_SUCCESSES) and seen.find(b"\n\n", 0, end) < 0 else 0


def _tunnel(message: bytes, has_login: bool) -> Handshake[Address]:
    seen = yield Step(message, PIECE, HTTP_ANSWER, 1, True)
    end = _success(seen)
    if end:  # the usual case
        yield Step(b"", end, HTTP_ANSWER)
        return NOWHERE
    status, heard = 100, 0
    while status < 200:  # interim answers precede the real one
        # Drivers look at the deadline when they have to wait: a flood must end by itself.
        if heard >= _MAX_HEAD:
            raise ProxyProtocolError(
                message="the proxy sends interim answers without end", phase=HTTP_ANSWER
            )
        head = yield from _read_head(b"", HTTP_ANSWER, _judge)
        heard += len(head)
        status = _status(head)
    if status < 300:
        return NOWHERE
    if status == 407:
        verdict = "refused the login" if has_login else "wants a login"
        raise ProxyAuthenticationError(
            message=f"the HTTP proxy {verdict}",
            phase=HTTP_ANSWER,
            hint=None if has_login else "Give user and password: http://user:password@host",
        )
    raise reply_error("HTTP", status, HTTP_ANSWER)


def _read_head(message: bytes, awaiting: str, enough: Callable[[bytes], bool]) -> Handshake[bytes]:
    """Exactly up to the blank line, or to where `enough` knows all there is to know."""
    head = b""
    while len(head) < _MAX_HEAD:
        seen = yield Step(message, PIECE, awaiting, 1, True, len(head))
        message = b""
        end = _end_of_head(head, seen)
        head += yield Step(b"", end, awaiting, already=len(head))
        if enough(head) or head.endswith((b"\n\r\n", b"\n\n")):
            return head
    raise ProxyProtocolError(message="the HTTP head has no end", phase=awaiting)


def _end_of_head(before: bytes, seen: bytes) -> int:
    """How many bytes of `seen` belong to the head of which `before` has already come."""
    tail = before[-2:]
    joined = tail + seen
    ends = [
        at + len(mark) - len(tail)
        for mark in (b"\n\r\n", b"\n\n")
        if (at := joined.find(mark)) >= 0
    ]
    return min(ends, default=len(seen))


def _judge(head: bytes) -> bool:
    """Whether a refusal is in; raises at once if this is no HTTP."""
    if head[0] != _PREFIX[0]:
        raise unexpected(head[0], "HTTP", HTTP_ANSWER)
    if not head.startswith(_PREFIX[: len(head)]):
        raise ProxyProtocolError(message="the answer is not HTTP/1", phase=HTTP_ANSWER)
    return b"\n" in head and _status(head) >= 300


def _status(head: bytes) -> int:
    code = head.split(b"\n", 1)[0].split()[1:2]
    if not code or len(code[0]) != 3 or not code[0].isdigit() or code[0] < b"100":
        raise ProxyProtocolError(message="the HTTP answer has no status code", phase=HTTP_ANSWER)
    return int(code[0])


def _base64(data: bytes) -> bytes:
    from binascii import b2a_base64

    return b2a_base64(data, newline=False)


def serve(head: bytes, check: Check | None = None) -> Handshake[Request]:
    """Read a client's CONNECT; `head` is its first two bytes."""
    from .server import Request

    head += yield from _read_head(b"", "the request", lambda head: False)
    first, *lines = head.decode("latin-1").split("\n")
    method, _, rest = first.partition(" ")
    place, _, version = rest.partition(" ")
    host, _, port_text = place.rpartition(":")
    port = parse_port(port_text)
    if not version.startswith("HTTP/1."):
        yield Step(reply(400), 0, HTTP_ANSWER)
        raise ProxyProtocolError(message="the client's request is not HTTP/1")
    if method != "CONNECT":
        yield Step(reply(501), 0, HTTP_ANSWER)
        raise ProxyProtocolError(message="the client's request is not a CONNECT")
    if not host or not port:
        yield Step(reply(400), 0, HTTP_ANSWER)
        raise ProxyProtocolError(message="the client's CONNECT has no host and port")
    username = None
    if check is not None:
        username = _check_basic(lines, check)
        if username is None:
            yield Step(reply(407), 0, HTTP_ANSWER)
            raise ProxyAuthenticationError(message="the client's user name or password is wrong")
    return Request("HTTP", _CONNECT, host.strip("[]"), port, username=username)


def _check_basic(lines: list[str], check: Check) -> str | None:
    from binascii import a2b_base64

    for line in lines:
        name, _, value = line.partition(":")
        scheme, _, secret = value.strip().partition(" ")
        if name.lower() == "proxy-authorization" and scheme.lower() == "basic":
            try:
                username, _, password = a2b_base64(secret).partition(b":")
            except ValueError:
                return None
            return username.decode("utf-8", "replace") if check(username, password) else None
    return None


_PHRASES = {
    200: "Connection established",
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    501: "Not Implemented",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}


def reply(code: int) -> bytes:
    """An answer without a body."""
    head = f"HTTP/1.1 {code} {_PHRASES.get(code, 'Refused')}\r\n"
    if code == 407:
        head += 'Proxy-Authenticate: Basic realm="socksy"\r\n'
    if code >= 300:
        head += "Content-Length: 0\r\nConnection: close\r\n"
    return (head + "\r\n").encode("ascii")
