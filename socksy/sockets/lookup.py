"""Local name lookups: the only place that asks a resolver, and what it refuses to ask."""

from __future__ import annotations

import errno
import select
import socket

from ..errors import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyUnsupportedError
from ..hosts import is_onion
from ..names import unpatched
from ..proxy import Proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeAlias

    from .dial import Wait

    #: an address family and what connect() takes for it
    Endpoint: TypeAlias = "tuple[int, tuple[Any, ...] | str]"


class NameLookupError(ProxyError, socket.gaierror):
    """A target's name cannot be resolved here, as a ``socks4://`` or ``socks5://`` proxy needs it.

    Also a `socket.gaierror`, as a plain socket would raise; `errno` is its EAI_* number.
    """


def lookup(
    host: str, port: int, family: int, deadline: float | None
) -> Generator[Wait, bool, list[Endpoint]]:
    """Every address of a name, in the resolver's order.

    A resolver cannot be told a deadline, so with one it is asked in a thread of its own, which is
    left behind when the time is up.

    Raises:
        socket.gaierror: no such name.
        ProxyTimeoutError: the deadline passed first.
        ProxyUnsupportedError: a .onion name, which only Tor can resolve (RFC 7686).
    """
    if is_onion(host):
        raise ProxyUnsupportedError(
            message=".onion names are never looked up locally",
            hint="Let the proxy resolve them: socks5h:// or socks4a://",
        )
    # as bytes: for a str the resolver would load Python's IDNA codec
    arguments = host.encode("ascii"), port, family, socket.SOCK_STREAM
    if deadline is None:
        found = unpatched(socket.getaddrinfo, *arguments)
    else:
        found = yield from _getaddrinfo_until(deadline, arguments)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _getaddrinfo_until(
    deadline: float, arguments: tuple[Any, ...]
) -> Generator[Wait, bool, list[Any]]:
    import threading

    outcome: list[Any] = []
    here, there = socket.socketpair()

    def ask() -> None:
        try:
            outcome.append(unpatched(socket.getaddrinfo, *arguments))
        except Exception as exc:  # handed to whoever waits
            outcome.append(exc)
        finally:
            there.close()  # which makes the other end readable

    with here:
        threading.Thread(target=ask, name="socksy-lookup", daemon=True).start()
        if not (yield here, select.POLLIN, deadline):
            raise ProxyTimeoutError(phase="the name lookup")
    found = outcome.pop()
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[no-any-return]


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
