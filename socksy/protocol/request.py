"""What a client asked an embedded proxy for, whatever protocol it spoke."""

from __future__ import annotations


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
