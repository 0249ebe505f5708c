"""Making one descriptor like another, and putting it under the other's number."""

from __future__ import annotations

import errno
import os
import socket

from ..hosts import pack_ip, unpack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUFFERS = ("SO_SNDBUF", "SO_RCVBUF")  # the kernel doubles what it is told
_SOCKET_OPTIONS = (
    "SO_REUSEADDR",
    "SO_REUSEPORT",
    "SO_KEEPALIVE",
    "SO_LINGER",
    "SO_OOBINLINE",
    "SO_PRIORITY",
    "SO_MARK",
    "SO_BINDTODEVICE",
    "SO_RCVTIMEO",
    "SO_SNDTIMEO",
    "SO_RCVLOWAT",
    "SO_BUSY_POLL",
    "SO_INCOMING_CPU",
    *_BUFFERS,
)
_TCP_OPTIONS = (
    "TCP_NODELAY",
    "TCP_CORK",
    "TCP_KEEPIDLE",
    "TCP_KEEPINTVL",
    "TCP_KEEPCNT",
    "TCP_USER_TIMEOUT",
    "TCP_MAXSEG",
    "TCP_QUICKACK",
    "TCP_CONGESTION",
    "TCP_SYNCNT",
    "TCP_LINGER2",
    "TCP_WINDOW_CLAMP",
    "TCP_FASTOPEN_CONNECT",
    "TCP_NOTSENT_LOWAT",
)
# what one family calls this, and the other that
_TWINS = (("IP_TOS", "IPV6_TCLASS"), ("IP_TTL", "IPV6_UNICAST_HOPS"))


def _read(sock: socket.socket, level: int, option: int) -> bytes | None:
    try:
        return sock.getsockopt(level, option, 64)
    except OSError:
        return None  # not an option of this kind of socket


def carry_options(old: socket.socket, new: socket.socket) -> None:
    """Set on `new` what the application set on `old`: what differs from a fresh socket of its kind.

    Raises:
        OSError: an option cannot be set. It may be what binds the traffic to a device, so to go on
            without it is not safe.
    """
    with socket.socket(old.family, old.type, old.proto) as fresh:
        for level, name, target_level, target_name in _option_pairs(old.family, new.family):
            option = getattr(socket, name, None)
            target = getattr(socket, target_name, None)
            if option is None or target is None:
                continue
            value = _read(old, level, option)
            if value is None or value == _read(fresh, level, option):
                continue
            if name in _BUFFERS:
                new.setsockopt(level, option, int.from_bytes(value, "little") // 2)
            else:
                new.setsockopt(target_level, target, value)


def _option_pairs(old: int, new: int) -> list[tuple[int, str, int, str]]:
    pairs = [(socket.SOL_SOCKET, name, socket.SOL_SOCKET, name) for name in _SOCKET_OPTIONS]
    if new in (socket.AF_INET, socket.AF_INET6):
        tcp = socket.IPPROTO_TCP
        pairs += [(tcp, name, tcp, name) for name in _TCP_OPTIONS]
        levels = socket.IPPROTO_IP, socket.IPPROTO_IPV6
        source, target = old == socket.AF_INET6, new == socket.AF_INET6
        pairs += [(levels[source], twin[source], levels[target], twin[target]) for twin in _TWINS]
    return pairs


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


def put_under(new: socket.socket, own: socket.socket) -> None:
    """Move the descriptor of `new` under the number of `own`, whose old descriptor closes.

    Whoever holds `own.fileno()` is not disturbed. `new` is closed.
    """
    number = own.fileno()
    os.dup2(new.fileno(), number, inheritable=os.get_inheritable(number))
    new.close()
