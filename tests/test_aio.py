"""asyncio through a proxy: `socksy.aio`."""

import asyncio
import socket
import ssl
import sys
import threading

import pytest
import trustme

import socksy
from socksy import aio
from socksy.protocol import steps
from socksy.sockets import stream
from socksy.testing import faults

from .sockets import conftest as shared
from .support import BANNER, echo, eventually, read_exactly, serving, unused_port

NAME = "only-the-proxy-knows.test"
SCHEMES = ("socks4a", "socks5h", "http")

echo_server = shared.echo_server
no_descriptor_is_left = shared.no_descriptor_is_left


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls_server(authority):
    """A TLS server for NAME that says the banner and echoes; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)

    def handler(connection):
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                echo(secure)
        except ssl.SSLError:  # the client did not like our name
            pass

    with serving(handler) as address:
        yield address


@pytest.fixture
def trusting(authority):
    """A client's context that trusts the TLS server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def silent():
    """A server that listens and never says a word; its address."""

    def handler(connection):
        while connection.recv(65536):
            pass

    with serving(handler) as address:
        yield address


def failure(coroutine):
    """Run it; the error that it ends with."""

    async def main():
        with pytest.raises((OSError, ValueError, TypeError)) as caught:
            await coroutine
        return caught.value

    return asyncio.run(main())


async def hello(reader, writer):
    """What the echo server says, and what it makes of "ping"."""
    writer.write(b"ping")
    heard = await reader.readexactly(len(BANNER) + 4)
    writer.close()
    await writer.wait_closed()
    return heard


class Collector(asyncio.Protocol):
    """Gathers what comes until there is enough."""

    def __init__(self, enough):
        self.enough = enough
        self.heard = b""
        self.done = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.heard += data
        if len(self.heard) >= self.enough and not self.done.done():
            self.done.set_result(self.heard)

    def connection_lost(self, exc):
        self.closed.set_result(exc)


# -- getting through


@pytest.mark.parametrize("scheme", SCHEMES)
def test_open_connection_gives_streams(server, echo_server, no_local_lookup, scheme):
    """The name goes to the proxy; bytes right behind its reply reach the reader."""

    async def main():
        reader, writer = await aio.open_connection(NAME, echo_server[1], proxy=server.url(scheme))
        peer = writer.get_extra_info("peername")
        return peer, await hello(reader, writer)

    assert asyncio.run(main()) == ((NAME, echo_server[1]), BANNER + b"ping")
    assert server.requests[0].host == NAME


def test_create_connection_gives_transport_and_protocol(server, echo_server):
    async def main():
        transport, protocol = await aio.create_connection(
            lambda: Collector(len(BANNER)), *echo_server, proxy=server.url()
        )
        assert isinstance(protocol, Collector)
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        heard = await protocol.done
        transport.close()
        await protocol.closed
        return heard

    assert asyncio.run(main()) == BANNER


def test_connect_gives_a_socket_for_the_functions_of_the_loop(server, echo_server):
    async def main():
        loop = asyncio.get_running_loop()
        with await aio.connect(*echo_server, proxy=server.url()) as sock:
            assert isinstance(sock, socksy.SocksSocket)
            assert (sock.gettimeout(), sock.getpeername()) == (0.0, echo_server)
            assert sock.proxy_peername == server.address
            assert sock.bound_address[0] == "127.0.0.1"
            return await loop.sock_recv(sock, 100)

    assert asyncio.run(main()) == BANNER


def test_early_data_leave_with_the_request():
    """The proxy wants them before it answers."""

    def proxy(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        assert read_exactly(connection, 15) == b"\5\1\0\1\x7f\0\0\1\0\x50early"
        connection.sendall(b"\5\0\0\1" + bytes(6) + BANNER)

    async def main(url):
        reader, writer = await aio.open_connection(
            "127.0.0.1", 80, proxy=url, early_data=bytearray(b"early"), timeout=5
        )
        heard = await reader.readexactly(len(BANNER))
        writer.close()
        await writer.wait_closed()
        return heard

    with serving(proxy) as address:
        assert asyncio.run(main("socks5h://{}:{}".format(*address))) == BANNER


@pytest.mark.parametrize("through", ["open_connection", "connect"])
@pytest.mark.parametrize("proxied", [True, False])
def test_early_data_are_what_the_target_hears_first(server, echo_server, proxied, through):
    proxy = server.url() if proxied else None

    async def main():
        if through == "connect":
            sock = await aio.connect(*echo_server, proxy=proxy, early_data=b"early ")
            reader, writer = await asyncio.open_connection(sock=sock)
        else:
            reader, writer = await aio.open_connection(
                *echo_server, proxy=proxy, early_data=b"early "
            )
        writer.write(b"late")
        heard = await reader.readexactly(len(BANNER) + 10)
        writer.close()
        await writer.wait_closed()
        return heard

    assert asyncio.run(main()) == BANNER + b"early late"


def test_a_pipelined_handshake(server, echo_server):
    async def main():
        proxy = server.proxy(pipelined=True)
        return await hello(*await aio.open_connection(*echo_server, proxy=proxy))

    assert asyncio.run(main()) == BANNER + b"ping"
    assert len(server.requests) == 1


def test_a_chain(server, socks_server_factory, echo_server):
    second = socks_server_factory()

    async def main():
        chain = [server.url("http"), second.url("socks4a")]
        return await hello(*await aio.open_connection(*echo_server, proxy=chain))

    assert asyncio.run(main()) == BANNER + b"ping"
    assert (server.requests[0].port, second.requests[0].port) == (second.port, echo_server[1])


def test_a_proxy_on_a_unix_socket(socks_server_factory, echo_server, tmp_path):
    """The descriptor is of another family then, and is put under the number of the first."""
    server = socks_server_factory(path=tmp_path / "socks")

    async def main():
        return await hello(*await aio.open_connection(*echo_server, proxy=server.url()))

    assert asyncio.run(main()) == BANNER + b"ping"


def addresses_of_the_proxy(monkeypatch, *addresses):
    """Any name has these, as the resolver says from now on."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: found)


@pytest.mark.parametrize("seen", [True, False])
def test_an_answer_may_or_may_not_be_here_already(server, echo_server, monkeypatch, seen):
    """It is looked for before waiting; a look that is wrong does no harm."""
    monkeypatch.setattr(aio, "_has_input", lambda sock: seen)

    async def main():
        return await hello(*await aio.open_connection(*echo_server, proxy=server.url()))

    assert asyncio.run(main()) == BANNER + b"ping"


def test_a_connection_that_breaks_just_then(server, echo_server, monkeypatch):
    """Whoever reads next is told."""

    def broken(*arguments):
        raise ConnectionResetError

    monkeypatch.setattr(aio, "recv", broken)

    async def main():
        return await hello(*await aio.open_connection(*echo_server, proxy=server.url()))

    assert asyncio.run(main()) == BANNER + b"ping"


@pytest.mark.parametrize("dead", ["refuses", "is silent"])
def test_each_address_of_the_proxy_is_tried(server, echo_server, monkeypatch, dead):
    """One that refuses, or whose full backlog takes its share of the time, and then a good one."""
    with socket.socket() as other, socket.socket() as filling:
        other.bind(("127.0.0.1", 0))
        if dead == "is silent":
            other.listen(0)
            filling.connect(other.getsockname())
        addresses_of_the_proxy(monkeypatch, other.getsockname(), server.address)

        async def main():
            proxy = f"socks5h://proxy.test:{server.port}"
            return await hello(*await aio.open_connection(*echo_server, proxy=proxy, timeout=1))

        assert asyncio.run(main()) == BANNER + b"ping"


def test_an_address_that_answered_has_all_the_time(socks_server_factory, echo_server, monkeypatch):
    """The first of two had half of the time to be reached, and then is slow."""
    server = socks_server_factory(faults=faults.pause_before(steps.METHOD_CHOICE, 0.3))
    addresses_of_the_proxy(monkeypatch, server.address, server.address)

    async def main():
        proxy = f"socks5h://proxy.test:{server.port}"
        with await aio.connect(*echo_server, proxy=proxy, timeout=0.5) as sock:
            return sock.getpeername()

    assert asyncio.run(main()) == echo_server
    assert len(server.requests) == 1


def test_the_loop_goes_on_while_a_name_is_looked_up(server, echo_server, monkeypatch):
    """`socks5://` means a lookup here, and the resolver takes no deadline."""
    answering = threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments, **options):
        assert answering.wait(5)
        return real("127.0.0.1", *arguments[1:], **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main():
        opening = asyncio.ensure_future(
            aio.open_connection("slow.test", echo_server[1], proxy=server.url("socks5"))
        )
        for _ in range(10):
            await asyncio.sleep(0)
        assert not opening.done()
        answering.set()
        return await hello(*await opening)

    assert asyncio.run(main()) == BANNER + b"ping"


def test_a_hundred_at_once_take_no_thread(server, echo_server):
    async def main():
        before = threading.active_count() - server.connections
        opening = [aio.connect(*echo_server, proxy=server.url()) for _ in range(100)]
        socks = await asyncio.gather(*opening)
        ours = [t for t in threading.enumerate() if t.name in ("socksy-negotiator", "asyncio_0")]
        for sock in socks:
            sock.close()
        return before, ours

    assert asyncio.run(main())[1] == []
    assert len(server.requests) == 100


# -- which way


def test_the_default_proxy_counts(server, echo_server):
    async def main():
        with socksy.using(server.url()):
            opening = asyncio.ensure_future(aio.open_connection(*echo_server))
        return await hello(*await opening)

    assert asyncio.run(main()) == BANNER + b"ping"
    assert len(server.requests) == 1


@pytest.mark.parametrize("proxy", [None, lambda host, port: None])
def test_no_proxy_means_plain_asyncio(echo_server, proxy):
    async def main():
        with await aio.connect(*echo_server, proxy=proxy, timeout=5) as sock:
            assert sock.getpeername() == echo_server
        return await hello(*await aio.open_connection(*echo_server, proxy=proxy, timeout=5))

    assert asyncio.run(main()) == BANNER + b"ping"


def test_a_direct_connection_tries_each_address(echo_server, monkeypatch):
    """From the address and with the options that were asked for."""
    addresses_of_the_proxy(monkeypatch, ("127.0.0.1", unused_port()), echo_server)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]

    async def main():
        with await aio.connect(
            "two.test", 80, proxy=None, local_addr=("127.0.0.1", 0), options=options
        ) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return sock.getpeername()

    assert asyncio.run(main()) == echo_server


@pytest.mark.parametrize("proxy", [None, lambda host, port: None])
def test_an_onion_name_is_not_looked_up_for_a_direct_connection(no_local_lookup, proxy):
    for early in (b"", b"x"):
        with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
            asyncio.run(aio.connect("abc.onion", 80, proxy=proxy, early_data=early))
        with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
            asyncio.run(aio.open_connection("abc.onion", 80, proxy=proxy, early_data=early))
    with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
        asyncio.run(
            aio.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("abc.onion", 53), proxy=proxy
            )
        )


def test_a_direct_connection_that_is_refused():
    assert type(failure(aio.connect("127.0.0.1", unused_port(), proxy=None))) is (
        ConnectionRefusedError
    )


def test_options_are_set_before_it_connects(server, echo_server):
    async def main():
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        with await aio.connect(*echo_server, proxy=server.url(), options=options) as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    assert asyncio.run(main()) == 1


def test_local_addr_is_where_the_proxy_is_reached_from(server, echo_server):
    port = unused_port()

    async def main():
        with await aio.connect(
            *echo_server, proxy=server.url(), local_addr=("127.0.0.1", port)
        ) as sock:
            return sock.proxy_sockname

    assert asyncio.run(main()) == ("127.0.0.1", port)


# -- TLS


def test_tls_checks_the_name_of_the_target(server, tls_server, trusting):
    async def main():
        return await hello(
            *await aio.open_connection(
                NAME, tls_server[1], proxy=server.url(), ssl=trusting, timeout=5
            )
        )

    assert asyncio.run(main()) == BANNER + b"ping"


@pytest.mark.parametrize("name", ["other.test", None])
def test_tls_with_another_name_fails_and_closes(server, tls_server, trusting, name):
    host = NAME if name else "127.0.0.1"
    error = failure(
        aio.open_connection(
            host, tls_server[1], proxy=server.url(), ssl=trusting, server_hostname=name
        )
    )

    assert isinstance(error, ssl.SSLCertVerificationError)
    server.wait_until_idle()


def test_start_tls_of_the_loop(server, tls_server, trusting):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await aio.create_connection(
            lambda: Collector(len(BANNER)), NAME, tls_server[1], proxy=server.url()
        )
        secure = await loop.start_tls(transport, protocol, trusting, server_hostname=NAME)
        heard = await protocol.done
        secure.close()
        await protocol.closed
        return heard

    assert asyncio.run(main()) == BANNER


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
def test_start_tls_of_the_writer(server, tls_server, trusting):
    async def main():
        reader, writer = await aio.open_connection(NAME, tls_server[1], proxy=server.url())
        await writer.start_tls(trusting, server_hostname=NAME)
        return await hello(reader, writer)

    assert asyncio.run(main()) == BANNER + b"ping"


# -- one deadline


@pytest.mark.parametrize("phase", [steps.METHOD_CHOICE, steps.REPLY])
def test_the_deadline_passes_and_the_error_says_where(
    socks_server_factory,
    echo_server,
    phase,
):
    server = socks_server_factory(faults=faults.stall_at(phase))
    error = failure(aio.open_connection(*echo_server, proxy=server.url(), timeout=0.1))

    assert isinstance(error, socksy.ProxyTimeoutError)
    assert error.phase == phase


def test_each_connect_has_its_own_deadline(socks_server_factory, echo_server):
    """Whichever was set first; the others go on."""
    server = socks_server_factory(faults=faults.stall_at(steps.METHOD_CHOICE))
    over = []

    async def connect(timeout):
        with pytest.raises(socksy.ProxyTimeoutError):
            await aio.connect(*echo_server, proxy=server.url(), timeout=timeout)
        over.append(timeout)

    async def main():
        await asyncio.gather(*map(connect, (0.2, 0.1, 0.3)))

    asyncio.run(main())
    assert over == [0.1, 0.2, 0.3]


def test_the_deadline_covers_the_tls_handshake(server, silent, trusting):
    error = failure(aio.open_connection(*silent, proxy=server.url(), ssl=trusting, timeout=0.2))

    assert isinstance(error, socksy.ProxyTimeoutError)
    assert (error.phase, error.target) == ("the TLS handshake", silent)


def test_a_shorter_limit_for_tls_is_asyncios(server, silent, trusting):
    error = failure(
        aio.open_connection(
            *silent, proxy=server.url(), ssl=trusting, timeout=30, ssl_handshake_timeout=0.1
        )
    )

    assert type(error) is ConnectionAbortedError


def test_without_a_timeout_it_gives_up_in_the_end(
    socks_server_factory,
    echo_server,
    monkeypatch,
):
    monkeypatch.setattr(stream, "PATIENCE", 0.1)
    server = socks_server_factory(faults=faults.stall_at(steps.METHOD_CHOICE))

    assert isinstance(
        failure(aio.connect(*echo_server, proxy=server.url())), socksy.ProxyTimeoutError
    )


def test_a_direct_connection_has_the_deadline_too(silent, trusting):
    error = failure(aio.open_connection(*silent, proxy=None, ssl=trusting, timeout=0.1))

    assert isinstance(error, TimeoutError)


# -- what goes wrong


def test_errors_say_what_happened(server, socks_server_factory, echo_server):
    closed = unused_port()
    locked = socks_server_factory(users={"alice": "secret"})
    for expected, host, port, proxy in (
        (socksy.TargetRefusedError, "127.0.0.1", closed, server.url()),
        (socksy.HostUnreachableError, "unknown.test", 80, server.url()),
        (socksy.ProxyConnectionError, *echo_server, f"socks5h://127.0.0.1:{closed}"),
        (socksy.ProxyAuthenticationError, *echo_server, locked.url(password="guess")),
        (socksy.NameLookupError, "unknown.invalid", 80, server.url("socks5")),
    ):
        assert type(failure(aio.open_connection(host, port, proxy=proxy, timeout=5))) is expected


@pytest.mark.parametrize("phase", [steps.METHOD_CHOICE, steps.REPLY])
def test_a_proxy_that_breaks_the_connection(socks_server_factory, echo_server, phase):
    server = socks_server_factory(faults=faults.reset_at(phase))
    error = failure(aio.open_connection(*echo_server, proxy=server.url(), timeout=5))

    assert (type(error), error.phase) == (socksy.ProxyProtocolError, phase)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "two words"}, socksy.InvalidTargetError),
        ({"ssl": True, "early_data": b"x"}, ValueError),
        ({"port": 70000}, socksy.InvalidPortError),
        ({"proxy": "socks7://127.0.0.1"}, socksy.InvalidProxyError),
        ({"server_hostname": NAME}, ValueError),
        ({"ssl_handshake_timeout": 1}, ValueError),
        ({"ssl": True, "ssl_handshake_timeout": 0}, ValueError),
        ({"ssl": "yes"}, TypeError),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_sent(server, options, expected):
    options = {"host": NAME, "port": 80, "proxy": server.url(), **options}

    assert type(failure(aio.open_connection(**options))) is expected
    assert server.connections == 0
    assert server.requests == server.errors == []


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="asyncio takes it")
def test_an_option_that_this_asyncio_does_not_know(server):
    opening = aio.open_connection(NAME, 80, proxy=server.url(), ssl=True, ssl_shutdown_timeout=1)

    assert isinstance(failure(opening), ValueError)


def test_a_protocol_factory_that_fails(server, echo_server):
    def factory():
        raise ValueError("no protocol today")

    assert str(failure(aio.create_connection(factory, *echo_server, proxy=server.url()))) == (
        "no protocol today"
    )
    server.wait_until_idle()


@pytest.mark.parametrize("phase", [steps.METHOD_CHOICE, steps.REPLY, None])
def test_cancellation_closes_everything(
    socks_server_factory,
    silent,
    trusting,
    phase,
):
    """While the proxy is silent, or (None) the target that should begin with TLS."""
    server = socks_server_factory(faults=faults.stall_at(phase) if phase else ())

    async def main():
        opening = asyncio.ensure_future(
            aio.open_connection(*silent, proxy=server.url(), ssl=trusting)
        )
        while not (
            server.requests if phase is None or phase == steps.REPLY else server.connections
        ):
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(main())
    server.drop_connections() if phase else server.wait_until_idle()


@pytest.mark.parametrize("refused", [False, True])
def test_cancelled_when_it_was_just_over(server, echo_server, monkeypatch, refused):
    """The connection that nobody gets is closed; the failure that nobody hears is not logged."""
    port = unused_port() if refused else echo_server[1]
    resume = aio._Driver._resume

    def resume_and_cancel(driver, came):
        resume(driver, came)
        if driver.outcome.done():
            opening.cancel()

    async def main():
        nonlocal opening
        opening = asyncio.ensure_future(aio.connect("127.0.0.1", port, proxy=server.url()))
        with pytest.raises(asyncio.CancelledError):
            await opening

    opening = None
    monkeypatch.setattr(aio._Driver, "_resume", resume_and_cancel)
    asyncio.run(main())
    server.wait_until_idle()


@pytest.mark.parametrize("reply", [b"\0\x5a", b"\0\x5b"])
def test_cancelled_when_the_answer_has_been_seen_already(reply):
    """In the same turn of the loop; whoever runs it is not bothered with that."""
    complaints = []

    async def main(listener):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        url = "socks4a://{}:{}".format(*listener.getsockname())
        opening = asyncio.ensure_future(aio.connect("127.0.0.1", 80, proxy=url))
        proxy, _ = await loop.sock_accept(listener)
        with proxy:
            assert await loop.sock_recv(proxy, 100)
            proxy.sendall(reply + bytes(6))
            loop.call_soon(opening.cancel)
            with pytest.raises(asyncio.CancelledError):
                await opening
            with pytest.raises(ConnectionResetError):  # closed, with the reply unread
                await loop.sock_recv(proxy, 1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        asyncio.run(main(listener))
    assert complaints == []


# -- a loop that cannot watch descriptors


class BlindLoop(asyncio.SelectorEventLoop):
    """To `aio` it looks like the proactor loop of Windows."""

    add_reader = asyncio.AbstractEventLoop.add_reader


def run_blind(main):
    loop = BlindLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_a_thread_does_it_then(server, echo_server):
    async def main():
        with pytest.raises(socksy.TargetRefusedError):
            await aio.connect("127.0.0.1", unused_port(), proxy=server.url(), timeout=5)
        with await aio.connect(*echo_server, proxy=server.url(), timeout=5) as sock:
            return await asyncio.get_running_loop().sock_recv(sock, 100)

    assert run_blind(main) == BANNER


@pytest.mark.parametrize("fault", [faults.stall_at, lambda phase: faults.pause_before(phase, 0.1)])
def test_a_thread_that_nobody_waits_for_any_more_closes_its_socket(
    socks_server_factory, echo_server, fault
):
    """Whether it fails or succeeds."""
    server = socks_server_factory(faults=fault(steps.METHOD_CHOICE))

    async def main():
        opening = asyncio.ensure_future(aio.connect(*echo_server, proxy=server.url(), timeout=0.2))
        while not server.connections:
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    run_blind(main)
    assert eventually(lambda: not server.connections)
