"""What a host is: an address literal, or a name; as text that is safe to send.

Every host of a proxy or a target comes through here, whatever its type, before anything else looks
at it. ASCII names pass untouched (underscores, trailing dots, upper case); others become A-labels by
UTS 46 (`idna`, imported only then).
"""

from __future__ import annotations

from .errors import InvalidTargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address
    from typing import TypeAlias

    #: what may be given as a host
    Host: TypeAlias = "str | bytes | bytearray | IPv4Address | IPv6Address"

MAX_NAME = 255  # bytes: SOCKS5 counts them in one octet (RFC 1928, section 5)

# What can end a field early, or would mean something else in a URL or an HTTP request line.
_FORBIDDEN = frozenset(map(chr, range(0x21))) | frozenset('"#%/:<>?@[\\]^`{|}\x7f')


def clean_host(host: Host) -> str:
    """The host as sendable text: an address without brackets, or an ASCII name.

    Raises:
        InvalidTargetError: empty, longer than 255 bytes, or with characters no host has.
        TypeError: not a str, bytes, or `ipaddress` address.
    """
    if not isinstance(host, str):
        host = _as_text(host)
    if host.isascii():
        if _FORBIDDEN.isdisjoint(host) and 0 < len(host) <= MAX_NAME:
            return host
    else:
        host = to_ascii(host)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise InvalidTargetError("brackets are for IPv6 addresses only")
    if ":" in host:
        return _clean_ipv6(host)
    if not host:
        raise InvalidTargetError("the host is empty")
    if len(host) > MAX_NAME:
        raise InvalidTargetError(f"the host name has {len(host)} bytes, a proxy takes {MAX_NAME}")
    if not _FORBIDDEN.isdisjoint(host):
        bad = sorted(_FORBIDDEN.intersection(host))[0]
        raise InvalidTargetError(f"a host name cannot contain {bad!r}")
    return host


def _as_text(host: bytes | bytearray | IPv4Address | IPv6Address) -> str:
    if isinstance(host, (bytes, bytearray)):
        try:
            return bytes(host).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidTargetError("the host is neither ASCII nor UTF-8") from exc
    if hasattr(host, "packed"):
        return str(host)
    raise TypeError(f"a host is str, bytes or an ipaddress address, not {type(host).__name__}")


def _clean_ipv6(text: str) -> str:
    address, percent, zone = text.partition("%")
    if pack_ip(address) is None or (percent and (not zone or not _FORBIDDEN.isdisjoint(zone))):
        raise InvalidTargetError(f"{text[:MAX_NAME]!r} is neither a name nor an IPv6 address")
    return text


def to_ascii(name: str) -> str:
    """A name with other than ASCII letters as A-labels: UTS 46 mapping, non-transitional.

    This is what browsers and requests send; the standard library's 2003 codec maps some names to
    other hosts (``faß.de``).
    """
    import idna

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise InvalidTargetError(f"the host name is not a valid international name: {exc}") from exc


def pack_ip(text: str) -> bytes | None:
    """The 4 or 16 bytes of an address literal, or None for a name.

    An IPv4-mapped IPv6 address counts as the IPv4 address it is. ``127.1`` and ``0x7f.1`` are
    names: what they mean is up to whoever resolves them.
    """
    if ":" in text:
        import ipaddress

        try:
            address = ipaddress.IPv6Address(text)
        except ValueError:
            return None
        mapped = address.ipv4_mapped
        return address.packed if mapped is None else mapped.packed
    parts = text.split(".")
    if len(parts) != 4:
        return None
    try:
        packed = bytes(map(int, parts))
    except ValueError:
        return None
    # int() is laxer than a dotted quad: signs, spaces, "_", leading zeros, other digits
    return packed if "%d.%d.%d.%d" % tuple(packed) == text else None


def unpack_ip(packed: bytes) -> str:
    """The text of 4 or 16 address bytes."""
    if len(packed) == 4:
        return "%d.%d.%d.%d" % tuple(packed)
    import ipaddress

    return str(ipaddress.IPv6Address(packed))


def is_onion(host: str) -> bool:
    """Whether only Tor knows this name (RFC 7686): such a name is never looked up locally."""
    return host.lower().rstrip(".").rpartition(".")[2] == "onion"
