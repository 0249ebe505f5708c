"""HTTP libraries through a proxy: one module for each, which imports it only when imported itself.

    socksy.adapters.urllib      SocksHandler, for urllib.request
    socksy.adapters.urllib3     SocksProxyManager
    socksy.adapters.requests    SocksSession, SocksAdapter
    socksy.adapters.httpx       SocksTransport, AsyncSocksTransport
    socksy.adapters.aiohttp     SocksConnector

In all of them ``proxy=`` is what it is for a `SocksSocket`, ``http://`` targets are tunnelled as
``https://`` ones are, TLS is the library's own, and its errors have ours as their cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import (
    InvalidArgumentError,
    InvalidTargetError,
    ProxyAuthenticationError,
    ProxyConnectionError,
    ProxyError,
    ProxyProtocolError,
    ProxyUnsupportedError,
)
from ..hosts import clean_target
from ..proxy import as_route
from ..sockets.stream import _Unset, chain_for

if TYPE_CHECKING:
    from ..hosts import Host
    from ..proxy import Chain, ProxyLike

#: what is the proxy's fault, not the target's
PROXY_FAULTS = (
    ProxyConnectionError,
    ProxyAuthenticationError,
    ProxyProtocolError,
    ProxyUnsupportedError,
)
#: what is wrong with a target: it cannot be asked of a proxy, or is .onion and there is none
WRONG_TARGET = (InvalidTargetError, ProxyUnsupportedError)


def ours_behind(error: BaseException | None) -> BaseException | None:
    """Our error that led to one of a library's, however deep it is."""
    while error is not None and not isinstance(error, (ProxyError, InvalidArgumentError)):
        error = error.__cause__ or error.__context__
    return error


class Way:
    """What an adapter does with its ``proxy=``.

    Raises:
        InvalidProxyError: it is none.
    """

    def __init__(self, proxy: ProxyLike | _Unset) -> None:
        self._route = proxy if isinstance(proxy, _Unset) else as_route(proxy)

    def chain_for(self, host: Host, port: int) -> Chain | None:
        """The proxies for a target, None for a direct connection.

        Raises:
            InvalidTargetError, ProxyUnsupportedError: see `WRONG_TARGET`.
        """
        chain = chain_for(self._route, host, port)
        if chain is not None:
            clean_target(host, port)
        return chain
