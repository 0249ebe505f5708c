"""For testing programs that use proxies: a real one in the test's own process.

`SocksServer` is the proxy, `faults` makes it go wrong, `watch_lookups` proves that no name was
looked up locally. `plugin` has pytest fixtures for all of them, which pytest finds by itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import faults
    from .lookups import LocalLookup, watch_lookups
    from .server import SocksServer
    from .session import ServedRequest

__all__ = ["LocalLookup", "ServedRequest", "SocksServer", "faults", "watch_lookups"]


# The plugin below this package is loaded by every run of pytest: the rest waits until it is used.
def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name == "faults":
        return import_module(".faults", __name__)
    if name in __all__:
        homes = {"SocksServer": "server", "ServedRequest": "session"}
        return getattr(import_module(f".{homes.get(name, 'lookups')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
