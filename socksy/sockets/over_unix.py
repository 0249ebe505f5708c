"""What a connection over a Unix socket lacks of a TCP one.

The proxy is on a Unix socket, and so the descriptor is one; the application has asked for TCP.
"""

from __future__ import annotations

import socket
import sys

from .dial import Plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .options import Options


class OverUnix(Plain):
    """The guise of a connected socket whose descriptor is a Unix socket."""

    _options: Options
    _own_options: Callable[[], Options]

    # Options of IP and TCP mean nothing here: they are kept.

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if level == socket.SOL_SOCKET:
            super().setsockopt(level, option, *value)
        else:
            self._own_options()[level, option] = value

    def getsockopt(self, level: int, option: int, *length: int) -> Any:
        if level == socket.SOL_SOCKET:
            return super().getsockopt(level, option, *length)
        value = self._options.get((level, option), (0,))[0]
        if not length:
            return value if isinstance(value, int) else int.from_bytes(value[:4], sys.byteorder)
        return value.to_bytes(4, sys.byteorder) if isinstance(value, int) else bytes(value)

    # A TCP socket tells no address with data. A Unix socket does, and in a form that the base class
    # does not expect of a socket of this family: it would make an address of whatever is there.

    def recvfrom(self, *arguments: Any) -> tuple[bytes, Any]:
        return self.recv(*arguments), None

    def recvfrom_into(self, *arguments: Any, **options: Any) -> tuple[int, Any]:
        return self.recv_into(*arguments, **options), None

    def recvmsg(self, *arguments: Any) -> tuple[bytes, list[Any], int, Any]:
        data, ancillary, flags, _ = super().recvmsg(*arguments)
        return data, ancillary, flags, None

    def recvmsg_into(self, *arguments: Any) -> tuple[int, list[Any], int, Any]:
        count, ancillary, flags, _ = super().recvmsg_into(*arguments)
        return count, ancillary, flags, None
