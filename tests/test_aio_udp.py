"""Datagrams in asyncio through a proxy: `socksy.aio.create_datagram_endpoint`."""

import asyncio
import ipaddress
import socket
import threading

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


@pytest.mark.parametrize(
    ("options", "family"),
    [
        ({}, socket.AF_INET),
        ({"local_addr": ("::1", 0)}, socket.AF_INET6),
        ({"family": socket.AF_INET6}, socket.AF_INET6),
        ({"proxy": "socks5h://[::1]:1080"}, socket.AF_INET6),
        ({"proxy": "socks5h://[::1]:1080", "local_addr": ("127.0.0.1", 0)}, socket.AF_INET),
        ({"proxy": "socks5h://localhost:1080"}, socket.AF_INET),
        ({"proxy": lambda host, port: "socks5h://[::1]:1080"}, socket.AF_INET),
    ],
)
def test_the_family_follows_the_addresses(server, options, family):
    """That of the proxy, if no other is given: there the relay will be."""

    async def main():
        options.setdefault("proxy", server.url())
        transport, listener = await aio.create_datagram_endpoint(Listener, **options)
        found = transport.get_extra_info("socket").family
        transport.close()
        await listener.closed
        return found

    assert asyncio.run(main()) == family


@pytest.mark.parametrize("options", [{}, {"remote_addr": "127.0.0.1"}])
def test_through_a_proxy_on_ipv6(socks_server_factory, options):
    def send(transport, address):
        transport.sendto(b"ping", None if options else address)

    assert talk(send, proxy=socks_server_factory("::1").url(), **options)[0][0] == b"ping"


def test_a_relay_of_another_family_than_was_asked_for(socks_server_factory):
    """Nobody watches the descriptor yet: it may be changed."""

    def send(transport, address):
        transport.sendto(b"ping")

    proxy = socks_server_factory("::1").url()
    options = {"remote_addr": "127.0.0.1", "family": socket.AF_INET}
    (data, source), address = talk(send, proxy=proxy, **options)

    assert (data, source) == (b"ping", address)


def test_a_name_that_is_looked_up_here(server):
    """With socks5://, as asyncio does it: in a thread."""

    def send(transport, address):
        assert transport.get_extra_info("peername") == ("localhost", address[1])
        transport.sendto(b"ping")

    (data, source), address = talk(send, remote_addr="localhost", proxy=server.url("socks5"))

    assert (data, source) == (b"ping", address)
    assert server.requests[0].command == 3


def test_a_lookup_that_takes_too_long(server, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answer.wait(5) and [])
    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "shutdown_default_executor", done)

    error = failure(remote_addr=("a.test", 9), proxy=server.url("socks5"), timeout=0.05)

    answer.set()
    assert isinstance(error, socksy.ProxyTimeoutError)
    assert error.phase == "the name lookup"


async def done(*_):
    """Nothing to wait for."""


def test_addresses_of_any_type_without_a_proxy():
    """As for a proxied endpoint."""

    async def main():
        for host in (ipaddress.ip_address("127.0.0.1"), b"127.0.0.1"):
            transport, listener = await aio.create_datagram_endpoint(
                Listener, remote_addr=(host, 9), proxy=None
            )
            assert transport.get_extra_info("peername") == ("127.0.0.1", 9)
            transport.close()
            await listener.closed

    asyncio.run(main())


def test_a_protocol_factory_that_fails(server):
    def factory():
        raise ValueError("no protocol today")

    async def main():
        with pytest.raises(ValueError, match="no protocol today"):
            await aio.create_datagram_endpoint(factory, proxy=server.url())

    asyncio.run(main())


def test_the_deadline_counts_for_the_first_datagram_too(socks_server_factory):
    server = socks_server_factory(faults=faults.stall_at("the reply"))

    with pytest.raises(socksy.ProxyTimeoutError):
        talk(
            lambda transport, address: transport.sendto(b"ping", address),
            proxy=server.url(),
            timeout=0.1,
        )


def test_cancellation_closes_everything_at_once(socks_server_factory):
    """Nothing waits for the deadline: no thread of the loop's is in it."""
    server = socks_server_factory(faults=faults.stall_at("the reply"))

    async def main():
        opening = asyncio.ensure_future(
            aio.create_datagram_endpoint(Listener, remote_addr=("127.0.0.1", 9), proxy=server.url())
        )
        while not server.requests:
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(main())
    assert eventually(lambda: not server.connections)


def test_many_at_once_take_no_threads(socks_server_factory):
    """Each has all of its time, and lookups of others are not held up."""
    server = socks_server_factory(faults=faults.stall_at("the reply"))

    async def main():
        opening = [
            aio.create_datagram_endpoint(
                Listener, remote_addr=("127.0.0.1", 9), proxy=server.url(), timeout=0.3
            )
            for _ in range(40)
        ]
        results = asyncio.gather(*opening, return_exceptions=True)
        while len(server.requests) < 40:
            await asyncio.sleep(0.001)
        assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]
        return await results

    assert {type(error) for error in asyncio.run(main())} == {socksy.ProxyTimeoutError}


def test_a_loop_that_was_closed_meanwhile():
    """The thread that made an association finds nobody to tell, and goes on."""
    loop = asyncio.new_event_loop()
    over = loop.create_future()
    loop.close()

    aio._tell(loop, over)

    assert not over.done()
