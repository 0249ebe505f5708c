"""socksy: sockets that go through a SOCKS proxy, and nowhere else.

    import socksy

    s = socksy.SocksSocket(proxy="socks5h://127.0.0.1:1080")
    s.settimeout(10)
    s.connect(("example.com", 80))

See the README for the rest.
"""

from .bypass import Bypass
from .defaults import get_default_proxy, set_default_proxy, using
from .errors import (
    AddressTypeNotSupportedError,
    CommandNotSupportedError,
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
from .sockets.lookup import NameLookupError
from .sockets.stream import SocksSocket, create_connection

__version__ = "0.1.0"

__all__ = [
    "AddressTypeNotSupportedError",
    "Bypass",
    "CommandNotSupportedError",
    "HostUnreachableError",
    "InvalidArgumentError",
    "InvalidPortError",
    "InvalidProxyError",
    "InvalidTargetError",
    "NameLookupError",
    "NetworkUnreachableError",
    "NotAllowedError",
    "Proxy",
    "ProxyAuthenticationError",
    "ProxyConnectionError",
    "ProxyError",
    "ProxyProtocolError",
    "ProxyReplyError",
    "ProxyTTLExpiredError",
    "ProxyTimeoutError",
    "ProxyUnsupportedError",
    "SocksSocket",
    "TargetRefusedError",
    "create_connection",
    "get_default_proxy",
    "set_default_proxy",
    "using",
]
