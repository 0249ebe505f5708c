"""Names that patches have replaced, so that each can take its own back, in any order.

Every replacement remembers what it found. When one goes, its place is given back to that, unless
somebody else's is there now; and a later one that had found it is told what is below instead.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Replacement:
    """One name of one namespace, replaced by one patch."""

    __slots__ = ("before", "name", "namespace", "value")

    def __init__(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        self.namespace = namespace
        self.name = name
        self.value = value
        self.before = namespace[name]
        namespace[name] = value
        _all.append(self)

    def take_back(self) -> None:
        """Put back what was there before."""
        _all.remove(self)
        if self.namespace.get(self.name) is self.value:
            self.namespace[self.name] = self.before
            return
        for later in _all:
            if later.before is self.value and self.is_beside(later):
                later.before = self.before

    def is_beside(self, other: Replacement) -> bool:
        """Whether both replace the same name of the same namespace."""
        return self.namespace is other.namespace and self.name == other.name


_all: list[Replacement] = []
