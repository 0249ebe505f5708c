"""For testing programs that use proxies: a real one in the test's own process.

    SocksServer         the proxy, with a record of what it was asked (`ServedRequest`)
    faults              makes it go wrong: SocksServer(faults=faults.close_before("the reply"))
    watch_lookups       proves that no name was looked up locally (`LocalLookup`)
    check_socket_like   proves that a class behaves like `socket.socket` (`SOCKET_BEHAVIOURS`)
    plugin              pytest fixtures, which pytest finds by itself

docs/testing.md has examples.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import faults
    from .conformance import SOCKET_BEHAVIOURS, check_socket_like
    from .lookups import LocalLookup, watch_lookups
    from .server import SocksServer
    from .session import ServedRequest

__all__ = [
    "LocalLookup",
    "SOCKET_BEHAVIOURS",
    "ServedRequest",
    "SocksServer",
    "check_socket_like",
    "faults",
    "watch_lookups",
]

_HOMES = {
    "SOCKET_BEHAVIOURS": "conformance",
    "ServedRequest": "session",
    "SocksServer": "server",
    "check_socket_like": "conformance",
}


# The plugin below this package is loaded by every run of pytest: the rest waits until it is used.
if not TYPE_CHECKING:  # a type checker would believe in any name

    def __getattr__(name: str) -> "Any":
        from importlib import import_module

        if name == "faults":
            return import_module(".faults", __name__)
        if name in __all__:
            return getattr(import_module(f".{_HOMES.get(name, 'lookups')}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
