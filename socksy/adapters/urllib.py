"""`urllib.request` through a proxy.

opener = urllib.request.build_opener(SocksHandler("socks5h://127.0.0.1:1080"))
opener.open("https://example.com/", timeout=10)
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import AbstractHTTPHandler, Request

from ..errors import InvalidTargetError, ProxyUnsupportedError
from ..hosts import to_ascii
from ..sockets.stream import UNSET, connect_through
from . import Way

if TYPE_CHECKING:
    from typing import Any

    from ..proxy import ProxyLike
    from ..sockets.stream import _Unset

__all__ = ["SocksHandler"]


class SocksHandler(AbstractHTTPHandler):
    """Opens http and https URLs through a proxy, whatever other handlers there are.

    It comes before `urllib.request.ProxyHandler`, so the environment cannot lead around it. An ftp
    URL, which a redirect may name as well, is refused: it would go direct.

    Args:
        proxy: as for `SocksSocket`; by default the default proxy, as it is when a URL is opened.
        context: for TLS with the target; by default one that verifies it.

    Raises:
        InvalidProxyError: the proxy cannot be understood.

    A proxy's error is the `reason` of the `urllib.error.URLError` that is raised, and so is what is
    wrong with a target that cannot be asked of a proxy.
    """

    handler_order = 50  # ProxyHandler's is 100; the lowest is asked first

    def __init__(
        self, proxy: ProxyLike | _Unset = UNSET, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        self._way = Way(proxy)
        if context is None:
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
        self._context = context

    def http_request(self, request: Request) -> Request:
        """Complete the headers; a host that is not ASCII becomes an IDNA name."""
        host = request.host
        if host and not host.isascii():
            name, colon, port = host.rpartition(":") if host[-1].isdigit() else (host, "", "")
            try:
                request.host = f"{to_ascii(name)}{colon}{port}"
            except InvalidTargetError as exc:
                raise URLError(exc) from exc
        return self.do_request_(request)

    https_request = http_request

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        return self._open(self._connection, request)

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        return self._open(self._secure_connection, request)

    def _open(self, connection: Any, request: Request) -> http.client.HTTPResponse:
        try:
            return self.do_open(connection, request)
        except InvalidTargetError as exc:
            raise URLError(exc) from exc

    def ftp_open(self, request: Request) -> None:
        """Refuses. Without this, FTPHandler would connect directly."""
        raise URLError(ProxyUnsupportedError(message="ftp:// does not go through SocksHandler"))

    def _connection(self, host: str, /, **options: Any) -> _Connection:
        connection = _Connection(host, **options)
        connection.way = self._way
        return connection

    def _secure_connection(self, host: str, /, **options: Any) -> _SecureConnection:
        connection = _SecureConnection(host, context=self._context, **options)
        connection.way = self._way
        return connection


class _Connection(http.client.HTTPConnection):
    way: Way

    def connect(self) -> None:
        chain = self.way.chain_for(self.host, self.port)
        if chain is None:
            super().connect()
            return
        nodelay = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = connect_through(chain, (self.host, self.port), self.timeout, options=(nodelay,))


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """HTTPSConnection.connect calls the one above, then wraps what it has made."""
