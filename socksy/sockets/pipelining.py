"""All messages of a handshake at once, with servers of which nobody knows whether they can do that.

A proxy that takes each segment for one message (microsocks) answers the greeting and then waits for
the request that it has swallowed. So the first time a `pipelined` proxy has a few seconds. If it is
silent, or breaks the protocol, it is asked again in the plain way, on a fresh connection and within
the same deadline. Only if that works it was the pipelining, and is remembered.

Early data could reach the target twice like this, should the first connection only have been slow:
the first time they follow when the proxy has answered.
"""

from __future__ import annotations

from time import monotonic

from ..errors import ProxyProtocolError, ProxyTimeoutError
from ..protocol.steps import LOGIN_ANSWER, METHOD_CHOICE, REPLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from ..protocol.steps import Address
    from ..proxy import Chain, Proxy
    from .dial import Dial, Wait

#: seconds in which a proxy that has not been tried yet must have answered; at most half of the time
SILENCE = 2.0

_PHASES = (METHOD_CHOICE, LOGIN_ANSWER, REPLY)
_MOST = 256
# Whether a server can do it. Without credentials: they are not kept here.
_known: dict[tuple[Any, ...], bool] = {}


def attempt(
    dial: Dial, chain: Chain, host: str, port: int, command: int
) -> Generator[Wait, bool, Address]:
    """`Dial.attempt` for a chain with a pipelined proxy; the dial has a deadline."""
    able = [proxy for proxy in chain if proxy.pipelined and _known.get(_place(proxy), True)]
    untried = [proxy for proxy in able if _place(proxy) not in _known]
    dial.at_once = frozenset(able)
    if not untried:
        return (yield from dial.attempt(chain, host, port, command))
    assert dial.deadline is not None
    early_data = dial.early_data
    dial.early_data, dial.late_data = b"", early_data
    dial.trial = min(SILENCE, (dial.deadline - monotonic()) / 2)
    try:
        bound = yield from dial.attempt(chain, host, port, command)
    except (ProxyTimeoutError, ProxyProtocolError) as error:
        suspect = chain[(error.hop or 1) - 1]
        if suspect not in untried or error.phase not in _PHASES or monotonic() >= dial.deadline:
            raise
    else:
        _remember(untried, True)
        return bound
    finally:
        dial.early_data, dial.late_data, dial.trial = early_data, b"", None
    dial.at_once = frozenset()
    bound = yield from dial.attempt(chain, host, port, command)
    _remember([suspect], False)
    return bound


def _place(proxy: Proxy) -> tuple[Any, ...]:
    return proxy.host, proxy.port, proxy.path, proxy.login is not None


def _remember(proxies: list[Proxy], able: bool) -> None:
    for proxy in proxies:
        _known[_place(proxy)] = able
    while len(_known) > _MOST:
        del _known[next(iter(_known))]


def forget() -> None:
    """Try every proxy anew."""
    _known.clear()
