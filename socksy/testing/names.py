"""What the embedded proxy resolves: a table of its own, and real names only if it is told to."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..hosts import is_onion, pack_ip
from ..names import unpatched

if TYPE_CHECKING:
    from .relay import Endpoint

#: an address, an address with another port, or several addresses
Place: TypeAlias = "str | tuple[str, int] | Sequence[str]"


class Names:
    """The proxy's own resolver.

    Args:
        table: host (a name, or an address to be diverted) to where it is; ``"host:port"`` and
            ``"[IPv6 address]:port"`` say it for one port, and count more.
        real_lookups: ask the system for names that are not in the table.
    """

    def __init__(
        self, table: Mapping[str, Place] | None = None, real_lookups: bool = False
    ) -> None:
        self._table = {_entry(host): _places(place) for host, place in (table or {}).items()}
        self._real_lookups = real_lookups

    def endpoints(self, host: str, port: int) -> list[Endpoint]:
        """Where a target is: every (family, (address, port)).

        Raises:
            socket.gaierror: nowhere that is known here.
        """
        key = _key(host)
        places = self._table.get((key, port)) or self._table.get((key, None))
        if places is not None:
            return [_endpoint(address, diverted or port) for address, diverted in places]
        if pack_ip(host) is not None:
            return [_endpoint(host, port)]
        if not self._real_lookups or is_onion(host) or not host.isascii():
            raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not among the proxy's names")
        found = unpatched(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
        return [(int(family), (str(place[0]), port)) for family, _, _, _, place in found]

    def name_of(self, address: str) -> str:
        """The name of an address.

        Raises:
            socket.herror, socket.gaierror: it has none that is known here.
        """
        wanted = pack_ip(address)
        for (name, _), places in self._table.items():
            if any(pack_ip(place) == wanted for place, _ in places) and pack_ip(name) is None:
                return name
        if not self._real_lookups:
            raise socket.gaierror(socket.EAI_NONAME, f"{address} is not among the proxy's names")
        return unpatched(socket.gethostbyaddr, address)[0]


def _key(host: str) -> str:
    return host.lower().rstrip(".")


def _entry(text: str) -> tuple[str, int | None]:
    """A key of the table: a host, for every port or for one."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return _key(host), int(port) if port else None


def _places(place: Place) -> list[tuple[str, int | None]]:
    if isinstance(place, str):
        return [(place, None)]
    if len(place) == 2 and isinstance(place[1], int):
        return [(str(place[0]), place[1])]
    return [(str(address), None) for address in place]


def _endpoint(address: str, port: int) -> Endpoint:
    packed = pack_ip(address)
    if packed is not None and len(packed) == 4:
        # also for an IPv4-mapped address
        return int(socket.AF_INET), (socket.inet_ntop(socket.AF_INET, packed), port)
    return int(socket.AF_INET6), (address, port)
