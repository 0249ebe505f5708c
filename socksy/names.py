"""Names without a resolver: the fake addresses of RFC 3089, section 2.

Nearly every program asks for the address of a name first, and connects to that. When the name is
the proxy's to look up, the resolver functions of the `socket` module are replaced by those of a
`Resolver`: it hands out a placeholder, from ranges that can be no destination, and `named` turns
the placeholder back into the name when the program connects to it.

The real functions are still asked for what is no name: they check the other arguments, look up
service names in /etc/services, and answer for address literals as they always do.
"""

from __future__ import annotations

import _socket
import errno
from contextvars import ContextVar
from itertools import count
from socket import AF_INET, AF_INET6, AI_NUMERICHOST, gaierror, herror, inet_aton

from .errors import InvalidTargetError, ProxyUnsupportedError
from .hosts import clean_host, is_localhost, is_onion, pack_ip, parse_port, unpack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    _Result = TypeVar("_Result")
    #: says of a name (or an address literal) and a port: DIRECT, HERE or REMOTE
    Decide: TypeAlias = "Callable[[str, int], int]"

#: who looks a name up: we, and connect to it ourselves; we, and a proxy connects; the proxy
DIRECT, HERE, REMOTE = range(3)

# -- the placeholders

# 240.0.0.0/4 is reserved and never routed (RFC 1112, section 4); 100::/64 discards (RFC 6666).
_FIRST_V4 = 0xF0000000
_LAST = 0x0FFFFFFE  # of the numbers: 255.255.255.255 is the broadcast address
_PREFIX_V6 = b"\x01\x00" + bytes(6)

# Both only grow, and each single step is atomic: no lock that a fork could leave locked.
_numbers: dict[str, int] = {}
_names: dict[int, str] = {}
_counter = count(1)


def placeholder(name: str, family: int = AF_INET) -> str:
    """The address that stands for a (clean) name: the same for the life of the process."""
    key = name.lower()
    number = _numbers.get(key)
    if number is None:
        mine = next(_counter)
        if mine > _LAST:
            raise gaierror(_socket.EAI_MEMORY, "no placeholder address is left")
        _names[mine] = name  # before anybody can see the number
        number = _numbers.setdefault(key, mine)
    if family == AF_INET6:
        return unpack_ip(_PREFIX_V6 + number.to_bytes(8, "big"))
    return unpack_ip((_FIRST_V4 + number).to_bytes(4, "big"))


def named(host: Any) -> Any:
    """The name that a placeholder stands for; any other host as it is.

    Raises:
        ProxyUnsupportedError: an address of the placeholders' ranges that was never handed out.
    """
    packed = pack_ip(host) if isinstance(host, str) else None
    if packed is None:
        return host
    if len(packed) == 4 and packed[0] >= 0xF0 and packed != b"\xff\xff\xff\xff":
        number = int.from_bytes(packed, "big") - _FIRST_V4
    elif len(packed) == 16 and packed.startswith(_PREFIX_V6):
        number = int.from_bytes(packed[8:], "big")
    else:
        return host
    name = _names.get(number)
    if name is None:
        raise ProxyUnsupportedError(
            errno.EADDRNOTAVAIL,
            f"{host} stands for no name in this process",
            hint="A name has to be looked up again by the process that connects",
        )
    return name


# -- stepping aside

_aside: ContextVar[bool] = ContextVar("socksy.unpatched", default=False)


def unpatched(function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """Call a function of the socket module, as socksy itself needs it, patched or not."""
    token = _aside.set(True)
    try:
        return function(*arguments, **options)
    finally:
        _aside.reset(token)


def is_unpatched() -> bool:
    """Whether this is called within `unpatched`."""
    return _aside.get()


# -- the resolver functions

# what gethostbyname has addresses for without asking anybody
_WILDCARDS = ("", "<broadcast>")
_DIGITS_AND_DOTS = frozenset("0123456789.")


class Resolver:
    """The five functions of the socket module that ask a resolver, with the same signatures.

    Args:
        decide: says of each name who is to look it up. A .onion name is never looked up here.
    """

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        # address -> names: what was looked up here to be reached directly
        self._direct: dict[str, set[str]] = {}

    def direct_names(self, address: str) -> set[str]:
        """The names that go around the proxy and were found to have this address."""
        return self._direct.get(address, set())

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """One placeholder, IPv6 only if asked so: a second one would only be tried in vain."""
        name = None if is_unpatched() else _name_in(host)
        if name is None:
            return _socket.getaddrinfo(host, port, family, type, proto, flags)
        way = self._way(name, _number_of(port))
        if way != REMOTE:
            asked = _asked_here(name)
            found: list[Any] = _ask(
                way, _socket.getaddrinfo, asked, port, family, type, proto, flags
            )
            self._remember(name, _number_of(port), [entry[4][0] for entry in found])
            return found
        if flags & AI_NUMERICHOST:
            raise _no_such_name()
        stand_in = placeholder(name, family)
        flags = flags & ~_socket.AI_ADDRCONFIG | AI_NUMERICHOST
        found = _socket.getaddrinfo(stand_in, port, family, type, proto, flags)
        return [
            (*entry[:3], name if entry[3] == stand_in else entry[3], entry[4]) for entry in found
        ]

    def gethostbyname(self, hostname: Any) -> str:
        """A placeholder."""
        name = None if is_unpatched() or _text(hostname) in _WILDCARDS else _name_in(hostname)
        if name is None:
            return _socket.gethostbyname(hostname)
        way = self._way(name, 0)
        if way == REMOTE:
            return placeholder(name)
        address = _ask(way, _socket.gethostbyname, _asked_here(name))
        self._remember(name, 0, [address])
        return address

    def gethostbyname_ex(self, hostname: Any) -> tuple[str, list[str], list[str]]:
        """A placeholder, with the name as the canonical one, and no alias."""
        text = _text(hostname)
        name = None if is_unpatched() or text in _WILDCARDS else _name_in(hostname)
        if name is None:
            if text is not None and text.isascii() and not _DIGITS_AND_DOTS.issuperset(text):
                hostname = _dotted(text)  # the C library would ask for 0x7f.1
            return _socket.gethostbyname_ex(hostname)
        way = self._way(name, 0)
        if way == REMOTE:
            return name, [], [placeholder(name)]
        found = _ask(way, _socket.gethostbyname_ex, _asked_here(name))
        self._remember(name, 0, found[2])
        return found

    def gethostbyaddr(self, ip_address: Any) -> tuple[str, list[str], list[str]]:
        """The name of a placeholder; another address has none, unless it goes direct.

        Raises:
            socket.herror: as the real one for an address without a name.
        """
        name = None if is_unpatched() else _name_in(ip_address)
        if name is not None:
            if self._way(name, 0) == REMOTE:
                return name, [], [placeholder(name)]
            return _socket.gethostbyaddr(_asked_here(name))
        text = _text(ip_address)
        if is_unpatched() or text is None:
            return _socket.gethostbyaddr(ip_address)
        address = _dotted(text)
        host = _name_behind(address)
        if host is not None:
            return host, [], [address]
        if self._way(address, 0) != REMOTE:
            return _socket.gethostbyaddr(address)
        raise herror(1, "Unknown host")  # HOST_NOT_FOUND

    def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """The name of a placeholder; another address stays one, unless it goes direct."""
        if is_unpatched() or flags & _socket.NI_NUMERICHOST:
            return _socket.getnameinfo(sockaddr, flags)
        if not isinstance(sockaddr, tuple) or len(sockaddr) < 2 or not isinstance(sockaddr[0], str):
            return _socket.getnameinfo(sockaddr, flags)  # which refuses it
        address = sockaddr[0]
        if not _is_literal(address):
            raise _no_such_name()
        address = _dotted(address)
        # of another address, that everybody knows: the service is what is asked for
        other = ("::1" if ":" in address else "127.0.0.1", *sockaddr[1:])
        without_name = flags & ~_socket.NI_NAMEREQD | _socket.NI_NUMERICHOST
        service = _socket.getnameinfo(other, without_name)[1]
        name = _name_behind(address)
        if name is not None:
            return name, service
        if self._way(address, sockaddr[1]) != REMOTE:
            return _socket.getnameinfo((address, *sockaddr[1:]), flags)
        if flags & _socket.NI_NAMEREQD:
            raise _no_such_name()
        return address, service

    def _way(self, host: str, port: int) -> int:
        return REMOTE if is_onion(host) else self._decide(host, port)

    def _remember(self, name: str, port: int, addresses: list[Any]) -> None:
        if self._way(name, port) == DIRECT:
            for address in addresses:
                self._direct.setdefault(address, set()).add(name)


def _name_in(host: Any) -> str | None:
    """The clean name, if this is one; None for what the real functions answer by themselves.

    Raises:
        socket.gaierror: it can be no name.
    """
    text = _text(host)
    if text is None:
        return None  # no name, or the TypeError of the real function
    if text.isascii() and _is_literal(text):
        return None
    try:
        return clean_host(text)
    except InvalidTargetError as exc:
        raise _no_such_name() from exc


def _text(host: Any) -> str | None:
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("utf-8", "surrogateescape")
    return host if isinstance(host, str) else None


def _is_literal(text: str) -> bool:
    """Whether the system takes it for an address: also ``127.1`` and ``fe80::1%eth0``."""
    if ":" in text:
        return pack_ip(text) is not None
    try:
        inet_aton(text)
    except OSError:
        return False
    return not any(map(str.isspace, text))  # inet_aton stops there


def _dotted(text: str) -> str:
    """A literal of IPv4 as four numbers, however it was written: what rules can be about."""
    return text if ":" in text or not _is_literal(text) else unpack_ip(inet_aton(text))


def _name_behind(address: str) -> str | None:
    """The name of a placeholder, else None."""
    try:
        name: str = named(address)
    except ProxyUnsupportedError:
        return None
    return None if name is address else name


def _number_of(port: Any) -> int:
    """A port as a number for the rules; 0 for a service name."""
    if isinstance(port, (bytes, bytearray)):
        port = bytes(port).decode("ascii", "replace")
    if isinstance(port, str):
        return parse_port(port) or 0
    return port if isinstance(port, int) and 0 < port < 65536 else 0


def _asked_here(name: str) -> Any:
    """What the system's resolver is asked; localhost, and what is below, never leave (RFC 6761)."""
    return b"localhost" if is_localhost(name) else name.encode()


def _ask(way: int, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Ask the system; if it does not know a name that a proxy could know, say why it was asked."""
    try:
        return function(*arguments)
    except gaierror as exc:
        if way == HERE:
            exc.strerror = (
                f"{exc.strerror}: the proxy's URL says to look names up here; "
                "with socks5h:// or socks4a:// the proxy does it"
            )
        raise


def _no_such_name() -> gaierror:
    return gaierror(_socket.EAI_NONAME, "Name or service not known")
