"""requests through a proxy.

with SocksSession("socks5h://127.0.0.1:1080") as session:
    session.get("https://example.com/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests import Session
from requests.adapters import DEFAULT_POOLBLOCK, DEFAULT_POOLSIZE, DEFAULT_RETRIES, HTTPAdapter
from requests.exceptions import InvalidProxyURL, RequestException
from requests.utils import get_environ_proxies, select_proxy

from ..errors import InvalidProxyError
from ..proxy import Proxy
from ..sockets.stream import UNSET, _Unset
from . import ours_behind
from .urllib3 import SocksProxyManager

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from requests import PreparedRequest, Response
    from urllib3.util import Retry

    from ..proxy import ProxyLike

__all__ = ["SocksAdapter", "SocksSession"]


class SocksSession(Session):
    """A `requests.Session` with a `SocksAdapter` for all that it can fetch: http and https.

    The environment counts as in any session (.netrc, REQUESTS_CA_BUNDLE), unless `trust_env` is
    made False; but with a `proxy` not the environment's proxies, nor its ``no_proxy``.

    Args:
        proxy, options: as for `SocksAdapter`.

    Raises:
        InvalidProxyError: the proxy cannot be understood.
    """

    def __init__(self, proxy: ProxyLike | _Unset = UNSET, **options: Any) -> None:
        super().__init__()
        adapter = SocksAdapter(proxy, **options)
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter)


class SocksAdapter(HTTPAdapter):
    """A `requests.adapters.HTTPAdapter` that goes through a proxy.

    To be mounted on a session for http and https both, as `SocksSession` does: what has no
    adapter of ours goes direct, and that may be where a redirect leads.

    With a `proxy` it uses that one, and the environment cannot lead around it; only ``proxies=``
    that differ from the environment are obeyed. Without one it serves ``proxies=`` and the
    environment's proxies, with every scheme of ours and without PySocks; for what they leave out it
    uses the default proxy, if there is one.

    Connections are never shared between proxies or credentials; there are at most
    `pool_connections` pools, however many proxies are named.

    Args:
        proxy: as for `SocksSocket`.
        pool_connections, pool_maxsize, max_retries, pool_block: as for `HTTPAdapter`.

    Raises:
        InvalidProxyError: the proxy cannot be understood.

    A request raises, with our error as `__cause__`: `requests.exceptions.ProxyError` for the
    proxy's faults, a dead proxy or a refused login; `ConnectTimeout` when the deadline passed;
    `ConnectionError` when the target was refused; `InvalidProxyURL` for a wrong ``proxies=``.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_proxy"]  # noqa: RUF012 - what is pickled

    poolmanager: SocksProxyManager

    def __init__(
        self,
        proxy: ProxyLike | _Unset = UNSET,
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        max_retries: Retry | int = DEFAULT_RETRIES,
        pool_block: bool = DEFAULT_POOLBLOCK,
    ) -> None:
        self._proxy = proxy
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        """As in requests; it is a `SocksProxyManager`."""
        super().init_poolmanager(connections, maxsize, block)
        self.poolmanager = SocksProxyManager(
            self._proxy, num_pools=connections, maxsize=maxsize, block=block, **pool_kwargs
        )

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """As in requests; a SOCKS proxy shares the pools of the adapter."""
        if _is_socks(proxy):
            return self.poolmanager.through(proxy)
        return super().proxy_manager_for(proxy, **proxy_kwargs)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """As in requests, with the errors described above."""
        proxies = self._proxies_for(request, proxies)
        if all(_is_socks(proxy) for proxy in proxies.values()):
            # requests adds it to what it redirects, and here only the target would read it
            request.headers.pop("Proxy-Authorization", None)
        try:
            return super().send(request, stream, timeout, verify, cert, proxies)
        except RequestException as exc:
            ours = ours_behind(exc)
            if ours is None:
                raise
            raise exc from ours

    def _proxies_for(
        self, request: PreparedRequest, proxies: Mapping[str, str] | None
    ) -> dict[str, str]:
        """Those of ``proxies=`` that count here: none if the own proxy is used."""
        url = str(request.url)
        named = select_proxy(url, dict(proxies or {}))
        if not named:
            return {}
        if not isinstance(self._proxy, _Unset) and named == select_proxy(
            url, get_environ_proxies(url)
        ):
            return {}
        if not _is_socks(named):
            return {"all": named}
        try:
            return {"all": Proxy.from_url(named).to_url(with_credentials=True)}
        except InvalidProxyError as exc:
            raise InvalidProxyURL(str(exc), request=request) from exc


def _is_socks(url: str) -> bool:
    return url.lower().startswith("socks")
