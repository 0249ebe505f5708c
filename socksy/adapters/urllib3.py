"""urllib3 through a proxy.

manager = SocksProxyManager("socks5h://127.0.0.1:1080")
manager.request("GET", "https://example.com/")
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool, port_by_scheme
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)
from urllib3.poolmanager import PoolManager
from urllib3.util import Retry, Timeout

from ..errors import (
    ProxyAuthenticationError,
    ProxyTimeoutError,
    ProxyUnsupportedError,
)
from ..protocol.steps import LOGIN_ANSWER
from ..sockets.lookup import NameLookupError
from ..sockets.stream import UNSET, connect_through
from . import PROXY_FAULTS, WRONG_TARGET, Way

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any

    from urllib3.response import BaseHTTPResponse

    from .. import errors
    from ..proxy import Chain, ProxyLike
    from ..sockets.stream import _Unset

__all__ = ["SocksProxyManager"]

# urllib3 has a field of this name in the keys of its pools, and hands its value to the connections.
_OPTION = "_socks_options"


class SocksProxyManager(PoolManager):
    """A `urllib3.PoolManager` whose connections go through a proxy.

    Each pool belongs to one proxy and its credentials: when a callable answers with others, other
    connections are used. There never are more than `num_pools` pools.

    Args:
        proxy: as for `SocksSocket`; by default the default proxy, as it is at each request.
        num_pools, headers, connection_pool_kw: as for `urllib3.PoolManager`.

    Raises:
        InvalidProxyError: the proxy cannot be understood.

    A request raises, with our error as `__cause__` (mostly inside a `MaxRetryError`): `ProxyError`
    for the proxy's faults, a dead proxy or a refused login; `ConnectTimeoutError` when the deadline
    passed; `NewConnectionError` when the target was refused. A refused login is never tried again.
    """

    def __init__(
        self,
        proxy: ProxyLike | _Unset = UNSET,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **connection_pool_kw: Any,
    ) -> None:
        self._way = Way(proxy)
        super().__init__(num_pools, headers, **connection_pool_kw)
        self.pool_classes_by_scheme = {
            "http": SocksHTTPConnectionPool,
            "https": SocksHTTPSConnectionPool,
        }

    def through(self, proxy: ProxyLike) -> SocksProxyManager:
        """The same manager with another proxy: the pools of both are counted together."""
        other = copy.copy(self)
        other._way = Way(proxy)
        return other

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """As in urllib3: the pool for this target, here through the proxy as it is now.

        Raises:
            urllib3.exceptions.LocationValueError: the target cannot be asked of a proxy.
        """
        if not host:
            raise LocationValueError("No host specified.")
        if port is None:
            port = port_by_scheme.get((scheme or "http").lower(), 80)
        try:
            chain = self._way.chain_for(host, port)
        except WRONG_TARGET as exc:
            raise LocationParseError(f"{host}: {exc}") from exc
        pool_kwargs = {**(pool_kwargs or {}), _OPTION: {"chain": chain}}
        return super().connection_from_host(host, port, scheme, pool_kwargs)


class _FinalError(HTTPError):
    """Its cause is of no use to the retries: not being one of those that `urlopen` catches, this
    goes past them."""


def _is_final(fault: errors.ProxyError) -> bool:
    """Whether the proxy would say the same again; of a login that can lock the account."""
    return (
        isinstance(fault, (ProxyAuthenticationError, ProxyUnsupportedError))
        or fault.phase == LOGIN_ANSWER  # some hang up instead of refusing it
    )


# urllib3 tells the names of these classes in its errors.


class SocksHTTPConnection(HTTPConnection):
    """A connection through a chain of proxies."""

    def __init__(self, *arguments: Any, _socks_options: dict[str, Any], **options: Any) -> None:
        self._chain: Chain | None = _socks_options["chain"]
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        if self._chain is None:
            return super()._new_conn()
        timeout = Timeout.resolve_default_timeout(self.timeout)
        try:
            return connect_through(
                self._chain,
                (self._dns_host, self.port),
                timeout,
                self.source_address,
                self.socket_options or (),
            )
        except ProxyTimeoutError as exc:
            raise ConnectTimeoutError(self, f"{exc} (connect timeout={timeout})") from exc
        except NameLookupError as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except PROXY_FAULTS as exc:
            if _is_final(exc):
                raise _FinalError from exc
            # what Retry(connect=...) counts
            raise ProxyError(str(exc), NewConnectionError(self, str(exc))) from exc
        except OSError as exc:
            text = f"Failed to establish a new connection: {exc}"
            raise NewConnectionError(self, text) from exc


class SocksHTTPSConnection(SocksHTTPConnection, HTTPSConnection):
    """The same with TLS."""


class SocksHTTPConnectionPool(HTTPConnectionPool):
    """Connections to one target, through one chain."""

    ConnectionCls = SocksHTTPConnection

    def urlopen(  # type: ignore[override] # the rest is as it is
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        retries: Retry | bool | int | None = None,
        *arguments: Any,
        **options: Any,
    ) -> BaseHTTPResponse:
        """As in urllib3, but a refused login is not tried again, whatever `retries` say."""
        try:
            return super().urlopen(method, url, body, headers, retries, *arguments, **options)
        except _FinalError as exc:
            ours: Any = exc.__cause__
            error = ProxyError(str(ours), ours)
            if Retry.from_int(retries, default=self.retries).total is False:
                raise error from ours
            error.__cause__ = ours
            raise MaxRetryError(self, url, error) from error


class SocksHTTPSConnectionPool(SocksHTTPConnectionPool, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = SocksHTTPSConnection
