"""asyncio through a proxy: the functions of asyncio, with ``proxy=`` and one ``timeout=`` added.

    from socksy import aio

    reader, writer = await aio.open_connection("example.com", 80, proxy="socks5h://127.0.0.1:1080")

The handshake is the generator of `sockets.dial`, resumed by the loop's own callbacks: a connect
takes one future, no task and no thread. (A name that has to be looked up here is, in
a thread, as asyncio itself does it.)

A loop without `add_reader`, such as Windows' proactor loop, runs the blocking driver in its
executor instead. That has been tried with an imitation of such a loop, never on Windows.
"""

from __future__ import annotations

import asyncio
import ssl as tls
import sys
from functools import partial
from math import inf
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM
from time import monotonic
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from .defaults import get_default_proxy
from .errors import ProxyTimeoutError
from .hosts import clean_host, pack_ip
from .protocol.steps import timed_out
from .proxy import as_route
from .sockets.dial import MSG_PEEK, POLLIN, recv, run
from .sockets.stream import UNSET, SocksSocket, _Unset, arrive, chain_for, opening, set_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from socket import socket
    from typing import Any

    from typing_extensions import Buffer

    from .hosts import Host
    from .proxy import Chain, Proxy, ProxyLike, Route
    from .sockets.datagram import DatagramSocket

__all__ = ["connect", "create_connection", "create_datagram_endpoint", "open_connection"]

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_DatagramProtocol = TypeVar("_DatagramProtocol", bound=asyncio.DatagramProtocol)
_LIMIT = 2**16  # the buffer of asyncio's own open_connection
_TLS_HANDSHAKE = "the TLS handshake"
_TRIES = 4  # answers of a near proxy that are read without waiting, before others have their turn
_TICK = 0.001  # seconds by which a timer may be early


async def connect(
    host: Host,
    port: int,
    *,
    proxy: ProxyLike | _Unset = UNSET,
    timeout: float | None = None,
    local_addr: tuple[str, int] | None = None,
    options: Iterable[tuple[Any, ...]] = (),
    early_data: Buffer = b"",
) -> SocksSocket:
    """A connected, non-blocking `SocksSocket`, for ``loop.sock_recv`` and its relatives.

    Args:
        host, port: the target; a name goes to a remote-DNS proxy as it is.
        proxy: as for `SocksSocket`; by default the default proxy. None: a direct connection.
        timeout: seconds for everything up to the end of the handshake. None: 180 through a proxy
            (Tor may need two minutes for a circuit); without one, what the kernel says.
        local_addr: where to connect to the proxy from.
        options: arguments of `setsockopt`, for the socket before it connects.
        early_data: as for `SocksSocket.connect`.

    Raises:
        ProxyError: see `socksy.errors`. Then, and if it is cancelled, nothing is left open.
        InvalidProxyError, InvalidTargetError: an argument is wrong; nothing was sent.
    """
    chain = chain_for(proxy, host, port)
    early = bytes(early_data)
    if chain is None:
        direct = _connect_directly(host, port, local_addr, options, early)
        return await _within(timeout, direct)  # type: ignore[no-any-return]
    with _way(chain, (host, port), timeout, local_addr, options, early) as on_the_way:
        return await on_the_way.outcome


async def create_connection(
    protocol_factory: Callable[[], _Protocol],
    host: Host,
    port: int,
    *,
    proxy: ProxyLike | _Unset = UNSET,
    timeout: float | None = None,
    ssl: tls.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    local_addr: tuple[str, int] | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    early_data: Buffer = b"",
) -> tuple[asyncio.Transport, _Protocol]:
    """``loop.create_connection`` through a proxy; returns transport and protocol.

    ``transport.get_extra_info("peername")`` is the target as it was named here, and ``"sockname"``
    our end of the connection to the proxy. ``loop.start_tls`` works on the transport.

    Args:
        host, port, proxy, local_addr: as for `connect`.
        timeout: seconds for everything, the TLS handshake included.
        ssl: a context for TLS with the target, or True for the default one.
        server_hostname: whom the certificate must name; by default the host.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds, as in asyncio (the second is new in
            Python 3.11); the first may only shorten `timeout`.
        early_data: as for `SocksSocket.connect`; not with `ssl`, which it would precede.

    Raises:
        ProxyError: see `socksy.errors`.
        ssl.SSLError, OSError: the TLS handshake with the target failed.
        ValueError: an argument is wrong; nothing was sent.
    """
    chain = chain_for(proxy, host, port)
    options = _tls_options(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
    if ssl and early_data:
        raise ValueError("early_data would go out in clear, before the TLS handshake")
    loop = asyncio.get_running_loop()
    early = bytes(early_data)
    if chain is None:
        direct = _create_directly(protocol_factory, host, port, local_addr, early, options)
        return await _within(timeout, direct)  # type: ignore[no-any-return]
    deadline = monotonic() + (timeout or 0)
    with _way(chain, (host, port), timeout, local_addr, (), early) as on_the_way:
        sock = await on_the_way.outcome
    protocol = _protocol_for(sock, protocol_factory)
    if ssl:
        options.setdefault("server_hostname", clean_host(host))
        if timeout is not None:
            left = max(deadline - monotonic(), _TICK)
            options["ssl_handshake_timeout"] = min(left, ssl_handshake_timeout or left)
    try:
        # from here on the transport owns the socket, and closes it if this fails
        return await loop.create_connection(lambda: protocol, sock=sock, **options)
    except ConnectionAbortedError as exc:  # what asyncio raises for ssl_handshake_timeout
        if timeout is None or monotonic() < deadline - _TICK:
            raise
        raise _tls_timed_out(chain[-1], host, port) from exc


async def open_connection(
    host: Host,
    port: int,
    *,
    proxy: ProxyLike | _Unset = UNSET,
    timeout: float | None = None,
    limit: int = _LIMIT,
    ssl: tls.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    local_addr: tuple[str, int] | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    early_data: Buffer = b"",
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """``asyncio.open_connection`` through a proxy; returns reader and writer.

    Args:
        limit: bytes that the reader buffers, as in asyncio.
        others: as for `create_connection`.

    Raises:
        ProxyError, ssl.SSLError, OSError, ValueError: as `create_connection`.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    transport, protocol = await create_connection(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
        host,
        port,
        proxy=proxy,
        timeout=timeout,
        ssl=ssl,
        server_hostname=server_hostname,
        local_addr=local_addr,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        early_data=early_data,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], _DatagramProtocol],
    local_addr: tuple[str, int] | None = None,
    remote_addr: tuple[Host, int] | None = None,
    *,
    family: int = 0,
    proxy: ProxyLike | _Unset = UNSET,
    timeout: float | None = None,
) -> tuple[asyncio.DatagramTransport, _DatagramProtocol]:
    """``loop.create_datagram_endpoint`` through a SOCKS5 proxy; returns transport and protocol.

    With `remote_addr` the association with the proxy is there when this returns. Without, it is
    made in the background when the first datagram is sent, and what goes wrong comes to the
    protocol's `error_received`.

    Args:
        local_addr: where the datagrams leave from.
        remote_addr: where ``transport.sendto(data)`` sends to; a name goes to the proxy as it is.
        family: AF_INET or AF_INET6; by default that of the addresses, or else of the proxy's.
        proxy: as for `connect`.
        timeout: seconds for the association, whenever it is made. None: 180.

    Raises:
        ProxyError: there is no association to be had; nothing was sent.
        InvalidProxyError, InvalidTargetError: an argument is wrong; nothing was sent.
    """
    loop = asyncio.get_running_loop()
    route: Route = get_default_proxy() if isinstance(proxy, _Unset) else as_route(proxy)
    if remote_addr is not None:
        route = chain_for(route, *remote_addr)
    if route is None:
        named: Any = remote_addr and (clean_host(remote_addr[0]), remote_addr[1])
        return await loop.create_datagram_endpoint(
            protocol_factory, local_addr, named, family=family
        )
    sock = _datagram_socket(route, family, local_addr, remote_addr)
    try:
        if timeout is not None:
            sock._patience = timeout
        if remote_addr is not None:
            await _associated(loop, sock, remote_addr, timeout)
    except BaseException:
        sock.close()
        raise
    protocol = _protocol_for(sock, protocol_factory)
    # from here on the transport owns the socket
    return await loop.create_datagram_endpoint(lambda: protocol, sock=sock)


def _datagram_socket(
    route: Route,
    family: int,
    local_addr: tuple[str, int] | None,
    remote_addr: tuple[Host, int] | None,
) -> DatagramSocket:
    """A non-blocking one; if nothing else tells its family, of the one that the relay will have."""
    if not family:
        hosts = [clean_host(address[0]) for address in (local_addr, remote_addr) if address]
        if isinstance(route, tuple):
            hosts.append(route[0].host)
        literal = next((host for host in hosts if pack_ip(host) is not None), "")
        family = AF_INET6 if ":" in literal else AF_INET
    sock: Any = SocksSocket(family, SOCK_DGRAM, proxy=route)
    try:
        if local_addr is not None:
            sock.bind(local_addr)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock  # type: ignore[no-any-return] # the class that the type asks for


async def _associated(
    loop: asyncio.AbstractEventLoop,
    sock: DatagramSocket,
    address: tuple[Host, int],
    timeout: float | None,
) -> None:
    """Connect it to its destination. The thread of `pending` makes the association."""
    way = sock._chain_for(address)
    assert way is not None
    chain, host, port = way
    deadline = None if timeout is None else monotonic() + timeout
    asked = host
    if pack_ip(host) is None and not chain[-1].remote_dns:  # in a thread, as asyncio does it
        looking = loop.run_in_executor(None, sock._as_asked, chain, host, port)
        try:
            asked = await asyncio.wait_for(looking, timeout)
        except asyncio.TimeoutError as exc:
            raise timed_out("the name lookup") from exc
    if deadline is not None:
        sock._patience = max(deadline - monotonic(), 0)
    over = loop.create_future()
    sock._is_unwatched = True  # the descriptor may be changed for one of another family
    sock._connect_to(address, chain, (host, port), asked)
    association = sock._shared.association
    assert association is not None
    association.when_over(partial(_tell, loop, over))
    await over
    sock._is_unwatched = False
    if association.check() is not None:
        sock._report(association)


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """From any thread."""
    try:
        loop.call_soon_threadsafe(_set, future)
    except RuntimeError:  # the loop has been closed
        pass


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _protocol_for(sock: SocksSocket, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except BaseException:
        sock.close()
        raise


def _tls_options(
    context: Any,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> dict[str, Any]:
    """What loop.create_connection is given for TLS; checked before anything is sent."""
    named: dict[str, Any] = {
        "server_hostname": server_hostname,
        "ssl_handshake_timeout": handshake_timeout,
        "ssl_shutdown_timeout": shutdown_timeout,
    }
    options = {name: value for name, value in named.items() if value is not None}
    if not context:
        if options:
            raise ValueError(f"{next(iter(options))} is only meaningful with ssl")
        return {}
    if context is not True and not isinstance(context, tls.SSLContext):
        raise TypeError(f"ssl is an SSLContext or a bool, not {type(context).__name__}")
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        if name in options and not options[name] > 0:
            raise ValueError(f"{name} is a positive number of seconds")
    if shutdown_timeout is not None and sys.version_info < (3, 11):
        raise ValueError("ssl_shutdown_timeout needs Python 3.11")
    return {"ssl": context, **options}


def _tls_timed_out(proxy: Proxy, host: Host, port: int) -> ProxyTimeoutError:
    error = ProxyTimeoutError(phase=_TLS_HANDSHAKE)
    error.proxy, error.target = str(proxy), (clean_host(host), port)
    return error


# -- direct connections


async def _within(timeout: float | None, doing: Any) -> Any:
    """Await it for so many seconds; raises TimeoutError."""
    try:
        return await asyncio.wait_for(doing, timeout)
    except asyncio.TimeoutError as exc:  # another class than the builtin one in Python 3.10
        raise exc if isinstance(exc, OSError) else TimeoutError("timed out") from exc


async def _create_directly(
    protocol_factory: Callable[[], _Protocol],
    host: Host,
    port: int,
    local_addr: tuple[str, int] | None,
    early_data: bytes,
    options: dict[str, Any],
) -> tuple[asyncio.Transport, _Protocol]:
    loop = asyncio.get_running_loop()
    if not early_data:
        return await loop.create_connection(
            protocol_factory, clean_host(host), port, local_addr=local_addr, **options
        )
    sock = await _connect_directly(host, port, local_addr, (), early_data)
    protocol = _protocol_for(sock, protocol_factory)
    return await loop.create_connection(lambda: protocol, sock=sock)


async def _connect_directly(
    host: Host,
    port: int,
    local_addr: tuple[str, int] | None,
    options: Iterable[tuple[Any, ...]],
    early_data: bytes,
) -> SocksSocket:
    loop = asyncio.get_running_loop()
    *firsts, last = await loop.getaddrinfo(clean_host(host), port, type=SOCK_STREAM)
    for info in firsts:
        try:
            sock = await _connect_to(info, local_addr, options)
            break
        except OSError:  # the next address may do
            pass
    else:
        sock = await _connect_to(last, local_addr, options)
    try:
        await loop.sock_sendall(sock, early_data)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_to(
    info: tuple[Any, ...],
    local_addr: tuple[str, int] | None,
    options: Iterable[tuple[Any, ...]],
) -> SocksSocket:
    family, kind, proto, _, address = info
    sock = SocksSocket(family, kind, proto, proxy=None)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.setblocking(False)
        if local_addr is not None:
            sock.bind(local_addr)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


# -- through a proxy


def _way(*arguments: Any) -> _Driver | _Thread:
    """What gets through, given the arguments of `opening`; in a ``with``, which ends it."""
    loop = asyncio.get_running_loop()
    if type(loop).add_reader is asyncio.AbstractEventLoop.add_reader:
        return _Thread(loop, partial(run, opening(*arguments)))
    return _Driver(loop, *arguments)


class _Thread:
    """Something that makes a socket in a thread.

    Attributes:
        outcome: an awaitable of the socket.
    """

    __slots__ = ("_running", "outcome")

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], SocksSocket]) -> None:
        self._running = loop.run_in_executor(None, make)
        self.outcome = asyncio.shield(self._running)

    def __enter__(self) -> _Thread:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A thread cannot be stopped: it ends with its deadline, and what it made is not wanted.
        if kind is not None:
            self._running.add_done_callback(_drop)
        del self.outcome  # a failure would hold on to it, and it to the failure


def _drop(done: asyncio.Future[SocksSocket]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().close()


def _has_input(sock: SocksSocket) -> bool:
    """Whether there is something to read, or to be told, already."""
    try:
        recv(sock, 1, MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:  # which whoever reads is told
        pass
    return True


class _Clock:
    """The deadlines of one loop, on one timer: most never come, and a timer each costs a tenth."""

    __slots__ = ("__weakref__", "_next", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[_Driver, None] = {}  # a set of thousands takes three times the memory
        self._next = inf

    def watch(self, driver: _Driver) -> None:
        """Have the driver told when its time is up, unless it has left `waiting` by then."""
        self.waiting[driver] = None
        if driver.until < self._next - _TICK:
            self._set(driver.until)

    def _set(self, until: float) -> None:
        self._next = until
        # The handle is not kept: it would keep the loop, and the clock is kept with the loop.
        asyncio.get_running_loop().call_later(until - monotonic(), self._ring, until)

    def _ring(self, until: float) -> None:
        if until != self._next:  # an earlier one was set later
            return
        self._next = inf
        late = monotonic() + _TICK
        for driver in [driver for driver in self.waiting if driver.until <= late]:
            driver.expire()
        soonest = min((driver.until for driver in self.waiting), default=inf)
        if soonest < self._next - _TICK:
            self._set(soonest)


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock] = WeakKeyDictionary()


class _Driver:
    """Resumes a task of `Dial` whenever its socket is ready, from the loop's callbacks.

    Attributes:
        outcome: a future of the connected socket.
        until: when the wait that is under way is over, on the clock of `time.monotonic`.
    """

    __slots__ = (
        "_address",
        "_clock",
        "_dial",
        "_event",
        "_loop",
        "_sock",
        "_task",
        "_watched",
        "outcome",
        "until",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        chain: Chain,
        address: tuple[Host, int],
        *arguments: Any,
    ) -> None:
        self._loop = loop
        self._address = address
        self._sock, self._dial, self._task = set_out(chain, address, *arguments)
        self._watched: socket | None = None
        self._event = 0  # what it should have
        clock = _clocks.get(loop)
        if clock is None:
            clock = _clocks[loop] = _Clock()
        self._clock = clock
        self.until = inf
        self.outcome: asyncio.Future[SocksSocket] = loop.create_future()
        try:
            self._resume(None)
        except BaseException:  # Ctrl-C: nobody would close it
            self._sock.close()
            raise

    def __enter__(self) -> _Driver:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # it may have succeeded just before it was cancelled
            self._stop()
            self._sock.close()
        del self.outcome  # a failure would hold on to it, and it to the failure

    def _stop(self) -> None:
        """Let go of everything. Idempotent."""
        self._unwatch()
        self._clock.waiting.pop(self, None)
        self._task.close()

    def expire(self) -> None:
        """The time for what is waited for is up."""
        self._unwatch()
        self._resume(False)

    def _resume(self, came: bool | None) -> None:
        if self.outcome.done():  # cancelled in this turn of the loop: __exit__ is still to come
            return
        try:
            sock, event, until = self._task.send(came)  # type: ignore[arg-type]
            for _ in range(_TRIES):
                if event != POLLIN or sock is not self._sock or not _has_input(self._sock):
                    break
                sock, event, until = self._task.send(True)
        except StopIteration as stop:
            self._stop()
            self.outcome.set_result(arrive(self._sock, stop.value, self._dial, self._address))
        except Exception as exc:
            self._stop()
            self.outcome.set_exception(exc)
        else:
            if self._watched is not sock or self._event != event:
                self._unwatch()
                self._watch(sock, event)
            assert until is not None  # there always is a deadline here
            self.until = until
            self._clock.watch(self)

    def _watch(self, sock: socket, event: int) -> None:
        add = self._loop.add_reader if event == POLLIN else self._loop.add_writer
        add(sock.fileno(), self._ready)
        self._watched, self._event = sock, event

    def _unwatch(self) -> None:
        if self._watched is not None:
            number = self._watched.fileno()
            self._watched = None
            if self._event == POLLIN:
                self._loop.remove_reader(number)
            else:
                self._loop.remove_writer(number)

    def _ready(self) -> None:
        # Between two answers nothing changes for the application's socket. A spare may be put under
        # another number meanwhile, and a selector could not be rid of it any more.
        if self._watched is not self._sock or self._event != POLLIN:
            self._unwatch()
        self._resume(True)
