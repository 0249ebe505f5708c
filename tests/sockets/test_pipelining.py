"""One round trip instead of two or three, and what becomes of servers that cannot do that."""

import select
import socket
import time

import pytest

import socksy
from socksy import InvalidArgumentError, InvalidProxyError, Proxy
from socksy.sockets import pipelining

from ..support import BANNER, read_exactly, script, serving, unused_port

REQUEST = b"\5\1\0\3\6a.test\0\x50"
SUCCESS = b"\5\0\0\1\0\0\0\0\0\0"
AT_ONCE = b"\5\1\0" + REQUEST
LOGIN_AT_ONCE = b"\5\1\2" + b"\1\5alice\6sesame" + REQUEST


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch, the_thread_ends):
    pipelining.forget()
    monkeypatch.setattr(pipelining, "SILENCE", 0.1)
    yield
    pipelining.forget()


def proxy_at(address, login="", **options):
    url = f"socks5h://{login}127.0.0.1:{address[1]}"
    return Proxy.from_url(url, pipelined=True, **options)


def connect(proxy, timeout, local=None, **options):
    """Connect in the one way or the other: timeout 0 means non-blocking."""
    sock = socksy.SocksSocket(proxy=proxy)
    try:
        if local is not None:
            sock.bind(local)
        sock.settimeout(timeout)
        try:
            sock.connect(("a.test", 80), **options)
        except BlockingIOError:
            select.select([], [sock], [], 10)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise sock.last_error from None
            sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return sock


EVERY_WAY = pytest.mark.parametrize("timeout", [None, 5, 0])


@EVERY_WAY
def test_greeting_and_request_are_one_segment(timeout):
    """The server answers nothing before it has heard both; what follows is the application's."""
    with serving(script((AT_ONCE, b"\5\0" + SUCCESS + BANNER))) as address:
        with connect(proxy_at(address), timeout) as sock:
            assert sock.recv(100) == BANNER


@EVERY_WAY
def test_greeting_login_and_request_are_one_segment(timeout):
    with serving(script((LOGIN_AT_ONCE, b"\5\2\1\0" + SUCCESS + BANNER))) as address:
        proxy = proxy_at(address, "alice:sesame@", require_auth=True)
        with connect(proxy, timeout) as sock:
            assert sock.recv(100) == BANNER


class Swallows:
    """Takes one recv for one message, as microsocks does, and counts its connections."""

    def __init__(self):
        self.heard = []

    def __call__(self, connection):
        self.heard.append(connection.recv(1000))
        connection.sendall(b"\5\0")
        request = connection.recv(1000)
        if request:
            self.heard.append(request)
            connection.sendall(SUCCESS + BANNER)
            connection.recv(1)


@EVERY_WAY
@pytest.mark.trap(2)
def test_a_silent_server_is_asked_again_in_the_plain_way_and_remembered(timeout):
    """The second connect does not try any more."""
    server = Swallows()
    with serving(server) as address:
        for _ in range(2):
            with connect(proxy_at(address), timeout) as sock:
                assert sock.recv(100) == BANNER

    assert server.heard == [AT_ONCE, b"\5\1\0", REQUEST, b"\5\1\0", REQUEST]


def test_a_server_that_can_is_remembered_and_then_has_all_the_time():
    """The first answers at once; the second takes longer than a trial would."""
    connections = []

    def handler(connection):
        connections.append(read_exactly(connection, len(AT_ONCE)))
        if len(connections) == 2:
            time.sleep(0.3)  # a slow target
        connection.sendall(b"\5\0" + SUCCESS)
        connection.recv(1)

    with serving(handler) as address:
        for _ in range(2):
            connect(proxy_at(address), 5).close()

    assert connections == [AT_ONCE, AT_ONCE]


@EVERY_WAY
def test_the_second_connection_comes_from_the_same_port(timeout):
    """Where the application has bound the socket: the first one lets go of it at once."""
    sources = []
    swallows = Swallows()

    def handler(connection):
        sources.append(connection.getpeername())
        swallows(connection)

    with serving(handler) as address:
        with connect(proxy_at(address), timeout, local=("127.0.0.1", 0)) as sock:
            assert sock.recv(100) == BANNER
            assert sources == [sock.getsockname()] * 2


def test_the_retry_has_the_same_deadline():
    """A server that is always silent is given up in time, and nothing is learnt from it."""

    def handler(connection):
        while connection.recv(100):
            pass

    with serving(handler) as address:
        began = time.monotonic()
        with pytest.raises(socksy.ProxyTimeoutError) as caught:
            connect(proxy_at(address), 0.4)
        took = time.monotonic() - began

    assert 0.39 <= took < 0.8
    assert caught.value.target == ("a.test", 80)
    assert pipelining._known == {}


def test_a_refusal_is_final():
    """A reply that says no is an answer: no second connection."""
    connections = []

    def handler(connection):
        connections.append(connection.recv(100))
        connection.sendall(b"\5\0\5\5\0\1\0\0\0\0\0\0")
        connection.recv(1)

    with serving(handler) as address, pytest.raises(socksy.TargetRefusedError):
        connect(proxy_at(address), 5)

    assert len(connections) == 1


def test_a_server_that_closes_is_asked_again():
    """ssh -D does so when the target refuses, pipelined or not: then nothing is learnt."""
    connections = []

    def handler(connection):
        connections.append(connection.recv(100))

    with serving(handler) as address, pytest.raises(socksy.ProxyProtocolError):
        connect(proxy_at(address), 5)

    assert len(connections) == 2
    assert pipelining._known == {}


def test_a_dead_proxy_is_no_reason_to_try_again():
    with pytest.raises(socksy.ProxyConnectionError):
        connect(proxy_at((None, unused_port())), 5)


def test_the_hop_that_cannot_is_the_one_that_is_remembered(socks_server):
    """In a chain, the first proxy is not blamed for the second."""
    server = Swallows()
    with serving(server) as address:
        first = Proxy.from_url(socks_server.url("socks5h"), pipelined=True)
        for _ in range(2):
            with connect([first, proxy_at(address)], 5) as sock:
                assert sock.recv(100) == BANNER

    assert server.heard == [AT_ONCE, b"\5\1\0", REQUEST, b"\5\1\0", REQUEST]
    assert pipelining._known[("127.0.0.1", address[1], None, False)] is False
    assert pipelining._known.get((*socks_server.address[:2], None, False)) is not False


def test_a_hop_that_is_not_pipelined_gets_no_second_chance():
    """Its silence has nothing to do with pipelining."""
    connections = []

    def handler(connection):
        connections.append(connection.recv(100))
        connection.recv(1)

    with serving(handler) as address, pytest.raises(socksy.ProxyTimeoutError) as caught:
        first = f"socks5h://127.0.0.1:{address[1]}"
        connect([first, proxy_at((None, unused_port()))], 5)

    assert caught.value.hop == 1
    assert len(connections) == 1


def test_what_is_remembered_is_bounded_and_holds_no_credentials():
    login = {"username": "alice", "password": "sesame", "require_auth": True}
    many = [Proxy("socks5h", "a", port, pipelined=True, **login) for port in range(1, 400)]
    pipelining._remember(many, True)

    assert len(pipelining._known) == 256
    assert "sesame" not in repr(pipelining._known)


@pytest.mark.parametrize(
    "arguments",
    [
        ("socks4a://a", {}),
        ("http://a", {}),
        ("socks5h://alice:sesame@a", {}),
        ("socks5h://<torS0X>0:token@a", {"require_auth": True}),
        ("socks5h://alice:sesame@a:9050", {"require_auth": True}),
        ("socks5h://alice:sesame@a:9150", {"require_auth": True}),
        ("socks5h://alice:sesame@localhost/run/tor/socks", {"require_auth": True}),
    ],
)
def test_what_cannot_be_pipelined_is_refused_by_the_constructor(arguments):
    url, options = arguments
    with pytest.raises(InvalidProxyError) as caught:
        Proxy.from_url(url, pipelined=True, **options)

    assert "sesame" not in str(caught.value)


# -- early data

EARLY = b"GET / HTTP/1.0\r\n\r\n"


@EVERY_WAY
@pytest.mark.parametrize(
    ("scheme", "exchanges"),
    [
        ("socks5h", [(b"\5\1\0", b"\5\0"), (REQUEST + EARLY, SUCCESS + BANNER)]),
        ("socks4a", [(b"\4\1\0\x50\0\0\0\1\0a.test\0" + EARLY, b"\0\x5a" + bytes(6) + BANNER)]),
        (
            "http",
            [
                (
                    b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n" + EARLY,
                    b"HTTP/1.1 200 OK\r\n\r\n" + BANNER,
                )
            ],
        ),
    ],
)
def test_early_data_leave_with_the_request(scheme, exchanges, timeout):
    """The server wants them before it answers."""
    with serving(script(*exchanges)) as address:
        with connect(f"{scheme}://127.0.0.1:{address[1]}", timeout, early_data=EARLY) as sock:
            assert sock.recv(100) == BANNER


def test_early_data_go_to_the_target_not_to_the_next_hop(socks_server):
    with serving(script((b"\5\1\0", b"\5\0"), (REQUEST + EARLY, SUCCESS + BANNER))) as address:
        chain = [socks_server.url("socks5h"), f"socks5h://127.0.0.1:{address[1]}"]
        with connect(chain, 5, early_data=EARLY) as sock:
            assert sock.recv(100) == BANNER


@EVERY_WAY
def test_early_data_reach_the_target_once_when_pipelining_is_first_tried(timeout):
    """They follow the answer then; only with a server that is known they go along."""
    exchanges = [(AT_ONCE, b"\5\0" + SUCCESS), (EARLY, BANNER)]
    with serving(script(*exchanges)) as address:
        with connect(proxy_at(address), timeout, early_data=EARLY) as sock:
            assert sock.recv(100) == BANNER

        pipelining._known[("127.0.0.1", address[1], None, False)] = True
    with serving(script((AT_ONCE + EARLY, b"\5\0" + SUCCESS + BANNER))) as address:
        pipelining._known[("127.0.0.1", address[1], None, False)] = True
        with connect(proxy_at(address), timeout, early_data=EARLY) as sock:
            assert sock.recv(100) == BANNER


def test_create_connection_takes_early_data(echo_server, socks_server):
    for proxy in (None, socks_server.url("socks5h")):
        with socksy.create_connection(echo_server, 5, proxy=proxy, early_data=b"hi") as sock:
            assert read_exactly(sock, len(BANNER) + 2) == BANNER + b"hi"


def test_early_data_without_a_proxy(echo_server):
    with socksy.SocksSocket(proxy=None) as sock:
        sock.connect(echo_server, early_data=bytearray(b"hi"))

        assert read_exactly(sock, len(BANNER) + 2) == BANNER + b"hi"
    with socksy.SocksSocket(proxy=None) as sock:
        sock.setblocking(False)
        with pytest.raises(InvalidArgumentError):
            sock.connect(echo_server, early_data=b"hi")
