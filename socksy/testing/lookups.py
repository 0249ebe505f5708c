"""Proof that no name was looked up locally.

An audit hook hears every call of `getaddrinfo` and its relatives, whoever holds a reference to
them. A name given to `socket.connect` or `sendto` is looked up in C before any hook hears of it, so
those methods of `socket.socket` are listened to while somebody watches. C libraries with resolvers
of their own cannot be heard.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..hosts import pack_ip
from ..sockets.stream import SocksSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self


class LocalLookup(AssertionError):
    """A name was about to be looked up locally, where that is forbidden.

    Not an OSError: code that falls back on some other way when a lookup fails must not hide it.
    """


class watch_lookups:  # noqa: N801 - used like a function, `with watch_lookups() as lookups:`
    """The local name lookups of this process while a ``with`` block runs, in all threads.

    Addresses are no lookups, and what stays on this machine does not count: ``localhost``, names
    below it, and the names of loopback addresses. Nor does what a `SocksServer` looks up: that is
    the proxy's doing.

    Args:
        forbid: raise `LocalLookup` in the caller, before anything is asked.

    Attributes:
        names (list[str]): what was asked for, in order; an address for a reverse lookup.
    """

    def __init__(self, *, forbid: bool = False) -> None:
        self.names: list[str] = []
        self._forbid = forbid

    def __enter__(self) -> Self:
        global _hooked
        with _lock:
            if not _hooked:  # one for the life of the process: hooks cannot be taken out
                sys.addaudithook(_hear)
                _hooked = True
            if not _watching:
                _listen_to_methods()
            _watching.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            _watching.remove(self)
            if not _watching:
                _leave_methods_alone()

    def _note(self, name: str, where: str) -> None:
        self.names.append(name)
        if self._forbid:
            raise LocalLookup(f"{name!r} would have been looked up locally, by {where}")


_lock = threading.Lock()
_watching: list[watch_lookups] = []
_hooked = False

_FORWARD = ("socket.getaddrinfo", "socket.gethostbyname")
_REVERSE = ("socket.gethostbyaddr", "socket.getnameinfo")
_METHODS = ("bind", "connect", "connect_ex", "sendto", "sendmsg")
# The class itself, also while the process is patched.
_PLAIN = SocksSocket.__mro__[1]
_listening: dict[str, tuple[Any, Any]] = {}  # method -> what was there, and what we put there
_by_the_proxy: ContextVar[bool] = ContextVar("socksy.lookup_by_the_proxy", default=False)


@contextmanager
def not_the_programs() -> Iterator[None]:
    """What is looked up in the block, by this thread, is looked up by the embedded proxy."""
    token = _by_the_proxy.set(True)
    try:
        yield
    finally:
        _by_the_proxy.reset(token)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook. gethostbyname_ex and getfqdn raise the same events."""
    if not _watching or _by_the_proxy.get():
        return
    if event in _FORWARD:
        _note_name(arguments[0], event)
    elif event in _REVERSE:
        asked = arguments[0]
        host = _text(asked[0] if isinstance(asked, tuple) else asked)
        if not _stays_here(host):
            _note_all(host, event)


def _note_name(host: Any, where: str) -> None:
    host = _text(host)
    if pack_ip(host.partition("%")[0]) is None and not _stays_here(host):
        _note_all(host, where)


def _note_all(name: str, where: str) -> None:
    for lookups in list(_watching):
        lookups._note(name, where)


def _listen_to_methods() -> None:
    for name in _METHODS:
        before = _PLAIN.__dict__.get(name)  # None where it is inherited
        ours = _listener_for(name, getattr(_PLAIN, name))
        setattr(_PLAIN, name, ours)
        _listening[name] = before, ours


def _leave_methods_alone() -> None:
    for name, (before, ours) in _listening.items():
        if _PLAIN.__dict__.get(name) is not ours:
            continue  # somebody else has put theirs on top
        if before is None:
            delattr(_PLAIN, name)
        else:
            setattr(_PLAIN, name, before)
    _listening.clear()


def _listener_for(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: socket.socket, *arguments: Any) -> Any:
        # in all of them the address comes last
        address = arguments[-1] if arguments else None
        if (
            isinstance(address, tuple)
            and len(address) > 1
            and isinstance(address[1], int)
            and self.family in (socket.AF_INET, socket.AF_INET6)
        ):
            _note_name(address[0], f"socket.{name}")
        return original(self, *arguments)

    method.__name__ = name
    return method


def _text(host: Any) -> str:
    if isinstance(host, (bytes, bytearray)):
        return host.decode("utf-8", "backslashreplace")
    return host if isinstance(host, str) else ""


def _stays_here(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name in ("", "localhost", "<broadcast>") or name.endswith(".localhost"):
        return True
    packed = pack_ip(host)
    return packed is not None and (packed[0] == 127 or packed == bytes(15) + b"\1")
