"""PySocks' interface, with our sockets behind it, for code that expects PySocks.

    import socksy.pysocks as socks

or, for code that cannot be changed, before it imports `socks`::

    import socksy.pysocks
    socksy.pysocks.install_as_socks()

Where PySocks does what its documentation says, this does the same; where it leaks, freezes or loses
what it knew, this does not. docs/pysocks.md lists the differences.
"""

from __future__ import annotations

import errno
import socket
import sys
from types import ModuleType

from ..errors import InvalidProxyError
from ..errors import ProxyError as _OurProxyError
from ..patch import Patch, where_it_connects
from ..patch import wrap_module as _wrap_module
from ..proxy import HTTP as _HTTP_SCHEME
from ..proxy import SOCKS4 as _LOCAL4
from ..proxy import SOCKS4A as _REMOTE4
from ..proxy import SOCKS5 as _LOCAL5
from ..proxy import SOCKS5H as _REMOTE5
from ..proxy import Proxy, encode_login
from ..sockets.stream import SocksSocket
from .errors import (
    SOCKS4_ERRORS,
    SOCKS5_ERRORS,
    GeneralProxyError,
    HTTPError,
    ProxyConnectionError,
    ProxyError,
    SOCKS4Error,
    SOCKS5AuthError,
    SOCKS5Error,
    rename,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Buffer

    from ..hosts import Host

__all__ = [
    "DEFAULT_PORTS",
    "GeneralProxyError",
    "HTTP",
    "HTTPError",
    "PRINTABLE_PROXY_TYPES",
    "PROXY_TYPES",
    "PROXY_TYPE_HTTP",
    "PROXY_TYPE_SOCKS4",
    "PROXY_TYPE_SOCKS5",
    "ProxyConnectionError",
    "ProxyError",
    "SOCKS4",
    "SOCKS4Error",
    "SOCKS4_ERRORS",
    "SOCKS5",
    "SOCKS5AuthError",
    "SOCKS5Error",
    "SOCKS5_ERRORS",
    "create_connection",
    "get_default_proxy",
    "getdefaultproxy",
    "install_as_socks",
    "set_default_proxy",
    "setdefaultproxy",
    "socksocket",
    "wrap_module",
    "wrapmodule",
]

#: of the PySocks whose interface this is
__version__ = "1.7.1"

PROXY_TYPE_SOCKS4 = SOCKS4 = 1
PROXY_TYPE_SOCKS5 = SOCKS5 = 2
PROXY_TYPE_HTTP = HTTP = 3
PROXY_TYPES = {"SOCKS4": SOCKS4, "SOCKS5": SOCKS5, "HTTP": HTTP}
PRINTABLE_PROXY_TYPES = {number: name for name, number in PROXY_TYPES.items()}
DEFAULT_PORTS = {SOCKS4: 1080, SOCKS5: 1080, HTTP: 8080}

_orgsocket = _orig_socket = socket.socket  # used by recipes

#: type and whether the proxy resolves -> scheme
_SCHEMES = {
    (SOCKS4, True): _REMOTE4,
    (SOCKS4, False): _LOCAL4,
    (SOCKS5, True): _REMOTE5,
    (SOCKS5, False): _LOCAL5,
    (HTTP, True): _HTTP_SCHEME,
    (HTTP, False): _HTTP_SCHEME,
}
_NO_PROXY = (None, None, None, None, None, None)


def _text(value: str | bytes | None) -> str | None:
    """What is no UTF-8 is sent as it is: an error about it would hold all of it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape") or None
    return value or None


def _proxy_of(
    proxy_type: int | None = None,
    addr: Host | None = None,
    port: int | None = None,
    rdns: bool = True,
    username: str | bytes | None = None,
    password: str | bytes | None = None,
) -> Proxy | None:
    """What PySocks' six values mean; None without a type.

    Raises:
        InvalidProxyError: one of them is wrong.
    """
    if not proxy_type:
        return None
    scheme = _SCHEMES.get((proxy_type, bool(rdns)))
    if scheme is None:
        raise InvalidProxyError(f"a proxy type is SOCKS4, SOCKS5 or HTTP, not {proxy_type!r}")
    if addr is None:
        raise InvalidProxyError("a proxy needs an address")
    name, word = _text(username), _text(password)
    if not name or proxy_type == SOCKS4:  # which has a user id only
        word = None
    return Proxy(scheme, addr, port or None, username=name, password=word)


def set_default_proxy(
    proxy_type: int | None = None,
    addr: Host | None = None,
    port: int | None = None,
    rdns: bool = True,
    username: str | bytes | None = None,
    password: str | bytes | None = None,
) -> None:
    """Set the proxy of every `socksocket` made from now on; without arguments, none.

    Args: as for `socksocket.set_proxy`.

    Raises:
        InvalidProxyError: an argument is wrong.
    """
    socksocket.default_proxy = _six_values(proxy_type, addr, port, rdns, username, password)


def setdefaultproxy(*args: Any, **kwargs: Any) -> None:
    """The old name of `set_default_proxy`."""
    set_default_proxy(*args, **_new_names(kwargs))


def get_default_proxy() -> Any:
    """What `set_default_proxy` was given, as six values; None before."""
    return socksocket.default_proxy


getdefaultproxy = get_default_proxy


def _new_names(options: dict[str, Any]) -> dict[str, Any]:
    if "proxytype" in options:
        options["proxy_type"] = options.pop("proxytype")
    return options


def _six_values(
    proxy_type: int | None,
    addr: Host | None,
    port: int | None,
    rdns: bool,
    username: str | bytes | None,
    password: str | bytes | None,
) -> tuple[Any, ...]:
    """As PySocks keeps them, credentials in bytes; checked now, not when connecting."""
    _proxy_of(proxy_type, addr, port, rdns, username, password)
    name, word = (
        encode_login(text) if isinstance(text, str) else text for text in (username, password)
    )
    return proxy_type, addr, port, rdns, name or None, word or None


def wrap_module(module: ModuleType) -> Patch:
    """Let a module's sockets and name lookups go through the default proxy: only that module's.

    That is the one of the moment in which a socket connects; after `set_default_proxy` without
    arguments they go direct. With ``urllib.request``, say, goes the module in which its connections
    are made.

    Returns:
        A patch that can be undone, and a context manager.

    Raises:
        GeneralProxyError: there is no default proxy.
        InvalidArgumentError: the module does not use sockets.
    """
    if _default_now("", 0) is None:
        raise GeneralProxyError("No default proxy specified")
    patch = _wrap_module(*{module, where_it_connects(module)}, proxy=_default_now)
    # its sockets have PySocks' errors, too
    patch._class.last_error = socksocket.last_error  # type: ignore[assignment]
    return patch


def _default_now(host: str, port: int) -> Proxy | None:
    return _proxy_of(*(socksocket.default_proxy or _NO_PROXY))


wrapmodule = wrap_module


class socksocket(SocksSocket):  # noqa: N801 - PySocks' name
    """A `SocksSocket` with PySocks' way to say which proxy.

    Args:
        family, type, proto, fileno: as for `socket.socket`.
    """

    #: what `set_default_proxy` was given
    default_proxy: tuple[Any, ...] | None = None
    _six: tuple[Any, ...] = _NO_PROXY

    def __init__(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        fileno: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(family, type, proto, fileno, **options)
        if self.default_proxy and fileno is None and "proxy" not in options:
            self.set_proxy(*self.default_proxy)

    @property
    def proxy(self) -> Any:
        """The six values given to `set_proxy`."""
        return self._six

    @proxy.setter
    def proxy(self, values: tuple[Any, ...]) -> None:
        self.set_proxy(*values)

    def set_proxy(  # type: ignore[override]
        self,
        proxy_type: int | None = None,
        addr: Host | None = None,
        port: int | None = None,
        rdns: bool = True,
        username: str | bytes | None = None,
        password: str | bytes | None = None,
    ) -> None:
        """Choose the proxy for the next `connect`; without arguments, none.

        Args:
            proxy_type: `SOCKS4`, `SOCKS5` or `HTTP`.
            addr: name or address of the proxy.
            port: by default 1080, for HTTP 8080.
            rdns: let the proxy resolve names; if not, they are looked up here. HTTP proxies do.
            username, password: for SOCKS4 the user id only.

        Raises:
            InvalidProxyError: an argument is wrong.
            OSError: EISCONN, this socket is connected through a proxy already.
        """
        super().set_proxy(_proxy_of(proxy_type, addr, port, rdns, username, password))
        self._six = _six_values(proxy_type, addr, port, rdns, username, password)

    def setproxy(self, *args: Any, **kwargs: Any) -> None:
        """The old name of `set_proxy`."""
        self.set_proxy(*args, **_new_names(kwargs))

    def connect(
        self, dest_pair: Any, catch_errors: bool | None = None, *, early_data: Buffer = b""
    ) -> None:
        """Connect through the proxy; on a non-blocking socket EINPROGRESS, as on any socket.

        Args:
            dest_pair: host and port; an IPv6 address too.
            catch_errors: raise what the operating system said, if it said something.

        Raises:
            ProxyError: PySocks' classes, which are also those of `socksy`.
        """
        try:
            super().connect(dest_pair, early_data=early_data)
        except _OurProxyError as error:
            rename(error)
            if catch_errors and isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    @property
    def last_error(self) -> _OurProxyError | None:
        """Why the last connect failed.

        Every error comes by here before it is raised, by a loop, say, or another method than
        `connect`; and is one of PySocks' from then on.
        """
        error: _OurProxyError | None = self.__dict__.get("last_error")
        return error

    @last_error.setter
    def last_error(self, error: _OurProxyError | None) -> None:
        if error is not None:
            rename(error)
        self.__dict__["last_error"] = error

    # -- who is there

    def get_proxy_sockname(self) -> Any:
        """Address and port that the proxy connected from (BND.ADDR); None before."""
        return self.bound_address

    getproxysockname = get_proxy_sockname

    def get_proxy_peername(self) -> Any:
        """The proxy's address.

        Raises:
            OSError: ENOTCONN.
        """
        peer = self.proxy_peername
        if peer is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return peer

    getproxypeername = get_proxy_peername

    def get_peername(self) -> Any:
        """The target, as it was named."""
        return self.getpeername()


def create_connection(
    dest_pair: tuple[Host, int],
    timeout: float | None = None,
    source_address: tuple[str, int] | None = None,
    proxy_type: int | None = None,
    proxy_addr: Host | None = None,
    proxy_port: int | None = None,
    proxy_rdns: bool = True,
    proxy_username: str | bytes | None = None,
    proxy_password: str | bytes | None = None,
    socket_options: Iterable[tuple[Any, ...]] | None = None,
) -> socksocket:
    """A connected `socksocket`.

    Args:
        dest_pair: host and port of the target.
        timeout: seconds for all of it. None: the default timeout of sockets.
        source_address: where to connect to the proxy from.
        proxy_type ...: as for `socksocket.set_proxy`; without a type, the default proxy.
        socket_options: arguments of `setsockopt`, set before connecting.

    Raises:
        ProxyError, InvalidProxyError, InvalidTargetError: as `socksocket.connect`.
    """
    values = (proxy_type, proxy_addr, proxy_port, proxy_rdns, proxy_username, proxy_password)
    if not proxy_type:
        values = socksocket.default_proxy or _NO_PROXY
    proxy = _proxy_of(*values) if values[0] else None
    if proxy is None:
        return _connect_directly(dest_pair, timeout, source_address, socket_options or ())
    family = socket.AF_INET6 if ":" in proxy.host else socket.AF_INET
    sock = socksocket(family)
    try:
        sock.set_proxy(*values)
        _prepare(sock, timeout, source_address, socket_options or ())
        sock.connect(dest_pair)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_directly(
    dest_pair: tuple[Any, int],
    timeout: float | None,
    source_address: tuple[str, int] | None,
    socket_options: Iterable[tuple[Any, ...]],
) -> socksocket:
    """Each address of the name, until one answers."""
    error: OSError | None = None
    options = list(socket_options)
    for family, kind, proto, _, address in socket.getaddrinfo(*dest_pair, 0, socket.SOCK_STREAM):
        sock = socksocket(family, kind, proto)
        try:
            _prepare(sock, timeout, source_address, options)
            sock.connect(address)
            return sock
        except OSError as exc:
            error = exc
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise error or OSError(errno.EHOSTUNREACH, "the name has no address")


def _prepare(
    sock: socksocket,
    timeout: float | None,
    source_address: tuple[str, int] | None,
    socket_options: Iterable[tuple[Any, ...]],
) -> None:
    for option in socket_options:
        sock.setsockopt(*option)
    if isinstance(timeout, (int, float)):
        sock.settimeout(timeout)
    if source_address:
        sock.bind(source_address)


def install_as_socks() -> None:
    """Make ``import socks`` and ``import sockshandler`` mean this, in the whole process.

    For urllib3, requests, httplib2 and whatever else asks for PySocks by name; before they do.
    """
    from . import sockshandler

    sys.modules["socks"] = sys.modules[__name__]
    sys.modules["sockshandler"] = sockshandler
