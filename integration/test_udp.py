"""Datagrams through servers that relay them, and what the others say."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

import socksy

from .servers import SERVERS, Places
from .targets import Targets

Url = Callable[[str, str], str]
Start = Callable[[str], Places]

RELAYS = ["danted", "danted with login", "ss-local", "v2ray"]


def asking(proxy: object, family: int = socket.AF_INET) -> socksy.SocksSocket:
    sock = socksy.SocksSocket(family, socket.SOCK_DGRAM, proxy=proxy)
    sock.settimeout(10)
    return sock


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("server", RELAYS)
def test_there_and_back(url: Url, targets: Targets, server: str, family: int):
    """By address, small and larger than a packet."""
    with asking(url("socks5h", server), family) as sock:
        for data in (b"question", bytes(1400)):
            sock.sendto(data, ("127.0.0.1", targets.udp))
            answer, source = sock.recvfrom(2000)
            assert answer == data
            assert source[1] == targets.udp
        assert sock.dropped == 0


@pytest.mark.parametrize("server", RELAYS)
def test_by_name(url: Url, targets: Targets, names: None, server: str):
    """The name goes to the proxy; its answer comes from an address, or from the name."""
    before = len(targets.queries)
    with asking(url("socks5h", server)) as sock:
        sock.connect(("www.test.example", targets.udp))
        sock.send(b"question")
        assert sock.recv(100) == b"question"
    asked = [query.name for query in targets.queries[before:] if query.ours]
    assert asked == []


def test_over_ipv6(url: Url, targets: Targets):
    """To the proxy and to the target; whatever the socket was made for."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with asking(url("socks5h", "danted on ::1"), family) as sock:
            sock.sendto(b"question", ("::1", targets.udp))
            answer, source = sock.recvfrom(100)
            assert (answer, source[:2]) == (b"question", ("::1", targets.udp))


def test_an_asyncio_endpoint(url: Url, targets: Targets):
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()

        class Asking(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                answered.set_result(data)

        sock = asking(url("socks5h", "danted"))
        sock.setblocking(False)
        transport, _ = await loop.create_datagram_endpoint(Asking, sock=sock)
        transport.sendto(b"question", ("127.0.0.1", targets.udp))
        try:
            return await asyncio.wait_for(answered, 10)
        finally:
            transport.close()

    assert asyncio.run(main()) == b"question"


@pytest.mark.parametrize(
    ("server", "error"),
    [
        ("microsocks", socksy.CommandNotSupportedError),
        ("ssh -D", socksy.ProxyProtocolError),
        ("ssh -D on a Unix socket", socksy.ProxyProtocolError),
        ("plink -D", socksy.ProxyError),
    ],
)
def test_a_server_without_udp(url: Url, targets: Targets, server: str, error: type[Exception]):
    """It says so, or hangs up; the target hears nothing, and so there is nothing to wait for."""
    with asking(url("socks5h", server)) as sock:
        with pytest.raises(error) as caught:
            sock.sendto(b"question", ("127.0.0.1", targets.udp))
        assert "UDP" in str(caught.value)
        with pytest.raises(error):
            sock.recv(100)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(100)


def test_tor_has_no_udp(start: Start, targets: Targets):
    with asking(f"socks5h://{start('tor')['tor']}") as sock:
        with pytest.raises(socksy.CommandNotSupportedError, match="no UDP"):
            sock.sendto(b"question", ("127.0.0.1", targets.udp))


@pytest.mark.parametrize("server", [name for name in SERVERS if "socks4a" in SERVERS[name].schemes])
def test_socks4_has_no_udp(url: Url, targets: Targets, server: str):
    with asking(url("socks4a", server)) as sock:
        assert sock.connect_ex(("127.0.0.1", targets.udp)) == errno.EOPNOTSUPP
