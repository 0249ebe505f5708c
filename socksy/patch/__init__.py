"""Patching: programs that were not written for a proxy, through one.

Two rules.

* Who looks a name up decides where it may be seen. So the resolver functions are patched along with
  the class, and hand out placeholders (see `socksy.names`).
* What goes direct, goes direct because a rule says so. A patch without a proxy to use, a
  placeholder of unknown origin, a name that only a resolver could help with: all are errors.

For some modules: each name in the module that means the `socket` module is made to mean a stand-in,
a copy of it with a few entries replaced, and each name that was imported from it, the copy's entry.
Functions written in Python are copied so that they find the stand-in's entries: its
`create_connection` calls its `getaddrinfo`.

For the whole process: the same entries of the `socket` module itself are replaced. Whoever imported
names from it earlier is served too: the original class makes sockets of ours (`sockets.divert`),
the functions written in Python find our entries, and the few written in C are replaced wherever
they are.
"""

from __future__ import annotations

import _socket
import socket
import sys
from functools import wraps
from threading import RLock
from types import FunctionType, ModuleType

from ..bypass import LOOPBACK, Bypass
from ..defaults import get_own_default, is_direct_here, set_patched_default
from ..errors import InvalidArgumentError, InvalidProxyError, ProxyError, ProxyUnsupportedError
from ..names import DIRECT, HERE, REMOTE, Resolver, unpatched
from ..proxy import SOCKS4, SOCKS5, as_route, choose
from .guard import switch_off, switch_on
from .slots import Replacement
from .sockets import PLAIN, class_for, divert, divert_no_more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from ..proxy import Chain, ProxyLike

__all__ = ["Patch", "is_wrapped", "unwrap_module", "wrap_module"]

#: the functions of the C module that ask a resolver
_RESOLVERS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")

_PAIRS = ("socketpair", "_fallback_socketpair")

#: a module's names, asked for without its class: lazy modules load when somebody reads anything
_names_of: Callable[[ModuleType], dict[str, Any]] = vars(ModuleType)["__dict__"].__get__

# Their functions in the socket module ask resolvers of their own, and know nothing of a patch.
_RIVALS = ("gevent", "eventlet")

# They use `socket`, but their connections are made in another module: wrapping them alone would
# look like success, and go direct.
_CONNECT_ELSEWHERE = {
    "urllib.request": "http.client",
    "requests.adapters": "urllib3.util.connection",
    "requests.utils": "urllib3.util.connection",
    "urllib3.connection": "urllib3.util.connection",
    "botocore.httpsession": "urllib3.util.connection",
}

_lock = RLock()
_active: list[Patch] = []


class Patch:
    """What `wrap_module` has done, and how to undo it. Also a context manager.

    Sockets that were made meanwhile keep going through the proxy.
    """

    def __init__(
        self,
        modules: tuple[ModuleType, ...],
        proxy: ProxyLike,
        bypass: Bypass,
        remote_bind: bool,
        guarded: bool,
    ) -> None:
        self._proxy = as_route(proxy)
        if self._proxy is None and get_own_default() is None:
            raise InvalidProxyError(
                "there is no proxy to use: give one, or set a default proxy before"
            )
        self._bypass = bypass
        self._modules = modules
        self._guarded = guarded
        self._is_active = False
        self._replaced: list[tuple[ModuleType, Replacement]] = []
        self.resolver = Resolver(self._decide)
        self._class = class_for(self, remote_bind)
        self._stand_in = _stand_in_for_socket(self)

    # -- which way

    def route(self, host: str, port: int) -> Chain | None:
        """The proxies for a target: what the sockets of this patch ask when they connect."""
        for name in self.resolver.direct_names(host):
            if self._way_of(name, port) is None:
                return None
        return self._way_of(host, port)

    def _way_of(self, host: str, port: int) -> Chain | None:
        if self._bypass.matches(host, port or None):
            return None
        route = self._proxy
        if route is None:
            route = get_own_default()
            if route is None and not is_direct_here():
                raise ProxyUnsupportedError(
                    message="there is no proxy to use",
                    hint="This program is patched, but no default proxy is set here",
                )
        return choose(route, host, port)

    def _decide(self, host: str, port: int) -> int:
        patch = self.in_force()
        if patch is None:  # somebody has kept a function of ours
            return DIRECT
        try:
            chain = patch._way_of(host, port)
        except ProxyError:  # not known here, but maybe where the connection is made
            return REMOTE
        if chain is None:
            return DIRECT
        return HERE if chain[-1].scheme in (SOCKS4, SOCKS5) else REMOTE

    def lets_go_direct(self, host: str, port: int) -> bool:
        """Whether the rules say so, or it is the proxy: for the guard."""
        try:
            chain = self.route(host, port)
        except ProxyError:
            return False
        if chain is None:
            return True
        return port != 0 and (host, port) == (chain[0].host, chain[0].port)

    # -- doing and undoing

    @property
    def active(self) -> bool:
        """Whether it has not been undone."""
        return self._is_active

    def in_force(self) -> Patch | None:
        """This patch; if it was undone, the one of the whole process, if there is one.

        A class or a function of ours may have been kept by somebody.
        """
        return self if self._is_active else _patch_of_the_process()

    @property
    def _is_global(self) -> bool:
        return socket in self._modules

    def _do(self) -> Self:
        with _lock:
            self._is_active = True
            _active.append(self)
            try:
                for module in self._modules:
                    if module is socket:
                        self._patch_process()
                    else:
                        self._patch_module(module)
                if self._guarded:
                    switch_on(self)
            except BaseException:
                self.undo()
                raise
            _tell_the_defaults()
        return self

    def undo(self) -> None:
        """Put everything back that is still ours. Idempotent."""
        self._undo_modules(self._modules)

    def _undo_modules(self, modules: Iterable[ModuleType]) -> None:
        with _lock:
            gone = [module for module in self._modules if module in modules]
            for module, replacement in reversed(self._replaced):
                if module in gone:
                    replacement.take_back()
            self._replaced = [entry for entry in self._replaced if entry[0] not in gone]
            if socket in gone:
                divert_no_more(self._class)
            self._modules = tuple(module for module in self._modules if module not in gone)
            if not self._modules and self._is_active:
                self._is_active = False
                _active.remove(self)
                switch_off(self)
            _tell_the_defaults()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        what = "the process" if self._is_global else ", ".join(m.__name__ for m in self._modules)
        return f"<Patch of {what or 'nothing any more'}>"

    def _replace(
        self, module: ModuleType, namespace: dict[str, Any], name: str, value: Any
    ) -> None:
        self._replaced.append((module, Replacement(namespace, name, value)))

    def _patch_module(self, module: ModuleType) -> None:
        ours = vars(self._stand_in)
        meanings = _meanings()
        found = [
            (name, ours[meanings[id(value)]] if meanings[id(value)] else self._stand_in)
            for name, value in vars(module).items()
            if id(value) in meanings
        ]
        if not found:
            raise InvalidArgumentError(
                f"{module.__name__} does not use the socket module itself: wrap the module of it "
                "that does, or the whole process"
            )
        for name, value in found:
            self._replace(module, vars(module), name, value)

    def _patch_process(self) -> None:
        ours = vars(self._stand_in)
        meanings = _meanings()
        for name in ("socket", "_socket", *_pairs_over_loopback()):
            self._replace(socket, vars(socket), name, ours[name])
        for owner in list(sys.modules.values()):
            if not issubclass(type(owner), ModuleType) or owner is _socket:
                continue
            names = _names_of(owner)
            for name, value in list(names.items()):
                meaning = meanings.get(id(value))
                if meaning in _RESOLVERS and meaning != "getaddrinfo":
                    self._replace(socket, names, name, ours[meaning])
        divert(self._class)


def _patch_of_the_process() -> Patch | None:
    """The one in force: the latest."""
    return next((patch for patch in reversed(_active) if patch._is_global), None)


def _tell_the_defaults() -> None:
    """Sockets of ours that name no proxy go the way of the patch too, as all the others do."""
    patch = _patch_of_the_process()
    set_patched_default(None if patch is None else patch.route)


def _stand_in_for_socket(patch: Patch) -> ModuleType:
    """A copy of the `socket` module whose class and lookups are the patch's."""
    beneath = ModuleType("_socket", _socket.__doc__)
    vars(beneath).update(vars(_socket))
    stand_in = ModuleType("socket", socket.__doc__)
    names = vars(stand_in)
    for name, value in vars(socket).items():
        if isinstance(value, FunctionType) and value.__globals__ is vars(socket):
            value = _copy_into(names, value)
        names[name] = value
    for name in _RESOLVERS:
        vars(beneath)[name] = resolver = getattr(patch.resolver, name)
        if name != "getaddrinfo":  # that one is a function in Python, which asks the one beneath
            names[name] = resolver
    names["_socket"] = beneath
    names["socket"] = patch._class
    for name in _pairs_over_loopback():
        names[name] = _stepping_aside(names[name])
    return stand_in


def _pairs_over_loopback() -> list[str]:
    """The functions that make a pair of sockets by connecting one to the other: on Windows."""
    functions = ((name, getattr(socket, name, None)) for name in _PAIRS)
    return [name for name, it in functions if it and "connect" in it.__code__.co_names]


def _stepping_aside(function: Any) -> Any:
    return wraps(function)(lambda *arguments, **options: unpatched(function, *arguments, **options))


def _copy_into(names: dict[str, Any], function: FunctionType) -> FunctionType:
    """The same function, with other globals."""
    copy = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__ = function.__doc__
    copy.__module__ = function.__module__
    return copy


def _meanings() -> dict[int, str]:
    """id of a value -> the name in the socket module that it is, or is ours for; "": the module."""
    meanings = {id(socket): "", id(PLAIN): "socket"}
    for name in _RESOLVERS:
        meanings[id(getattr(_socket, name))] = name
    for names in (vars(socket), *(vars(patch._stand_in) for patch in _active)):
        for name, value in names.items():
            if isinstance(value, FunctionType) and value.__globals__ is names:
                meanings[id(value)] = name
        for name in ("socket", *_RESOLVERS):
            meanings[id(names[name])] = name
    for patch in _active:
        meanings[id(patch._stand_in)] = ""
    return meanings


def wrap_module(
    *modules: ModuleType,
    proxy: ProxyLike = None,
    bypass: Bypass | Iterable[str] = LOOPBACK,
    remote_bind: bool = False,
    guard: bool = False,
) -> Patch:
    """Make modules, or with none the whole process, connect and look names up through a proxy.

    Args:
        modules: only these change, not those that they import. Each must use `socket` by itself.
        proxy: as for `SocksSocket`. None: the default proxy, asked for at each connect, so that
            threads and tasks can differ; where there is none then, connecting is an error.
        bypass: what is reached directly, as rules (see `socksy.bypass`). By default loopback;
            ``()`` for nothing.
        remote_bind: sockets listen at the proxy, for protocols whose server connects back.
        guard: refuse, in the whole process, each connect, datagram and lookup that would go around
            the proxy and that the interpreter can see, with a `DirectTrafficError`.

    Returns:
        The patch: keep it to undo it, or use it in a ``with`` statement.

    Raises:
        InvalidProxyError: there is no proxy to use, or it cannot be understood.
        InvalidArgumentError: a module that does not use `socket`, or whose connections are made in
            another one that is not wrapped; or a wrong bypass rule.
        ProxyUnsupportedError: gevent or eventlet has put its own functions into the socket module.
    """
    for module in modules:
        if not isinstance(module, ModuleType):
            raise TypeError(f"wrap_module takes modules, not {type(module).__name__}")
    rules = bypass if isinstance(bypass, Bypass) else Bypass(bypass)
    _refuse_rivals()
    _refuse_half_measures(modules)
    return Patch(modules or (socket,), proxy, rules, remote_bind, guard)._do()


def _refuse_rivals() -> None:
    for name in ("socket", "create_connection", *_RESOLVERS):
        rival = str(getattr(getattr(socket, name), "__module__", "")).partition(".")[0]
        if rival in _RIVALS:
            raise ProxyUnsupportedError(
                message=f"{rival} has patched the socket module: its functions would go around us",
                hint="Nothing was changed. Use SocksSocket itself: see docs/gevent.md",
            )


def where_it_connects(module: ModuleType) -> ModuleType:
    """The module in which the connections of this one are made, if it is known to be another."""
    return sys.modules.get(_CONNECT_ELSEWHERE.get(module.__name__, ""), module)


def _refuse_half_measures(modules: tuple[ModuleType, ...]) -> None:
    if is_wrapped():
        return
    for module in modules:
        needed = where_it_connects(module)
        if needed not in modules and not is_wrapped(needed):
            raise InvalidArgumentError(
                f"the connections of {module.__name__} are made in {needed.__name__}: wrap that "
                "one too, or instead"
            )


def unwrap_module(*modules: ModuleType) -> None:
    """Undo whatever patches these modules, or with none the whole process."""
    for patch in list(_active):
        patch._undo_modules(modules or (socket,))


def is_wrapped(module: ModuleType = socket) -> bool:
    """Whether a patch of this module, or by default of the whole process, is active."""
    return any(module in patch._modules for patch in list(_active))
