"""SocksSocket: a `socket.socket` that connects through a proxy.

Only the life cycle is overridden, never `send` or `recv`: once connected, the data path is the base
class' own C code. Without a proxy it is a plain socket, to the last error message.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from operator import index

from ..errors import InvalidArgumentError, InvalidPortError, ProxyError, ProxyUnsupportedError
from ..hosts import FORBIDDEN, MAX_NAME, clean_host, clean_target, pack_ip, refuse_onion
from ..proxy import HTTP, Proxy, as_route, choose
from .dial import (
    CAN_REPLACE,
    PATIENCE,
    Dial,
    Tunnel,
    at_home,
    busy_guise,
    busy_guises,
    family_of,
    is_in_use,
    os_error,
    run,
    settle,
    straight,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any

    from typing_extensions import Buffer, Self

    from ..hosts import Host
    from ..protocol.steps import Address
    from ..proxy import Chain, ProxyLike, Route
    from .dial import Wait
    from .options import Options
    from .remote import RemoteListener

if not issubclass(socket.socket, socket.SocketType):
    raise ImportError(
        f"{socket.socket.__module__} has replaced socket.socket by a class that is no socket; "
        "socksy works with gevent, but not with eventlet"
    )


class _Unset:
    """Stands for "no proxy was named here": then the default proxy counts."""

    def __repr__(self) -> str:
        return "<the default proxy>"


UNSET = _Unset()
_GLOBAL_TIMEOUT = getattr(socket, "_GLOBAL_DEFAULT_TIMEOUT")  # noqa: B009 - not in the type stubs
_IPV4 = int(socket.AF_INET)
_INET = (_IPV4, int(socket.AF_INET6))
_STREAM, _DATAGRAM = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)
_STREAMS = (-1, _STREAM)  # what the constructor takes for a stream
_FAMILIES = (-1, _IPV4)  # and for the usual family
_CONNECT, _BIND = 1, 2  # as in `protocol.codes`
_FASTOPEN = getattr(socket, "MSG_FASTOPEN", 0)
_plain_init = socket.socket.__init__
_getpeername = socket.SocketType.getpeername
_type_of: Callable[[socket.socket], int] = socket.SocketType.type.__get__


def _default_proxy() -> Route:
    from ..defaults import get_default_proxy

    return get_default_proxy()


class SocksSocket(socket.socket):
    """A socket whose stream connections go through a proxy.

    Args:
        family, type, proto, fileno: as for `socket.socket`.
        proxy: a URL, a `Proxy`, a list of either (a chain, the nearest first), or a callable
            ``(host, port) -> proxy or None``. None: no proxy. By default: the default proxy, as it
            is now, or if there is none, as it is when the socket connects.
        remote_bind: `listen` asks the proxy to listen instead (see there), and `getsockname` of a
            connected socket tells what the other side sees. By default as the class says: False.

    Raises:
        InvalidProxyError: the proxy cannot be understood.
    """

    # Instances have a dict, no slots: an SSLSocket can then take this class on (see detach).
    _route: Route | _Unset = UNSET
    _has_a_way = True  # it is of a family and a type that proxies can serve
    #: it is an IPv4 stream that is neither bound nor connected by other ways, as far as is known
    _may_go_straight = True
    _tunnel: Tunnel | None = None
    _listener: RemoteListener | None = None
    _busy_with: Dial | type[Dial] | None = None  # while a thread waits in connect()
    _local: tuple[Any, ...] | None = None  # where the application bound it
    _options: Options = {}  # noqa: RUF012 - a socket with options of its own has a dict of its own
    #: why the last connect failed, for those who were given a bare errno (connect_ex, SO_ERROR)
    last_error: ProxyError | None = None
    #: for subclasses: getsockopt(SO_ERROR) raises why a non-blocking connect failed, so that a loop
    #: which would make an OSError of a number passes our own on (asyncio and trio always do)
    raises_failure = False
    #: whether `listen` asks the proxy to listen; a subclass may say True
    remote_bind: bool = False

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
        *,
        proxy: ProxyLike | _Unset = UNSET,
        remote_bind: bool | None = None,
    ) -> None:
        # first the proxy: if it is wrong, no descriptor has been made
        if isinstance(proxy, Proxy):
            self._route = (proxy,)
        elif isinstance(proxy, _Unset):
            route: Route = _default_proxy() if fileno is None else None
            if route is not None:
                self._route = route
        else:
            self._route = as_route(proxy)
        if remote_bind is not None:
            self.remote_bind = remote_bind
        try:
            if self.__class__ is SocksSocket:  # what super() finds then, in fewer steps
                _plain_init(self, family, type, proto, fileno)
            else:
                super().__init__(family, type, proto, fileno)
        except TypeError:
            first: object = family
            if isinstance(first, (str, Proxy)):
                raise TypeError("a SocksSocket is given its proxy by name: proxy=...") from None
            raise
        if fileno is not None or type not in _STREAMS or family not in _FAMILIES:
            self._may_go_straight = False
            kind = _type_of(self)
            if kind == _DATAGRAM:
                self._become_datagram()
            self._has_a_way = family_of(self) in _INET and kind in (_STREAM, _DATAGRAM)

    def _become_datagram(self) -> None:
        """Datagrams have a class of their own, so that no method asks for the type."""
        if family_of(self) in _INET:
            from .datagram import take_over

            take_over(self)

    # -- which way

    @property
    def proxy(self) -> Route:
        """The proxy this socket uses or would use: a chain, a callable, or None."""
        return self._route_now()

    def _route_now(self) -> Route:
        route = self._route
        return _default_proxy() if isinstance(route, _Unset) else route

    def set_proxy(self, proxy: ProxyLike) -> None:
        """Choose the proxy for the next `connect`; None for a direct connection.

        Raises:
            InvalidProxyError: it cannot be understood.
            OSError: EISCONN, this socket is connected through a proxy already.
        """
        if self._tunnel is not None:
            raise self._connected_already()
        self._route = as_route(proxy)

    def _chain_for(self, address: Any) -> tuple[Chain, str, int] | None:
        """The proxies for a target, its clean host, its port; None for a direct connection.

        Raises:
            ProxyUnsupportedError: a .onion name, where the direct connection would look it up.
        """
        route: Any = self._route
        if route is UNSET:
            route = _default_proxy()
        if family_of(self) not in _INET:
            return None
        if route is None or not self._has_a_way:
            if isinstance(address, tuple) and address:
                refuse_onion(address[0])
            return None
        host, port = _split_address(address)
        if not isinstance(route, tuple):
            route = choose(route, clean_host(host), index(port))
            if route is None:
                refuse_onion(host)
                return None
        host, port = clean_target(host, port)
        return route, host, port

    def _way_to(self, address: Any) -> tuple[Chain, str, int] | None:
        """`_chain_for` a connection that is made now."""
        way = self._chain_for(address)
        if way is None:
            self._may_go_straight = False  # should it get a proxy later: see _connect_through
        if self.remote_bind:
            from .remote import note_primary

            note_primary(self, way)
        return way

    # -- connecting

    def _connected_already(self) -> OSError:
        """What the kernel says of a second connect."""
        number = errno.EISCONN if self._busy_with is None else errno.EALREADY
        return os_error(errno.EBADF if self.fileno() == -1 else number)

    def connect(self, address: Any, *, early_data: Buffer = b"") -> None:
        """Connect to `address` through the proxy, within one deadline: the socket's timeout.

        The timeout covers everything from looking up the proxy to the end of the handshake of the
        last hop. Afterwards it is what it was.

        Args:
            address: ``(host, port)``, or four values as for AF_INET6. A name goes to a
                remote-DNS proxy unresolved. The family of the socket does not matter.
            early_data: the first bytes for the target, sent to the last proxy along with the
                request: it must be known to keep them (docs/performance.md). Whether they reached
                the target is not known if this fails.

        Raises:
            ProxyError: see `socksy.errors`; nothing but `early_data` has been sent to the target.
            InvalidTargetError: the address cannot be asked of a proxy; nothing has been sent.
            InvalidArgumentError: early data, but no proxy, on a non-blocking socket.
        """
        route: Any = self._route
        if (
            route.__class__ is tuple
            and address.__class__ is tuple
            and len(address) == 2
            and len(route) == 1
            and not early_data
            and self._may_go_straight
            and not self.remote_bind
        ):
            # the usual case: what follows, without its calls
            host, port = address
            (proxy,) = route
            if (
                host.__class__ is str
                and port.__class__ is int
                and 0 < port < 65536
                and host
                and len(host) <= MAX_NAME
                and host.isascii()
                and FORBIDDEN.isdisjoint(host)
                and proxy.straight is not None
                and (not proxy.local_dns or pack_ip(host) is not None)
                and self._tunnel is None
                and self._busy_with is None
            ):
                timeout = self.gettimeout()
                if timeout != 0:
                    straight(self, proxy, address, timeout)
                    return
        way = self._way_to(address)
        if way is not None:
            self._connect_through(way, address, bytes(early_data) if early_data else b"")
        elif not early_data:
            super().connect(address)
        elif self.gettimeout() == 0:
            raise InvalidArgumentError("early_data without a proxy needs a socket that waits")
        else:
            super().connect(address)
            self.sendall(early_data)

    def connect_ex(self, address: Any) -> int:
        """Like `connect`, but returns 0, or the `errno` of what `connect` would raise.

        As on a plain socket, wrong arguments and names that cannot be looked up raise all the same.
        """
        try:
            way = self._way_to(address)
            if way is None:
                return super().connect_ex(address)
            self._connect_through(way, address)
        except socket.gaierror:
            raise
        except OSError as exc:
            return exc.errno or errno.EIO
        return 0

    def _connect_through(
        self, way: tuple[Chain, str, int], address: Any, early_data: bytes = b""
    ) -> None:
        """What `connect` and `connect_ex` share."""
        self._get_through((*way, _CONNECT), self._peer_form(address), _connected, early_data)

    def _get_through(
        self,
        way: tuple[Chain, str, int, int],
        target: tuple[Any, ...],
        on_success: Callable[[SocksSocket, Address, Dial, tuple[Any, ...]], None],
        early_data: bytes = b"",
    ) -> None:
        """Have a proxy connect, or listen; the arguments are those of `pending.begin`.

        Raises:
            BlockingIOError: EINPROGRESS, on a non-blocking socket.
        """
        if self._tunnel is not None or self._busy_with is not None:
            raise self._connected_already()
        # Asked first: Linux takes a second connect() for the end of one that was not waited for.
        if is_in_use(self):
            raise self._connected_already()
        if self.gettimeout() != 0 or not CAN_REPLACE:
            self._wait_through(way, target, on_success, early_data)
            return
        from . import pending

        try:
            pending.begin(self, target, way, on_success, early_data)
        except ProxyError as exc:  # it cannot be asked for that
            self.last_error = exc
            raise
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))

    def _wait_through(
        self,
        way: tuple[Chain, str, int, int],
        target: tuple[Any, ...],
        on_success: Callable[[SocksSocket, Address, Dial, tuple[Any, ...]], None],
        early_data: bytes = b"",
    ) -> None:
        """The same in this thread, also on a non-blocking socket."""
        home: type = self.__class__
        guise = busy_guises.get(home) or busy_guise(home)  # other threads may use it meanwhile
        timeout = self.gettimeout()
        dial = Dial(self, PATIENCE if timeout == 0 else timeout, self._local, self._options)
        dial.early_data = early_data
        try:
            self._busy_with = dial
            self.__class__ = guise
            bound = run(dial.through(*way))
            on_success(self, bound, dial, target)
            home = at_home(self, home)
        except ProxyError as exc:
            self.last_error = exc
            raise
        except BaseException:
            if self._tunnel is None:
                dial.abandon()
            raise
        finally:
            self.__class__ = home
            self._busy_with = None

    def _peer_form(self, address: Any) -> tuple[Any, ...]:
        """The target as `getpeername` gives it: with four values for AF_INET6."""
        if family_of(self) == socket.AF_INET6 and len(address) == 2:
            return (*address, 0, 0)
        return tuple(address)

    def bind(self, address: Any) -> None:
        """Bind locally; a connection to the proxy is made from there."""
        if family_of(self) not in _INET:
            super().bind(address)
            return
        if isinstance(address, tuple) and address:
            refuse_onion(address[0])
        super().bind(address)
        self._local = super().getsockname()
        self._may_go_straight = False

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """As on a plain socket; set again should the descriptor have to be another one."""
        super().setsockopt(level, option, *value)
        self._own_options()[level, option] = value

    def _own_options(self) -> Options:
        if "_options" not in self.__dict__:
            self._options = {}
        return self._options

    # -- data that carries an address: it must not slip past the proxy, nor the name be looked up

    def sendto(self, data: Buffer, *arguments: Any) -> int:
        """As on a plain socket; with MSG_FASTOPEN it connects through the proxy first.

        Otherwise TCP ignores the address, and nothing is made of it here either.
        """
        if 0 < len(arguments) < 3 and self._is_proxied_to(arguments[-1], arguments[0]):
            flags = arguments[0] if len(arguments) == 2 else 0
            return self.send(data, flags & ~_FASTOPEN)
        return super().sendto(data, *arguments)

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """As on a plain socket; for the address see `sendto`."""
        if address is not None and self._is_proxied_to(address, flags):
            address, flags = None, flags & ~_FASTOPEN
        return super().sendmsg(buffers, ancdata, flags, address)

    def _is_proxied_to(self, address: Any, flags: Any) -> bool:
        """Whether the way there is a proxy; with MSG_FASTOPEN it has now been gone."""
        if self._tunnel is not None:
            _split_address(address)  # a plain socket complains as well
            return True
        if self._chain_for(address) is None:
            return False
        if isinstance(flags, int) and flags & _FASTOPEN:
            self.connect(address)
        return True

    # -- who is there

    def getpeername(self) -> Any:
        """The target as the application named it: ``("example.com", 80)``.

        Raises:
            OSError: ENOTCONN, as on a plain socket.
        """
        peer = super().getpeername()
        if self._listener is not None:
            raise os_error(errno.ENOTCONN)
        return peer if self._tunnel is None else self._tunnel.target

    def getsockname(self) -> Any:
        """The local address; after `bind_remote`, the one on which the proxy listens.

        On a connected socket with `remote_bind`, the address that the other side sees: BND.ADDR of
        the reply, or if the proxy does not tell it, the proxy's own.
        """
        if self._listener is not None:
            return self._listener.address
        name, tunnel, family = self._real_sockname(), self._tunnel, family_of(self)
        if tunnel is None:
            return name
        if self.remote_bind:
            from .remote import outer_address

            return outer_address(family, tunnel.legs, tunnel.bound, self.proxy_peername)
        if tunnel.over_unix:
            return ("0.0.0.0", 0) if family == _IPV4 else ("::", 0, 0, 0)
        if len(name) == (2 if family == _IPV4 else 4):
            return name
        from .remote import in_family  # the proxy is of the other family

        return in_family(family, *name[:2])

    def _real_sockname(self) -> Any:
        name = super().getsockname()
        tunnel = self._tunnel
        return name if tunnel is None or tunnel.names is None else tunnel.names[0]

    # Properties do not raise: mock, inspect and debuggers read whatever attributes there are.

    @property
    def proxy_peername(self) -> Any:
        """The address of the proxy's end of the real connection; None while there is none."""
        try:
            peer = super().getpeername()
        except OSError:
            return None
        tunnel = self._tunnel
        return peer if tunnel is None or tunnel.names is None else tunnel.names[1]

    @property
    def proxy_sockname(self) -> Any:
        """The address of our end of the real connection; None if the socket is closed."""
        try:
            return self._real_sockname()
        except OSError:
            return None

    @property
    def bound_address(self) -> Address | None:
        """BND.ADDR and BND.PORT of the last proxy's reply (RFC 1928, section 6), as it sent them.

        Many proxies send ``("0.0.0.0", 0)``. None while not connected through a proxy, and where
        the protocol has no such field: HTTP CONNECT.
        """
        tunnel = self._tunnel
        return None if tunnel is None or tunnel.legs[-1][0].scheme == HTTP else tunnel.bound

    # -- BIND

    def bind_remote(self, peer: tuple[Host, int] = ("0.0.0.0", 0)) -> None:
        """Ask the proxy to listen for one connection from `peer` (BIND; RFC 1928, section 4).

        Afterwards `getsockname` is where the proxy listens, to be told to the peer, and `accept`
        waits until it has connected. On a non-blocking socket this is like `connect`: it raises
        EINPROGRESS, and the socket becomes writable when the proxy has answered.

        Args:
            peer: who will connect; many proxies check it. All zeros if that is not known.

        Raises:
            ProxyError: the proxy cannot be reached, or does no BIND.
            BlockingIOError: EINPROGRESS, on a non-blocking socket.
        """
        host, port = clean_target(*peer[:2], lowest_port=0)
        chain = choose(self._route_now(), host, port)
        if chain is None or _type_of(self) != _STREAM:
            raise ProxyUnsupportedError(message="bind_remote needs a stream socket and a proxy")
        self._get_through((chain, host, port, _BIND), (host, port), _listening)

    def listen(self, *backlog: int) -> None:
        """As on a plain socket; nothing is left to do after `bind_remote`.

        With `remote_bind` and a proxy, this is `bind_remote`, but waits for the proxy's answer also
        on a non-blocking socket: the next call will be `getsockname`. If the sockets with
        `remote_bind` that are connected now are connected to one host, then it is the only peer
        that the proxy is asked to let in (an FTP server, say); if these go direct, so does this.
        """
        if self._listener is not None:
            return
        if self.remote_bind and _type_of(self) == _STREAM and family_of(self) in _INET:
            from .remote import way_of_the_peer

            way = way_of_the_peer(self._route_now())
            if way is not None:
                self._wait_through((*way, _BIND), way[1:], _listening)
                return
        super().listen(*backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        """As on a plain socket; after `bind_remote`, wait for the peer that the proxy accepted.

        A proxy accepts one peer for each BIND: a second call raises EINVAL.

        Raises:
            ProxyError: the proxy gave up, or let somebody else in.
            BlockingIOError: the socket is non-blocking, and nobody has connected yet.
        """
        if self._listener is None:
            return super().accept()
        from .remote import in_family

        host, port = self._listener.wait(self)
        peer = in_family(family_of(self), host, port)
        home: type[SocksSocket] = getattr(self, "_undisguised", type(self))
        conn = home(
            self.family,
            self.type,
            self.proto,
            fileno=self._listener.take(self),
            proxy=None,
            remote_bind=self.remote_bind,
        )
        tunnel = self._tunnel
        assert tunnel is not None
        tunnel.target = peer
        conn._tunnel = tunnel
        conn.settimeout(socket.getdefaulttimeout())
        return conn, peer

    # -- copies

    def dup(self) -> Self:
        """A second socket on the same connection, which knows the same way."""
        copy = super().dup()
        copy.__dict__.update(self.__dict__)
        return copy

    def detach(self) -> int:
        """As on a plain socket; an SSLSocket that takes over goes through the proxy too."""
        # without a proxy now, but not for ever: a default may be set before it connects
        if self._tunnel is not None or (self._route is not None and not self._is_connected()):
            _hand_over_to_ssl(self)
        return super().detach()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As on a plain socket: `multiprocessing` passes streams on, nobody else pickles them."""
        asker = sys._getframe(1).f_globals.get("__name__")
        kind = getattr(self, "_undisguised", type(self))
        if asker != "multiprocessing.reduction" or kind is not SocksSocket:
            return super().__reduce_ex__(protocol)
        from .parcel import pack

        return pack(self)

    def _is_connected(self) -> bool:
        try:
            super().getpeername()
        except OSError:
            return False
        return True


busy_guise(SocksSocket, type)  # here and now: connecting imports nothing


def _connected(sock: SocksSocket, bound: Address, dial: Dial, target: tuple[Any, ...]) -> None:
    tunnel = Tunnel()
    tunnel.target, tunnel.bound, tunnel.legs = target, bound, dial.legs
    if dial.names is not None:
        tunnel.names = dial.names
        tunnel.over_unix = not isinstance(dial.names[1], tuple)
    sock._tunnel = tunnel
    if sock.last_error is not None:
        sock.last_error = None


def _listening(sock: SocksSocket, bound: Address, dial: Dial, target: tuple[Any, ...]) -> None:
    from .remote import RemoteListener, outer_address

    _connected(sock, bound, dial, target)
    proxy = _getpeername(sock) if dial.names is None else dial.names[1]
    address = outer_address(family_of(sock), dial.legs, bound, proxy)
    sock._listener = RemoteListener(dial.legs, address)


def _split_address(address: Any) -> tuple[Host, int]:
    """Host and port of what `connect` takes; errors as a plain socket's."""
    if not isinstance(address, tuple):
        raise TypeError(f"an address is a tuple, not {type(address).__name__}")
    if len(address) not in (2, 3, 4):
        raise TypeError("an address is (host, port), or four values for IPv6")
    host, port = address[:2]
    if len(address) == 4 and address[3] and isinstance(host, str) and "%" not in host:
        host = f"{host}%{address[3]}"  # a scope: refused with the same words as in the text form
    return host, index(port)


def _hand_over_to_ssl(sock: SocksSocket) -> None:
    """Let an SSLSocket that takes over this socket know its way too.

    `SSLContext.wrap_socket` makes a new object and detaches ours; the new one's connect() would be
    the plain one and go around the proxy. The ssl module has no hook for this, so this looks at who
    calls detach(), behind whatever is in between. SSLSocket.connect() calls super().connect(): a
    class with both bases does it.
    """
    ssl = sys.modules.get("ssl")
    if ssl is None:
        return
    code = ssl.SSLSocket._create.__func__.__code__
    caller = sys._getframe(2)
    while caller.f_code is not code or caller.f_locals["sock"] is not sock:
        if caller.f_back is None:
            return
        caller = caller.f_back
    heir = caller.f_locals["self"]
    _become(heir, getattr(sock, "_undisguised", type(sock)))
    heir.__dict__.update(sock.__dict__)
    state = heir.__dict__.get("_pending")
    if state is not None:
        from .pending import inherit

        inherit(heir, state)
    settle(heir)
    if sock.remote_bind:
        from .remote import replace_primary

        heir.remote_bind = True
        replace_primary(sock, heir)


_ssl_classes: dict[tuple[type, type], type] = {}


def _become(heir: Any, ours: type) -> None:
    """Give an SSLSocket a class of ours too; this must not fail, half-way through `wrap_socket`.

    A class with __slots__ has no room in an SSLSocket; then it is what that is derived from.
    """
    kind = type(heir)
    for base in ours.__mro__:
        if not issubclass(base, SocksSocket):
            continue
        try:
            made = _ssl_classes.get((kind, base))
            if made is None:
                from .kinds import combine

                made = combine(f"Socks{kind.__name__}", (kind, base), {})
            heir.__class__ = made
        except TypeError:
            continue
        _ssl_classes[kind, base] = made
        return


def create_connection(
    address: tuple[Host, int | str],
    timeout: float | None = _GLOBAL_TIMEOUT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
    proxy: ProxyLike | _Unset = UNSET,
    early_data: Buffer = b"",
) -> SocksSocket:
    """`socket.create_connection`, through a proxy.

    Args:
        address: host and port; the host of any type that `connect` takes, the port a number, or
            as text, or the name of a service.
        timeout: seconds for everything up to the end of the handshake, then the socket's timeout.
        source_address: where to connect to the proxy from.
        all_errors: as in the standard library; only a direct connection has more than one error.
        proxy: as for `SocksSocket`.
        early_data: as for `SocksSocket.connect`.

    Raises:
        ProxyError, InvalidProxyError, InvalidTargetError: as `SocksSocket.connect`.
    """
    for misplaced in (timeout, source_address):
        if isinstance(misplaced, (str, Proxy)):
            raise TypeError("create_connection is given its proxy by name: proxy=...")
    host, port = address
    if isinstance(port, str):
        port = _port_of(port)
    chain = chain_for(proxy, host, port)
    if chain is None:
        sock = _connect_directly(address, timeout, source_address, all_errors)
        if early_data:
            _send_or_close(sock, early_data)
        return sock
    return connect_through(chain, (host, port), timeout, source_address, early_data=early_data)


def _port_of(service: str) -> int:
    """The number of a port, given as text or as the name of a service, as getaddrinfo takes it."""
    try:
        return int(service) if service.isdecimal() else socket.getservbyname(service, "tcp")
    except OSError as exc:
        raise InvalidPortError(f"there is no service {service!r}") from exc


def chain_for(proxy: ProxyLike | _Unset, host: Host, port: int) -> Chain | None:
    """The proxies that a ``proxy=`` means for a target; None for a direct connection.

    Raises:
        ProxyUnsupportedError: a .onion name, where the direct connection would look it up.
    """
    route = _default_proxy() if isinstance(proxy, _Unset) else as_route(proxy)
    chain = choose(route, clean_host(host), port) if callable(route) else route
    if chain is None:
        refuse_onion(host)
    return chain


def socket_for(
    chain: Chain,
    source_address: tuple[Any, ...] | None = None,
    options: Iterable[tuple[Any, ...]] = (),
) -> SocksSocket:
    """An unconnected socket for a chain, bound and with these options (arguments of setsockopt).

    It is of the family that the proxy most likely has: then the descriptor need not be changed.
    """
    there = chain[0].host if source_address is None else source_address[0]
    # an only hop is not looked at again, as a chain would be
    sock = SocksSocket(
        socket.AF_INET6 if ":" in there else socket.AF_INET,
        proxy=chain[0] if len(chain) == 1 else chain,
    )
    sock._route = chain  # rather than a tuple for each of thousands
    try:
        for option in options:
            sock.setsockopt(*option)
        if source_address is not None:
            sock.bind(source_address)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_through(
    chain: Chain,
    address: tuple[Host, int],
    timeout: float | None = _GLOBAL_TIMEOUT,
    source_address: tuple[str, int] | None = None,
    options: Iterable[tuple[Any, ...]] = (),
    early_data: Buffer = b"",
) -> SocksSocket:
    """`create_connection` with a chain that has been chosen, and socket options set first."""
    sock = socket_for(chain, source_address, options)
    try:
        if timeout is not _GLOBAL_TIMEOUT:
            sock.settimeout(timeout)
        sock.connect(address, early_data=early_data)
    except BaseException:
        sock.close()
        raise
    return sock


def _send_or_close(sock: SocksSocket, data: Buffer) -> None:
    try:
        sock.sendall(data)
    except BaseException:
        sock.close()
        raise


def opening(
    chain: Chain,
    address: tuple[Host, int],
    timeout: float | None,
    source_address: tuple[str, int] | None = None,
    options: Iterable[tuple[Any, ...]] = (),
    early_data: bytes = b"",
) -> Generator[Wait, bool, SocksSocket]:
    """`connect_through` for any way of waiting (see `dial`); returns a non-blocking socket.

    Whatever ends it early, the socket is closed. Without a timeout it has `PATIENCE`: a loop must
    never be blocked by a lookup, which takes a thread only if there is a deadline.
    """
    sock, dial, task = set_out(chain, address, timeout, source_address, options, early_data)
    try:
        bound = yield from task
    except BaseException:
        sock.close()
        raise
    return arrive(sock, bound, dial, address)


def set_out(
    chain: Chain,
    address: tuple[Host, int],
    timeout: float | None,
    source_address: tuple[str, int] | None = None,
    options: Iterable[tuple[Any, ...]] = (),
    early_data: bytes = b"",
) -> tuple[SocksSocket, Dial, Generator[Wait, bool, Address]]:
    """`opening` in pieces, where each generator counts: drive the task, then `arrive` or close."""
    host, port = clean_target(*address)
    sock = socket_for(chain, source_address, options)
    try:
        sock.setblocking(False)
        timeout = PATIENCE if timeout is None else timeout
        dial = Dial(sock, timeout, sock._local, sock._options)
        dial.early_data = early_data
        return sock, dial, dial.through(chain, host, port, _CONNECT)
    except BaseException:
        sock.close()
        raise


def arrive(sock: SocksSocket, bound: Address, dial: Dial, address: tuple[Host, int]) -> SocksSocket:
    """The other piece; `bound` is what the task returned."""
    _connected(sock, bound, dial, sock._peer_form(address))
    settle(sock)
    return sock


def _connect_directly(
    address: Any, timeout: float | None, source_address: Any, all_errors: bool
) -> SocksSocket:
    options = {"all_errors": True} if all_errors and sys.version_info >= (3, 11) else {}
    from ..names import unpatched

    plain = unpatched(socket.create_connection, address, timeout, source_address, **options)
    sock = SocksSocket(plain.family, plain.type, plain.proto, plain.detach(), proxy=None)
    sock.settimeout(plain.gettimeout())
    return sock
