"""The server's side of a connection: whatever protocol the client speaks."""

from __future__ import annotations

from ..errors import ProxyProtocolError
from . import http, socks4, socks5
from .codes import Reply, Socks4Reply
from .steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .socks5 import Check
    from .steps import Handshake


class Request:
    """A client's request.

    Attributes:
        protocol (str): ``"SOCKS4"`` (4a too), ``"SOCKS5"`` or ``"HTTP"``.
        command (int): see `codes.Command`; unknown numbers are kept.
        host (str), port (int): the target, a name as it was sent.
        username (str | None): who logged in; the user id in SOCKS4. Passwords are not kept.
    """

    __slots__ = ("command", "host", "port", "protocol", "username")

    def __init__(
        self, protocol: str, command: int, host: str, port: int, *, username: str | None = None
    ) -> None:
        self.protocol = protocol
        self.command = command
        self.host = host
        self.port = port
        self.username = username

    def __repr__(self) -> str:
        return f"<Request {self.protocol} command {self.command} {self.host}:{self.port}>"


def accept(check: Check | None = None) -> Handshake[Request]:
    """Read a client up to its request: SOCKS4, 4a, 5 or HTTP CONNECT, told apart by the first byte.

    Args:
        check: whether a user name and password (bytes) may pass; then every client must log in.

    Raises:
        ProxyProtocolError, ProxyAuthenticationError: the client was refused; what it is told has
            been sent in a last step.
    """
    head = yield Step(b"", 2, "the greeting")
    if head[0] == 5:
        return (yield from socks5.serve(head, check))
    if head[0] == 4:
        return (yield from socks4.serve(head, check is not None))
    if head.isalpha():
        return (yield from http.serve(head, check))
    raise ProxyProtocolError(message=f"the client speaks no SOCKS: it began with {head[0]:#04x}")


#: SOCKS5 reply -> the nearest HTTP status
_HTTP_STATUS: dict[int, int] = {
    Reply.SUCCEEDED: 200,
    Reply.NOT_ALLOWED: 403,
    Reply.TTL_EXPIRED: 504,
    Reply.COMMAND_NOT_SUPPORTED: 501,
}


def reply_bytes(request: Request, code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """The answer to a request, in its protocol.

    Args:
        code: a SOCKS5 reply; the other protocols get their nearest.
        host, port: the bound address, or the peer of a BIND.
    """
    if request.protocol == "SOCKS5":
        return socks5.reply(code, host, port)
    if request.protocol == "SOCKS4":
        return socks4.reply(Socks4Reply.REJECTED if code else Socks4Reply.GRANTED, host, port)
    return http.reply(_HTTP_STATUS.get(code, 502))
