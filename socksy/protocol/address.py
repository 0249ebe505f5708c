"""Addresses as they travel: ATYP, address, port (RFC 1928, section 5)."""

from __future__ import annotations

from operator import index

from ..errors import InvalidPortError, InvalidTargetError
from ..hosts import clean_host, pack_ip, unpack_ip
from .codes import AddressType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..hosts import Host
    from .steps import Address

# plain ints: comparing with an IntEnum costs a lookup on every handshake
_IPV4, _NAME, _IPV6 = map(int, AddressType)


def clean_target(host: Host, port: int, lowest_port: int = 1) -> Address:
    """Host and port as they may be asked of a proxy.

    Raises:
        InvalidTargetError: the host cannot be sent, or has a zone that means nothing elsewhere.
        InvalidPortError: the port is not from `lowest_port` to 65535.
        TypeError: of another type.
    """
    if port.__class__ is not int:
        port = index(port)
    host = clean_host(host)
    if "%" in host:
        raise InvalidTargetError(f"{host!r} has a zone, which only this machine understands")
    if not lowest_port <= port <= 65535:
        raise InvalidPortError(f"a port is a number from {lowest_port} to 65535, not {port}")
    return host, port


def pack_address(host: str, port: int) -> bytes:
    """ATYP, DST.ADDR and DST.PORT of a clean host; an IPv4-mapped address goes as IPv4."""
    packed = pack_ip(host)
    if packed is None:
        name = host.encode("ascii")
        return bytes((_NAME, len(name))) + name + port.to_bytes(2, "big")
    atyp = b"\x01" if len(packed) == 4 else b"\x04"
    return atyp + packed + port.to_bytes(2, "big")


def address_length(atyp: int, first: int) -> int | None:
    """How many bytes address and port have, given ATYP and the byte behind it; None if unknown."""
    if atyp == _IPV4:
        return 6
    if atyp == _NAME:
        return 3 + first
    return 18 if atyp == _IPV6 else None


def unpack_address(atyp: int, data: bytes) -> Address:
    """Host and port from exactly `address_length` bytes. A name may be empty, or not ASCII."""
    port = data[-2] << 8 | data[-1]
    if atyp == _NAME:
        return data[1:-2].decode("utf-8", "backslashreplace"), port
    return unpack_ip(data[:-2]), port
