"""``socksy demo``: a page fetched through every kind of proxy, and what was said on the way.

The bytes are those of the very handshake: a tap between client and proxy records them.
"""

from __future__ import annotations

import http.client
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..cli import complain
from ..errors import InvalidArgumentError, ProxyError, ProxyReplyError
from ..hosts import clean_target, pack_ip
from ..protocol.codes import Command
from ..proxy import HTTP, SOCKS4, SOCKS4A, SOCKS5H, as_route
from ..sockets.stream import create_connection
from ..testing import SocksServer, watch_lookups
from .fields import fields_of
from .screen import Screen
from .tap import PAGE, Tap, web_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proxy import Chain
    from ..testing import ServedRequest

__all__ = ["through", "tour"]

_NAME = "www.socksy.test"
_SECOND = "second-proxy.test"
_MAYBE_NOT_HERE = (
    "the page is on this machine's loopback, which a proxy elsewhere cannot reach and some refuse: "
    "try --target http://example.com/"
)


def tour(timeout: float = 10.0) -> int:
    """Every protocol, through proxies of the demo's own; the exit code."""
    screen = Screen()
    began = perf_counter()
    with ExitStack() as stack:
        web = stack.enter_context(web_server())
        names = {_NAME: ("127.0.0.1", web)}
        second = stack.enter_context(SocksServer(names=names))
        first = stack.enter_context(SocksServer(names={**names, _SECOND: second.address}))
        guarded = stack.enter_context(SocksServer(names=names, users={"alice": "open sesame"}))
        screen.line("socksy demo: one page through six kinds of proxy, all on this machine.")
        screen.line(f"Only the proxies know where {_NAME} is. -> is what we say, <- what we hear.")
        hop = second.proxy(SOCKS4A, host=_SECOND)
        stops: list[tuple[str, Chain, str, int, Sequence[SocksServer]]] = [
            ("SOCKS4: addresses only", (first.proxy(SOCKS4),), "127.0.0.1", web, [first]),
            ("SOCKS4a: the name goes along", (first.proxy(SOCKS4A),), _NAME, 80, [first]),
            ("SOCKS5", (first.proxy(SOCKS5H),), _NAME, 80, [first]),
            ("SOCKS5 with login", (guarded.proxy(SOCKS5H),), _NAME, 80, [guarded]),
            ("HTTP CONNECT", (first.proxy(HTTP),), _NAME, 80, [first]),
            ("SOCKS5, then SOCKS4a", (first.proxy(SOCKS5H), hop), _NAME, 80, [first, second]),
        ]
        for number, (title, chain, host, port, servers) in enumerate(stops, 1):
            screen.title(f"{number}. {title}")
            asked_before = [len(server.requests) for server in servers]
            visit = _Visit(screen, chain, timeout)
            visit.fetch(host, port, "/", PAGE)
            for server, before in zip(servers, asked_before, strict=True):
                for request in server.requests[before:]:
                    screen.fact("the proxy saw", _seen(request))
            if visit.failed:
                return 1
    screen.title(f"{len(stops)} pages in {perf_counter() - began:.2f} s.")
    screen.line("Try a proxy of yours: socksy demo --proxy socks5h://user:password@host:1080")
    return 0


def through(urls: Sequence[str], target: str | None = None, timeout: float = 10.0) -> int:
    """One page through a proxy, or a chain of them, of the user's own; the exit code.

    Args:
        target: an http:// page; by default one from this machine.

    Raises:
        InvalidArgumentError: a URL is wrong.
    """
    chain = as_route(list(urls))
    assert isinstance(chain, tuple)
    host, port, path = _split(target) if target is not None else ("", 0, "/")
    screen = Screen()
    with ExitStack() as stack:
        expected = None
        if target is None:
            port = stack.enter_context(web_server())
            host = "localhost" if chain[-1].remote_dns else "127.0.0.1"
            expected = PAGE
        screen.title(f"http://{host}:{port}{path} through {', then '.join(map(str, chain))}")
        visit = _Visit(screen, chain, timeout)
        visit.fetch(host, port, path, expected)
    return int(visit.failed)


def _split(target: str) -> tuple[str, int, str]:
    """Host, port and path of a page."""
    try:
        url = urlsplit(target)
        path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        if url.scheme == "http" and url.hostname and all("!" <= char <= "~" for char in path):
            return (*clean_target(url.hostname, 80 if url.port is None else url.port), path)
    except ValueError:
        pass
    raise InvalidArgumentError(f"a target is a page like http://example.com/, not {target!r}")


class _Visit:
    """A page fetched through a chain, and the account of it.

    Attributes:
        failed: whether the page has not come.
    """

    def __init__(self, screen: Screen, chain: Chain, timeout: float) -> None:
        self._screen = screen
        self._chain = chain
        self._timeout = timeout
        self.failed = False

    def fetch(self, host: str, port: int, path: str, expected: bytes | None) -> None:
        """Fetch, and say how it went."""
        error: OSError | http.client.HTTPException | None = None
        page = ""
        with watch_lookups() as lookups, Tap(self._chain[0], self._timeout) as tap:
            began = perf_counter()
            connected = 0.0
            try:
                connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
                connection.sock = create_connection(
                    (host, port), self._timeout, proxy=[tap.proxy, *self._chain[1:]]
                )
                connected = perf_counter()
                page = _get(connection, path, expected)
            except (OSError, http.client.HTTPException) as exc:
                error = exc
            ended = perf_counter()
        self._screen.table(fields_of(self._chain, tap.tape))
        if error is not None:
            self.failed = True
            error = self._reword(error, tap, host, port)
            complain(str(error) or type(error).__name__)
            if expected is not None and isinstance(error, ProxyReplyError):
                complain(_MAYBE_NOT_HERE)
            return
        self._screen.fact("the page", page)
        self._screen.fact(
            "time",
            f"handshake {1000 * (connected - began):.1f} ms, "
            f"with the page {1000 * (ended - began):.1f} ms",
        )
        self._screen.fact("looked up here", self._own_lookups(lookups.names))

    def _own_lookups(self, names: list[str]) -> str:
        others = [name for name in names if name != self._chain[0].host]
        if others:
            return ", ".join(others)
        return "nothing but the proxy" if names else "nothing"

    def _reword(
        self, error: OSError | http.client.HTTPException, tap: Tap, host: str, port: int
    ) -> OSError | http.client.HTTPException:
        """The error as it would be without our tap in between."""
        if tap.error is not None:
            try:
                create_connection((host, port), self._timeout, proxy=self._chain).close()
            except ProxyError as exc:
                return exc
        if isinstance(error, ProxyError) and error.proxy == str(tap.proxy):
            error.proxy = str(self._chain[0])
        return error


def _get(connection: http.client.HTTPConnection, path: str, expected: bytes | None) -> str:
    """Fetch a page over a connection that stands; says what has come."""
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        page = response.read()
    finally:
        connection.close()
    if expected is not None and page != expected:
        raise http.client.HTTPException("this is not the page of the demo's web server")
    return f"{response.status} {response.reason}, {len(page)} bytes"


def _seen(request: ServedRequest) -> str:
    what = "an address" if pack_ip(request.host) is not None else "a name"
    login = f", from {request.username}" if request.username else ""
    return f"{Command(request.command).name} {request.host}:{request.port}, {what}{login}"
