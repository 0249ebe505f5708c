"""httpx through a proxy.

    httpx.Client(transport=SocksTransport("socks5h://127.0.0.1:1080"))
    httpx.AsyncClient(transport=AsyncSocksTransport("socks5h://127.0.0.1:1080"))

A network backend for httpcore, which is what does the work in httpx. What may have to wait is a
generator, as in `sockets.dial`; one driver serves `SocksTransport`, another asyncio and trio.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections import OrderedDict
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import anyio
import httpcore
import httpx

from ..errors import ProxyTimeoutError
from ..sockets.dial import POLLIN, POLLOUT, run, watching
from ..sockets.stream import UNSET, opening
from . import PROXY_FAULTS, WRONG_TARGET, Way, ours_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
    from typing import Any

    from ..proxy import Chain, ProxyLike
    from ..sockets.dial import Wait
    from ..sockets.stream import _Unset

__all__ = ["AsyncSocksTransport", "SocksTransport"]

# those of httpx itself, which does not export them
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
_MOST_POOLS = 10  # as in urllib3
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


# -- what may have to wait


def _until(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _doing(
    sock: socket.socket, event: int, until: float | None, operation: Callable[..., Any], *given: Any
) -> Generator[Wait, bool, Any]:
    """A non-blocking operation, tried again whenever the socket is ready for it."""
    while True:
        try:
            return operation(*given)
        except ssl.SSLWantReadError:
            wanted = POLLIN
        except ssl.SSLWantWriteError:
            wanted = POLLOUT
        except BlockingIOError:
            wanted = event
        if not (yield sock, wanted, until):
            raise TimeoutError("timed out")


class _Connection:
    """What both kinds of `httpcore` streams are: a non-blocking socket, with TLS or without."""

    def __init__(self, sock: socket.socket, deadline: float | None) -> None:
        self._sock = sock
        self._deadline = deadline

    def _reading(self, most: int, timeout: float | None) -> Generator[Wait, bool, bytes]:
        until = _until(timeout)
        return (yield from _doing(self._sock, POLLIN, until, self._sock.recv, most))  # type: ignore[no-any-return]

    def _writing(self, data: bytes, timeout: float | None) -> Generator[Wait, bool, None]:
        """The timeout is for each piece: a large body may take as long as it moves on."""
        rest = memoryview(data)
        while rest:
            until = _until(timeout)
            rest = rest[(yield from _doing(self._sock, POLLOUT, until, self._sock.send, rest)) :]

    def _securing(
        self, context: ssl.SSLContext, name: str | None, timeout: float | None
    ) -> Generator[Wait, bool, ssl.SSLSocket]:
        """The TLS handshake; what is left of the connect timeout is all it has."""
        until = _until(timeout) if self._deadline is None else self._deadline
        secure = context.wrap_socket(
            self._sock, server_hostname=name, do_handshake_on_connect=False
        )
        self._sock = secure  # it has the descriptor now
        yield from _doing(secure, POLLIN, until, secure.do_handshake)
        return secure

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """httpcore forgets a stream that has no TLS in the end; a cancelled task, too."""
        try:
            yield
        except BaseException:
            self._sock.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        sock = self._sock
        if info == "ssl_object":
            return sock if isinstance(sock, ssl.SSLSocket) else None
        if info == "is_readable":
            if sock.fileno() == -1:  # for httpcore: there is an end of file to be read
                return True
            return bool(watching(sock, POLLIN).poll(0))
        if info == "client_addr":
            return sock.getsockname()
        if info == "server_addr":
            return sock.getpeername()
        return sock if info == "socket" else None


@contextmanager
def _as_httpcore(timed_out: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Errors of sockets and proxies as those of httpcore."""
    try:
        yield
    except PROXY_FAULTS as exc:
        raise httpcore.ProxyError(str(exc)) from exc
    except ProxyTimeoutError as exc:
        raise timed_out(str(exc)) from exc
    except OSError as exc:
        # a TimeoutError of the kernel's or the proxy's has a number, ours has none
        late = isinstance(exc, TimeoutError) and exc.errno is None
        raise (timed_out if late else failed)(str(exc)) from exc


def _opening(
    chain: Chain,
    host: str,
    port: int,
    timeout: float | None,
    local_address: str | None,
    options: Iterable[Any] | None,
) -> Generator[Wait, bool, Any]:
    source = None if local_address is None else (local_address, 0)
    return opening(chain, (host, port), timeout, source, [*(options or ()), _NODELAY])


# -- in this thread


class _Stream(_Connection, httpcore.NetworkStream):
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            return run(self._reading(max_bytes, timeout))  # type: ignore[no-any-return]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            run(self._writing(buffer, timeout))

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Stream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            with self._closed_on_failure():
                return _Stream(run(self._securing(ssl_context, server_hostname, timeout)), None)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        deadline = _until(timeout)
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            task = _opening(self._chain, host, port, timeout, local_address, socket_options)
            return _Stream(run(task), deadline)


# -- in asyncio or trio

# new names for the same, in anyio 4.7
_wait_readable = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable
_wait_writable = getattr(anyio, "wait_writable", None) or anyio.wait_socket_writable


class _Waiters:
    """The tasks that wait for one socket: it must not be closed under them.

    Loops would go on watching its number, which is soon another socket's. (`anyio.notify_closing`,
    which would do, is younger than the versions of anyio that this works with.)
    """

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._closing: socket.socket | None = None

    async def ready(self, sock: socket.socket, event: int, until: float | None) -> bool:
        self._check_open()
        scope = anyio.move_on_after(None if until is None else until - monotonic())
        self._scopes.add(scope)
        try:
            with scope:
                await (_wait_readable if event == POLLIN else _wait_writable)(sock)
        finally:
            self._scopes.discard(scope)
            self._close_if_unused()
        self._check_open()
        return not scope.cancelled_caught

    def close(self, sock: socket.socket) -> None:
        """Close it as soon as all have left, which they do now; they are told so."""
        self._closing = sock
        for scope in self._scopes:
            scope.cancel()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closing is not None and not self._scopes:
            self._closing.close()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise OSError(errno.EBADF, "another task has closed the connection")


async def _run(task: Generator[Wait, bool, Any], waiters: _Waiters) -> Any:
    """Drive a task in the loop; other tasks have their turn, even if it need not wait."""
    await anyio.lowlevel.checkpoint_if_cancelled()
    waited = False
    try:
        request = next(task)
        while True:
            waited = True
            request = task.send(await waiters.ready(*request))
    except StopIteration as stop:
        if not waited:
            await anyio.lowlevel.cancel_shielded_checkpoint()
        return stop.value
    finally:
        task.close()


class _AsyncStream(_Connection, httpcore.AsyncNetworkStream):
    def __init__(self, sock: socket.socket, deadline: float | None) -> None:
        super().__init__(sock, deadline)
        self._waiters = _Waiters()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            return await _run(self._reading(max_bytes, timeout), self._waiters)  # type: ignore[no-any-return]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            await _run(self._writing(buffer, timeout), self._waiters)

    async def aclose(self) -> None:
        self._waiters.close(self._sock)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _AsyncStream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            with self._closed_on_failure():
                task = self._securing(ssl_context, server_hostname, timeout)
                return _AsyncStream(await _run(task, self._waiters), None)


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _AsyncStream:
        deadline = _until(timeout)
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            task = _opening(self._chain, host, port, timeout, local_address, socket_options)
            return _AsyncStream(await _run(task, _Waiters()), deadline)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


# -- transports


class _Pool:
    """The connections through one chain, and how many answers are being read from them."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.users = 0


class _Transport:
    """What both transports share: the options, and a pool of connections for each chain."""

    def __init__(
        self,
        proxy: ProxyLike | _Unset = UNSET,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = _LIMITS,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[Any] | None = None,
    ) -> None:
        self._way = Way(proxy)
        self._options: dict[str, Any] = {
            "ssl_context": httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env),
            "max_connections": limits.max_connections,
            "max_keepalive_connections": limits.max_keepalive_connections,
            "keepalive_expiry": limits.keepalive_expiry,
            "http1": http1,
            "http2": http2,
            "local_address": local_address,
            "retries": retries,
            "socket_options": None if socket_options is None else list(socket_options),
        }
        self._lock = threading.Lock()
        self._pools: OrderedDict[Chain | None, _Pool] = OrderedDict()

    def _make_pool(self, chain: Chain | None) -> Any:
        raise NotImplementedError

    def _take(self, url: httpx.URL) -> tuple[_Pool, list[Any]]:
        """The pool for a target, and those that are too many now, to be closed."""
        host, port = url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme, 80)
        try:
            chain = self._way.chain_for(host, port)
        except WRONG_TARGET as exc:
            raise httpx.InvalidURL(str(exc)) from exc
        with self._lock:
            if chain not in self._pools:
                self._pools[chain] = _Pool(self._make_pool(chain))
            self._pools.move_to_end(chain)
            taken = self._pools[chain]
            taken.users += 1
            idle = [key for key, pool in self._pools.items() if pool.users == 0]
            excess = idle[: max(0, len(self._pools) - _MOST_POOLS)]
            return taken, [self._pools.pop(key).pool for key in excess]

    def _give_back(self, taken: _Pool) -> None:
        with self._lock:
            taken.users -= 1

    def _all_pools(self) -> list[Any]:
        with self._lock:
            pools = [pool.pool for pool in self._pools.values()]
            self._pools.clear()
            return pools


def _request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Errors of httpcore as those of httpx, which have the same names; ours is the cause."""
    try:
        yield
    except Exception as exc:
        names = (kind.__name__ for kind in type(exc).__mro__ if hasattr(httpcore, kind.__name__))
        kind = next((getattr(httpx, name) for name in names if hasattr(httpx, name)), None)
        if kind is None:
            raise
        raise kind(str(exc)) from (ours_behind(exc) or exc)


class SocksTransport(_Transport, httpx.BaseTransport):
    """A transport for `httpx.Client` that goes through a proxy.

    Connections are never shared between proxies or credentials: each has a pool of its own, which
    `limits` are about. At most ten pools are kept.

    Args:
        proxy: as for `SocksSocket`; by default the default proxy, as it is at each request.
        verify, cert, trust_env, http1, http2, limits, local_address, retries, socket_options: as
            for `httpx.HTTPTransport`.

    Raises:
        InvalidProxyError: the proxy cannot be understood.

    A request raises, with our error as `__cause__`: `httpx.ProxyError` for the proxy's faults, a
    dead proxy or a refused login; `ConnectTimeout` when the deadline passed; `ConnectError` when
    the target was refused; `InvalidURL` for a target that cannot be asked of a proxy.
    """

    def _make_pool(self, chain: Chain | None) -> httpcore.ConnectionPool:
        backend = httpcore.SyncBackend() if chain is None else _Backend(chain)
        return httpcore.ConnectionPool(network_backend=backend, **self._options)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        taken, unused = self._take(request.url)
        for pool in unused:
            pool.close()
        try:
            with _as_httpx():
                response = taken.pool.handle_request(_request(request))
        except BaseException:
            self._give_back(taken)
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Answer(response.stream, lambda: self._give_back(taken)),
            extensions=response.extensions,
        )

    def close(self) -> None:
        for pool in self._all_pools():
            pool.close()


class _Answer(httpx.SyncByteStream):
    def __init__(self, stream: Any, on_close: Callable[[], None]) -> None:
        self._stream = stream
        self._on_close = on_close

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._stream

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._on_close()


class AsyncSocksTransport(_Transport, httpx.AsyncBaseTransport):
    """The same for `httpx.AsyncClient`, in asyncio and in trio; see `SocksTransport`."""

    def _make_pool(self, chain: Chain | None) -> httpcore.AsyncConnectionPool:
        backend = httpcore.AnyIOBackend() if chain is None else _AsyncBackend(chain)
        return httpcore.AsyncConnectionPool(network_backend=backend, **self._options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        taken, unused = self._take(request.url)
        try:
            for pool in unused:
                await pool.aclose()
            with _as_httpx():
                response = await taken.pool.handle_async_request(_request(request))
        except BaseException:
            self._give_back(taken)
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_AsyncAnswer(response.stream, lambda: self._give_back(taken)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        for pool in self._all_pools():
            await pool.aclose()


class _AsyncAnswer(httpx.AsyncByteStream):
    def __init__(self, stream: Any, on_close: Callable[[], None]) -> None:
        self._stream = stream
        self._on_close = on_close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._on_close()
