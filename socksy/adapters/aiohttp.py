"""aiohttp through a proxy.

    connector = SocksConnector("socks5h://127.0.0.1:1080")
    async with aiohttp.ClientSession(connector=connector) as session:
        await session.get("https://example.com/")

aiohttp looks a host up and then has the loop connect a socket to the address. Here the lookup gives
an address that cannot be a destination, and the socket, which was made for that one connection,
knows better.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver

from ..defaults import get_default_proxy
from ..errors import ProxyError
from ..sockets.stream import UNSET, SocksSocket, _Unset
from . import WRONG_TARGET, Way

if TYPE_CHECKING:
    from typing import Any

    from ..proxy import Chain, ProxyLike

__all__ = ["SocksConnector"]

# Reserved (RFC 1112, section 4) and for discarding (RFC 6666); nothing is ever sent there.
_PLACEHOLDERS = {socket.AF_INET: "240.0.0.1", socket.AF_INET6: "100::1"}


class SocksConnector(aiohttp.TCPConnector):
    """A connector for `aiohttp.ClientSession` that goes through a proxy.

    Args:
        proxy: as for `SocksSocket`; by default the default proxy, as it is now. With a callable
            each request has a connection of its own: aiohttp could not tell identities apart.
        options: as for `aiohttp.TCPConnector`, but for those about name lookups: `family`,
            `resolver`, `use_dns_cache` and `socket_factory`.

    Raises:
        InvalidProxyError: the proxy cannot be understood.
        TypeError: an option that is not for a proxy.

    A request raises `aiohttp.ClientConnectorError`, whose `os_error` and `__cause__` are our error,
    and whose text has that of ours; `aiohttp.ServerTimeoutError` when
    ``ClientTimeout(sock_connect=...)`` passed, which is one deadline for the proxy, the handshake
    and TLS; `aiohttp.InvalidURL` for a target that cannot be asked of a proxy.
    """

    def __init__(self, proxy: ProxyLike | _Unset = UNSET, **options: Any) -> None:
        if isinstance(proxy, _Unset):
            proxy = get_default_proxy()
        self._way = Way(proxy)
        if callable(proxy):
            options["force_close"] = True
        super().__init__(
            family=socket.AF_UNSPEC,
            resolver=_Resolver(self._way),
            use_dns_cache=False,
            socket_factory=self._make_socket,
            **options,
        )

    async def connect(self, *arguments: Any, **options: Any) -> aiohttp.connector.Connection:
        """As in aiohttp; errors say what ours say, which proxy it was, say, and where it stood."""
        try:
            return await super().connect(*arguments, **options)
        except aiohttp.ClientConnectorError as exc:
            if isinstance(exc.__cause__, ProxyError):
                exc.strerror = str(exc.__cause__)  # which it makes its text of
            raise

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, (host, port, *_) = info
        if isinstance(host, _Host):
            chain, name = host.chain, host.name
        else:  # an address in the URL
            chain, name = _chain_for(self._way, host, port), host
        if chain is None:
            return socket.socket(family, kind, proto)
        sock = _Socket(family, kind, proto, proxy=chain)
        sock.destination = name, port
        return sock


class _Resolver(AbstractResolver):
    """Looks up only what goes direct."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._direct: Any = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[Any]:
        chain = _chain_for(self._way, host, port)
        if chain is None:
            if self._direct is None:
                self._direct = aiohttp.DefaultResolver()
            found = await self._direct.resolve(host, port, family)
            return [{**row, "host": _Host(row["host"], host, None)} for row in found]
        # of the family that the proxy most likely has: then the descriptor need not be changed
        family = socket.AF_INET6 if ":" in chain[0].host else socket.AF_INET
        place = _Host(_PLACEHOLDERS[family], host, chain)
        row = {"hostname": host, "host": place, "port": port, "family": family}
        return [{**row, "proto": 0, "flags": socket.AI_NUMERICHOST}]

    async def close(self) -> None:
        if self._direct is not None:
            await self._direct.close()


def _chain_for(way: Way, host: str, port: int) -> Chain | None:
    try:
        return way.chain_for(host, port)
    except WRONG_TARGET as exc:
        raise aiohttp.InvalidURL(host, str(exc)) from exc


class _Host(str):
    """An address that remembers for which name it stands, and how to get there."""

    __slots__ = ("chain", "name")
    __hash__ = str.__hash__

    name: str
    chain: Chain | None

    def __new__(cls, address: str, name: str, chain: Chain | None) -> _Host:
        place = super().__new__(cls, address)
        place.name = name
        place.chain = chain
        return place

    def __eq__(self, other: object) -> bool:
        # aiohttp looks for getpeername() among the addresses
        return str.__eq__(self, other) or self.name == other


class _Socket(SocksSocket):
    """A socket for one connection; it has the failure itself raised, not its errno."""

    destination: tuple[str, int]
    raises_failure = True

    def connect(self, address: Any, *, early_data: Any = b"") -> None:
        super().connect(self.destination, early_data=early_data)
