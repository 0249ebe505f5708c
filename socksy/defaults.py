"""The default proxy: one for the process, and another for a block, a thread or a task.

`using()` sets a `ContextVar`, so two threads or two asyncio tasks can differ; below it lies the
value of the whole process, and below that, in a patched process, the way of the patch. A socket
takes the default when it is made, or, if there was none then, when it connects: whichever order a
program has, a default that was set is never forgotten.
"""

from __future__ import annotations

from contextvars import ContextVar

from .proxy import as_route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeAlias

    from .proxy import ProxyLike, Route

    #: whose block, its route, and what lies below
    Here: TypeAlias = "tuple[using, Route, Here | None]"

# A linked stack, so that using(None) ("direct here") differs from not set, and leaving a block
# needs no token of the context that entered it.
_here: ContextVar[Here | None] = ContextVar("socksy.default_proxy", default=None)
_process: Route = None
_patch: Route = None


def set_default_proxy(proxy: ProxyLike) -> None:
    """Make `proxy` the default of the whole process; None takes it away.

    A forked process inherits it, a spawned one does not: ``socksy run`` reaches both.

    Raises:
        InvalidProxyError: it is not a proxy.
    """
    global _process
    _process = as_route(proxy)


def get_default_proxy() -> Route:
    """The default proxy here: that of the innermost `using()`, else that of the process.

    Where there is neither, and `wrap_module()` has patched the whole process, it is a callable that
    says what the patch does.

    Returns:
        A tuple of `Proxy` (a chain; mostly of one), a callable, or None for a direct connection.
    """
    here = _here.get()
    if here is not None:
        return here[1]
    return _patch if _process is None else _process


def get_own_default() -> Route:
    """The default proxy, whatever is patched: for the patches themselves."""
    here = _here.get()
    return _process if here is None else here[1]


def set_patched_default(route: Route) -> None:
    """What a patch of the whole process does with targets; None: there is no patch."""
    global _patch
    _patch = route


def is_direct_here() -> bool:
    """Whether the innermost `using()` says None: direct connections."""
    here = _here.get()
    return here is not None and here[1] is None


class using:  # noqa: N801 - used like a function, `with socksy.using(...):`
    """A default proxy for the ``with`` block, in this thread or task only.

    ``using(None)`` means direct connections. Tasks started in the block inherit it; threads do not.
    One object can be entered again, and by several threads at once.

    Raises:
        InvalidProxyError: it is not a proxy.
    """

    def __init__(self, proxy: ProxyLike) -> None:
        self._route = as_route(proxy)

    def __enter__(self) -> Route:
        _here.set((self, self._route, _here.get()))
        return self._route

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Generators and async fixtures leave blocks out of order, or in another context than they
        # were entered in: no block but this one may lose its proxy by that.
        _here.set(_without(self, _here.get()))


def _without(block: using, here: Here | None) -> Here | None:
    """The stack without the last entry of a block; as it is if there is none."""
    if here is None:
        return None
    owner, route, below = here
    return below if owner is block else (owner, route, _without(block, below))
