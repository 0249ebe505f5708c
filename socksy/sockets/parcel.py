"""A connection that `multiprocessing` passes to another process.

For `socket.socket` it has a way of its own, which is for exactly that class, and so is this for
`SocksSocket`: it makes the pickle itself, with a descriptor that the other process can fetch. Any
other pickle of a socket is refused.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .stream import SocksSocket

_STATE = "_route", "_tunnel", "_local", "_options", "_may_go_straight", "remote_bind"


def pack(sock: SocksSocket) -> tuple[Any, ...]:
    """What `__reduce_ex__` returns.

    Raises:
        TypeError: the proxy listens for this one; that cannot be handed over.
    """
    from multiprocessing.reduction import DupFd

    if sock._listener is not None:
        raise TypeError("cannot pass on a socket that the proxy listens for")
    with sock.dup() as copy:  # which waits for the end of a connect
        state = {name: copy.__dict__[name] for name in _STATE if name in copy.__dict__}
        if copy._tunnel is not None:  # what had chosen the proxy may be a function
            state["_route"] = tuple(leg[0] for leg in copy._tunnel.legs)
        return _unpack, (DupFd(copy.fileno()), copy.family, copy.type, copy.proto, state)


def _unpack(parcel: Any, family: int, type_: int, proto: int, state: dict[str, Any]) -> SocksSocket:
    from .dial import settle
    from .stream import SocksSocket

    sock = SocksSocket(family, type_, proto, fileno=parcel.detach())
    sock.__dict__.update(state)
    settle(sock)
    return sock
