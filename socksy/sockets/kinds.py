"""Classes made at run time, of a program's and of ours.

The program is not told of them: they are there so that its sockets can do more, not to be found by
a registry. Nor need it be able to make another one: what it does with its own may want arguments.
"""

from __future__ import annotations

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
