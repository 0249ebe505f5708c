"""What may be given as a host or a proxy, for annotations: ``def fetch(proxy: socksy.ProxyLike)``.

The modules of socksy import this for type checkers only: `typing` and `ipaddress` take longer to
load than all of them.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, TypeAlias

from .proxy import Proxy

Host: TypeAlias = str | bytes | bytearray | IPv4Address | IPv6Address

#: chooses per target, by host and port; None means a direct connection
if TYPE_CHECKING:
    ProxyChooser: TypeAlias = "Callable[[str, int], ProxyLike]"
else:  # `typing.get_type_hints` loses its way in circles
    ProxyChooser = Callable[[str, int], Any]

#: what every ``proxy=`` of the library takes
ProxyLike: TypeAlias = str | Proxy | Sequence[str | Proxy] | ProxyChooser | None
