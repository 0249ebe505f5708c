"""Non-blocking connects through real servers, driven by an unmodified asyncio, and by trio."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio

import socksy

from .servers import Refusal, Server, each
from .targets import BANNER, Targets

Url = Callable[[str, str], str]
Connect = Callable[[str, int], Awaitable[trio.SocketStream]]


async def open_connection(
    proxy: str, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socksy.SocksSocket(proxy=proxy)
    sock.setblocking(False)
    try:
        connecting = asyncio.get_running_loop().sock_connect(sock, (host, port))
        await asyncio.wait_for(connecting, 10)
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionResetError:  # plink ends its connections like this
        pass


@each()
def test_100_kb_both_ways(url: Url, targets: Targets, scheme: str, server: Server):
    async def main(proxy: str) -> None:
        reader, writer = await open_connection(proxy, "127.0.0.1", targets.echo)
        sent = os.urandom(100_000)
        writer.write(sent)
        assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
        await close(writer)

    asyncio.run(main(url(scheme, server.name)))


@each()
def test_bytes_right_behind_the_reply_are_not_lost(
    url: Url, targets: Targets, scheme: str, server: Server
):
    async def main(proxy: str) -> None:
        reader, writer = await open_connection(proxy, "127.0.0.1", targets.banner)
        assert await asyncio.wait_for(reader.read(), 10) == BANNER
        await close(writer)

    asyncio.run(main(url(scheme, server.name)))


@each(where=lambda server: server.refusal is not Refusal.GRANTED)
def test_refused_by_the_target(url: Url, targets: Targets, scheme: str, server: Server):
    """asyncio makes its own OSError of the errno; the class is the builtin one."""
    wanted = ConnectionRefusedError if server.refusal is Refusal.REPLY else OSError
    with pytest.raises(wanted):
        asyncio.run(open_connection(url(scheme, server.name), "127.0.0.1", targets.closed))


@each("socks5h", where=lambda server: server.name in ("danted", "microsocks", "ssh -D"))
def test_a_hundred_at_once(url: Url, targets: Targets, scheme: str, server: Server):
    async def one(proxy: str, number: int) -> bytes:
        reader, writer = await open_connection(proxy, "127.0.0.1", targets.echo)
        writer.write(b"%03d" % number)
        got = await asyncio.wait_for(reader.readexactly(3), 10)
        await close(writer)
        return got

    async def main(proxy: str) -> list[bytes]:
        return await asyncio.gather(*(one(proxy, number) for number in range(100)))

    answers = asyncio.run(main(url(scheme, server.name)))
    assert answers == [b"%03d" % number for number in range(100)]


@pytest.fixture
def trio_through(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """An unmodified trio that finds our class in the socket module, and connects with it."""
    monkeypatch.setattr(socket, "socket", socksy.SocksSocket)

    async def connect(proxy: str, port: int) -> trio.SocketStream:
        with socksy.using(proxy), trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        inner = stream.socket._sock
        assert inner.bound_address is not None
        assert inner.proxy_peername != inner.getpeername() == ("127.0.0.1", port)
        return stream

    return connect


@each()
def test_trio_100_kb_both_ways(
    url: Url, targets: Targets, trio_through: Connect, scheme: str, server: Server
):
    async def main(proxy: str) -> None:
        sent = os.urandom(100_000)
        got = bytearray()
        stream = await trio_through(proxy, targets.echo)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent)
            with trio.fail_after(10):
                while len(got) < len(sent):
                    got += await stream.receive_some()
        assert bytes(got) == sent

    trio.run(main, url(scheme, server.name))


@each(where=lambda server: server.refusal is Refusal.REPLY)
def test_trio_is_told_a_refusal(
    url: Url, targets: Targets, trio_through: Connect, scheme: str, server: Server
):
    """trio makes its own OSErrors, of the builtin class."""
    with pytest.raises(OSError) as caught:
        trio.run(trio_through, url(scheme, server.name), targets.closed)
    (refusal,) = caught.value.__cause__.exceptions
    assert isinstance(refusal, ConnectionRefusedError)


def test_trio_cancels(trio_through: Connect):
    """The proxy does not answer; the connect ends with its scope, and nothing is left."""

    async def main(proxy: str) -> None:
        with trio.move_on_after(0.05) as scope:
            await trio_through(proxy, 80)
        assert scope.cancelled_caught

    with socket.create_server(("127.0.0.1", 0)) as silent:
        trio.run(main, f"socks5h://127.0.0.1:{silent.getsockname()[1]}")
