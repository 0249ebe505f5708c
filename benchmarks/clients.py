"""The same handshake by everybody: ours, one written by hand, and the peers.

What is written by hand makes the fewest system calls that the protocol allows, reads exactly what
belongs to the handshake, and looks at every answer: but knows no other server than this one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import socks as pysocks
from python_socks.sync import Proxy as PythonSocksProxy

import socksy
from socksy import aio

NAME, PORT = "example.com", 9
SCHEMES = {
    "SOCKS5": "socks5h://",
    "SOCKS5 login": "socks5h://alice:sesame@",
    "SOCKS4a": "socks4a://",
    "CONNECT": "http://",
}

_NAME = NAME.encode()
_LOGIN = b"\1\5alice\6sesame"
_REQUEST = b"\5\1\0\3" + bytes((len(_NAME),)) + _NAME + PORT.to_bytes(2, "big")


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = sock.recv(count)
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError("closed early")
        data += more
    return data


def _expect(answer: bytes, wanted: bytes) -> None:
    if not answer.startswith(wanted):
        raise ConnectionError(answer)


def _socks5(sock: socket.socket) -> None:
    sock.sendall(b"\5\1\0")
    _expect(_exactly(sock, 2), b"\5\0")
    sock.sendall(_REQUEST)
    _expect(_exactly(sock, 10), b"\5\0")


def _socks5_login(sock: socket.socket) -> None:
    sock.sendall(b"\5\2\0\2")
    _expect(_exactly(sock, 2), b"\5\2")
    sock.sendall(_LOGIN)
    _expect(_exactly(sock, 2), b"\1\0")
    sock.sendall(_REQUEST)
    _expect(_exactly(sock, 10), b"\5\0")


def _socks4a(sock: socket.socket) -> None:
    sock.sendall(b"\4\1" + PORT.to_bytes(2, "big") + b"\0\0\0\1\0" + _NAME + b"\0")
    _expect(_exactly(sock, 8), b"\0\x5a")


def _connect(sock: socket.socket) -> None:
    place = f"{NAME}:{PORT}"
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    # looked at first: behind the head may be what the target says
    length = sock.recv(4096, socket.MSG_PEEK).index(b"\r\n\r\n") + 4
    _expect(_exactly(sock, length), b"HTTP/1.1 200")


_BY_HAND = {
    "SOCKS5": _socks5,
    "SOCKS5 login": _socks5_login,
    "SOCKS4a": _socks4a,
    "CONNECT": _connect,
}


def by_hand(kind: str, port: int, timeout: float | None) -> Callable[[], None]:
    """A handshake that closes its connection."""
    proxy, talk = ("127.0.0.1", port), _BY_HAND[kind]

    def handshake() -> None:
        sock = socket.socket()
        if timeout is not None:
            sock.settimeout(timeout)
        sock.connect(proxy)
        talk(sock)
        sock.close()

    return handshake


def by_socksy(kind: str, port: int, timeout: float | None) -> Callable[[], None]:
    """As `by_hand`."""
    proxy = socksy.Proxy.from_url(f"{SCHEMES[kind]}127.0.0.1:{port}")

    def handshake() -> None:
        sock = socksy.SocksSocket(proxy=proxy)
        if timeout is not None:
            sock.settimeout(timeout)
        sock.connect((NAME, PORT))
        sock.close()

    return handshake


def by_pysocks(kind: str, port: int, timeout: float | None) -> Callable[[], None]:
    """As `by_hand`."""
    url = urlsplit(SCHEMES[kind] + "host")
    kinds = {"socks5h": pysocks.SOCKS5, "socks4a": pysocks.SOCKS4, "http": pysocks.HTTP}

    def handshake() -> None:
        sock = pysocks.socksocket()
        sock.set_proxy(kinds[url.scheme], "127.0.0.1", port, True, url.username, url.password)
        if timeout is not None:
            sock.settimeout(timeout)
        sock.connect((NAME, PORT))
        sock.close()

    return handshake


def by_python_socks(kind: str, port: int, timeout: float | None) -> Callable[[], None]:
    """As `by_hand`. Its default is a timeout of 60 s; it has no other way to have none."""
    scheme = SCHEMES[kind].replace("socks5h", "socks5").replace("socks4a", "socks4")
    proxy = PythonSocksProxy.from_url(f"{scheme}127.0.0.1:{port}", rdns=True)

    def handshake() -> None:
        proxy.connect(NAME, PORT, timeout).close()

    return handshake


EVERYBODY = {
    "by hand": by_hand,
    "socksy": by_socksy,
    "PySocks": by_pysocks,
    "python-socks": by_python_socks,
}


async def asyncio_by_hand(port: int) -> socket.socket:
    """A SOCKS5 handshake on loop.sock_*."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"\5\1\0")
    _expect(await _exactly_async(loop, sock, 2), b"\5\0")
    await loop.sock_sendall(sock, _REQUEST)
    _expect(await _exactly_async(loop, sock, 10), b"\5\0")
    return sock


async def _exactly_async(loop: Any, sock: socket.socket, count: int) -> bytes:
    data: bytes = await loop.sock_recv(sock, count)
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise ConnectionError("closed early")
        data += more
    return data


async def streams_by_hand(port: int) -> asyncio.StreamWriter:
    """A SOCKS5 handshake on asyncio's streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\5\1\0")
    _expect(await reader.readexactly(2), b"\5\0")
    writer.write(_REQUEST)
    _expect(await reader.readexactly(10), b"\5\0")
    return writer


def streams_by_socksy(port: int) -> Callable[[int], Awaitable[asyncio.StreamWriter]]:
    """The same with socksy.aio."""
    proxy = socksy.Proxy.from_url(f"socks5h://127.0.0.1:{port}")

    async def connect(_: int) -> asyncio.StreamWriter:
        _, writer = await aio.open_connection(NAME, PORT, proxy=proxy)
        return writer

    return connect


def asyncio_by_socksy(port: int) -> Callable[[int], Awaitable[socket.socket]]:
    """The same with socksy.aio."""
    proxy = socksy.Proxy.from_url(f"socks5h://127.0.0.1:{port}")

    return lambda _: aio.connect(NAME, PORT, proxy=proxy)
