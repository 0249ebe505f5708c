"""The guard: refuses what would go around the proxy, as far as the interpreter can see it.

Python tells an audit hook of each connect, datagram and lookup before it happens, whoever asks for
it, by the original class too. (But a *name* given to the original class is looked up first, and
only then told.) A hook cannot be taken out again, so there is one, which is switched on and off.

Python is not told what C libraries do. Importing those that are known for sockets or lookups of
their own is refused too: many programs can do without them.
"""

from __future__ import annotations

import errno
import sys
from socket import AF_INET, AF_INET6

from ..errors import DirectTrafficError
from ..hosts import pack_ip
from ..names import is_unpatched
from ..sockets.dial import family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from . import Patch

_INET = (AF_INET, AF_INET6)
#: packages that connect or look names up by themselves, and that no hook here sees
BLIND = ("uvloop", "pycares", "pycurl", "grpc")
_guards: list[Patch] = []
_is_installed = False

# These reach the proxy, or ask what the rules have decided. The embedded proxy is no client.
_NAMES = "socksy.names"
_OURS = ("socksy.sockets.dial", "socksy.sockets.lookup", "socksy.sockets.association", _NAMES)
_NOT_A_CLIENT = "socksy.testing."
# Methods and functions that somebody calls: who?
_IN_BETWEEN = (
    "socket",
    _NAMES,
    "socksy.sockets.datagram",
    "socksy.sockets.stream",
    "socksy.patch.sockets",
)


def switch_on(patch: Patch) -> None:
    """Refuse what this patch would not let go direct."""
    global _is_installed
    if not _is_installed:
        sys.addaudithook(_hear)
        _is_installed = True
    _guards.append(patch)


def switch_off(patch: Patch) -> None:
    """Idempotent."""
    if patch in _guards:
        _guards.remove(patch)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    check = _CHECKS.get(event) if _guards else None
    if check is None:
        return
    target = check(*arguments[:2])
    if target is None or _is_by_socksy():
        return
    host, port = target
    if all(patch.lets_go_direct(host, port) for patch in list(_guards)):
        return
    what = event.removeprefix("socket.")
    error = DirectTrafficError(errno.EPERM, f"{what} would have gone around the proxy")
    error.target = host, port
    raise error


_hear.__cantrace__ = True  # type: ignore[attr-defined] # debuggers and coverage see into it


def _of_traffic(sock: Any, address: Any) -> tuple[str, int] | None:
    """Where connect, sendto and sendmsg want to go; None if that is no Internet address."""
    if family_of(sock) not in _INET or not isinstance(address, tuple):
        return None
    return _text(address[0]), address[1]


def _of_lookup(host: Any, port: Any = None) -> tuple[str, int] | None:
    """The name that would be looked up; None for what is none."""
    text = _text(host)
    if text in ("", "<broadcast>") or pack_ip(text.partition("%")[0]) is not None:
        return None
    return text, port if isinstance(port, int) else 0


def _of_reverse_lookup(asked: Any, *_: Any) -> tuple[str, int]:
    """The address whose name is asked for: gethostbyaddr's string, or getnameinfo's tuple.

    getnameinfo does not tell its flags: with NI_NUMERICHOST it asks nobody, and is refused too.
    """
    return (_text(asked[0]), asked[1]) if isinstance(asked, tuple) else (_text(asked), 0)


def _of_import(name: Any, _: Any) -> None:
    if isinstance(name, str) and name.partition(".")[0] in BLIND:
        raise ImportError(
            f"{name} has sockets of its own, which would go around the proxy unseen: "
            "the guard of socksy does not let it in",
            name=name,
        )


_CHECKS: dict[str, Callable[..., tuple[str, int] | None]] = {
    "import": _of_import,
    "socket.connect": _of_traffic,
    "socket.sendto": _of_traffic,
    "socket.sendmsg": _of_traffic,
    "socket.getaddrinfo": _of_lookup,
    "socket.gethostbyname": _of_lookup,  # and gethostbyname_ex
    "socket.gethostbyaddr": _of_reverse_lookup,
    "socket.getnameinfo": _of_reverse_lookup,
}


def _text(host: Any) -> str:
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("utf-8", "backslashreplace")
    return host if isinstance(host, str) else ""


def _is_by_socksy() -> bool:
    """Whether socksy itself asks: whoever called the function, or the method of a socket."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _OURS and not (module == _NAMES and is_unpatched()):
            return True
        if module not in _IN_BETWEEN:
            return bool(module.startswith(_NOT_A_CLIENT))
        frame = frame.f_back
    return False
