"""PySocks' `sockshandler` module: urllib.request through a proxy."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from typing import Any

from . import create_connection

__all__ = ["SocksiPyConnection", "SocksiPyConnectionS", "SocksiPyHandler"]

_NODELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


class SocksiPyConnection(http.client.HTTPConnection):
    """An HTTP connection through a proxy.

    Args:
        proxytype, proxyaddr, proxyport, rdns, username, password: as for `socksocket.set_proxy`.
        Others: as for `http.client.HTTPConnection`.
    """

    def __init__(
        self,
        proxytype: int,
        proxyaddr: str,
        proxyport: int | None = None,
        rdns: bool = True,
        username: str | bytes | None = None,
        password: str | bytes | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.proxyargs = (proxytype, proxyaddr, proxyport, rdns, username, password)
        super().__init__(*args, **kwargs)

    source_address: tuple[str, int] | None  # not in the type stubs

    def connect(self) -> None:
        timeout = self.timeout
        limit = timeout if isinstance(timeout, (int, float)) else None
        self.sock = create_connection(
            (self.host, self.port), limit, self.source_address, *self.proxyargs, _NODELAY
        )


class SocksiPyConnectionS(SocksiPyConnection, http.client.HTTPSConnection):
    """The same with TLS, which verifies the target; ``context=`` as for `HTTPSConnection`."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context: Any = self._context  # type: ignore[attr-defined]
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


class SocksiPyHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https URLs through a proxy.

    Args:
        args, kwargs: what `SocksiPyConnection` takes: the proxy's six values; ``context=`` for TLS.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.context = kwargs.pop("context", None)
        self.kw = kwargs
        super().__init__()

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def build(host: str, **options: Any) -> http.client.HTTPConnection:
            return SocksiPyConnection(*self.args, host=host, **{**self.kw, **options})

        return self.do_open(build, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def build(host: str, **options: Any) -> http.client.HTTPConnection:
            return SocksiPyConnectionS(
                *self.args, host=host, context=self.context, **{**self.kw, **options}
            )

        return self.do_open(build, req)
