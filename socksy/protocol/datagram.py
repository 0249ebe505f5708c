"""The header of a UDP datagram to or from a relay (RFC 1928, section 7): RSV RSV FRAG ATYP ..."""

from __future__ import annotations

from .socks5 import address_length, pack_address, unpack_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .steps import Address


def pack_header(host: str, port: int) -> bytes:
    """The header for a datagram to (or, from a relay, from) this clean host."""
    return b"\0\0\0" + pack_address(host, port)


def parse_header(datagram: bytes | memoryview) -> tuple[int, Address] | None:
    """Where the payload begins and who the datagram is from, or to.

    None for what must be dropped: fragments (which nobody has to support), a RSV that is not zero,
    runts, and unknown address types.
    """
    head = bytes(datagram[:262])  # the longest header: 4 + 1 + 255 + 2
    if len(head) < 7 or head[:3] != b"\0\0\0":
        return None
    atyp = head[3]
    length = address_length(atyp, head[4])
    if length is None or len(head) < 4 + length:
        return None
    return 4 + length, unpack_address(atyp, head[4 : 4 + length])
