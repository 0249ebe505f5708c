"""socksy: sockets that go through a SOCKS proxy, and nowhere else.

    import socksy

    s = socksy.SocksSocket(proxy="socks5h://127.0.0.1:1080")
    s.settimeout(10)
    s.connect(("example.com", 80))

See the README for the rest.

(PYTEST_DONT_REWRITE: under `socksy run` this is imported before pytest, which would warn of it.)
"""

from .errors import (
    AddressTypeNotSupportedError,
    CommandNotSupportedError,
    DirectTrafficError,
    HostUnreachableError,
    InvalidArgumentError,
    InvalidPortError,
    InvalidProxyError,
    InvalidTargetError,
    NetworkUnreachableError,
    NotAllowedError,
    ProxyAuthenticationError,
    ProxyConnectionError,
    ProxyError,
    ProxyProtocolError,
    ProxyReplyError,
    ProxyTimeoutError,
    ProxyTTLExpiredError,
    ProxyUnsupportedError,
    TargetRefusedError,
)
from .proxy import Proxy
from .sockets.stream import SocksSocket, create_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import adapters as adapters
    from . import aio as aio
    from . import pysocks as pysocks
    from . import testing as testing
    from .bypass import Bypass
    from .defaults import get_default_proxy, set_default_proxy, using
    from .patch import Patch, is_wrapped, unwrap_module, wrap_module
    from .sockets.lookup import NameLookupError
    from .types import Host, ProxyLike

__version__ = "0.1.0"

__all__ = [
    "AddressTypeNotSupportedError",
    "Bypass",
    "CommandNotSupportedError",
    "DirectTrafficError",
    "Host",
    "HostUnreachableError",
    "InvalidArgumentError",
    "InvalidPortError",
    "InvalidProxyError",
    "InvalidTargetError",
    "NameLookupError",
    "NetworkUnreachableError",
    "NotAllowedError",
    "Patch",
    "Proxy",
    "ProxyAuthenticationError",
    "ProxyConnectionError",
    "ProxyError",
    "ProxyLike",
    "ProxyProtocolError",
    "ProxyReplyError",
    "ProxyTTLExpiredError",
    "ProxyTimeoutError",
    "ProxyUnsupportedError",
    "SocksSocket",
    "TargetRefusedError",
    "create_connection",
    "get_default_proxy",
    "is_wrapped",
    "set_default_proxy",
    "unwrap_module",
    "using",
    "wrap_module",
]

# What a connect through a proxy by its URL does not need; loaded when first asked for.
_LATER = {
    "Bypass": "bypass",
    "Host": "types",
    "NameLookupError": "sockets.lookup",
    "Patch": "patch",
    "ProxyLike": "types",
    "get_default_proxy": "defaults",
    "is_wrapped": "patch",
    "set_default_proxy": "defaults",
    "unwrap_module": "patch",
    "using": "defaults",
    "wrap_module": "patch",
}
_MODULES = ("adapters", "aio", "pysocks", "testing")

if not TYPE_CHECKING:  # a type checker would believe in any name

    def __getattr__(name: str) -> "Any":
        from importlib import import_module

        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
        return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__, *_MODULES})
