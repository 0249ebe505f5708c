"""Local name lookups: the only place that asks a resolver, and what it refuses to ask."""

from __future__ import annotations

import errno
import socket
from time import monotonic

from ..errors import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyUnsupportedError
from ..hosts import is_onion, pack_ip
from ..proxy import Proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    #: an address family and what connect() takes for it
    Endpoint: TypeAlias = "tuple[int, tuple[Any, ...] | str]"


class NameLookupError(ProxyError, socket.gaierror):
    """A target's name cannot be resolved here, as a ``socks4://`` or ``socks5://`` proxy needs it.

    Also a `socket.gaierror`, as a plain socket would raise; `errno` is its EAI_* number.
    """


def lookup(host: str, port: int, family: int, deadline: float | None) -> list[tuple[str, Endpoint]]:
    """Every address of a name, as (text, endpoint), in the resolver's order.

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
        found = socket.getaddrinfo(*arguments)
    else:
        found = _getaddrinfo_until(deadline, arguments)
    return [(str(sockaddr[0]), (family, sockaddr)) for family, _, _, _, sockaddr in found]


def _getaddrinfo_until(deadline: float, arguments: tuple[Any, ...]) -> list[Any]:
    import threading

    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append((socket.getaddrinfo(*arguments), None))
        except BaseException as exc:  # handed to whoever waits
            outcome.append((None, exc))

    thread = threading.Thread(target=ask, name="socksy-lookup", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - monotonic()))
    if not outcome:
        raise ProxyTimeoutError(phase="the name lookup")
    found, error = outcome[0]
    if error is not None:
        try:
            raise error
        finally:
            del error, outcome  # no reference cycle through the traceback
    return found  # type: ignore[no-any-return]


def proxy_endpoints(proxy: Proxy, deadline: float | None) -> list[Endpoint]:
    """Where a proxy may be reached: an address as it is, a name's every address, a Unix socket.

    Raises:
        ProxyConnectionError: its name cannot be resolved.
    """
    host, port = proxy.host, proxy.port
    if proxy.path is not None:
        return [(socket.AF_UNIX, proxy.path)]
    packed = None if ":" in host else pack_ip(host)
    if packed is not None:
        return [(socket.AF_INET, (host, port))]
    try:
        return [endpoint for _, endpoint in lookup(host, port, 0, deadline)]
    except socket.gaierror as exc:
        raise ProxyConnectionError(
            errno.EHOSTUNREACH, f"the proxy's name cannot be resolved: {exc.strerror}"
        ) from exc


def target_addresses(host: str, port: int, family: int, deadline: float | None) -> list[str]:
    """Every address of a target that its proxy wants as an address.

    Raises:
        NameLookupError: no such name.
    """
    try:
        found = lookup(host, port, family, deadline)
    except socket.gaierror as exc:
        error = NameLookupError(
            exc.errno or socket.EAI_NONAME,
            exc.strerror or "name lookup failed",
            phase="the name lookup",
            hint="Names that only the proxy knows want socks5h:// or socks4a://",
        )
        error.target = host, port
        raise error from exc
    return list(dict.fromkeys(address for address, _ in found))
