"""Which targets go around the proxy: rules like those of ``no_proxy``, and a few more.

    example.com         that name and every name below it (a leading dot or ``*.`` is the same)
    192.0.2.7, ::1      that address; ``[::1]`` too
    10.0.0.0/8          every address of the network
    example.com:8080    only on that port (IPv6 wants brackets: ``[::1]:8080``)
    *                   everything

A name never matches an address rule: it is not looked up to find out.
"""

from __future__ import annotations

from .errors import InvalidArgumentError, InvalidTargetError
from .hosts import clean_host, pack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network


class Bypass:
    """A set of rules, compiled once.

    Raises:
        InvalidArgumentError: a rule that cannot be read (naming it).
    """

    __slots__ = ("_rules", "rules")

    def __init__(self, rules: Iterable[str]) -> None:
        if isinstance(rules, str):
            raise TypeError("bypass rules are a list; use Bypass.from_no_proxy for one string")
        self.rules = tuple(rules)
        self._rules = tuple(map(_compile, self.rules))

    @classmethod
    def from_no_proxy(cls, text: str) -> Bypass:
        """From the value of ``no_proxy``: rules parted by commas or blanks."""
        return cls(text.replace(",", " ").split())

    def matches(self, host: str, port: int | None = None) -> bool:
        """Whether this (clean) host goes around the proxy, on this port if one is known."""
        packed = pack_ip(host.partition("%")[0])
        name = host.lower().rstrip(".")
        for rule, rule_port in self._rules:
            if rule_port is not None and rule_port != port:
                continue
            if rule == "*":
                return True
            if isinstance(rule, bytes):
                if rule == packed:
                    return True
            elif isinstance(rule, str):
                if packed is None and (name == rule or name.endswith("." + rule)):
                    return True
            elif packed is not None and _contains(rule, packed):
                return True
        return False

    def __repr__(self) -> str:
        return f"Bypass({list(self.rules)!r})"


def _contains(network: IPv4Network | IPv6Network, packed: bytes) -> bool:
    return len(packed) * 8 == network.max_prefixlen and int.from_bytes(packed, "big") & int(
        network.netmask
    ) == int(network.network_address)


def _compile(rule: str) -> tuple[str | bytes | IPv4Network | IPv6Network, int | None]:
    text, port = _split_port(rule)
    if "/" in text:
        import ipaddress

        try:
            return ipaddress.ip_network(text, strict=False), port
        except ValueError:
            raise InvalidArgumentError(f"bypass rule {rule!r} is no network") from None
    text = text.removeprefix("*.").lstrip(".") if text != "*" else text
    if text == "*":
        return text, port
    try:
        host = clean_host(text)
    except InvalidTargetError as exc:
        raise InvalidArgumentError(f"bypass rule {rule!r}: {exc}") from None
    return pack_ip(host.partition("%")[0]) or host.lower().rstrip("."), port


def _split_port(rule: str) -> tuple[str, int | None]:
    host, colon, text = rule.rpartition(":")
    # a bare IPv6 address has colons of its own; only brackets or a single colon part a port
    if not colon or (":" in host and not host.endswith("]")):
        return rule, None
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65536):
        raise InvalidArgumentError(f"bypass rule {rule!r} has a wrong port")
    return host, int(text)


#: what a patched program reaches directly unless told otherwise
LOOPBACK = Bypass(("localhost", "127.0.0.0/8", "::1"))
