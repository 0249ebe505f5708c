"""The handshake of a whole chain: the same generators, each through the tunnel of the last."""

from __future__ import annotations

from ..errors import ProxyConnectionError, ProxyError, ProxyReplyError
from ..proxy import HTTP, SOCKS4A, SOCKS5, SOCKS5H, Proxy, encode_login
from . import http, socks4, socks5
from .codes import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from .steps import Address, Handshake

    #: a proxy, and the host and port that are asked of it
    Leg: TypeAlias = tuple[Proxy, str, int]
else:
    Leg = tuple

_CONNECT = int(Command.CONNECT)


def tunnel(legs: tuple[Leg, ...], command: int = _CONNECT) -> Handshake[Address]:
    """CONNECT from proxy to proxy and `command` at the last one; returns its bound address.

    What the arguments rule out is raised here, before anything is sent.
    """
    last = len(legs) - 1
    handshakes = []
    for number, leg in enumerate(legs):
        try:
            handshakes.append(_handshake(leg, command if number == last else _CONNECT))
        except ProxyError as error:
            name_the_leg(error, legs, number)
            raise
    return _walk(legs, handshakes)


def bind_peer(legs: tuple[Leg, ...]) -> Handshake[Address]:
    """The second reply to a BIND that `tunnel` has asked for: who has connected."""
    module = socks5 if legs[-1][0].scheme in (SOCKS5, SOCKS5H) else socks4
    return _walk(legs, [module.second_reply()], len(legs) - 1)


def _handshake(leg: Leg, command: int) -> Handshake[Address]:
    proxy, host, port = leg
    scheme = proxy.scheme
    login = None
    if proxy.username is not None:
        login = encode_login(proxy.username), encode_login(proxy.password or "")
    if scheme in (SOCKS5, SOCKS5H):
        return socks5.handshake(command, host, port, login=login, require_auth=proxy.require_auth)
    if scheme == HTTP:
        return http.handshake(command, host, port, login=login)
    user_id = b"" if login is None else login[0]
    return socks4.handshake(command, host, port, user_id=user_id, remote_dns=scheme == SOCKS4A)


def _walk(
    legs: tuple[Leg, ...], handshakes: Iterable[Handshake[Address]], first: int = 0
) -> Handshake[Address]:
    bound = "0.0.0.0", 0
    for number, handshake in enumerate(handshakes, first):
        try:
            bound = yield from handshake
        except ProxyError as error:
            name_the_leg(error, legs, number)
            if number + 1 < len(legs) and isinstance(error, ProxyReplyError):
                raise _next_unreachable(error, legs, number + 1) from error
            raise
    return bound


def name_the_leg(error: ProxyError, legs: tuple[Leg, ...], number: int) -> None:
    """Write into an error which proxy it is about, and what was asked of it."""
    proxy, host, port = legs[number]
    error.proxy, error.target = str(proxy), (host, port)
    if len(legs) > 1:
        error.hop, error.hops = number + 1, len(legs)


def _next_unreachable(
    error: ProxyReplyError, legs: tuple[Leg, ...], number: int
) -> ProxyConnectionError:
    # errno was set by the reply's row: it is always a number
    unreachable = ProxyConnectionError(
        error.errno or 0,
        f"the proxy before it cannot reach this proxy: {error.reply}",
        phase=error.phase,
    )
    name_the_leg(unreachable, legs, number)
    return unreachable
