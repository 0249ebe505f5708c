"""The socket class of a patch, and how it gets to those who hold the original one."""

from __future__ import annotations

import socket
import sys
from abc import ABCMeta

from ..errors import ProxyError, ProxyUnsupportedError
from ..hosts import clean_host, is_localhost, pack_ip
from ..names import is_unpatched, named, placeholder
from ..proxy import choose
from ..sockets.dial import family_of
from ..sockets.kinds import combine
from ..sockets.remote import in_family
from ..sockets.stream import UNSET, SocksSocket, _type_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Buffer

    from ..proxy import Chain, ProxyLike
    from ..sockets.stream import _Unset
    from . import Patch

#: what `socket.socket` was when socksy was imported
PLAIN: type[socket.socket] = SocksSocket.__mro__[1]
_INET = (socket.AF_INET, socket.AF_INET6)
_PROXIED = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_LOOPBACK = {int(socket.AF_INET): "127.0.0.1", int(socket.AF_INET6): "::1"}
# hosts that need no lookup, although they are no addresses
_WILDCARDS = ("", "<broadcast>")
_MOST_ASKED = 1024  # addresses of datagrams that are remembered


class _Kind(ABCMeta):
    """Every socket is an instance of what stands for `socket.socket`, whoever made it, and when.

    An ABCMeta, so that programs may derive abstract classes from it.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        if "_stands_for_socket" in cls.__dict__:
            return isinstance(instance, PLAIN)
        return super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "_stands_for_socket" in cls.__dict__:
            return issubclass(subclass, PLAIN)
        if cls is PatchedSocket:  # ABCMeta would ask those that stand for `socket.socket`
            return type.__subclasscheck__(cls, subclass)
        return super().__subclasscheck__(subclass)


class PatchedSocket(SocksSocket, metaclass=_Kind):
    """A socket of a patched program: with the signature of `socket.socket`, and placeholders.

    `getpeername` tells an address, as programs are used to, and be it a placeholder: `getnameinfo`
    makes a name of it again.
    """

    _patch: Patch
    _may_go_straight = False  # see `_as_an_address`
    _asked: _Asked | None = None  # of datagrams
    _forget_sources: Callable[[], None]  # which a DatagramSocket has

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
        if proxy is UNSET:
            patch = None if is_unpatched() else self._patch.in_force()
            proxy = None if patch is None else patch.route
        super().__init__(family, type, proto, fileno, proxy=proxy, remote_bind=remote_bind)

    def connect(self, address: Any, *, early_data: Buffer = b"") -> None:
        super().connect(self._meant(address), early_data=early_data)

    def connect_ex(self, address: Any) -> int:
        try:
            address = self._meant(address)
        except ProxyError as exc:
            return exc.errno  # type: ignore[return-value]
        return super().connect_ex(address)

    def sendto(self, data: Buffer, *arguments: Any) -> int:
        if arguments:
            arguments = (*arguments[:-1], self._meant(arguments[-1]))
        return super().sendto(data, *arguments)

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        if len(arguments) == 3:
            arguments = (*arguments[:-1], self._meant(arguments[-1]))
        return super().sendmsg(buffers, *arguments)

    def bind(self, address: Any) -> None:
        """As on a plain socket; a name that would have to be looked up is nobody's address here."""
        if (
            self._route_now() is not None
            and family_of(self) in _INET
            and isinstance(address, tuple)
            and address
        ):
            host = _text(address[0])
            if is_localhost(host):  # also where connects to it would go through the proxy
                host = _LOOPBACK[family_of(self)]
                address = (host, *address[1:])
            if host not in _WILDCARDS and pack_ip(host.partition("%")[0]) is None:
                found = self._patch.resolver.getaddrinfo(host, None, family_of(self), self.type)
                address = (found[0][4][0], *address[1:])
        super().bind(address)

    def _become_datagram(self) -> None:
        is_ours = "_stands_for_socket" in type(self).__dict__
        super()._become_datagram()
        self._asked = _Asked()
        if is_ours:
            _let_multiprocessing_know(type(self), _reduce_datagram)

    def _meant(self, address: Any) -> Any:
        """The address as a proxy takes it, with the name that a placeholder stands for."""
        asked = self._asked
        if asked is not None and asked.has_been(address):
            return address
        if family_of(self) not in _INET or not isinstance(address, tuple) or len(address) < 2:
            return address  # which the base class complains of, if it must
        given = address[0]
        host = named(given)
        if isinstance(host, (str, bytes, bytearray)):
            host = self._spelled_out(host)
        if host is not given:
            address = (host, *address[1:])
        if asked is not None and asked.note(address, None if host is given else given):
            self._forget_sources()
        return address

    def _spelled_out(self, host: Any) -> Any:
        """What `connect` has an address for without asking anybody; any other host as it is."""
        text = _text(host)
        if text == "":
            return _LOOPBACK[family_of(self)]
        if text == "<broadcast>" and family_of(self) == socket.AF_INET:
            return "255.255.255.255"
        if is_localhost(text):
            return "localhost"
        return host

    def _seen_as(self, host: str, port: int) -> Any:
        """The source of a datagram: the placeholder if it must be that.

        The proxy tells the address that answers, and not whose it is. If a program has asked one
        name only at this port, and never the address itself, it is told whom it has asked: many
        take answers from nobody else.
        """
        asked = self._asked
        address = None if asked is None else asked.who_must_be(host, port)
        return in_family(family_of(self), host, port) if address is None else address

    def _chain_for(self, address: Any) -> tuple[Chain, str, int] | None:
        way = super()._chain_for(address)
        if way is None and _type_of(self) not in _PROXIED:
            self._refuse_the_proxys_name(address)
        return way

    def _refuse_the_proxys_name(self, address: Any) -> None:
        """Raw sockets and the like stay plain, but a plain socket would look a name up."""
        route = self._route_now()
        if route is None or family_of(self) not in _INET or not isinstance(address, tuple):
            return
        host = _text(address[0]) if len(address) > 1 else ""
        if host in _WILDCARDS or pack_ip(host.partition("%")[0]) is not None:
            return
        port = address[1] if isinstance(address[1], int) else 0
        if choose(route, clean_host(host), port) is not None:
            raise ProxyUnsupportedError(
                message="only streams and datagrams go through the proxy, which looks this name up"
            )

    def _peer_form(self, address: Any) -> tuple[Any, ...]:
        return super()._peer_form(self._as_an_address(address))

    def _as_an_address(self, address: Any) -> Any:
        host = clean_host(address[0])
        if pack_ip(host.partition("%")[0]) is not None:
            return address
        return (placeholder(host, family_of(self)), *address[1:])


class _Asked:
    """Whom a datagram socket has asked, so that it can be told who answers.

    It remembers so many; whoever has asked more is told addresses only.
    """

    __slots__ = ("_literals", "_names", "_too_many")

    def __init__(self) -> None:
        self._too_many = False
        # as the program gave them -> what they are
        self._literals: dict[tuple[Any, ...], tuple[bytes, Any]] = {}
        # name and port -> the placeholder's address as the program gave it; None: the name itself
        self._names: dict[tuple[str, Any], tuple[Any, ...] | None] = {}

    def has_been(self, address: Any) -> bool:
        """Whether this is an address literal that was noted already."""
        try:
            return address in self._literals
        except TypeError:
            return False

    def note(self, address: tuple[Any, ...], given: Any) -> bool:
        """Take down an address, and the host that was given in the place of its own, if any.

        Returns:
            Whether that may change who answers.
        """
        if self._too_many:
            return False
        if len(self._literals) + len(self._names) >= _MOST_ASKED:
            self._too_many = True
            self._literals, self._names = {}, {}
            return True
        host, port = _text(address[0]) or str(address[0]), address[1]
        packed = pack_ip(host.partition("%")[0])
        if packed is not None:
            self._literals[address] = packed, port
            return True
        key = host.lower(), port
        before = self._names.get(key, address)
        if isinstance(given, str) and pack_ip(given) is not None:
            self._names[key] = (given, *address[1:])
        else:
            self._names.setdefault(key, None)
        return self._names[key] != before

    def who_must_be(self, host: str, port: int) -> tuple[Any, ...] | None:
        """The placeholder's address that must be behind this source; None if that is not sure."""
        if self._too_many:
            return None
        found = [source for (_, at), source in [*self._names.items()] if at == port]
        if len(found) != 1 or (pack_ip(host), port) in [*self._literals.values()]:
            return None
        return found[0]


def _text(host: Any) -> str:
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("utf-8", "replace")
    return host if isinstance(host, str) else ""


def class_for(patch: Patch, remote_bind: bool) -> type[PatchedSocket]:
    """What stands for `socket.socket` in a patch; it looks the same in a `repr`."""
    members = {
        "_patch": patch,
        "_stands_for_socket": True,
        "remote_bind": remote_bind,
        "__module__": "socket",
        "__qualname__": "socket",
        "__doc__": PLAIN.__doc__,
    }
    kind: type[PatchedSocket] = _Kind("socket", (PatchedSocket,), members)  # type: ignore[assignment]
    return kind


# -- those who hold the original class, and those who derived from it

_in_force: list[type[PatchedSocket]] = []
_joined: dict[tuple[type, type], type] = {}


def divert(kind: type[PatchedSocket]) -> None:
    """From now on, calling the original class makes sockets of this one."""
    _in_force.append(kind)
    PLAIN.__new__ = _new  # type: ignore[method-assign]
    _let_multiprocessing_know(kind)


def divert_no_more(kind: type[PatchedSocket]) -> None:
    """End what `divert` began."""
    if kind not in _in_force:
        return
    _in_force.remove(kind)
    for pair in [pair for pair in [*_joined] if pair[1] is kind]:
        del _joined[pair]
    if not _in_force:
        del PLAIN.__new__
    _let_multiprocessing_know(PLAIN)


def _new(cls: type, *arguments: Any, **options: Any) -> Any:
    kind = cls
    in_force = _in_force[-1:]
    if in_force and not issubclass(cls, SocksSocket) and not _is_of_ssl(cls):
        kind = in_force[0] if cls is PLAIN else _join(cls, in_force[0])
    return socket.SocketType.__new__(kind)


def _is_of_ssl(cls: type) -> bool:
    """An SSLSocket is only ever made of another socket, which shows it the way: see `detach`."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and issubclass(cls, ssl.SSLSocket)


def _join(cls: type, patched: type) -> type:
    """A class that is both, and looks like the first: one of the program's own.

    Raises:
        ProxyUnsupportedError: that cannot be; it would go around the proxy.
    """
    found = _joined.get((cls, patched))
    if found is None:
        names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        try:
            found = combine(cls.__name__, (cls, patched), names)
        except TypeError as exc:
            raise ProxyUnsupportedError(
                message=f"sockets of class {cls.__qualname__} cannot go through the proxy",
                hint=f"They cannot be made sockets of ours: {exc}",
            ) from exc
        _joined[cls, patched] = found
    return found


def _let_multiprocessing_know(
    kind: type[socket.socket], reduce: Callable[[Any], Any] | None = None
) -> None:
    """It sends sockets to other processes by their exact class."""
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is not None:
        reduction.register(kind, reduce or reduction._reduce_socket)


def _reduce_datagram(sock: SocksSocket) -> Any:
    if sock.proxy_peername is not None:
        raise ProxyUnsupportedError(
            message="this datagram socket cannot be handed to another process",
            hint="It sends through a proxy, and who hands it over keeps the connection to that",
        )
    return sys.modules["multiprocessing.reduction"]._reduce_socket(sock)
