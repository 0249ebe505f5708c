"""Classes made at run time, of a program's and of ours.

The program is not told of them: they are there so that its sockets can do more, not to be found by
a registry. Nor need it be able to make another one: what it does with its own may want arguments.

Some are *guises*, which a socket has as long as it is in some state. State by object, not by
``if``: the methods of a connected socket never ask how far its connect has come.
"""

from __future__ import annotations

import socket
from abc import ABCMeta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def combine(name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type:
    """A class with these bases and members, whatever their metaclasses are.

    Raises:
        TypeError: the classes do not go together.
    """
    meta = _metaclass_of(bases)
    make: Any = ABCMeta.__new__ if issubclass(meta, ABCMeta) else type.__new__
    if any("__init_subclass__" in kind.__dict__ for base in bases for kind in base.__mro__[:-1]):
        bases = _silencer(), *bases
    kind: type = make(meta, name, bases, {**members, "_is_unannounced": True})
    return kind


def _metaclass_of(bases: tuple[type, ...]) -> type:
    """One that is of all their kinds. ABCMeta comes last, whose `__new__` calls the next one's."""
    found: type = type
    for kind in map(type, bases):
        if issubclass(kind, found):
            found = kind
        elif not issubclass(found, kind):
            both = (kind, found) if issubclass(found, ABCMeta) else (found, kind)
            found = type(both[0].__name__, both, {})
    return found


def _silencer() -> type:
    """Comes before other bases, to hear in their place that there is a subclass."""

    class Silencer:
        __slots__ = ()

        def __init_subclass__(cls, **options: Any) -> None:
            if "_is_unannounced" not in cls.__dict__:  # somebody has derived from one of ours
                super().__init_subclass__(**options)

    return Silencer


# -- guises

# As it is when socksy is imported: later a patch may have put a class of ours there.
Plain = socket.socket

# Moves data: needs the connection.
DATA = (
    "send",
    "sendall",
    "sendto",
    "sendmsg",
    "sendfile",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
)
DATA_OF_TLS = "read", "write", "do_handshake", "unwrap"
# Makes another object of the descriptor.
COPIES = "dup", "detach", "share"
# Makes no sense on a connecting socket.
OTHER = "bind", "listen", "accept", "bind_remote", "set_proxy"


def guise(home: type, front: type, back: type, methods: dict[str, Any]) -> type:
    """A class for a socket of class `home` while it is in some state.

    Args:
        front: answers what the application calls.
        back: comes right before `socket.socket`: a method of a subclass, whatever its name, may
            call ``super().send()``, and is not to find the base class' own yet.
        methods: more of the front; those that `home` does not have are left out.
    """
    members = {name: method for name, method in methods.items() if hasattr(home, name)}
    members |= {
        "_undisguised": home,
        "__module__": home.__module__,
        "__qualname__": home.__qualname__,
    }
    return combine(home.__name__, (front, home, back), members)
