"""The protocols as bytes: no sockets, no clock, no threads, no DNS in this folder.

`tunnel` is the client's side of a whole chain: the handshake of each hop, through the tunnel of the
last. `server.accept` is the server's side of one connection.
"""

from __future__ import annotations

from ..errors import ProxyConnectionError, ProxyError, ProxyReplyError
from ..proxy import HTTP, SOCKS4, SOCKS4A, SOCKS5, SOCKS5H, Proxy
from . import socks5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from typing import Any, TypeAlias

    from .steps import Address, Handshake, Prediction

    #: a proxy, and the host and port that are asked of it
    Leg: TypeAlias = tuple[Proxy, str, int]
else:
    Leg = tuple

__all__ = ["Leg", "bind_peer", "handshake", "name_the_leg", "predictor", "tunnel"]

_CONNECT = 1
_SOCKS5 = (SOCKS5H, SOCKS5)


def handshake(
    leg: Leg, command: int = _CONNECT, early_data: bytes = b"", pipelined: bool = False
) -> Handshake[Address]:
    """`command` at one proxy; returns its bound address. Its errors name no proxy yet.

    What the arguments rule out is raised here, before anything is sent.

    Args:
        early_data: the application's first bytes, right behind the request.
        pipelined: all messages at once (SOCKS5).
    """
    proxy, host, port = leg
    scheme, login = proxy.scheme, proxy.login
    if scheme in _SOCKS5:
        require_auth = proxy.require_auth
        return socks5.handshake(command, host, port, login, require_auth, pipelined, early_data)
    speaker = _speakers.get(scheme) or _load_speaker(scheme)
    if scheme == HTTP:
        return speaker.handshake(command, host, port, login=login, early_data=early_data)  # type: ignore[no-any-return]
    user_id = b"" if login is None else login[0]
    return speaker.handshake(  # type: ignore[no-any-return]
        command,
        host,
        port,
        user_id=user_id,
        remote_dns=scheme == SOCKS4A,
        early_data=early_data,
    )


# The modules of the other schemes, once they have been needed: an import statement in the function
# would cost half a microsecond each time.
_speakers: dict[str, Any] = {}


def _load_speaker(scheme: str) -> Any:
    from . import http, socks4

    _speakers.update({HTTP: http, SOCKS4: socks4, SOCKS4A: socks4})
    return _speakers[scheme]


def predictor(proxy: Proxy) -> Callable[[str, int], Prediction]:
    """A function that tells how a CONNECT at this proxy goes most of the time.

    It takes host and port, and raises as `handshake`. The proxy keeps it, as `Proxy.predict`.

    For a driver in a hurry: as long as all goes as predicted, nothing has to be thought about. As
    soon as it does not, `handshake` must take over, and be told what was heard so far.
    """
    scheme = proxy.scheme
    speaker = socks5 if scheme in _SOCKS5 else _speakers.get(scheme) or _load_speaker(scheme)
    made: Callable[[str, int], Prediction] = speaker.predictor(proxy)
    object.__setattr__(proxy, "predict", made)
    return made


def tunnel(
    legs: tuple[Leg, ...],
    command: int = _CONNECT,
    early_data: bytes = b"",
    pipelined: Container[Proxy] = (),
) -> Handshake[Address]:
    """CONNECT from proxy to proxy and `command` at the last one; returns its bound address.

    What the arguments rule out is raised here, before anything is sent.

    Args:
        early_data: the application's first bytes, right behind the last request.
        pipelined: the proxies that are sent all messages at once.
    """
    last = len(legs) - 1
    handshakes = []
    for number, leg in enumerate(legs):
        try:
            at_once = leg[0] in pipelined
            if number == last:
                handshakes.append(handshake(leg, command, early_data, at_once))
            else:
                handshakes.append(handshake(leg, _CONNECT, b"", at_once))
        except ProxyError as error:
            name_the_leg(error, legs, number)
            raise
    return _walk(legs, handshakes)


def bind_peer(legs: tuple[Leg, ...]) -> Handshake[Address]:
    """The second reply to a BIND that `tunnel` has asked for: who has connected."""
    if legs[-1][0].scheme in _SOCKS5:
        second_reply = socks5.second_reply
    else:
        from .socks4 import second_reply
    return _walk(legs, [second_reply()], len(legs) - 1)


def _walk(
    legs: tuple[Leg, ...], handshakes: Iterable[Handshake[Address]], first: int = 0
) -> Handshake[Address]:
    bound = "0.0.0.0", 0
    for number, step_by_step in enumerate(handshakes, first):
        try:
            bound = yield from step_by_step
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
