"""What the embedded proxy resolves: a table of its own, and real names only if it is told to."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..errors import InvalidArgumentError
from ..hosts import clean_host, is_onion, pack_ip, parse_port, unpack_ip
from ..names import unpatched
from .lookups import not_the_programs

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

    Raises:
        InvalidArgumentError: an entry of the table can never match, or is nowhere.
        TypeError: the table is none.
    """

    def __init__(
        self, table: Mapping[str, Place] | None = None, real_lookups: bool = False
    ) -> None:
        if table is not None and not isinstance(table, Mapping):
            raise TypeError(f"names are a mapping to addresses, not {type(table).__name__}")
        self._table = {_entry(key): _places(key, place) for key, place in (table or {}).items()}
        self._real_lookups = real_lookups

    def endpoints(self, host: str, port: int) -> list[Endpoint]:
        """Where a target is: every (family, (address, port)).

        Raises:
            socket.gaierror: nowhere that is known here.
        """
        if not host.isascii() or "\0" in host:
            raise _unknown(host)  # where C functions stop reading at a NUL, it is another host
        key = _key(host)
        places = self._table.get((key, port)) or self._table.get((key, None))
        if places is not None:
            return [_endpoint(address, diverted or port) for address, diverted in places]
        if pack_ip(host) is not None:
            return [_endpoint(host, port)]
        if not self._real_lookups or is_onion(host):
            raise _unknown(host)
        with not_the_programs():
            found = unpatched(
                socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM
            )
        return [(int(family), (str(place[0]), port)) for family, _, _, _, place in found]

    def name_of(self, address: str) -> str:
        """The name of an address.

        Raises:
            socket.herror, socket.gaierror: it is none, or has none that is known here.
        """
        wanted = pack_ip(address)
        if wanted is None or "%" in address:
            raise _unknown(address)
        for (name, _), places in self._table.items():
            if any(pack_ip(place) == wanted for place, _ in places) and pack_ip(name) is None:
                return name
        if not self._real_lookups:
            raise _unknown(address)
        with not_the_programs():
            return unpatched(socket.gethostbyaddr, address)[0]


def _unknown(host: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, f"{host!r} is not among the proxy's names")


def _key(host: str) -> str:
    """One spelling of a clean host."""
    packed = pack_ip(host)
    return host.lower().rstrip(".") if packed is None or "%" in host else unpack_ip(packed)


def host_and_port(text: str) -> tuple[str, int | None]:
    """What ``host``, ``host:port``, ``IPv6 address`` and ``[IPv6 address]:port`` name.

    Raises:
        InvalidArgumentError: it is none of them.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return clean_host(text), None
    port = parse_port(digits)
    if not port:
        raise InvalidArgumentError("a port is a number from 1 to 65535")
    return clean_host(host), port


def _entry(key: str) -> tuple[str, int | None]:
    """A key of the table: a host, for every port or for one."""
    if not isinstance(key, str):
        raise TypeError(f"a name is a str, not {type(key).__name__}")
    try:
        host, port = host_and_port(key)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"names: {key!r}: {exc}") from None
    return _key(host), port


def _places(key: str, place: Place) -> list[tuple[str, int | None]]:
    several: list[tuple[str, int | None]] = []
    if isinstance(place, str):
        several = [(place, None)]
    elif isinstance(place, Sequence) and len(place) == 2 and isinstance(place[1], int):
        if 0 < place[1] < 65536:
            several = [(str(place[0]), place[1])]
    elif isinstance(place, Sequence):
        several = [(str(address), None) for address in place]
    if not several or any(pack_ip(address) is None for address, _ in several):
        raise InvalidArgumentError(
            f"names: {key!r} is at an address, at a pair of address and port, or at several "
            f"addresses, not at {place!r}"
        )
    return several


def _endpoint(address: str, port: int) -> Endpoint:
    packed = pack_ip(address)
    if packed is not None and len(packed) == 4:
        # also for an IPv4-mapped address
        return int(socket.AF_INET), (unpack_ip(packed), port)
    return int(socket.AF_INET6), (address, port)
