"""Making one descriptor like another, and putting it under the other's number."""

from __future__ import annotations

import errno
import os
import socket
import sys

from ..hosts import pack_ip, unpack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    #: level and option -> the rest of the arguments of setsockopt, latest last
    Options: TypeAlias = "dict[tuple[int, int], tuple[Any, ...]]"

# what one family calls this, and the other that
_TWINS = (("IP_TOS", "IPV6_TCLASS"), ("IP_TTL", "IPV6_UNICAST_HOPS"))


def set_again(options: Options, sock: socket.socket) -> None:
    """Set on a spare what the application has set on its own socket.

    It is what the application asked for, not what getsockopt says: the kernel tunes some options of
    a socket that has been connected.

    Raises:
        OSError: an option cannot be set. It may be what binds the traffic to a device, so to go on
            without it would not be safe.
    """
    family = sock.family
    for (level, option), value in options.items():
        if family == socket.AF_UNIX:
            if level == socket.SOL_SOCKET and option != getattr(socket, "SO_BINDTODEVICE", None):
                _set_if_known(sock, option, value)
        elif level not in (socket.IPPROTO_IP, socket.IPPROTO_IPV6):
            sock.setsockopt(level, option, *value)
        else:
            translated = _translated(level, option, family)
            if translated is not None:
                sock.setsockopt(*translated, *value)


def _set_if_known(sock: socket.socket, option: int, value: tuple[Any, ...]) -> None:
    """Not every option means something to a Unix socket; one that routes must not be left out."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, *value)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP or option == getattr(socket, "SO_MARK", None):
            raise


def _translated(level: int, option: int, family: int) -> tuple[int, int] | None:
    """An option of the IP level in the spare's family; None if it has no meaning there."""
    wanted = socket.IPPROTO_IP if family == socket.AF_INET else socket.IPPROTO_IPV6
    if level == wanted:
        return level, option
    for twins in _TWINS:
        here, there = twins if wanted == socket.IPPROTO_IPV6 else reversed(twins)
        if getattr(socket, here, None) == option and hasattr(socket, there):
            return wanted, getattr(socket, there)
    return None


def bind_like(local: tuple[Any, ...], sock: socket.socket) -> None:
    """Bind a spare where the application had bound its own socket.

    Raises:
        OSError: EADDRNOTAVAIL if that address does not exist in the spare's family.
    """
    host, port, *_ = local
    wildcard = host in ("", "0.0.0.0", "::")
    family = sock.family
    if family == socket.AF_UNIX:
        if wildcard and port == 0:
            return
    elif wildcard:
        sock.bind(("" if family == socket.AF_INET else "::", port))
        return
    else:
        packed = pack_ip(host.partition("%")[0])  # unwraps an IPv4-mapped address
        if packed is not None and (len(packed) == 4) == (family == socket.AF_INET):
            sock.bind(local if len(packed) == 16 else (unpack_ip(packed), port))
            return
    raise OSError(errno.EADDRNOTAVAIL, f"the proxy cannot be reached from the bound address {host}")


def unconnected_like(own: socket.socket) -> socket.socket:
    """A fresh socket of the same kind, which blocks as this one does, whatever the default is."""
    fresh = socket.socket(own.family, own.type, own.proto)
    fresh.settimeout(own.gettimeout())
    return fresh


def reset_on_close(sock: socket.socket) -> None:
    """Whatever closes it drops the connection at once: its port is free then, not in TIME_WAIT."""
    on, no_time = (1).to_bytes(4, sys.byteorder), bytes(4)
    socket.SocketType.setsockopt(sock, socket.SOL_SOCKET, socket.SO_LINGER, on + no_time)


def put_under(new: socket.socket, own: socket.socket, keep: bool = False) -> None:
    """Move the descriptor of `new` under the number of `own`, whose old descriptor closes.

    Whoever holds `own.fileno()` is not disturbed. `new` is closed, unless it is to be kept.
    """
    number = own.fileno()
    os.dup2(new.fileno(), number, inheritable=os.get_inheritable(number))
    if not keep:
        new.close()
