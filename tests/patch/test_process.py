"""wrap_module() without modules: the whole process."""

import abc
import asyncio
import errno
import http.client
import importlib.util
import inspect
import ipaddress
import logging
import logging.handlers
import multiprocessing
import pickle
import select
import socket
import ssl
import subprocess
import sys
import threading
import types
import urllib.request
from itertools import permutations
from multiprocessing.reduction import ForkingPickler

import pytest
import trustme

import socksy
from socksy import aio
from socksy.names import placeholder
from socksy.patch.sockets import PatchedSocket
from socksy.testing import watch_lookups

from ..support import BANNER, echo, read_exactly, serve_web, service, serving

PLAIN = socket.socket
early = types.ModuleType("early")
sys.modules["early_for_tests"] = early
exec("from socket import *\nfrom socket import socket, create_connection, getfqdn", vars(early))


@pytest.fixture
def proxy(socks_server_factory):
    """A proxy that alone knows secret.test: an echo server, and at port 80 a web server."""
    with serving(echo) as echoing, serving(serve_web) as web:
        names = {"secret.test": echoing, "secret.test:80": web, "192.0.2.9": echoing}
        yield socks_server_factory(names=names)


@pytest.fixture
def patched(proxy, no_local_lookup):
    """A patched process, in which a local lookup fails the test."""
    with socksy.wrap_module(proxy=proxy.url()) as patch:
        yield patch
    assert socket.socket is PLAIN
    assert "__new__" not in PLAIN.__dict__


def hosts(proxy):
    """What the proxy was asked for."""
    return [request.host for request in proxy.requests]


# -- who goes through the proxy


def by_class():
    sock = socket.socket()
    sock.connect(("secret.test", 7))
    return sock


def by_number():
    sock = socket.socket()
    assert sock.connect_ex(("secret.test", 7)) == 0
    return sock


def by_lookup():
    ((family, kind, proto, _, address),) = socket.getaddrinfo("secret.test", 7, type=1)
    sock = socket.socket(family, kind, proto)
    sock.connect(address)
    return sock


def by_ipv6_lookup():
    ((family, kind, proto, _, address),) = socket.getaddrinfo("secret.test", 7, 10, type=1)
    sock = socket.socket(family, kind, proto)
    sock.connect(address)
    assert sock.getpeername() == address
    return sock


def by_gethostbyname():
    sock = socket.socket()
    sock.connect((socket.gethostbyname("secret.test"), 7))
    return sock


def by_create_connection():
    return socket.create_connection(("secret.test", 7), 10)


def by_early_class():
    sock = early.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect(("secret.test", 7))
    return sock


def by_early_functions():
    assert early.getfqdn("secret.test") == "secret.test"
    assert early.getaddrinfo("secret.test", 7, type=1)[0][4][0] == early.gethostbyname(
        "secret.test"
    )
    assert early.gethostbyname_ex("secret.test")[0] == early.gethostbyaddr("secret.test")[0]
    assert early.getnameinfo((early.gethostbyname("secret.test"), 7), 0) == (
        "secret.test",
        service(7),
    )
    return early.create_connection(("secret.test", 7))


def by_subclass_of_the_original():
    class Own(PLAIN):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.mine = True

    sock = Own(socket.AF_INET)
    assert isinstance(sock, Own)
    assert sock.mine
    sock.connect(("secret.test", 7))
    return sock


def by_subclass_that_adopts():
    class Own(PLAIN):
        pass

    sock = Own(fileno=PLAIN().detach())
    sock.connect(("secret.test", 7))
    return sock


def by_abstract_subclass():
    class Own(PLAIN, abc.ABC):
        pass

    class Later(socket.socket, abc.ABC):
        pass

    with Later():
        pass
    sock = Own()
    assert isinstance(sock, Own)
    sock.connect(("secret.test", 7))
    return sock


class Registry(type):
    """A metaclass of a program's that wants a keyword."""

    names = []  # noqa: RUF012 - a registry, as programs have them

    def __new__(cls, name, bases, members, *, key):
        cls.names.append(key)
        return super().__new__(cls, name, bases, members)

    def __init__(cls, name, bases, members, *, key):
        super().__init__(name, bases, members)


def by_subclass_with_a_metaclass(**options):
    class Own(PLAIN, metaclass=Registry, key="own"):
        pass

    sock = Own(**options)
    assert type(type(sock)).__name__ == "Registry"
    assert isinstance(sock, Own)
    assert Registry.names.pop() == "own"
    assert not Registry.names
    sock.connect(("secret.test", 7))
    return sock


def by_subclass_whose_subclasses_need_a_keyword():
    class Own(PLAIN):
        def __init_subclass__(cls, *, key):
            super().__init_subclass__()

    sock = Own()
    sock.setblocking(False)
    assert sock.connect_ex(("secret.test", 7)) == errno.EINPROGRESS
    sock.setblocking(True)
    return sock


def by_nonblocking():
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex((socket.gethostbyname("secret.test"), 7)) == errno.EINPROGRESS
    assert select.select([], [sock], [], 10)[1]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    sock.setblocking(True)
    return sock


def by_duplicate():
    with socket.socket() as sock:
        copy = sock.dup()
    copy.connect(("secret.test", 7))
    return copy


def by_adopting():
    """A descriptor that is connected only afterwards."""
    sock = socket.socket(fileno=socket.socket().detach())
    sock.connect(("secret.test", 7))
    return sock


def by_fastopen():
    sock = socket.socket()
    sock.sendto(b"", socket.MSG_FASTOPEN, (socket.gethostbyname("secret.test"), 7))
    return sock


@pytest.mark.need(1)
@pytest.mark.trap(26)
@pytest.mark.parametrize(
    "connect",
    [
        by_class,
        by_number,
        by_lookup,
        by_ipv6_lookup,
        by_gethostbyname,
        by_create_connection,
        by_early_class,
        by_early_functions,
        by_subclass_of_the_original,
        by_subclass_that_adopts,
        by_abstract_subclass,
        by_subclass_with_a_metaclass,
        by_subclass_whose_subclasses_need_a_keyword,
        by_nonblocking,
        by_duplicate,
        by_adopting,
        by_fastopen,
    ],
)
def test_every_way_to_connect_goes_through_the_proxy_by_name(patched, proxy, connect):
    with connect() as sock:
        assert read_exactly(sock, len(BANNER)) == BANNER
        sock.sendall(b"ping")
        assert sock.recv(4) == b"ping"

    assert hosts(proxy) == ["secret.test"]


def test_an_address_goes_through_the_proxy(patched, proxy):
    with socket.create_connection(("192.0.2.9", 7)) as sock:
        assert read_exactly(sock, len(BANNER)) == BANNER
        assert sock.getpeername() == ("192.0.2.9", 7)


def test_programs_of_the_standard_library(patched, proxy):
    with urllib.request.urlopen("http://secret.test/", timeout=10) as answer:
        assert answer.read() == b"ok"
    connection = http.client.HTTPConnection("secret.test", timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    connection.close()

    assert hosts(proxy) == ["secret.test", "secret.test"]


@pytest.mark.trap(27)
def test_asyncio(patched, proxy):
    async def talk():
        reader, writer = await asyncio.open_connection("secret.test", 7)
        assert await reader.readexactly(len(BANNER)) == BANNER
        writer.close()
        await writer.wait_closed()

    asyncio.run(talk())
    assert hosts(proxy) == ["secret.test"]


def test_getpeername_tells_an_address_and_getnameinfo_its_name(patched):
    with by_class() as sock:
        peer = sock.getpeername()

    assert peer == (placeholder("secret.test"), 7)
    assert socket.getnameinfo(peer, 0) == ("secret.test", service(7))


@pytest.fixture(scope="module")
def contexts():
    """TLS contexts of a server for secret.test and of its client."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("secret.test").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def over_connected(client):
    return client.wrap_socket(
        socket.create_connection(("secret.test", 7)), server_hostname="secret.test"
    )


def before_connecting(client):
    sock = client.wrap_socket(socket.socket(), server_hostname="secret.test")
    sock.connect((socket.gethostbyname("secret.test"), 7))
    return sock


@pytest.mark.parametrize("connect", [over_connected, before_connecting])
def test_tls(contexts, socks_server_factory, no_local_lookup, connect):
    server, client = contexts

    def answer(connection):
        with server.wrap_socket(connection, server_side=True) as secure:
            secure.sendall(b"hi")

    with serving(answer) as address:
        proxy = socks_server_factory(names={"secret.test": address})
        with socksy.wrap_module(proxy=proxy.url()), connect(client) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.recv(2) == b"hi"
    assert hosts(proxy) == ["secret.test"]


class Stubborn(type):
    """A metaclass of classes that have one base."""

    def mro(cls):
        if len(cls.__bases__) != 1:
            raise TypeError("one base is enough")
        return super().mro()


def test_a_class_that_cannot_be_joined_with_ours_makes_no_sockets(patched):
    """They would go around the proxy."""

    class Own(PLAIN, metaclass=Stubborn):
        pass

    with pytest.raises(socksy.ProxyUnsupportedError, match=r"Own cannot go through"):
        Own()


# -- who does not


@pytest.mark.need(7)
def test_loopback_is_reached_directly(patched, proxy):
    with serving(echo) as (_, port):
        for host in ("127.0.0.1", "localhost", "app.localhost"):
            with socket.create_connection((host, port)) as sock:
                assert read_exactly(sock, len(BANNER)) == BANNER
                assert sock.getpeername() == ("127.0.0.1", port)

    assert hosts(proxy) == []


def test_bypass_nothing(socks_server_factory, no_local_lookup):
    proxy = socks_server_factory(names={"localhost": "127.0.0.1"})
    with serving(echo) as address, socksy.wrap_module(proxy=proxy.url(), bypass=()):
        socket.create_connection(address).close()
        socket.create_connection(("localhost", address[1])).close()

    assert hosts(proxy) == ["127.0.0.1", "localhost"]


def test_a_name_with_a_rule_is_looked_up_here_and_its_address_goes_direct(proxy, monkeypatch):
    """A program connects to the address, of which the rules say nothing."""
    import _socket

    from socksy import names

    with serving(echo) as address:
        real = _socket.getaddrinfo
        asked = []

        def resolver(host, *arguments):
            asked.append(host)
            return real("127.0.0.1" if host == b"intra.test" else host, *arguments)

        monkeypatch.setattr(names._socket, "getaddrinfo", resolver)
        with socksy.wrap_module(proxy=proxy.url(), bypass=["intra.test"]):
            socket.create_connection(("intra.test", address[1])).close()
            assert asked == [b"intra.test"]
            assert hosts(proxy) == []
            # a rule about one name is none about others
            socket.create_connection(("secret.test", 7)).close()
            assert hosts(proxy) == ["secret.test"]


def test_a_rule_with_a_port_holds_for_a_placeholder_too(proxy):
    """gethostbyname does not know the port: the name is looked up when it connects, if it must."""
    with serving(echo) as (_, port):
        with socksy.wrap_module(proxy=proxy.url(), bypass=[f"localhost:{port}"]):
            address = socket.gethostbyname("localhost")
            assert address.startswith("240.")
            with socket.socket() as sock:
                sock.connect((address, port))
                assert sock.getpeername() == ("127.0.0.1", port)
    assert hosts(proxy) == []


def test_an_onion_name_never_goes_direct(proxy, no_local_lookup):
    with socksy.wrap_module(proxy=proxy.url(), bypass=["*"]):
        for host in ("abc.onion", socket.gethostbyname("abc.onion"), b"ABC.onion."):
            with socket.socket() as sock, pytest.raises(socksy.ProxyUnsupportedError):
                sock.connect((host, 80))
            with socket.socket() as sock:
                assert sock.connect_ex((host, 80)) == errno.EOPNOTSUPP


def test_names_of_a_local_dns_proxy_are_looked_up_here(socks_server_factory, dns_recorder):
    proxy = socks_server_factory()
    with serving(echo) as (_, port):
        with socksy.wrap_module(proxy=proxy.url("socks5"), bypass=()):
            assert socket.gethostbyname("localhost") == "127.0.0.1"
            with socket.create_connection(("localhost", port)):
                pass
            with pytest.raises(socksy.ProxyUnsupportedError), socket.socket() as sock:
                sock.connect((socket.gethostbyname("abc.onion"), 80))
    assert hosts(proxy) == ["127.0.0.1"]


def test_other_families_pairs_and_accepted_sockets_are_plain(patched, proxy, tmp_path):
    with serving(echo, path=str(tmp_path / "s")), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        assert read_exactly(sock, len(BANNER)) == BANNER
    one, other = socket.socketpair()
    with one, other, socket.create_server(("127.0.0.1", 0)) as server:
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        with socket.create_connection(server.getsockname()) as client:
            accepted, peer = server.accept()
            with accepted:
                assert accepted.getpeername() == peer == client.getsockname()
    assert hosts(proxy) == []


@pytest.mark.trap(28)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_pair_over_loopback_as_on_windows(proxy, family):
    """Without a bypass, too: a pair never leaves the process."""
    make = getattr(socket, "_fallback_socketpair", None)
    if make is None:
        pytest.skip("this Python has it only on Windows")
    with socksy.wrap_module(proxy=proxy.url(), bypass=()):
        one, other = socket._fallback_socketpair(family)
        with one, other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
    assert hosts(proxy) == []


def test_socksy_itself_is_not_caught(proxy, dns_recorder):
    """Its proxy has a name that is looked up, and None is a direct connection."""
    with serving(echo) as address, socksy.wrap_module(proxy=proxy.url(), bypass=()):
        port = proxy.address[1]
        with socksy.create_connection(
            ("secret.test", 7), proxy=f"socks5h://localhost:{port}"
        ) as sock:
            assert read_exactly(sock, len(BANNER)) == BANNER
        with socksy.create_connection(("localhost", address[1]), proxy=None) as sock:
            assert sock.getpeername() == address
    assert hosts(proxy) == ["secret.test"]


def test_a_proxy_in_the_patched_process(no_local_lookup):
    """Its own connections are no business of the patch, else they would come back to it."""
    from socksy.testing import SocksServer

    with serving(echo) as address, SocksServer(names={"secret.test": address}) as proxy:
        with socksy.wrap_module(proxy=proxy.url(), bypass=()):
            with socket.create_connection(("secret.test", 7)) as sock:
                assert read_exactly(sock, len(BANNER)) == BANNER
        assert hosts(proxy) == ["secret.test"]


def test_a_placeholder_of_nobody_is_refused(patched, proxy):
    for host, family in (("240.200.0.1", socket.AF_INET), ("100::1:2:3", socket.AF_INET6)):
        with socket.socket(family) as sock:
            with pytest.raises(socksy.ProxyUnsupportedError):
                sock.connect((host, 80))
            assert sock.connect_ex((host, 80)) == errno.EADDRNOTAVAIL
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            with pytest.raises(socksy.ProxyUnsupportedError):
                sock.sendto(b"x", (host, 80))
            with pytest.raises(socksy.ProxyUnsupportedError):
                sock.sendmsg([b"x"], [], 0, (host, 80))
    assert hosts(proxy) == []


@pytest.mark.trap(26)
@pytest.mark.parametrize("guard", [True, False])
def test_an_address_with_data_on_a_stream_is_ignored(proxy, no_local_lookup, guard):
    """As by TCP: neither a name nor its placeholder is looked up."""
    with socksy.wrap_module(proxy=proxy.url(), guard=guard):
        with by_class() as sock, socket.socket() as unconnected:
            assert read_exactly(sock, len(BANNER)) == BANNER
            for address in (sock.getpeername(), ("other.test", 7), ("abc.onion", 7)):
                assert sock.sendto(b"pi", address) == 2
                assert sock.sendmsg([b"ng"], [], 0, address) == 2
                assert read_exactly(sock, 4) == b"ping"
                with pytest.raises(BrokenPipeError):
                    unconnected.sendto(b"x", address)
                with pytest.raises(BrokenPipeError):
                    unconnected.sendmsg([b"x"], [], 0, address)
    assert hosts(proxy) == ["secret.test"]


def test_a_raw_socket_is_plain_but_asks_nobody_for_a_name(patched, proxy):
    """It cannot go through the proxy."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        pytest.skip("raw sockets are for root")
    with raw:
        for host in ("secret.test", b"secret.test", socket.gethostbyname("secret.test"), "a.onion"):
            for call in (
                lambda address: raw.connect(address),
                lambda address: raw.sendto(b"x", address),
                lambda address: raw.sendmsg([b"x"], [], 0, address),
            ):
                with pytest.raises(socksy.ProxyUnsupportedError):
                    call((host, 0))
            assert raw.connect_ex((host, 0)) == errno.EOPNOTSUPP
        for host in ("localhost", "127.0.0.1"):
            raw.connect((host, 1))
            assert raw.getpeername() == ("127.0.0.1", 1)
        for nothing in ("x", (), ("127.0.0.1",), ("127.0.0.1", "x")):
            with pytest.raises(TypeError):
                raw.connect(nothing)
    assert hosts(proxy) == []


def test_binding_to_a_name_looks_nothing_up(patched):
    with socket.socket() as sock:
        with pytest.raises(OSError, match=r"assign requested address"):
            sock.bind(("secret.test", 0))
        sock.bind(("localhost", 0))
        assert sock.getsockname()[0] == "127.0.0.1"
    with socket.socket() as sock:
        sock.bind(("", 0))
        assert sock.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "a.localhost"])
def test_binding_to_localhost_works_where_it_is_not_bypassed(proxy, name):
    """A server is here, wherever connects to it go."""
    with socksy.wrap_module(proxy=proxy.url(), bypass=()):
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as sock:
                sock.bind((name, 0))
                assert sock.getsockname()[0] == address


# -- what a socket is


def test_every_socket_is_a_socket(proxy):
    before = PLAIN()
    with socksy.wrap_module(proxy=proxy.url()):
        during = socket.socket()
        one, other = socket.socketpair()

        class Own(socket.socket):
            pass

        own = Own()
        for sock in (before, during, one, other, own):
            assert isinstance(sock, socket.socket)
            assert isinstance(sock, PLAIN)
        # trio asks for the exact class
        assert type(during) is type(one) is socket.socket
        assert isinstance(own, Own)
        assert not isinstance(during, Own)
        assert issubclass(PLAIN, socket.socket)
        assert issubclass(ssl.SSLSocket, socket.socket)
        assert not issubclass(int, socket.socket)
        assert not issubclass(socket.socket, Own)
        assert not isinstance(before, PatchedSocket)
        assert isinstance(during, PatchedSocket)
        assert issubclass(Own, PatchedSocket)
        assert repr(during).startswith("<socket.socket fd=")
    for sock in (during, one, other, own):
        assert isinstance(sock, socket.socket)
    for sock in (before, during, one, other, own):
        sock.close()


SIGNATURES = {
    name: list(inspect.signature(getattr(socket, name)).parameters)
    for name in ("create_connection", "getaddrinfo", "getfqdn", "socketpair")
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_is_patched_keeps_its_signature(patched, name):
    assert list(inspect.signature(getattr(socket, name)).parameters) == SIGNATURES[name]


def _answer(connection):
    sock = connection.recv()
    sock.sendall(b"from there")
    sock.close()


@pytest.mark.parametrize("moment", ["during", "before", "after"])
def test_sockets_go_to_other_processes(proxy, moment):
    """multiprocessing pickles them by their exact class."""
    before = socket.socketpair()
    patch = socksy.wrap_module(proxy=proxy.url())
    during = socket.socketpair()
    if moment == "after":
        patch.undo()
    pair = {"before": before, "during": during, "after": during}[moment]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    try:
        process = context.Process(target=_answer, args=(there,))
        process.start()
        here.send(pair[0])
        assert read_exactly(pair[1], 10) == b"from there"
        process.join(10)
        assert process.exitcode == 0
    finally:
        patch.undo()
        for sock in (*before, *during):
            sock.close()
        here.close()
        there.close()
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(during[0])
    assert PLAIN in ForkingPickler._extra_reducers


def _describe(connection):
    sock = connection.recv()
    connection.send(sock.type)
    sock.close()


def test_datagram_sockets_go_to_other_processes(proxy):
    """Unless the proxy is in use: its association stays here."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with here, there, socksy.wrap_module(proxy=proxy.url()):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            process = context.Process(target=_describe, args=(there,))
            process.start()
            here.send(sock)
            assert here.recv() == socket.SOCK_DGRAM
            process.join(10)
            sock.connect(("192.0.2.9", 7))
            with pytest.raises(socksy.ProxyUnsupportedError, match="another process"):
                here.send(sock)
        with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(TypeError):
            pickle.dumps(sock)


def test_the_programs_own_sockets_are_not_for_other_processes(proxy):
    """As they were not before: multiprocessing would make plain ones of them."""

    class Own(PLAIN):
        pass

    with socksy.wrap_module(proxy=proxy.url()):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with Own(type=kind) as sock, pytest.raises(TypeError, match="cannot pickle"):
                ForkingPickler.dumps(sock)


def test_a_handler_of_logging(patched, proxy, socks_server_factory):
    heard = threading.Event()
    got = []

    def collect(connection):
        length = int.from_bytes(read_exactly(connection, 4), "big")
        got.append(pickle.loads(read_exactly(connection, length))["msg"])
        heard.set()

    with serving(collect) as address:
        other = socks_server_factory(names={"log.test": address})
        with socksy.using(other.url()), socksy.wrap_module():
            handler = logging.handlers.SocketHandler("log.test", 9020)
            handler.handle(logging.makeLogRecord({"msg": "hello", "name": "x"}))
            assert heard.wait(10)
            handler.close()
    assert got == ["hello"]


# -- which proxy


def test_threads_and_tasks_have_proxies_of_their_own(socks_server_factory, no_local_lookup):
    with serving(echo) as address:
        servers = [socks_server_factory(names={"secret.test": address}) for _ in range(3)]

        def in_thread(server):
            with socksy.using(server.url()):
                socket.create_connection(("secret.test", 7)).close()

        async def in_task(server):
            with socksy.using(server.url()):
                _, writer = await asyncio.open_connection("secret.test", 7)
                writer.close()
                await writer.wait_closed()

        async def in_tasks():
            await asyncio.gather(*map(in_task, servers))

        with socksy.using(servers[0].url()):
            patch = socksy.wrap_module()
        with patch:
            threads = [threading.Thread(target=in_thread, args=(server,)) for server in servers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            asyncio.run(in_tasks())
    assert [hosts(server) for server in servers] == [["secret.test"] * 2] * 3


def test_where_there_is_no_default_proxy_nothing_is_reached(socks_server, no_local_lookup):
    with socksy.using(socks_server.url()):
        patch = socksy.wrap_module()
    with patch, socket.socket() as sock:
        with pytest.raises(socksy.ProxyUnsupportedError, match="no proxy to use"):
            sock.connect(("192.0.2.1", 80))
        assert socket.gethostbyname("secret.test").startswith("240.")
        assert sock.connect_ex(("secret.test", 80)) == errno.EOPNOTSUPP


def test_using_none_is_direct(socks_server):
    with serving(echo) as address, socksy.using(socks_server.url()):
        with socksy.wrap_module(bypass=()), socksy.using(None):
            with socket.create_connection(("localhost", address[1])) as sock:
                assert sock.getpeername() == address
    assert hosts(socks_server) == []


@pytest.mark.parametrize("proxy", [None, "", "nonsense", "ftp://127.0.0.1", []])
def test_wrapping_without_a_proxy_to_use_is_an_error(proxy):
    with pytest.raises(socksy.InvalidProxyError):
        socksy.wrap_module(proxy=proxy)

    assert not socksy.is_wrapped()
    assert socket.socket is PLAIN


def test_a_callable_proxy(proxy):
    """None is direct here too."""
    with serving(echo) as address:
        chooser = {"localhost": None, "127.0.0.1": proxy.url(), "secret.test": proxy.url()}
        with socksy.wrap_module(proxy=lambda host, port: chooser[host], bypass=()):
            socket.create_connection(("localhost", address[1])).close()
            assert hosts(proxy) == []
            socket.create_connection(("secret.test", 7)).close()
    assert hosts(proxy) == ["secret.test"]


UNNAMED = {
    "SocksSocket": lambda address: connected(socksy.SocksSocket(), address),
    "create_connection": socksy.create_connection,
    "asyncio": lambda address: asyncio.run(aio.connect(*address)),
}


def connected(sock, address):
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize("way", UNNAMED)
@pytest.mark.parametrize("guard", [True, False])
def test_our_own_sockets_that_name_no_proxy_go_the_way_of_the_patch(
    proxy, no_local_lookup, way, guard
):
    """By its rules; where a proxy is named, or a default one is there, that one counts."""
    with serving(echo) as address:
        with socksy.wrap_module(proxy=proxy.url(), guard=guard):
            UNNAMED[way](("secret.test", 7)).close()
            assert hosts(proxy) == ["secret.test"]
            UNNAMED[way](address).close()
            with socksy.using("socks5h://127.0.0.1:1"), pytest.raises(socksy.ProxyConnectionError):
                UNNAMED[way](("secret.test", 7))
            assert hosts(proxy) == ["secret.test"]
        UNNAMED[way](address).close()
    assert hosts(proxy) == ["secret.test"]
    assert socksy.get_default_proxy() is None


@pytest.mark.parametrize("way", UNNAMED)
def test_our_own_sockets_have_no_proxy_where_the_patch_has_none(socks_server, way):
    with socksy.using(socks_server.url()):
        patch = socksy.wrap_module()
        with pytest.raises(socksy.InvalidProxyError):  # that is no proxy to build upon
            with socksy.using(None):
                socksy.wrap_module()
    with patch:
        with pytest.raises(socksy.InvalidProxyError):
            socksy.wrap_module()
        with pytest.raises(socksy.ProxyUnsupportedError, match="no proxy to use"):
            UNNAMED[way](("192.0.2.1", 80))


def test_a_socket_that_was_made_before_takes_the_way_of_the_patch_too(proxy):
    with socksy.SocksSocket() as sock, socksy.SocksSocket(proxy=None) as direct:
        with socksy.wrap_module(proxy=proxy.url(), guard=True):
            sock.connect(("secret.test", 7))
            with pytest.raises(socksy.DirectTrafficError):
                direct.connect(("192.0.2.1", 7))
    assert hosts(proxy) == ["secret.test"]


def test_datagrams_of_ours_that_name_no_proxy_go_the_way_of_the_patch(udp_echo, proxy):
    with socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True):
        with socksy.SocksSocket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"hello", udp_echo)
            assert sock.recvfrom(100) == (b"hello", udp_echo)
    assert [request.command.name for request in proxy.requests] == ["UDP_ASSOCIATE"]


# -- undoing


def test_undoing_puts_back_what_was_there(proxy):
    before = dict(vars(socket))
    early_before = dict(vars(early))
    patch = socksy.wrap_module(proxy=proxy.url())
    assert socksy.is_wrapped()
    assert patch.active
    assert vars(early) != early_before
    patch.undo()
    patch.undo()

    assert not socksy.is_wrapped()
    assert not patch.active
    assert vars(socket) == before
    assert vars(early) == early_before
    assert "__new__" not in PLAIN.__dict__


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_nested_patches_are_undone_in_any_order(socks_server_factory, order):
    """The latest that is left is in force."""
    before = dict(vars(socket))
    with serving(echo) as address:
        servers = [socks_server_factory(names={"secret.test": address}) for _ in range(3)]
        patches = [socksy.wrap_module(proxy=server.url()) for server in servers]
        left = {0, 1, 2}
        for number in order:
            expected = max(left)
            asked = len(servers[expected].requests)
            for make in (socket.create_connection, early.create_connection):
                make(("secret.test", 7)).close()
            assert len(servers[expected].requests) == asked + 2
            patches[number].undo()
            left.remove(number)
    assert vars(socket) == before


def test_undoing_leaves_what_somebody_else_put_on_top(proxy):
    mine = type("Mine", (), {})
    patch = socksy.wrap_module(proxy=proxy.url())
    ours, socket.socket = socket.socket, mine
    try:
        patch.undo()
        assert socket.socket is mine
    finally:
        socket.socket = PLAIN
    # and what they may have kept of ours is plain now
    with serving(echo) as address, ours() as sock:
        sock.connect(address)
        assert sock.proxy is None


def test_what_was_kept_of_an_undone_patch_obeys_the_one_in_force(socks_server_factory):
    with serving(echo) as address:
        servers = [socks_server_factory(names={"secret.test": address}) for _ in range(2)]
        with socksy.wrap_module(proxy=servers[0].url()):
            kept, lookup = socket.socket, socket.gethostbyname
        assert lookup("localhost") == "127.0.0.1"
        with socksy.wrap_module(proxy=servers[1].url()), kept() as sock:
            sock.connect((lookup("secret.test"), 7))
    assert [hosts(server) for server in servers] == [[], ["secret.test"]]


def test_unwrap_module_undoes_all_of_the_process(proxy):
    patches = [socksy.wrap_module(proxy=proxy.url()), socksy.wrap_module(socket, proxy=proxy.url())]
    assert repr(patches[0]) == "<Patch of the process>"
    socksy.unwrap_module()

    assert not any(patch.active for patch in patches)
    assert not socksy.is_wrapped()
    socksy.unwrap_module()


def test_patching_from_many_threads_leaves_nothing_behind(proxy):
    before = dict(vars(socket))

    def again_and_again():
        for _ in range(5):
            with socksy.wrap_module(proxy=proxy.url()):
                socket.socket().close()

    threads = [threading.Thread(target=again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vars(socket) == before
    assert "__new__" not in PLAIN.__dict__


def test_watching_lookups_works_in_a_patched_process(patched):
    with watch_lookups() as lookups:
        by_class().close()
        by_create_connection().close()
    assert lookups.names == []


class Odd(types.ModuleType):
    """The class that a module has given itself: it must not be asked for anything."""

    def __getattribute__(self, name):
        raise AssertionError(f"{name} was asked for")


def test_early_imports_of_modules_of_other_kinds_are_served_too(patched, monkeypatch):
    """The class may load the module when it is asked for anything, as importlib's lazy one does."""
    odd = types.ModuleType("odd_module")
    names = vars(odd)
    names["gethostbyname"] = before = socket.gethostbyname
    patched.undo()
    names["gethostbyname"] = plain = socket.gethostbyname
    assert plain is not before
    odd.__class__ = Odd
    monkeypatch.setitem(sys.modules, "odd_module", odd)
    monkeypatch.setitem(sys.modules, "no_module", Odd)
    with socksy.wrap_module(proxy="socks5h://127.0.0.1:1"):
        assert names["gethostbyname"]("secret.test") == placeholder("secret.test")
    assert names["gethostbyname"] is plain


def test_a_lazy_module_stays_lazy(proxy, tmp_path, monkeypatch):
    (tmp_path / "lazy_user.py").write_text("from socket import gethostbyname")
    spec = importlib.util.spec_from_file_location("lazy_user", tmp_path / "lazy_user.py")
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_user", lazy)
    loader.exec_module(lazy)
    kind = type(lazy)
    with socksy.wrap_module(proxy=proxy.url()):
        assert type(lazy) is kind
        assert lazy.gethostbyname("secret.test") == placeholder("secret.test")


# -- datagrams


REPEAT = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    while True:
        sock.sendto(*sock.recvfrom(2048))
"""


@pytest.fixture
def udp_echo():
    """A UDP server on 127.0.0.1, which no guard of this process hears; its address."""
    command = [sys.executable, "-IS", "-c", REPEAT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield "127.0.0.1", int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("way", ["sendto", "sendmsg", "connect", "connect_ex"])
@pytest.mark.parametrize("guard", [True, False])
def test_datagrams_go_through_the_proxy(
    udp_echo, socks_server_factory, no_local_lookup, way, guard
):
    """Its own control connection and relay are no business of the patch."""
    proxy = socks_server_factory(names={"secret.test": udp_echo[0]})
    with (
        socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=guard),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        assert isinstance(sock, socket.socket)
        sock.settimeout(10)
        address = (socket.gethostbyname("secret.test"), udp_echo[1])
        if way == "sendto":
            sock.sendto(b"hello", address)
        elif way == "sendmsg":
            sock.sendmsg([b"hel", b"lo"], [], 0, address)
        else:
            assert not getattr(sock, way)(address)
            assert sock.getpeername() == address
            sock.send(b"hello")
        assert sock.recvfrom(100) == (b"hello", address)
    assert [request.command.name for request in proxy.requests] == ["UDP_ASSOCIATE"]


@pytest.fixture
def datagrams(udp_echo, socks_server_factory, no_local_lookup):
    """A datagram socket of IPv6 in a patched process whose proxy knows two names, and the port."""
    names = {"one.test": "127.0.0.1", "two.test": "127.0.0.1"}
    with socksy.wrap_module(proxy=socks_server_factory(names=names).url(), bypass=()):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            yield sock, udp_echo[1]


def answer_to(sock, address):
    """Where the answer to a datagram seems to come from."""
    sock.sendto(b"x", address)
    return sock.recvfrom(10)[1]


MAPPED = "::ffff:"
REAL = "::ffff:127.0.0.1"


def test_an_answer_comes_from_the_placeholder_that_was_asked(datagrams):
    """In the form in which it was given: programs take answers from nobody else."""
    sock, port = datagrams
    for host in (MAPPED + placeholder("one.test"), placeholder("one.test", socket.AF_INET6)):
        for _ in range(2):
            assert answer_to(sock, (host, port, 0, 0)) == (host, port, 0, 0)


def test_an_answer_that_may_be_of_either_name_comes_from_its_address(datagrams):
    sock, port = datagrams
    one, two = ((MAPPED + placeholder(name), port, 0, 0) for name in ("one.test", "two.test"))

    assert answer_to(sock, one) == one
    assert answer_to(sock, two)[0] == REAL
    assert answer_to(sock, one)[0] == REAL


def test_an_address_that_was_asked_itself_answers_as_itself(datagrams):
    sock, port = datagrams
    one = MAPPED + placeholder("one.test"), port, 0, 0

    assert answer_to(sock, one) == one
    assert answer_to(sock, (REAL, port, 0, 0))[0] == REAL
    assert answer_to(sock, one)[0] == REAL


def sent_before_the_association(sock, *addresses):
    """Where the answers to these datagrams seem to come from, in order of the text."""
    sock.setblocking(False)
    for address in addresses:
        sock.sendto(b"x", address)
    sock.setblocking(True)
    sock.settimeout(10)
    return {sock.recvfrom(10)[1][0] for _ in addresses}


@pytest.mark.parametrize("placeholder_first", [True, False])
def test_an_address_that_was_asked_too_while_there_was_no_association(datagrams, placeholder_first):
    sock, port = datagrams
    addresses = [(MAPPED + placeholder("one.test"), port, 0, 0), (REAL, port, 0, 0)]
    if not placeholder_first:
        addresses.reverse()

    assert sent_before_the_association(sock, *addresses) == {REAL}


def test_a_name_that_was_asked_itself_may_be_the_one_that_answers(datagrams):
    sock, port = datagrams
    one = MAPPED + placeholder("one.test"), port, 0, 0

    assert answer_to(sock, one) == one
    assert answer_to(sock, ("two.test", port, 0, 0))[0] == REAL
    assert answer_to(sock, one)[0] == REAL


def test_a_copy_of_a_socket_knows_whom_the_other_has_asked(datagrams):
    sock, port = datagrams
    one = MAPPED + placeholder("one.test"), port, 0, 0
    with sock.dup() as copy:
        assert answer_to(sock, (REAL, port, 0, 0))[0] == REAL
        assert answer_to(copy, one)[0] == REAL


def test_hosts_of_every_type_that_is_taken(datagrams):
    """And what is none is refused as ever."""
    sock, port = datagrams
    host = ipaddress.ip_address(REAL)

    assert answer_to(sock, (host, port, 0, 0))[0] == REAL
    for nothing in ((), ("::1",), ("::1", []), ([], 9), "::1"):
        with pytest.raises(TypeError):
            sock.sendto(b"x", nothing)
    with pytest.raises(TypeError):
        sock.sendto(b"x")


@pytest.mark.parametrize("others", ["addresses", "names"])
def test_who_has_asked_very_many_is_told_addresses(datagrams, monkeypatch, others):
    """Whether the address has been asked itself cannot be known any more."""
    from socksy.patch import sockets

    monkeypatch.setattr(sockets, "_MOST_ASKED", 3)
    sock, port = datagrams
    one = MAPPED + placeholder("one.test"), port, 0, 0
    assert answer_to(sock, one) == one
    for number in range(1, 5):
        host = placeholder(f"n{number}.test", socket.AF_INET6)
        sock.sendto(b"x", (f"2001:db8::{number}" if others == "addresses" else host, 9, 0, 0))

    assert answer_to(sock, one)[0] == REAL


def test_this_host_and_broadcast_by_their_empty_names(socks_server_factory):
    """Which are in no name system: a plain socket knows what they are."""
    proxy = socks_server_factory()
    with serving(echo) as (_, port), serving(echo, socket.AF_INET6) as (_, port6, *_):
        with socksy.wrap_module(proxy=proxy.url(), bypass=()):
            for host in ("", b""):
                socket.create_connection(("127.0.0.1", port)).close()
                for family, at in ((socket.AF_INET, port), (socket.AF_INET6, port6)):
                    with socket.socket(family) as sock:
                        sock.connect((host, at))
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.connect(("<broadcast>", 9))
                assert sock.getpeername() == ("255.255.255.255", 9)
            with socket.socket(socket.AF_INET6) as sock, pytest.raises(ValueError, match="'<'"):
                sock.connect(("<broadcast>", 9))
        with socksy.wrap_module(proxy="socks5h://127.0.0.1:1"), socket.socket() as sock:
            sock.connect(("", port))
            assert sock.getpeername() == ("127.0.0.1", port)
    asked = hosts(proxy)
    assert asked[:-1] == ["127.0.0.1", "127.0.0.1", "::1"] * 2


def test_no_text_is_compared_with_bytes():
    """Under ``python -bb`` that is an error."""
    code = """
import socket, socksy
with socksy.wrap_module(proxy="socks5h://127.0.0.1:1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in (b"localhost", b"LOCALHOST.", b"127.0.0.1", b"", b"a.test", "a.test"):
            with socket.socket(type=kind) as sock:
                if not host.startswith(b"a" if isinstance(host, bytes) else "a"):
                    sock.bind((host, 0))
                sock.connect_ex((host, 9))
"""
    subprocess.run([sys.executable, "-bb", "-c", code], check=True)


def test_the_end_of_an_association_is_told_in_a_patched_process(udp_echo, socks_server_factory):
    """What wakes up the socket stays on this machine."""
    proxy = socks_server_factory()
    with socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"hello", udp_echo)
            assert sock.recv(100) == b"hello"
            proxy.stop()
            with pytest.raises(socksy.ProxyConnectionError):
                sock.recv(100)
    assert len(proxy.requests) == 1


def test_datagrams_to_loopback_go_directly(patched, proxy, udp_echo):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(b"hello", udp_echo)
        assert sock.recvfrom(100) == (b"hello", udp_echo)
    assert proxy.requests == []
