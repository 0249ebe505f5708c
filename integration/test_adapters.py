"""The adapters whose libraries the unit tests do not have: httpx (also on trio) and aiohttp.

The table of behaviours is that of `tests/adapters`; here it is also run through real proxies, for
every adapter.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import anyio
import anyio.from_thread
import httpx
import pytest

import socksy
from socksy.adapters.aiohttp import SocksConnector
from socksy.adapters.httpx import AsyncSocksTransport, SocksTransport
from socksy.sockets import stream
from socksy.testing.faults import pause_before, stall_at
from tests import test_docs
from tests.adapters import behaviours
from tests.adapters.behaviours import NAME, Behaviours
from tests.adapters.test_requests import RequestsClient
from tests.adapters.test_urllib import UrllibClient
from tests.adapters.test_urllib3 import Urllib3Client
from tests.adapters.web import LARGE
from tests.support import eventually, read_exactly, serving, unused_port

from .servers import SERVERS, Refusal
from .targets import IN_NAMESPACE

# Python 3.10's TLS transports say so when the other side closed first; of aiohttp's direct
# connections too.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function _SSLProtocolTransport.__del__"
    ":pytest.PytestUnraisableExceptionWarning"
)

server, sites, tls, trusted = behaviours.FIXTURES
certified = test_docs.tls


def trusting(path: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)


async def streamed(body: Iterable[bytes] | None) -> AsyncIterator[bytes]:
    for piece in body or ():
        yield piece


class HttpxClient(behaviours.Client):
    errors: ClassVar = {
        "proxy": httpx.ProxyError,
        "connect timeout": httpx.ConnectTimeout,
        "read timeout": httpx.ReadTimeout,
        "target": httpx.ConnectError,
        "tls": httpx.ConnectError,
    }

    def __init__(self, proxy: Any, trusted: str) -> None:
        transport = SocksTransport(proxy, verify=trusting(trusted))
        self.client = httpx.Client(transport=transport, follow_redirects=True)

    def request(
        self,
        method: str,
        url: str,
        body: list[bytes] | None = None,
        connect: float = 5,
        read: float = 5,
        write: float = 5,
    ) -> tuple[int, bytes]:
        response = self.client.request(
            method,
            url,
            content=body and iter(body),
            timeout=httpx.Timeout(5, connect=connect, read=read, write=write),
        )
        return response.status_code, response.content

    def close(self) -> None:
        self.client.close()


class Looped:
    """For a client that lives in a loop, which runs in a thread."""

    backend = "asyncio"

    def start(self) -> None:
        self.running = anyio.from_thread.start_blocking_portal(self.backend)
        self.portal = self.running.__enter__()

    def stop(self) -> None:
        self.running.__exit__(None, None, None)


class AsyncHttpxClient(Looped, HttpxClient):
    def __init__(self, proxy: Any, trusted: str) -> None:
        self.start()
        transport = AsyncSocksTransport(proxy, verify=trusting(trusted))
        self.client = httpx.AsyncClient(transport=transport, follow_redirects=True)

    def request(
        self,
        method: str,
        url: str,
        body: list[bytes] | None = None,
        connect: float = 5,
        read: float = 5,
        write: float = 5,
    ) -> tuple[int, bytes]:
        async def request() -> tuple[int, bytes]:
            response = await self.client.request(
                method,
                url,
                content=body and streamed(body),
                timeout=httpx.Timeout(5, connect=connect, read=read, write=write),
            )
            return response.status_code, response.content

        return self.portal.call(request)

    def close(self) -> None:
        self.portal.call(self.client.aclose)
        self.stop()


class TrioHttpxClient(AsyncHttpxClient):
    backend = "trio"


class AiohttpClient(Looped, behaviours.Client):
    errors: ClassVar = {
        "proxy": aiohttp.ClientConnectorError,
        "connect timeout": aiohttp.ServerTimeoutError,
        "read timeout": aiohttp.ServerTimeoutError,
        "target": aiohttp.ClientConnectorError,
        "tls": aiohttp.ClientConnectorCertificateError,
    }
    has_our_deadline = False

    def __init__(self, proxy: Any, trusted: str) -> None:
        async def make() -> aiohttp.ClientSession:
            connector = SocksConnector(proxy, ssl=trusting(trusted))
            return aiohttp.ClientSession(connector=connector)

        self.start()
        self.session = self.portal.call(make)

    def request(
        self,
        method: str,
        url: str,
        body: list[bytes] | None = None,
        connect: float = 5,
        read: float = 5,
    ) -> tuple[int, bytes]:
        async def request() -> tuple[int, bytes]:
            timeout = aiohttp.ClientTimeout(sock_connect=connect, sock_read=read)
            data = body and streamed(body)
            async with self.session.request(method, url, data=data, timeout=timeout) as response:
                return response.status, await response.read()

        return self.portal.call(request)

    def close(self) -> None:
        async def close() -> None:
            await self.session.close()
            # aiohttp does not wait until TLS is closed; only the loop's own descriptor is left then
            selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
            while len(selector.get_map()) > 1:
                await asyncio.sleep(0.005)

        self.portal.call(close)
        self.stop()


class TestHttpx(Behaviours):
    Client = HttpxClient


class TestHttpxOnAsyncio(Behaviours):
    Client = AsyncHttpxClient


class TestHttpxOnTrio(Behaviours):
    Client = TrioHttpxClient


class TestAiohttp(Behaviours):
    Client = AiohttpClient


# -- real proxies

LIBRARIES = pytest.mark.parametrize(
    "library",
    [UrllibClient, Urllib3Client, RequestsClient, HttpxClient, AsyncHttpxClient, TrioHttpxClient]
    + [AiohttpClient],
)


@LIBRARIES
@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("socks5h", "danted"),
        ("socks5", "microsocks with login"),
        ("socks4a", "ssh -D on a Unix socket"),
    ],
)
def test_through_a_real_proxy(
    url: Callable[[str, str], str],
    sites: dict[str, Any],
    trusted: str,
    library: type[behaviours.Client],
    scheme: str,
    name: str,
):
    here = "v4.test.example" if IN_NAMESPACE else None
    # a target that refuses looks like a fault of the proxy's if that just hangs up
    refused = "proxy" if SERVERS[name].refusal is Refusal.CLOSE else "target"
    client = library(url(scheme, name), trusted)
    try:
        plain, secure = sites["http"], sites["https"]
        assert client.request("GET", plain.url(host=here)) == (200, b"hello")
        assert client.request("GET", secure.url("/large")) == (200, LARGE)
        for site in (plain, secure):
            assert client.request("POST", site.url("/echo"), [b"a", b"b"]) == (200, b"ab")
        with pytest.raises(client.errors[refused]) as caught:
            client.request("GET", f"http://127.0.0.1:{unused_port()}/")
        assert isinstance(client.ours(caught.value), socksy.ProxyError)
    finally:
        client.close()


# -- httpx


def names_of_three(server: Any) -> Callable[[str, int], Any]:
    """A callable that gives each request the next of three logins, again and again."""
    names = itertools.cycle(("alice", "bob", "carol"))
    return lambda host, port: server.proxy(username=next(names), password="secret")


@pytest.mark.parametrize("library", [HttpxClient, AsyncHttpxClient, TrioHttpxClient])
def test_httpx_does_not_share_connections_between_credentials(
    socks_server_factory: Any, sites: dict[str, Any], trusted: str, library: Any
):
    server = socks_server_factory(users=lambda username, password: True)
    client = library(names_of_three(server), trusted)
    for _ in range(6):
        client.request("GET", sites["http"].url())
    client.close()

    assert [request.username for request in server.requests] == ["alice", "bob", "carol"]
    server.wait_until_idle()


@pytest.mark.parametrize("library", [HttpxClient, AsyncHttpxClient, TrioHttpxClient])
def test_httpx_keeps_ten_pools(
    socks_server_factory: Any, sites: dict[str, Any], trusted: str, library: Any
):
    """The oldest ones are closed, unless an answer is being read from them."""
    server = socks_server_factory(users=lambda username, password: True)
    numbers = itertools.count()
    client = library(
        lambda host, port: server.proxy(username=f"user{next(numbers)}", password="secret"),
        trusted,
    )
    if library is HttpxClient:
        with client.client.stream("GET", sites["http"].url("/large")) as first:
            for _ in range(12):
                client.request("GET", sites["http"].url())
            assert first.read() == LARGE
    for _ in range(12):
        client.request("GET", sites["http"].url())

    assert eventually(lambda: server.connections == 10)
    client.close()
    server.wait_until_idle()


def test_httpx_notices_that_an_idle_connection_was_closed(
    server: Any, sites: dict[str, Any], trusted: str
):
    client = HttpxClient(server.url(), trusted)
    for _ in range(2):
        assert client.request("GET", sites["http"].url(host=NAME)) == (200, b"hello")
        server.drop_connections()
    client.close()

    assert len(server.requests) == 2


def test_httpx_uses_the_default_proxy_of_the_moment(server: Any, sites: dict[str, Any]):
    with httpx.Client(transport=SocksTransport()) as client, socksy.using(server.url()):
        assert client.get(sites["http"].url(host=NAME)).text == "hello"
    assert len(server.requests) == 1


def test_httpx_looks_up_no_onion():
    with httpx.Client(transport=SocksTransport(lambda host, port: None)) as client:
        with pytest.raises(httpx.InvalidURL) as caught:
            client.get("http://abc.onion/")
    assert isinstance(caught.value.__cause__, socksy.ProxyUnsupportedError)


def test_httpx_tells_a_target_that_no_proxy_takes(server: Any):
    with httpx.Client(transport=SocksTransport(server.url())) as client:
        with pytest.raises(httpx.InvalidURL) as caught:
            client.get("http://[fe80::1%251]/")
    assert isinstance(caught.value.__cause__, socksy.InvalidTargetError)
    assert server.requests == []


def test_httpx_has_one_connect_timeout_for_the_tunnel_and_tls(
    socks_server_factory: Any, trusted: str
):
    """The proxy takes most of it; then the target says nothing."""
    server = socks_server_factory(faults=pause_before("the reply", 0.8))
    client = HttpxClient(server.url(), trusted)
    with serving(lambda connection: connection.recv(1 << 16) and connection.recv(1)) as silent:
        began = time.monotonic()
        with pytest.raises(httpx.ConnectTimeout):
            client.request("GET", f"https://127.0.0.1:{silent[1]}/", connect=1)
        took = time.monotonic() - began
        client.close()

    assert took < 1.7  # and not 1.8: the pause, and a second for TLS


def test_httpx_options(server: Any, sites: dict[str, Any]):
    """Those of HTTPTransport: here where it connects from, and how often it tries."""
    transport = SocksTransport(
        server.url(),
        local_address="127.0.0.2",
        socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    with httpx.Client(transport=transport) as client:
        with client.stream("GET", sites["http"].url()) as response:
            stream = response.extensions["network_stream"]
            sock = stream.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert stream.get_extra_info("client_addr")[0] == "127.0.0.2"
            assert stream.get_extra_info("server_addr") == sites["http"].server_address

    with httpx.Client(transport=SocksTransport(server.url(), retries=2)) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(f"http://127.0.0.1:{unused_port()}/")
    assert len(server.requests) == 1 + 3


def test_httpx_takes_a_closed_connection_for_one_that_has_ended(server: Any, sites: dict[str, Any]):
    """What httpcore asks of a connection in its pool; another thread may have closed it."""
    with httpx.Client(transport=SocksTransport(server.url())) as client:
        with client.stream("GET", sites["http"].url()) as response:
            stream = response.extensions["network_stream"]
            response.read()
            assert not stream.get_extra_info("is_readable")
    assert stream.get_extra_info("socket").fileno() == -1
    assert stream.get_extra_info("is_readable")


@pytest.mark.parametrize("library", [HttpxClient, AsyncHttpxClient, TrioHttpxClient])
def test_httpx_write_timeout_is_for_each_piece_of_a_body(server: Any, library: Any):
    """Who reads slowly does not stall."""
    body = [bytes(24 << 20)]

    def read_slowly(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        left = len(body[0])
        while left > 0:
            left -= len(read_exactly(connection, 1 << 20))
            time.sleep(0.04)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    client = library(server.url(), None)
    with serving(read_slowly) as (host, port):
        began = time.monotonic()
        assert client.request("POST", f"http://{host}:{port}/", body, write=0.3) == (200, b"ok")
        assert time.monotonic() - began > 0.6
        client.close()


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[socksy.SocksSocket]:
    """The sockets that were made for connections."""
    made: list[socksy.SocksSocket] = []

    class Recorded(socksy.SocksSocket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(stream, "SocksSocket", Recorded)
    return made


@BACKENDS
@pytest.mark.parametrize("stalling", ["the method choice", "the reply", None])
def test_httpx_closes_what_is_cancelled(
    socks_server_factory: Any,
    sites: dict[str, Any],
    made: list[socksy.SocksSocket],
    backend: str,
    stalling: str | None,
):
    """While the proxy stalls, or (None) the site."""
    server = socks_server_factory(faults=stall_at(stalling) if stalling else ())

    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncSocksTransport(server.url())) as client:
            with anyio.move_on_after(0.2) as scope:
                await client.get(sites["http"].url("/slow"), timeout=None)
            assert scope.cancel_called

    anyio.run(main, backend=backend)
    assert [sock.fileno() for sock in made] == [-1]


@BACKENDS
def test_httpx_closes_what_is_cancelled_before_tls(
    server: Any, sites: dict[str, Any], made: list[socksy.SocksSocket], backend: str
):
    """The tunnel is there, and nobody has it yet."""

    async def main() -> None:
        with anyio.CancelScope() as scope:

            async def trace(event: str, info: Any) -> None:
                if event == "connection.start_tls.started":
                    scope.cancel()

            async with httpx.AsyncClient(transport=AsyncSocksTransport(server.url())) as client:
                await client.get(sites["https"].url(), extensions={"trace": trace})
        assert scope.cancel_called

    anyio.run(main, backend=backend)
    assert [sock.fileno() for sock in made] == [-1]


@BACKENDS
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_httpx_ends_the_requests_of_a_client_that_is_closed(
    server: Any, sites: dict[str, Any], trusted: str, backend: str, scheme: str
):
    """At once; what other clients do with the number that is free then works."""

    def make_client() -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=AsyncSocksTransport(server.url(), verify=trusting(trusted))
        )

    async def main() -> None:
        client = make_client()

        async def request() -> None:
            with pytest.raises(httpx.ReadError):
                await client.get(sites[scheme].url("/slow"), timeout=None)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(request)
                while not sites[scheme].heard:
                    await anyio.sleep(0.005)
                await client.aclose()
            for _ in range(3):
                async with make_client() as other:
                    assert (await other.get(sites[scheme].url(host=NAME))).text == "hello"

    anyio.run(main, backend=backend)


# -- aiohttp


def fetch_with(
    server: Any, connector: Callable[[], SocksConnector], *urls: str, **options: Any
) -> list[bytes]:
    """What aiohttp gets from each, in one session with that connector."""

    async def main() -> list[bytes]:
        try:
            async with aiohttp.ClientSession(connector=connector()) as session:
                found = []
                for url in urls:
                    async with session.get(url, **options) as response:
                        found.append(await response.read())
                return found
        finally:  # aiohttp itself does not wait until TLS is closed
            await asyncio.to_thread(server.wait_until_idle)

    return asyncio.run(main())


def test_aiohttp_does_not_share_connections_between_credentials(
    socks_server_factory: Any, sites: dict[str, Any]
):
    server = socks_server_factory(users=lambda username, password: True)
    url = sites["http"].url()
    fetch_with(server, lambda: SocksConnector(names_of_three(server)), url, url, url, url)

    assert [request.username for request in server.requests] == ["alice", "bob", "carol", "alice"]


def test_aiohttp_has_our_errors(server: Any, sites: dict[str, Any]):
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        fetch_with(server, lambda: SocksConnector(server.url()), "http://unknown.test/")

    assert isinstance(caught.value.os_error, socksy.HostUnreachableError)


def test_aiohttp_errors_say_what_ours_say():
    """The proxy, which is not the host that cannot be connected to, and what to do about it."""
    proxy = f"socks5h://127.0.0.1:{unused_port()}"

    async def main() -> None:
        async with aiohttp.ClientSession(connector=SocksConnector(proxy)) as session:
            await session.get("http://plain.test/")

    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        asyncio.run(main())
    assert str(caught.value).startswith("Cannot connect to host plain.test:80 ")
    assert str(caught.value.os_error) in str(caught.value)
    assert proxy in str(caught.value)
    assert "Nothing listens there" in str(caught.value)


def test_aiohttp_pins_certificates(server: Any, sites: dict[str, Any]):
    """A mismatch is told as such, although the address was a placeholder."""
    pin = aiohttp.Fingerprint(bytes(32))
    url = sites["https"].url(host=NAME)
    with pytest.raises(aiohttp.ServerFingerprintMismatch):
        fetch_with(server, lambda: SocksConnector(server.url()), url, ssl=pin)


def test_aiohttp_tells_a_target_that_no_proxy_takes(server: Any):
    with pytest.raises(aiohttp.InvalidURL):
        fetch_with(server, lambda: SocksConnector(server.url()), f"http://{'a' * 256}/")
    assert server.requests == []


def test_aiohttp_goes_direct_where_a_callable_says_so(server: Any, sites: dict[str, Any]):
    """By name and by address; only then a name is looked up."""
    port = sites["http"].server_address[1]
    fetch_with(
        server,
        lambda: SocksConnector(lambda host, port: None),
        f"http://localhost:{port}/",
        f"http://127.0.0.1:{port}/",
    )
    assert server.requests == []


def test_aiohttp_uses_the_default_proxy(server: Any, sites: dict[str, Any]):
    with socksy.using(server.url()):
        assert fetch_with(server, SocksConnector, sites["http"].url(host=NAME)) == [b"hello"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("option", ["family", "resolver", "use_dns_cache", "socket_factory"])
def test_aiohttp_options_that_are_not_for_a_proxy(option: str):
    async def main() -> None:
        with pytest.raises(TypeError):
            SocksConnector("socks5h://127.0.0.1", **{option: 0})

    asyncio.run(main())


# -- documentation

PAGES = [test_docs.ROOT / "docs" / page for page in sorted(test_docs.ADAPTERS)]


@pytest.mark.parametrize("example", [*test_docs.examples(PAGES)])
def test_example(example: str, socks_server_factory: Any, certified: Any, tmp_path: Path):
    test_docs.run_behind_a_proxy(example, socks_server_factory, certified, tmp_path)
