"""Which targets go around the proxy: rules like those of ``no_proxy``, and a few more.

    example.com         that name and every name below it (a leading dot or ``*.`` is the same)
    192.0.2.7, ::1      that address; ``[::1]`` too
    10.0.0.0/8          every address of the network
    example.com:8080    only on that port (IPv6 wants brackets: ``[::1]:8080``)
    *                   everything; elsewhere in a rule it is an error, as in ``192.168.*``

A name never matches an address rule: it is not looked up to find out.
"""

from __future__ import annotations

from .errors import InvalidArgumentError, InvalidTargetError
from .hosts import clean_host, pack_ip, parse_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    #: a name; or an address, and how many of its low bits do not matter
    Rule: TypeAlias = "str | tuple[bytes, int]"

_ALL = "*"


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
        """From the value of ``no_proxy``: rules parted by commas or blanks.

        What cannot be read is skipped, as curl and requests do: that variable is written for many
        programs, and a rule too few goes through the proxy, never around it.
        """
        return cls(filter(_readable, text.replace(",", " ").split()))

    def matches(self, host: str, port: int | None = None) -> bool:
        """Whether this (clean) host goes around the proxy, on this port if one is known."""
        packed = pack_ip(host)
        name = host.lower().rstrip(".")
        for rule, rule_port in self._rules:
            if rule_port is not None and rule_port != port:
                continue
            if rule == _ALL:
                return True
            if packed is None:
                if isinstance(rule, str) and (name == rule or name.endswith("." + rule)):
                    return True
            elif not isinstance(rule, str) and _prefix(packed, rule[1]) == rule:
                return True
        return False

    def __repr__(self) -> str:
        return f"Bypass({list(self.rules)!r})"


def _prefix(packed: bytes, low_bits: int) -> tuple[bytes, int]:
    """An address without its low bits, and how many they were."""
    number = int.from_bytes(packed, "big") >> low_bits << low_bits
    return number.to_bytes(len(packed), "big"), low_bits


def _readable(rule: str) -> bool:
    try:
        _compile(rule)
    except InvalidArgumentError:
        return False
    return True


def _compile(rule: str) -> tuple[Rule, int | None]:
    text, port = _split_port(rule)
    if text == _ALL:
        return text, port
    text, slash, length = text.removeprefix("*.").lstrip(".").partition("/")
    if "*" in text or (text.endswith(".") and text[:-1].rpartition(".")[2].isdecimal()):
        raise InvalidArgumentError(
            f"bypass rule {rule!r} is a part of an address or a name: write 10.0.0.0/8, example.com"
        )
    if text.startswith("[") and length.endswith("]"):
        text, length = text[1:], length[:-1]
    try:
        host = clean_host(text)
    except InvalidTargetError as exc:
        raise InvalidArgumentError(f"bypass rule {rule!r}: {exc}") from None
    packed = pack_ip(host)
    if packed is None:
        if slash:
            raise InvalidArgumentError(f"bypass rule {rule!r} is no network")
        return host.lower().rstrip("."), port
    bits = len(packed) * 8
    kept = parse_port(length) if slash else bits
    if kept is None or kept > bits:
        raise InvalidArgumentError(f"bypass rule {rule!r} is no network")
    return _prefix(packed, bits - kept), port


def _split_port(rule: str) -> tuple[str, int | None]:
    host, colon, text = rule.rpartition(":")
    # a bare IPv6 address has colons of its own; only brackets or a single colon part a port
    if not colon or (":" in host and not host.endswith("]")):
        return rule, None
    port = parse_port(text)
    if port is None:
        raise InvalidArgumentError(f"bypass rule {rule!r} has a wrong port")
    return host, port


#: what a patched program reaches directly unless told otherwise
LOOPBACK = Bypass(("localhost", "127.0.0.0/8", "::1"))
