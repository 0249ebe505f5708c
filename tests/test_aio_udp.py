"""Datagrams in asyncio through a proxy: `socksy.aio.create_datagram_endpoint`."""

import asyncio
import socket

import pytest

import socksy
from socksy import aio
from socksy.testing import faults

from .sockets import conftest as shared
from .support import eventually, unused_port

NAME = "only-the-proxy-knows.test"

no_descriptor_is_left = shared.no_descriptor_is_left
pytestmark = pytest.mark.usefixtures("the_thread_ends")


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


class Echo(asyncio.DatagramProtocol):
    """Repeats what it hears."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        self.transport.sendto(data, source)


class Listener(asyncio.DatagramProtocol):
    """Hears one datagram or one error."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.heard, self.closed = loop.create_future(), loop.create_future()

    def datagram_received(self, data, source):
        self.heard.set_result((data, source))

    def error_received(self, error):
        if not self.heard.done():
            self.heard.set_exception(error)

    def connection_lost(self, error):
        self.closed.set_result(error)


def talk(send, **options):
    """What is heard after `send(transport, address of an echo server)`, and the peer's name."""

    async def main():
        loop = asyncio.get_running_loop()
        there, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        address = there.get_extra_info("sockname")
        try:
            if "remote_addr" in options:
                options["remote_addr"] = options["remote_addr"], address[1]
            transport, listener = await aio.create_datagram_endpoint(Listener, **options)
            send(transport, address)
            try:
                return await asyncio.wait_for(listener.heard, 5), address
            finally:
                transport.close()
                await listener.closed
        finally:
            there.close()
            await asyncio.sleep(0)

    return asyncio.run(main())


@pytest.mark.parametrize("host", [NAME, "127.0.0.1"])
def test_to_one_destination(server, no_local_lookup, host):
    """The name goes to the proxy; the peer is the destination as it was named."""
    peers = []

    def send(transport, address):
        peers.append(transport.get_extra_info("peername"))
        transport.sendto(b"ping")

    (data, source), address = talk(send, remote_addr=host, proxy=server.url())

    assert (data, source[1]) == (b"ping", address[1])
    assert peers == [(host, address[1])]
    assert server.requests[0].command == 3


def test_to_any_destination(server):
    """The association is made when the first datagram is sent; that one is not lost."""

    def send(transport, address):
        transport.sendto(b"ping", address)

    (data, source), address = talk(send, proxy=server.url(), local_addr=("127.0.0.1", 0))

    assert (data, source) == (b"ping", address)
    assert len(server.requests) == 1


@pytest.mark.parametrize("proxy", [None, lambda host, port: None])
def test_no_proxy_means_plain_asyncio(proxy):
    def send(transport, address):
        transport.sendto(b"ping")

    assert talk(send, remote_addr="127.0.0.1", proxy=proxy)[0][0] == b"ping"


def test_the_default_proxy_counts(server):
    def send(transport, address):
        transport.sendto(b"ping", address)

    with socksy.using(server.url()):
        assert talk(send)[0][0] == b"ping"
    assert len(server.requests) == 1


def failure(**options):
    async def main():
        with pytest.raises((OSError, ValueError)) as caught:
            await aio.create_datagram_endpoint(Listener, **options)
        return caught.value

    return asyncio.run(main())


def test_a_proxy_without_udp_is_an_error_at_once(socks_server_factory):
    server = socks_server_factory(commands=[1])
    error = failure(remote_addr=("127.0.0.1", 9), proxy=server.url())

    assert isinstance(error, socksy.CommandNotSupportedError)


def test_a_proxy_without_udp_is_an_error_of_the_first_datagram(socks_server_factory):
    server = socks_server_factory(commands=[1])

    with pytest.raises(socksy.CommandNotSupportedError):
        talk(lambda transport, address: transport.sendto(b"ping", address), proxy=server.url())


def test_the_deadline_covers_the_association(socks_server_factory):
    server = socks_server_factory(faults=faults.stall_at("the reply"))
    error = failure(remote_addr=("127.0.0.1", 9), proxy=server.url(), timeout=0.1)

    assert isinstance(error, socksy.ProxyTimeoutError)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"remote_addr": ("two words", 9)}, socksy.InvalidTargetError),
        ({"remote_addr": ("127.0.0.1", 9), "proxy": "socks4a://127.0.0.1"}, socksy.ProxyError),
        ({"proxy": "socks7://127.0.0.1"}, socksy.InvalidProxyError),
    ],
)
def test_a_wrong_argument(options, expected):
    dead = f"socks5h://127.0.0.1:{unused_port()}"

    assert isinstance(failure(**{"proxy": dead, **options}), expected)


def test_the_family_follows_the_addresses(server):
    async def main():
        families = []
        for options in ({}, {"local_addr": ("::1", 0)}, {"family": socket.AF_INET6}):
            transport, listener = await aio.create_datagram_endpoint(
                Listener, proxy=server.url(), **options
            )
            families.append(transport.get_extra_info("socket").family)
            transport.close()
            await listener.closed
        return families

    assert asyncio.run(main()) == [socket.AF_INET, socket.AF_INET6, socket.AF_INET6]


def test_a_protocol_factory_that_fails(server):
    def factory():
        raise ValueError("no protocol today")

    async def main():
        with pytest.raises(ValueError, match="no protocol today"):
            await aio.create_datagram_endpoint(factory, proxy=server.url())

    asyncio.run(main())


def test_cancellation_closes_everything(socks_server_factory):
    """As soon as the thread that asks the proxy has ended, with the deadline."""
    server = socks_server_factory(faults=faults.stall_at("the reply"))

    async def main():
        opening = asyncio.ensure_future(
            aio.create_datagram_endpoint(
                Listener, remote_addr=("127.0.0.1", 9), proxy=server.url(), timeout=0.2
            )
        )
        while not server.requests:
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(main())
    server.drop_connections()
    assert eventually(lambda: not server.connections)
