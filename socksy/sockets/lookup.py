"""Local name lookups: the only place that asks a resolver, and what it refuses to ask."""

from __future__ import annotations

import errno
import os
import select
import socket
from _thread import allocate_lock
from time import monotonic

from ..errors import ProxyConnectionError, ProxyError, ProxyTimeoutError
from ..hosts import refuse_onion
from ..names import unpatched
from ..proxy import Proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeAlias

    from .dial import Wait

    #: an address family and what connect() takes for it
    Endpoint: TypeAlias = "tuple[int, tuple[Any, ...] | str]"

_FRESH = 1.0  # seconds for which a question may be joined


class NameLookupError(ProxyError, socket.gaierror):
    """A target's name cannot be resolved here, as a ``socks4://`` or ``socks5://`` proxy needs it.

    Also a `socket.gaierror`, as a plain socket would raise; `errno` is its EAI_* number.
    """


def lookup(
    host: str, port: int, family: int, deadline: float | None
) -> Generator[Wait, bool, list[Endpoint]]:
    """Every address of a name, in the resolver's order.

    A resolver cannot be told a deadline, so with one it is asked in another thread, which is left
    behind when the time is up.

    Raises:
        socket.gaierror: no such name.
        ProxyTimeoutError: the deadline passed first.
        ProxyUnsupportedError: a .onion name, which only Tor can resolve (RFC 7686).
    """
    refuse_onion(host)
    # as bytes: for a str the resolver would load Python's IDNA codec
    arguments = host.encode("ascii"), port, family, socket.SOCK_STREAM
    if deadline is None:
        found = unpatched(socket.getaddrinfo, *arguments)
    else:
        found = yield from _getaddrinfo_until(deadline, arguments)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


class _Question:
    """What a thread asks the resolver, and who waits for the answer.

    Hundreds of connects that begin together share one question: most are about the same proxy. One
    that has been on its way for longer is asked anew, for it may have been lost.
    """

    __slots__ = ("arguments", "began", "waiting")
    lock = allocate_lock()
    latest: dict[tuple[Any, ...], _Question] = {}  # noqa: RUF012 - one for all

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.began = monotonic()
        self.waiting: list[tuple[list[Any], socket.socket]] = []

    def ask(self) -> None:
        """In a thread of its own."""
        try:
            self.answer(unpatched(*self.arguments))
        except Exception as exc:  # handed to whoever waits
            self.answer(exc)

    def answer(self, found: Any) -> None:
        """Tell everybody who waits, and nobody who comes later."""
        with self.lock:
            if self.latest.get(self.arguments) is self:
                del self.latest[self.arguments]
        for outcome, there in self.waiting:
            outcome.append(found)
            there.close()  # which makes the other end readable

    @classmethod
    def forget_all(cls) -> None:
        """After a fork: the threads are not here."""
        cls.lock = allocate_lock()
        cls.latest = {}


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_Question.forget_all)


def _getaddrinfo_until(
    deadline: float, arguments: tuple[Any, ...]
) -> Generator[Wait, bool, list[Any]]:
    outcome: list[Any] = []
    here, there = socket.socketpair()
    with here:
        _ask_or_join((socket.getaddrinfo, *arguments), (outcome, there))
        if not (yield here, select.POLLIN, deadline):
            raise ProxyTimeoutError(phase="the name lookup")
    found = outcome.pop()
    if isinstance(found, Exception):
        raise found.with_traceback(None)
    return found  # type: ignore[no-any-return]


def _ask_or_join(arguments: tuple[Any, ...], waiter: tuple[list[Any], socket.socket]) -> None:
    with _Question.lock:
        question = _Question.latest.get(arguments)
        if question is not None and monotonic() - question.began < _FRESH:
            question.waiting.append(waiter)
            return
        question = _Question.latest[arguments] = _Question(arguments)
        question.waiting.append(waiter)
    import threading

    try:
        threading.Thread(target=question.ask, name="socksy-lookup", daemon=True).start()
    except RuntimeError as exc:  # no more threads
        question.answer(exc)


def proxy_endpoints(proxy: Proxy, deadline: float | None) -> Generator[Wait, bool, list[Endpoint]]:
    """Where a proxy may be reached: an address as it is, a name's every address, a Unix socket.

    Raises:
        ProxyConnectionError: its name cannot be resolved.
    """
    host, port = proxy.host, proxy.port
    if proxy.endpoint is not None:
        return [(socket.AF_INET, proxy.endpoint)]
    if proxy.path is not None:
        return [(socket.AF_UNIX, proxy.path)]
    try:
        return (yield from lookup(host, port, 0, deadline))
    except socket.gaierror as exc:
        raise ProxyConnectionError(
            errno.EHOSTUNREACH, f"the proxy's name cannot be resolved: {exc.strerror}"
        ) from exc


def target_addresses(
    host: str, port: int, family: int, deadline: float | None
) -> Generator[Wait, bool, list[str]]:
    """Every address of a target that its proxy wants as an address.

    Raises:
        NameLookupError: no such name, or none with an address that means something to a proxy.
    """
    try:
        found = yield from lookup(host, port, family, deadline)
        # an address with a zone is one of this machine's links
        addresses = [str(sockaddr[0]) for _, sockaddr in found if "%" not in sockaddr[0]]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has link-local addresses only")
    except socket.gaierror as exc:
        error = NameLookupError(
            exc.errno or socket.EAI_NONAME,
            exc.strerror or "name lookup failed",
            phase="the name lookup",
            hint="Names that only the proxy knows want socks5h:// or socks4a://",
        )
        error.target = host, port
        raise error from exc
    return list(dict.fromkeys(addresses))
