"""Non-blocking connects through real servers, driven by an unmodified asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

import socksy

from .servers import Refusal, Server, each
from .targets import BANNER, Targets

Url = Callable[[str, str], str]


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
