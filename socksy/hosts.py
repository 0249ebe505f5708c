"""What a host is: an address literal, or a name; as text that is safe to send.

Every host of a proxy or a target comes through here, whatever its type, before anything else looks
at it. ASCII names pass untouched (underscores, trailing dots, upper case); of others, the labels
that are not ASCII become A-labels by UTS 46 (`idna`, imported only then).

The errors do not repeat the text: of a badly written proxy URL it may hold the password.
"""

from __future__ import annotations

from operator import index

# Not I/O: how the operating system writes addresses. `ipaddress` takes milliseconds to import.
from socket import AF_INET6, inet_ntop, inet_pton

from .errors import InvalidPortError, InvalidTargetError, ProxyUnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from .types import Host as Host

MAX_NAME = 255  # bytes: SOCKS5 counts them in one octet (RFC 1928, section 5)

_IPV4_MAPPED = bytes(10) + b"\xff\xff"  # how such an IPv6 address begins (RFC 4291, 2.5.5.2)
#: what no name has: it can end a field early, or means something else in a URL or an HTTP request
FORBIDDEN = frozenset(map(chr, range(0x21))) | frozenset('"#%/:<>?@[\\]^`{|}\x7f')


def clean_host(host: Host) -> str:
    """The host as sendable text: an address without brackets, or an ASCII name.

    Raises:
        InvalidTargetError: empty, longer than 255 bytes, or with characters no host has.
        TypeError: not a str, bytes, or `ipaddress` address.
    """
    if not isinstance(host, str):
        host = _as_text(host)
    if host.isascii():
        if FORBIDDEN.isdisjoint(host) and 0 < len(host) <= MAX_NAME:
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
    if not FORBIDDEN.isdisjoint(host):
        bad = sorted(FORBIDDEN.intersection(host))[0]
        raise InvalidTargetError(f"a host name cannot contain {bad!r}")
    return host


def clean_target(host: Host, port: int, lowest_port: int = 1) -> tuple[str, int]:
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
    if pack_ip(address) is None or (percent and (not zone or not FORBIDDEN.isdisjoint(zone))):
        raise InvalidTargetError("the host has a colon, but is no IPv6 address; a port goes apart")
    return text


def to_ascii(name: str) -> str:
    """A name with other than ASCII letters as A-labels: UTS 46 mapping, non-transitional.

    This is what browsers and requests send; the standard library's 2003 codec maps some names to
    other hosts (``faß.de``). ASCII labels stay as they are: IDNA would refuse their underscores.
    """
    if len(name) > MAX_NAME:  # which no encoding makes shorter, but some take their time
        raise InvalidTargetError(f"the host name has {len(name)} characters; 255 bytes are allowed")
    try:
        import idna
    except ImportError as exc:
        raise InvalidTargetError(
            "the host name is not ASCII, which takes the package idna; it cannot be imported"
        ) from exc
    try:
        labels = idna.uts46_remap(name, std3_rules=False).split(".")
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels
        )
    except idna.IDNAError as exc:
        raise InvalidTargetError("the host name is not a valid international name") from exc


def pack_ip(text: str) -> bytes | None:
    """The 4 or 16 bytes of an address literal, or None for a name.

    An IPv4-mapped IPv6 address counts as the IPv4 address it is. ``127.1`` and ``0x7f.1`` are
    names: what they mean is up to whoever resolves them.
    """
    if ":" in text:
        try:
            packed = inet_pton(AF_INET6, text.partition("%")[0])
        except (OSError, ValueError):
            return None
        return packed.removeprefix(_IPV4_MAPPED)
    parts = text.split(".")
    if len(parts) != 4:
        return None
    try:
        packed = bytes(map(int, parts))
    except ValueError:
        return None
    # int() is laxer than a dotted quad: signs, spaces, "_", leading zeros, other digits
    a, b, c, d = packed
    return packed if f"{a}.{b}.{c}.{d}" == text else None


def unpack_ip(packed: bytes) -> str:
    """The text of 4 or 16 address bytes; an IPv4-mapped address is the IPv4 address it is."""
    packed = packed.removeprefix(_IPV4_MAPPED)
    if len(packed) == 4:
        a, b, c, d = packed
        return f"{a}.{b}.{c}.{d}"
    return inet_ntop(AF_INET6, packed)


def parse_port(text: str) -> int | None:
    """A port as written in a URL or a rule: up to five ASCII digits, at most 65535; else None."""
    if len(text) > 5 or not (text.isascii() and text.isdecimal()):
        return None
    port = int(text)
    return port if port < 65536 else None


def is_localhost(host: str) -> bool:
    """Whether this name means this machine, whatever a resolver says (RFC 6761, section 6.3)."""
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def is_onion(host: str) -> bool:
    """Whether only Tor knows this name (RFC 7686): such a name is never looked up locally."""
    return host.lower().rstrip(".").rpartition(".")[2] == "onion"


def refuse_onion(host: object) -> None:
    """Ask this of every host that would be looked up here, in whatever form `connect` takes it.

    Raises:
        ProxyUnsupportedError: a .onion name, which only Tor can resolve (RFC 7686).
    """
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("utf-8", "replace")
    if not isinstance(host, str):
        return
    if not host.isascii():
        try:
            host = host.encode("idna").decode()  # as `connect` does: ideographic dots are dots
        except UnicodeError:  # which it raises then
            return
    if is_onion(host):
        raise ProxyUnsupportedError(
            message=".onion names are never looked up locally",
            hint="Let the proxy resolve them: socks5h:// or socks4a://",
        )
