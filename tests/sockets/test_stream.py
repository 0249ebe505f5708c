"""SocksSocket as people use it, against the embedded proxy."""

import base64
import contextlib
import errno
import ipaddress
import os
import pickle
import select
import socket
import ssl
import struct

import pytest
import trustme

import socksy
from socksy.proxy import Proxy
from socksy.sockets import dial
from socksy.sockets.stream import SocksSocket
from socksy.testing.faults import answer_with, cut_short, reset_at, stall_at

from ..support import BANNER, echo, eventually, read_exactly, serving, unused_port

NAME = "only-the-proxy-knows.test"
REMOTE = ["socks4a", "socks5h", "http"]
EVERY = [*REMOTE, "socks4", "socks5"]
FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


def check_echo(sock):
    """The banner is there, and what is sent comes back."""
    assert receive(sock, len(BANNER)) == BANNER
    sock.sendall(b"ping")
    assert receive(sock, 4) == b"ping"


def receive(sock, count):
    data = b""
    while len(data) < count:
        data += sock.recv(count - len(data))
    return data


# -- connecting


@pytest.mark.parametrize("timeout", [None, 10])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", EVERY)
def test_connects_to_an_ipv4_address(server, echo_server, scheme, family, timeout):
    """Through every protocol, whatever family the socket was made with."""
    with SocksSocket(family, proxy=server.url(scheme)) as sock:
        sock.settimeout(timeout)
        sock.connect(echo_server)

        check_echo(sock)
        assert sock.family == family
        assert server.requests[-1].host == "127.0.0.1"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "http"])
def test_connects_to_an_ipv6_address(server, echo_server_v6, scheme, family):
    """Through every protocol that can say it."""
    with SocksSocket(family, proxy=server.url(scheme)) as sock:
        sock.connect(echo_server_v6)

        check_echo(sock)


@pytest.mark.parametrize("scheme", REMOTE)
def test_a_name_goes_to_the_proxy_and_nowhere_else(server, echo_server, scheme, lookups):
    """Remote DNS: the proxy sees the name, this machine's resolver nothing."""
    with SocksSocket(proxy=server.url(scheme)) as sock:
        sock.connect((NAME, echo_server[1]))

        check_echo(sock)
        assert server.requests[-1].host == NAME
        assert lookups == []
        assert sock.getpeername() == (NAME, echo_server[1])


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_a_name_is_looked_up_here_if_the_scheme_says_so(server, echo_server, scheme, lookups):
    """socks4:// and socks5:// resolve here, as in curl; the proxy sees an address."""
    with SocksSocket(proxy=server.url(scheme)) as sock:
        sock.connect(("localhost", echo_server[1]))

        assert lookups == [b"localhost"]
        assert server.requests[-1].host == "127.0.0.1"
        assert sock.getpeername() == ("localhost", echo_server[1])


def fake_getaddrinfo(*addresses):
    """A resolver with these answers, that minds the family."""

    def answer(host, port, family=0, kind=0, *rest):
        found = []
        for address in addresses:
            its = socket.AF_INET6 if ":" in address else socket.AF_INET
            if family in (0, its):
                tail = (0, 0) if its == socket.AF_INET6 else ()
                found.append((its, kind, 6, "", (address, port, *tail)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    return answer


@pytest.mark.trap(24)
def test_local_dns_tries_every_address(server, echo_server, monkeypatch):
    """The first one refuses, the second one is used."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo("::1", "127.0.0.1"))

    with SocksSocket(proxy=server.url("socks5")) as sock:
        sock.connect(("two.test", echo_server[1]))

        check_echo(sock)
        assert [request.host for request in server.requests] == ["::1", "127.0.0.1"]


@pytest.mark.trap(24)
def test_socks4_takes_an_ipv4_address_of_a_name(server, echo_server, monkeypatch):
    """It cannot say the other."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo("::1", "127.0.0.1"))

    with SocksSocket(proxy=server.url("socks4")) as sock:
        sock.connect(("two.test", echo_server[1]))

        assert [request.host for request in server.requests] == ["127.0.0.1"]


@pytest.mark.trap(24)
def test_every_address_of_the_proxy_is_tried(server, echo_server, monkeypatch):
    """Nothing listens on the first: the second is used, for a socket of either family."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo("::1", "127.0.0.1"))

    for family in FAMILIES:
        for timeout in (None, 5):
            for is_bound in (False, True):
                with SocksSocket(family, proxy=f"socks5h://proxy.test:{server.port}") as sock:
                    sock.settimeout(timeout)
                    if is_bound:
                        sock.bind(("", 0))
                        port = sock.getsockname()[1]
                    sock.connect(echo_server)
                    check_echo(sock)
                    assert not is_bound or sock.getsockname()[1] == port


@pytest.mark.trap(25)
def test_a_proxy_that_answered_is_not_asked_again_at_its_other_address(monkeypatch):
    """A refused login is not multiplied by the proxy's addresses."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo("127.0.0.1", "127.0.0.1"))
    connections = []

    def refuse(connection):
        connections.append(connection)
        connection.recv(3)
        connection.sendall(b"\5\xff")

    with serving(refuse) as address:
        with SocksSocket(proxy=f"socks5h://proxy.test:{address[1]}") as sock:
            with pytest.raises(socksy.ProxyAuthenticationError):
                sock.connect(("a.test", 80))

    assert len(connections) == 1


def test_a_name_that_does_not_exist_here_is_a_gaierror(server, monkeypatch):
    """Existing code catches that."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo())

    with SocksSocket(proxy=server.url("socks5")) as sock:
        with pytest.raises(socket.gaierror) as caught:
            sock.connect(("nowhere.test", 80))

    assert isinstance(caught.value, socksy.NameLookupError)
    assert caught.value.errno == socket.EAI_NONAME
    assert server.requests == []


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_an_onion_name_is_never_looked_up(server, scheme, lookups):
    """Not even where names are resolved here: that would tell the resolver."""
    with SocksSocket(proxy=server.url(scheme)) as sock:
        with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
            sock.connect(("abc.onion", 80))

    assert lookups == []
    assert server.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", b"127.0.0.1", ipaddress.ip_address("127.0.0.1"), "::ffff:127.0.0.1"],
    ids=repr,
)
@pytest.mark.trap(23)
@pytest.mark.need(8)
def test_every_spelling_of_a_host_is_taken(server, echo_server, host):
    """Bytes, ipaddress objects; an IPv4-mapped address goes out as IPv4."""
    with SocksSocket(socket.AF_INET6, proxy=server.url("socks5h")) as sock:
        sock.connect((host, echo_server[1], 0, 0))

        assert server.requests[-1].host == "127.0.0.1"


@pytest.mark.need(8)
def test_four_values_without_a_scope_are_an_address(server, echo_server_v6):
    """As AF_INET6 code passes them."""
    with SocksSocket(socket.AF_INET6, proxy=server.url("socks5h")) as sock:
        sock.connect(("::1", echo_server_v6[1], 0, 0))

        assert sock.getpeername() == ("::1", echo_server_v6[1], 0, 0)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("a" * 256, 80), socksy.InvalidTargetError),
        (("a\r\nHost: evil", 80), socksy.InvalidTargetError),
        (("a\0b", 80), socksy.InvalidTargetError),
        (("", 80), socksy.InvalidTargetError),
        (("fe80::1%lo", 80), socksy.InvalidTargetError),
        (("fe80::1", 80, 0, 1), socksy.InvalidTargetError),
        (("a.test", 65536), OverflowError),
        (("a.test", -1), OverflowError),
        (("a.test", 0), socksy.InvalidPortError),
        (("a.test", "80"), TypeError),
        (("a.test",), TypeError),
        ("a.test:80", TypeError),
        ((None, 80), TypeError),
    ],
    ids=str,
)
@pytest.mark.trap(17)
def test_a_wrong_address_is_refused_before_anything_is_sent(server, address, error):
    """By both ways to connect, and the proxy never hears of it."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        with pytest.raises(error):
            sock.connect(address)
        with pytest.raises(error):
            sock.connect_ex(address)

    assert server.requests == []


def test_a_name_of_255_bytes_reaches_the_proxy(socks_server_factory, echo_server):
    """The protocol's limit is usable."""
    name = ".".join(["a" * 63] * 4)
    server = socks_server_factory(names={name: "127.0.0.1"})

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect((name, echo_server[1]))

    assert server.requests[-1].host == name
    assert len(name) == 255


def test_an_international_name_goes_out_as_browsers_send_it(socks_server_factory, echo_server):
    """UTS 46, not the 2003 codec, which would ask for another host."""
    server = socks_server_factory(names={"xn--fa-hia.test": "127.0.0.1"})

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(("faß.test", echo_server[1]))

        assert server.requests[-1].host == "xn--fa-hia.test"
        assert sock.getpeername() == ("faß.test", echo_server[1])


# -- which proxy


def test_a_proxy_on_ipv6(socks_server_factory, echo_server):
    """Whatever family the socket was made with."""
    server = socks_server_factory(host="::1")

    for family in FAMILIES:
        with SocksSocket(family, proxy=server.url("socks5h")) as sock:
            sock.connect(echo_server)
            check_echo(sock)
            assert sock.family == family
            assert sock.proxy_peername[:2] == ("::1", server.port)
            assert sock.proxy_sockname[:2] == ("::1", sock.getsockname()[1])
            assert len(sock.getsockname()) == (2 if family == socket.AF_INET else 4)


def test_a_socket_of_ipv6_has_a_name_of_ipv6(server, echo_server):
    """Also where the proxy is of IPv4: programs expect so many values."""
    with SocksSocket(socket.AF_INET6, proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        assert sock.getsockname() == ("::ffff:127.0.0.1", sock.proxy_sockname[1], 0, 0)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
def test_a_proxy_on_a_unix_socket(socks_server_factory, echo_server, tmp_path, scheme):
    """As a URL with a path."""
    server = socks_server_factory(path=str(tmp_path / "s"), names={NAME: "127.0.0.1"})

    for timeout in (None, 5):
        with SocksSocket(proxy=server.url(scheme)) as sock:
            sock.settimeout(timeout)
            sock.connect((NAME, echo_server[1]))
            check_echo(sock)
            assert sock.family == socket.AF_INET
            assert sock.sendto(b"x", echo_server) == sock.sendmsg([b"x"], [], 0, echo_server) == 1


def test_a_chain_of_every_protocol(socks_server_factory, echo_server):
    """Each proxy is asked for the next one, the last for the target."""
    users = {"alice": "se:cr@t"}
    first = socks_server_factory(names={"second.test": "127.0.0.1"})
    second = socks_server_factory(users=users)
    third = socks_server_factory()
    fourth = socks_server_factory(names={NAME: "127.0.0.1"})
    chain = [
        first.url("socks4a"),
        f"socks5h://alice:se%3Acr%40t@second.test:{second.port}",
        third.url("http"),
        fourth.url("socks5h"),
    ]

    with SocksSocket(proxy=chain) as sock:
        sock.settimeout(10)
        sock.connect((NAME, echo_server[1]))

        check_echo(sock)
        assert [s.requests[-1].host for s in (first, second, third, fourth)] == [
            "second.test",
            "127.0.0.1",
            "127.0.0.1",
            NAME,
        ]


def test_a_hop_is_looked_up_here_if_the_proxy_before_it_wants_that(
    socks_server_factory, echo_server, lookups
):
    """socks5:// in front: the next proxy's name is resolved on this machine."""
    first, second = socks_server_factory(), socks_server_factory()

    with SocksSocket(proxy=[first.url("socks5"), f"socks5h://localhost:{second.port}"]) as sock:
        sock.connect(echo_server)

    assert lookups == [b"localhost"]
    assert first.requests[-1].host == "127.0.0.1"


def test_an_unreachable_hop_is_named(server):
    """The second proxy is down: a connection error about hop 2, with the first one's refusal."""
    port = unused_port()

    with SocksSocket(proxy=[server.url("socks5h"), f"socks5h://127.0.0.1:{port}"]) as sock:
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(("a.test", 80))

    error = caught.value
    assert (error.hop, error.hops, error.proxy) == (2, 2, f"socks5h://127.0.0.1:{port}")
    assert error.errno == errno.ECONNREFUSED
    assert isinstance(error.__cause__, socksy.TargetRefusedError)


def test_a_callable_chooses_per_target(server, echo_server):
    """None means a direct connection."""
    asked = []

    def choose(host, port):
        asked.append((host, port))
        return server.url("socks5h") if host.endswith(".test") else None

    for host, peer in ((NAME, NAME), ("127.0.0.1", "127.0.0.1")):
        with SocksSocket(proxy=choose) as sock:
            sock.connect((host, echo_server[1]))
            check_echo(sock)
            assert sock.getpeername() == (peer, echo_server[1])

    assert asked == [(NAME, echo_server[1]), ("127.0.0.1", echo_server[1])]
    assert len(server.requests) == 1


def test_the_default_proxy_is_the_one_of_the_moment_the_socket_was_made(server, echo_server):
    """A socket made inside the block and connected after it still goes through the proxy."""
    with socksy.using(server.url("socks5h")):
        sock = SocksSocket()
    with sock:
        sock.connect(echo_server)

    assert len(server.requests) == 1


def test_a_default_that_comes_later_counts_too(server, echo_server):
    """Made before there was a default, connected after: it does not go around."""
    with SocksSocket() as sock, socksy.using(server.url("socks5h")):
        sock.connect(echo_server)

    assert len(server.requests) == 1


def test_proxy_none_goes_direct_under_a_default(server, echo_server):
    """Said explicitly, it is meant."""
    with socksy.using(server.url("socks5h")), SocksSocket(proxy=None) as sock:
        sock.connect(echo_server)
        check_echo(sock)

    assert server.requests == []


def test_set_proxy_chooses_before_connecting(server, echo_server):
    """And not on a connected socket."""
    with SocksSocket() as sock:
        sock.set_proxy(server.url("socks5h"))
        assert sock.proxy == (server.proxy("socks5h"),)
        sock.connect(echo_server)
        with pytest.raises(OSError, match="connected") as caught:
            sock.set_proxy(None)

    assert caught.value.errno == errno.EISCONN


@pytest.mark.parametrize("before", [(), (5,)])
def test_a_proxy_in_the_place_of_another_argument_is_no_direct_connection(before, no_local_lookup):
    proxies = ("socks5h://127.0.0.1:1080", socksy.Proxy("socks5h"))
    for proxy in proxies:
        with pytest.raises(TypeError, match="proxy="):
            socksy.create_connection(("a.test", 80), *before, proxy)


def test_a_proxy_in_the_place_of_the_family_is_an_error_that_says_so():
    with pytest.raises(TypeError, match="proxy="):
        SocksSocket("socks5h://127.0.0.1:1080")


def test_a_wrong_proxy_is_refused_by_the_constructor():
    """With no descriptor made for nothing (see the fixture)."""
    with pytest.raises(socksy.InvalidProxyError):
        SocksSocket(proxy="ftp://a")
    with pytest.raises(TypeError):
        SocksSocket(proxy=1080)


@pytest.mark.trap(13)
def test_require_auth_refuses_a_server_that_does_not_look(server, echo_server):
    """Without it the wrong password connects happily."""
    login = f"socks5h://alice:wrong@127.0.0.1:{server.port}"

    with SocksSocket(proxy=login) as sock:
        sock.connect(echo_server)
    with SocksSocket(proxy=socksy.Proxy.from_url(login, require_auth=True)) as sock:
        with pytest.raises(socksy.ProxyAuthenticationError):
            sock.connect(echo_server)

    assert len(server.requests) == 1


# -- what goes wrong


def test_a_refused_target_is_a_connection_refused_error(server):
    """With the code, the errno, the proxy and the target in it."""
    port = unused_port()

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        with pytest.raises(ConnectionRefusedError) as caught:
            sock.connect(("127.0.0.1", port))

    error = caught.value
    assert isinstance(error, socksy.TargetRefusedError)
    assert (error.code, error.reply, error.errno) == (5, "connection refused", errno.ECONNREFUSED)
    assert (error.proxy, error.target) == (server.url("socks5h"), ("127.0.0.1", port))
    assert server.url("socks5h") in str(error)
    assert f"127.0.0.1:{port}" in str(error)


def test_a_dead_proxy_is_told_apart():
    """Not the target: the proxy. The operating system's error is the cause."""
    url = f"socks5h://127.0.0.1:{unused_port()}"

    for timeout in (None, 5):
        with SocksSocket(proxy=url) as sock:
            sock.settimeout(timeout)
            with pytest.raises(socksy.ProxyConnectionError) as caught:
                sock.connect(("a.test", 80))
            assert caught.value.errno == errno.ECONNREFUSED
            assert isinstance(caught.value.__cause__, ConnectionRefusedError)
            assert not isinstance(caught.value, ConnectionRefusedError)


def test_a_missing_unix_socket_is_a_dead_proxy(tmp_path):
    """With the operating system's errno."""
    with SocksSocket(proxy=f"socks5h://localhost{tmp_path}/missing") as sock:
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(("a.test", 80))

    assert caught.value.errno == errno.ENOENT


def test_a_proxy_whose_name_is_unknown(monkeypatch):
    """That is a proxy that cannot be reached."""
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo())

    with SocksSocket(proxy="socks5h://proxy.test") as sock:
        with pytest.raises(socksy.ProxyConnectionError, match="resolved"):
            sock.connect(("a.test", 80))


def test_a_wrong_password_is_an_authentication_error_without_the_password(socks_server_factory):
    """Not in its text, its repr, its attributes or its pickle."""
    server = socks_server_factory(users={"alice": "secret"})

    with SocksSocket(proxy=f"socks5h://alice:hunter2@127.0.0.1:{server.port}") as sock:
        with pytest.raises(socksy.ProxyAuthenticationError) as caught:
            sock.connect(("a.test", 80))

    error = caught.value
    for shown in (
        str(error),
        repr(error),
        repr(vars(error)),
        pickle.dumps(error).decode("latin-1"),
    ):
        assert "hunter2" not in shown
        assert "alice" not in shown


@pytest.mark.parametrize(
    ("scheme", "phase"),
    [
        ("socks5h", "the method choice"),
        ("socks5h", "the login answer"),
        ("socks5h", "the reply"),
        ("socks4a", "the reply"),
        ("http", "the reply"),
    ],
)
@pytest.mark.parametrize("fault", [reset_at, stall_at])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_no_frame_of_a_traceback_shows_the_login(socks_server_factory, scheme, phase, fault, name):
    """pytest prints the arguments of functions, other tools the local variables too."""
    secret = "hunter2"
    server = socks_server_factory(users=lambda *login: True, faults=fault(phase))
    proxy = Proxy(scheme, name, server.port, username=secret)
    encoded = base64.b64encode(f"{secret}:".encode()).decode()

    with SocksSocket(proxy=proxy) as sock:
        sock.settimeout(0.1)
        with pytest.raises(socksy.ProxyError) as caught:
            sock.connect(("a.test", 80))

    assert caught.value.phase in (phase, "the HTTP answer")
    frames = [entry.frame.f_locals for entry in caught.traceback if "socksy" in str(entry.path)]
    for shown in (repr(frame) for frame in frames[1:]):
        assert secret not in shown
        assert encoded not in shown


def test_connect_ex_returns_the_errno(server, echo_server):
    """0 for success, EISCONN the second time, and the details in `last_error`."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        assert sock.connect_ex(("127.0.0.1", unused_port())) == errno.ECONNREFUSED
        assert isinstance(sock.last_error, socksy.TargetRefusedError)
        assert sock.connect_ex(echo_server) == 0
        assert sock.connect_ex(echo_server) == errno.EISCONN
        with pytest.raises(OSError, match="connected"):
            sock.connect(echo_server)


@pytest.mark.parametrize("timeout", [5, 0])
def test_a_later_success_is_no_failure(server, echo_server, timeout):
    """`last_error` is about the last connect."""
    with SocksSocket(proxy=server.url()) as sock:
        assert sock.connect_ex(("127.0.0.1", unused_port())) == errno.ECONNREFUSED
        assert sock.last_error is not None
        sock.settimeout(timeout)
        if sock.connect_ex(echo_server) == errno.EINPROGRESS:
            assert select.select([], [sock], [], 5)[1]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.last_error is None


@pytest.mark.trap(31)
def test_nothing_can_be_sent_after_a_failure(server):
    """The half-made tunnel is gone: what the application sends cannot end up at the proxy."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        number = sock.fileno()
        with pytest.raises(socksy.ProxyReplyError):
            sock.connect(("127.0.0.1", unused_port()))

        with pytest.raises(OSError, match=r"pipe|connected"):
            sock.send(b"GET /secret")
        with pytest.raises(OSError, match="connected") as caught:
            sock.recv(1)
        assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError, match="connected"):
            sock.getpeername()
        assert sock.fileno() == number
        assert sock.bound_address is None


def test_a_socket_can_be_used_again_after_a_failure(server, echo_server):
    """As on Linux with a plain socket."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(socksy.ProxyReplyError):
            sock.connect(("127.0.0.1", unused_port()))
        sock.connect(echo_server)

        check_echo(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@contextlib.contextmanager
def refusing_once():
    """A proxy that refuses with a long reply, leaves closing to us, and accepts the next one."""
    refused = []

    def handler(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        connection.recv(300)
        if not refused:
            refused.append(connection)
            connection.sendall(b"\5\5\0\3\x0bsecret.test\0\1")
            connection.recv(1)
        else:
            connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            echo(connection)

    with serving(handler) as address:
        yield f"socks5h://127.0.0.1:{address[1]}"


@pytest.mark.parametrize("timeout", [None, 5, 0])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bound_socket_keeps_its_port_after_a_failure(family, timeout):
    """And is as unconnected as any: what the proxy has sent is nobody's data."""
    host = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
    with refusing_once() as url, SocksSocket(family, proxy=url) as sock:
        sock.bind((host, 0))
        name = sock.getsockname()
        sock.settimeout(timeout)
        for expected in (errno.ECONNREFUSED, 0):
            number = sock.connect_ex(("a.test", 80))
            if number == errno.EINPROGRESS:
                assert select.select([], [sock], [], 5)[1]
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert number == expected
            assert sock.getsockname() == name
            if expected:
                with pytest.raises(OSError) as caught:
                    sock.recv(100)
                assert caught.value.errno == errno.ENOTCONN
        sock.settimeout(5)
        check_echo(sock)


def test_a_port_that_was_taken_after_a_failure_is_not_given_up(server, mocker, echo_server):
    """The next connect does not leave from somewhere else."""
    with SocksSocket(proxy=server.url()) as sock, socket.socket() as thief:
        sock.bind(("127.0.0.1", 0))
        name = sock.getsockname()

        def steal(own, local):
            thief.bind(local)
            raise OSError(errno.EADDRINUSE, "Address already in use")

        mocker.patch.object(dial, "_bind", steal)
        with pytest.raises(socksy.TargetRefusedError):
            sock.connect(("127.0.0.1", unused_port()))
        mocker.stopall()
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(echo_server)
        assert caught.value.errno == errno.EADDRINUSE
        thief.close()
        sock.connect(echo_server)

        check_echo(sock)
        assert sock.getsockname() == name


@pytest.mark.parametrize("timeout", [None, 5])
def test_without_descriptors_a_failed_handshake_leaves_nothing_to_read(mocker, timeout):
    """No fresh descriptor can be had: the old one is cut off, and what it had received is gone."""
    with refusing_once() as url, SocksSocket(proxy=url) as sock:
        sock.settimeout(timeout)
        none_left = OSError(errno.EMFILE, "Too many open files")
        mocker.patch("socksy.sockets.options.unconnected_like", side_effect=none_left)
        with pytest.raises(socksy.TargetRefusedError):
            sock.connect(("a.test", 80))

        assert sock.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")


def test_what_comes_right_before_a_reset_is_not_lost():
    """Whatever the family: the names of the connection are not asked for when it may be gone."""

    def handler(connection):
        read_exactly(connection, 3)
        connection.sendall(b"\5\0")
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0" + BANNER)
        connection.close()

    with serving(handler) as address:
        for family in FAMILIES:
            for _ in range(10):
                with SocksSocket(family, proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
                    sock.settimeout(5)
                    sock.connect(("a.test", 80))
                    with contextlib.suppress(ConnectionResetError):
                        assert BANNER.startswith(sock.recv(100))
                    assert sock.proxy_sockname[0] == "127.0.0.1"


def test_an_interrupted_handshake_leaves_nothing_behind(server, mocker, echo_server):
    """Ctrl-C in the middle: the descriptor is fresh, the timeout as it was."""
    mocker.patch("socksy.sockets.dial.monotonic", side_effect=[0.0, KeyboardInterrupt])

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.settimeout(7)
        with pytest.raises(KeyboardInterrupt):
            sock.connect(echo_server)
        mocker.stopall()

        assert sock.gettimeout() == 7
        sock.connect(echo_server)
        check_echo(sock)


@pytest.mark.parametrize("name", ["setblocking", "dup2"])
def test_an_interrupt_right_after_a_system_call_leaves_nothing_behind(
    server, mocker, echo_server, name
):
    """Python runs the handlers of signals when a system call has returned."""
    where = SocksSocket if name == "setblocking" else os
    original = getattr(where, name)

    def interrupt(*arguments, **options):
        setattr(where, name, original)
        original(*arguments, **options)
        raise KeyboardInterrupt

    proxy = server.url("socks5h").replace("127.0.0.1", "localhost")
    with SocksSocket(socket.AF_INET6, proxy=proxy) as sock:
        sock.settimeout(7)
        mocker.patch.object(where, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            sock.connect(echo_server)

        assert sock.gettimeout() == 7
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        sock.connect(echo_server)
        check_echo(sock)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interrupt_when_all_was_done_leaves_no_connection_behind(
    server, monkeypatch, echo_server, family
):
    """One that nobody knew of would take what is sent, and could not be connected again."""

    def interrupt(*arguments):
        monkeypatch.undo()
        raise KeyboardInterrupt

    with SocksSocket(family, proxy=server.url()) as sock:
        for module in ("stream", "dial"):
            monkeypatch.setattr(f"socksy.sockets.{module}.Tunnel", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sock.connect(echo_server)
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        sock.connect(echo_server)
        check_echo(sock)


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_closing_in_another_thread_ends_the_handshake(server, mocker, echo_server, timeout, name):
    real = dial.send

    def send(sock, message):
        sent = real(sock, message)
        ours.close()
        return sent

    mocker.patch.object(dial, "send", send)
    with SocksSocket(proxy=server.url().replace("127.0.0.1", name)) as ours:
        ours.settimeout(timeout)
        with pytest.raises(OSError) as caught:
            ours.connect(echo_server)
        assert caught.value.errno == errno.EBADF
    server.wait_until_idle()


@pytest.mark.trap(4)
@pytest.mark.parametrize("count", [4, 7])
def test_an_answer_that_breaks_off_is_not_taken_for_none(socks_server_factory, echo_server, count):
    """An answer cut short says how short, and nothing of what silence would mean."""
    server = socks_server_factory(names={NAME: "127.0.0.1"}, faults=cut_short("the reply", count))
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        with pytest.raises(socksy.ProxyProtocolError, match=f"{count} bytes into") as caught:
            sock.connect((NAME, echo_server[1]))
    assert caught.value.hint is None


@pytest.mark.parametrize("timeout", [None, 10])
def test_a_broken_connection_is_a_protocol_error_that_survives_pickling(
    socks_server_factory, timeout
):
    """A reset in the middle of the handshake: the system's error is the cause."""
    server = socks_server_factory(faults=reset_at("the reply"))
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.settimeout(timeout)
        with pytest.raises(socksy.ProxyProtocolError, match="broke: Connection reset") as caught:
            sock.connect(("a.test", 80))
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# -- data


@pytest.mark.trap(1)
@pytest.mark.parametrize("scheme", EVERY)
def test_what_the_target_says_at_once_is_not_lost(server, echo_server, scheme):
    """The banner comes right behind the reply and belongs to the application."""
    with SocksSocket(proxy=server.url(scheme)) as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", echo_server[1]))

        assert receive(sock, len(BANNER)) == BANNER


@pytest.mark.trap(1)
@pytest.mark.parametrize(
    ("scheme", "exchanges"),
    [
        ("socks4a", [(16, b"\0\x5a\0\0\0\0\0\0")]),
        ("socks5h", [(3, b"\5\0"), (13, b"\5\0\0\1\0\0\0\0\0\0")]),
        ("socks5h", [(3, b"\5\0"), (13, b"\5\0\0\3\0\0\0")]),
        ("socks5h", [(3, b"\5\0"), (13, b"\5\0\0\4" + bytes(18))]),
        ("http", [(35, b"HTTP/1.0 200 Fine\r\nA: b\r\n\r\n")]),
    ],
)
def test_data_in_the_segment_of_the_reply_is_not_lost(scheme, exchanges):
    """Glued to the reply by the proxy itself; with every shape of a reply."""
    *before, (count, answer) = exchanges

    def handler(connection):
        for length, reply in before:
            connection.recv(length)
            connection.sendall(reply)
        connection.recv(count)
        connection.sendall(answer + BANNER)
        connection.recv(1)

    for timeout in (None, 10):
        with serving(handler) as address:
            with SocksSocket(proxy=f"{scheme}://127.0.0.1:{address[1]}") as sock:
                sock.settimeout(timeout)
                sock.connect(("a.test", 80))
                assert receive(sock, len(BANNER)) == BANNER


@pytest.mark.trap(2)
@pytest.mark.parametrize("timeout", [None, 10])
def test_each_message_leaves_in_one_piece_and_waits_for_its_answer(timeout):
    """One recv per message on the other side: what microsocks does, and relies on."""
    heard = []

    def one_message_per_recv(connection):
        for answer in (b"\5\2", b"\1\0", b"\5\0\0\1\0\0\0\0\0\0"):
            heard.append(connection.recv(4096))
            connection.sendall(answer)
        connection.recv(1)

    with serving(one_message_per_recv) as address:
        with SocksSocket(proxy=f"socks5h://al:pw@127.0.0.1:{address[1]}") as sock:
            sock.settimeout(timeout)
            sock.connect(("a.test", 80))

    assert heard == [b"\5\2\0\2", b"\1\2al\2pw", b"\5\1\0\3\6a.test\0P"]


def test_send_and_recv_are_the_base_class_own():
    """Nothing of ours is on the data path."""
    for name in ("send", "sendall", "recv", "recv_into", "recvmsg", "recvmsg_into", "sendfile"):
        assert getattr(SocksSocket, name) is getattr(socket.socket, name)


def test_bound_address_is_what_the_proxy_replied(server, echo_server):
    """And None before."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        assert sock.bound_address is None
        sock.connect(echo_server)
        host, port = sock.bound_address

        assert host == "127.0.0.1"
        assert port > 0
        assert sock.proxy_peername == ("127.0.0.1", server.port)
        assert sock.proxy_sockname == sock.getsockname()


def test_http_has_no_bound_address(server, echo_server):
    with SocksSocket(proxy=server.url("http")) as sock:
        sock.connect(echo_server)
        assert sock.bound_address is None


def test_the_proxy_learns_who_it_is_talking_to_from_the_bound_source(server, echo_server):
    """A local bind is honoured: it is the address of the connection to the proxy."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.bind(("127.0.0.2", 0))
        sock.connect(echo_server)

        assert sock.proxy_sockname[0] == "127.0.0.2"
        assert server.requests[-1].client[0] == "127.0.0.2"


@pytest.mark.parametrize("source", ["", "0.0.0.0"])
def test_a_wildcard_source_follows_the_family_of_the_proxy(
    socks_server_factory, echo_server, source
):
    """Only its port has a meaning there."""
    server = socks_server_factory(host="::1")
    port = unused_port()

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.bind((source, port))
        sock.connect(echo_server)

        assert sock.proxy_sockname[:2] == ("::1", port)


def test_a_source_that_cannot_reach_the_proxy_is_an_error(socks_server_factory, echo_server):
    """Not a connection from somewhere else."""
    server = socks_server_factory(host="::1")

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(socksy.ProxyConnectionError) as caught:
            sock.connect(echo_server)

    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_options_follow_the_descriptor(socks_server_factory, echo_server):
    """Where the proxy's family needs another one, what the application set is set there too."""
    server = socks_server_factory(host="::1")
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
    ]

    with SocksSocket(proxy=server.url("socks5h")) as sock:
        number = sock.fileno()
        for option in options:
            sock.setsockopt(*option)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
        buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock.connect(echo_server)

        for level, name, value in options:
            assert sock.getsockopt(level, name) == value
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == buffer
        assert sock.fileno() == number
        assert os.get_inheritable(number) is False


# -- without a proxy, and what is not ours


def test_without_a_proxy_it_is_a_plain_socket(echo_server):
    """Down to the error messages."""
    with SocksSocket() as sock:
        sock.connect(echo_server)
        check_echo(sock)
        assert sock.getpeername() == echo_server
        assert sock.bound_address is None

    def complaint(kind, address):
        with kind() as sock, pytest.raises((OSError, TypeError, OverflowError)) as caught:
            sock.connect(address)
        return type(caught.value), str(caught.value)

    for address in (("127.0.0.1", unused_port()), ("127.0.0.1",), ("127.0.0.1", 99999), "x"):
        assert complaint(SocksSocket, address) == complaint(socket.socket, address)


def test_a_unix_socket_is_left_alone(server, tmp_path):
    """A proxy has nothing to do with it."""
    with serving(echo, path=str(tmp_path / "echo")) as path:
        with SocksSocket(socket.AF_UNIX, proxy=server.url("socks5h")) as sock:
            sock.connect(path)
            check_echo(sock)

    assert server.requests == []


@pytest.mark.trap(26)
def test_fast_open_does_not_slip_past_the_proxy(server, echo_server):
    """MSG_FASTOPEN connects and sends in one call: so it connects through the proxy."""
    for send in (
        lambda sock: sock.sendto(b"ping", socket.MSG_FASTOPEN, echo_server),
        lambda sock: sock.sendmsg([b"pi", b"ng"], [], socket.MSG_FASTOPEN, echo_server),
    ):
        with SocksSocket(proxy=server.url("socks5h")) as sock:
            assert send(sock) == 4
            assert receive(sock, len(BANNER) + 4) == BANNER + b"ping"
            assert sock.getpeername() == echo_server

    assert len(server.requests) == 2


@pytest.mark.parametrize("host", ["192.0.2.1", NAME, "abc.onion"])
def test_an_address_with_data_on_a_connected_stream_is_ignored(
    server, echo_server, no_local_lookup, host
):
    """As by TCP; so a name is not looked up."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        assert sock.sendto(b"p", (host, 9)) == 1
        assert sock.sendto(b"i", 0, (host, 9)) == 1
        assert sock.sendmsg([b"n"], [], 0, (host, 9)) == 1
        assert sock.sendmsg([b"g"]) == 1

        assert receive(sock, len(BANNER) + 4) == BANNER + b"ping"


@pytest.mark.parametrize("host", ["192.0.2.1", NAME, "abc.onion"])
@pytest.mark.trap(26)
def test_an_address_with_data_does_not_connect_a_stream(server, no_local_lookup, host):
    """A plain TCP socket says EPIPE, or on other systems ENOTCONN."""
    for send in (
        lambda sock, address: sock.sendto(b"x", address),
        lambda sock, address: sock.sendto(b"x", 0, address),
        lambda sock, address: sock.sendmsg([b"x"], [], 0, address),
    ):
        with socket.socket() as plain, SocksSocket(proxy=server.url("socks5h")) as sock:
            with pytest.raises(OSError) as expected:
                send(plain, ("192.0.2.1", 9))
            with pytest.raises(OSError) as caught:
                send(sock, (host, 9))
        assert (type(caught.value), caught.value.errno) == (
            type(expected.value),
            expected.value.errno,
        )

    assert server.requests == []


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    "arguments", [("x",), (0, "x"), (None,), ("x", ("h", 9)), (("h",),), (0, ("h", 9), 0)]
)
def test_wrong_arguments_of_sendto_on_a_stream_are_refused(
    server, echo_server, connected, arguments
):
    with SocksSocket(proxy=server.url("socks5h")) as sock, socket.socket() as plain:
        if connected:
            sock.connect(echo_server)
        for each in (sock, plain):
            with pytest.raises(TypeError):
                each.sendto(b"x", *arguments)


ONIONS = ["abc.onion", "ABC.ONION.", b"abc.onion", bytearray(b"abc.onion"), "abc\u3002ｏｎｉｏｎ"]


@pytest.mark.parametrize("host", ONIONS)
@pytest.mark.parametrize("proxy", [None, lambda host, port: None, socksy.sockets.stream.UNSET])
def test_an_onion_name_is_not_looked_up_without_a_proxy_either(no_local_lookup, proxy, host):
    """RFC 7686: by no method that would do it, whatever says that there is no proxy."""
    calls = {
        "connect": lambda sock: sock.connect((host, 80)),
        "with early data": lambda sock: sock.connect((host, 80), early_data=b"x"),
        "sendto": lambda sock: sock.sendto(b"x", (host, 80)),
        "sendmsg": lambda sock: sock.sendmsg([b"x"], [], 0, (host, 80)),
        "bind": lambda sock: sock.bind((host, 0)),
        "connect_ex": lambda sock: refuse(sock.connect_ex((host, 80))),
    }
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for name, call in calls.items():
            if kind == socket.SOCK_STREAM or name != "with early data":
                with SocksSocket(type=kind, proxy=proxy) as sock:
                    with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
                        call(sock)
    with SocksSocket(socket.AF_INET6, proxy=proxy) as sock:
        with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
            sock.connect((host, 80, 0, 0))
    with pytest.raises(socksy.ProxyUnsupportedError, match="onion"):
        socksy.create_connection((host, 80), proxy=proxy)


def refuse(number):
    """`connect_ex` returns what `connect` raises."""
    assert number == errno.EOPNOTSUPP
    raise socksy.ProxyUnsupportedError(message="onion")


def test_a_unix_socket_may_be_called_as_it_likes(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(echo, path="abc.onion"), SocksSocket(socket.AF_UNIX, proxy=None) as sock:
        sock.connect("abc.onion")
        check_echo(sock)


def test_a_listening_socket_serves_as_ever(server):
    """bind, listen and accept stay local; what is accepted is plain."""
    with socksy.using(server.url("socks5h")), SocksSocket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert peer == client.getsockname() == accepted.getpeername()
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"


# -- the rest of the class


def test_dup_knows_the_same_way(server, echo_server):
    """And has the connection when the first is closed."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        copy = sock.dup()
    with copy:
        assert type(copy) is SocksSocket
        assert copy.getpeername() == echo_server
        check_echo(copy)


def test_detach_hands_the_connection_over(server, echo_server):
    """To a plain socket, say."""
    sock = SocksSocket(proxy=server.url("socks5h"))
    sock.connect(echo_server)
    with socket.socket(fileno=sock.detach()) as plain:
        assert sock.fileno() == -1
        check_echo(plain)


def test_an_adopted_descriptor_is_plain(server, echo_server):
    """fileno= of a connected socket: its peer is its peer, default proxy or not."""
    plain = socket.create_connection(echo_server)
    with socksy.using(server.url("socks5h")), SocksSocket(fileno=plain.detach()) as sock:
        assert sock.getpeername() == echo_server
        check_echo(sock)


@pytest.mark.parametrize("before", [None, 5])
@pytest.mark.parametrize("timeout", [None, 5, 0])
@pytest.mark.parametrize("family", FAMILIES, ids=["same family", "other family"])
def test_connecting_what_is_connected_disturbs_nothing(server, family, timeout, before):
    """EISCONN, also where the connection was not made by us.

    If it was made with a timeout, Linux says yes to the next connect().
    """
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with serving(echo, family) as address:
        plain = socket.create_connection(address[:2], before)
        with socksy.using(server.url("socks5h")), SocksSocket(fileno=plain.detach()) as sock:
            sock.settimeout(timeout)
            with pytest.raises(OSError) as caught:
                sock.connect((host, 80))
            sock.settimeout(5)

            assert caught.value.errno == errno.EISCONN
            assert not isinstance(caught.value, socksy.ProxyError)
            check_echo(sock)
    assert server.requests == []


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("connect", ["connect", "connect_ex"])
def test_what_is_connected_directly_is_not_connected_to_a_proxy_too(
    server, echo_server, timeout, connect
):
    with SocksSocket(proxy=None) as sock:
        sock.settimeout(timeout)
        getattr(sock, connect)(echo_server)
        sock.set_proxy(server.url())
        assert sock.connect_ex(("a.test", 80)) == errno.EISCONN
        with pytest.raises(OSError) as caught:
            sock.connect(("a.test", 80))
        assert caught.value.errno == errno.EISCONN
        check_echo(sock)


@pytest.mark.parametrize("timeout", [None, 5, 0])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connecting_what_listens_disturbs_nothing(server, host, timeout):
    """The same on a server socket."""
    with (
        socksy.using(server.url("socks5h")),
        socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ) as plain,
        SocksSocket(fileno=plain.detach()) as listener,
    ):
        listener.settimeout(timeout)

        assert listener.connect_ex(("127.0.0.1", 80)) == errno.EISCONN
        with socket.create_connection(listener.getsockname()[:2]):
            listener.settimeout(5)
            listener.accept()[0].close()


def test_makefile(server, echo_server):
    """Reads lines, and keeps the descriptor open while it is."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        lines = sock.makefile("rwb")
    with lines:
        assert lines.readline() == BANNER


def test_it_can_be_polled(server, echo_server):
    """The descriptor is the connection."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        assert select.select([sock], [], [], 5)[0] == [sock]


def test_it_refuses_to_be_pickled(server):
    """As the base class."""
    with SocksSocket(proxy=server.url("socks5h")) as sock, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(sock)


def test_half_close_reaches_the_target(server, echo_server):
    """shutdown(SHUT_WR): the echo ends after what was sent."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.connect(echo_server)
        sock.sendall(b"last")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, len(BANNER) + 4) == BANNER + b"last"
        assert sock.recv(1) == b""


# -- TLS


@pytest.fixture(scope="module")
def certificates():
    """A CA, and contexts for both sides."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    return server_side, client_side


@pytest.fixture
def tls_echo(certificates):
    """An echo server that speaks TLS, for the name that only the proxy knows."""

    def handler(connection):
        with certificates[0].wrap_socket(connection, server_side=True) as tls:
            echo(tls)

    with serving(handler) as address:
        yield address


@pytest.mark.parametrize("timeout", [None, 10])
def test_tls_wrapped_after_connecting(server, tls_echo, certificates, timeout):
    """The usual order."""
    with SocksSocket(proxy=server.url("socks5h")) as sock:
        sock.settimeout(timeout)
        sock.connect((NAME, tls_echo[1]))
        with certificates[1].wrap_socket(sock, server_hostname=NAME) as tls:
            check_echo(tls)
            assert tls.getpeername() == (NAME, tls_echo[1])


@pytest.mark.parametrize("timeout", [None, 10])
@pytest.mark.parametrize("scheme", REMOTE)
def test_tls_wrapped_before_connecting_goes_through_the_proxy(
    server, tls_echo, certificates, scheme, timeout, lookups
):
    """The SSLSocket's own connect() would be the plain one."""
    with SocksSocket(proxy=server.url(scheme)) as sock:
        sock.settimeout(timeout)
        with certificates[1].wrap_socket(sock, server_hostname=NAME) as tls:
            assert isinstance(tls, ssl.SSLSocket)
            tls.connect((NAME, tls_echo[1]))
            check_echo(tls)
            assert tls.getpeercert()
            assert tls.getpeername() == (NAME, tls_echo[1])

    assert [request.host for request in server.requests] == [NAME]
    assert lookups == []


def logged(function):
    """As decorators do: it is called from a function of another name."""

    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize("decorate", [lambda function: function, logged])
def test_tls_over_a_subclass_with_its_own_detach_goes_through_the_proxy(
    server, tls_echo, certificates, decorate
):
    """Who takes the socket over is found behind every detach()."""

    class Noting(SocksSocket):
        @decorate
        def detach(self):
            return super().detach()

    with certificates[1].wrap_socket(
        Noting(proxy=server.url("socks5h")), server_hostname=NAME
    ) as tls:
        tls.connect((NAME, tls_echo[1]))
        check_echo(tls)


class Slotted(SocksSocket):
    """Of another layout."""

    __slots__ = ("x",)


class Named(SocksSocket):
    """Of the usual one."""

    name = "named"


class NamedAndSlotted(Named):
    __slots__ = ("y",)


class Mixin:
    """No socket, and so of no use to what is to be one."""


class MixedAndSlotted(Mixin, SocksSocket):
    __slots__ = ("z",)


class Demanding(SocksSocket):
    """Its subclasses have to say something."""

    def __init_subclass__(cls, *, name):
        raise AssertionError("a subclass of the application's, this?")


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("kind", [Slotted, NamedAndSlotted, MixedAndSlotted, Demanding])
def test_tls_over_a_subclass_of_any_kind_goes_through_the_proxy(
    server, tls_echo, certificates, kind, connected
):
    """There is no room for the slots of a class; what that is derived from will do."""
    sock = kind(proxy=server.url("socks5h"))
    if connected:
        sock.connect((NAME, tls_echo[1]))
    with certificates[1].wrap_socket(sock, server_hostname=NAME) as tls:
        if not connected:
            tls.connect((NAME, tls_echo[1]))
        check_echo(tls)
        assert tls.getpeername() == (NAME, tls_echo[1])
        assert [request.host for request in server.requests] == [NAME]
        assert kind is not NamedAndSlotted or tls.name == "named"


def test_tls_connect_ex_goes_through_the_proxy(server, tls_echo, certificates):
    """The other way to connect."""
    sock = SocksSocket(proxy=server.url("socks5h"))
    with certificates[1].wrap_socket(sock, server_hostname=NAME) as tls:
        assert tls.connect_ex((NAME, tls_echo[1])) == 0
        check_echo(tls)


def test_tls_without_a_proxy_stays_plain(tls_echo, certificates):
    """Nothing is swapped where there is nothing to go around."""
    with certificates[1].wrap_socket(SocksSocket(proxy=None), server_hostname=NAME) as tls:
        assert type(tls) is ssl.SSLSocket
        tls.connect(tls_echo)
        check_echo(tls)


def test_tls_wrapped_before_there_was_a_default_proxy_goes_through_it(
    server, tls_echo, certificates
):
    """A default proxy that is set later is not forgotten, as for any socket."""
    with certificates[1].wrap_socket(SocksSocket(), server_hostname=NAME) as tls:
        with socksy.using(server.url("socks5h")):
            tls.connect((NAME, tls_echo[1]))
        check_echo(tls)
    assert [request.host for request in server.requests] == [NAME]


# -- create_connection


def test_create_connection(server, echo_server):
    """The standard library's signature, and proxy=."""
    with socksy.create_connection((NAME, echo_server[1]), 7, proxy=server.url("socks5h")) as sock:
        assert isinstance(sock, SocksSocket)
        assert sock.gettimeout() == 7
        check_echo(sock)


@pytest.mark.parametrize("address", ["a.test", ("a.test",), ("::1", 80, 0, 0)])
def test_create_connection_wants_host_and_port(server, address):
    """As the standard library's does."""
    with pytest.raises(ValueError, match="unpack"):
        socksy.create_connection(address, proxy=server.url("socks5h"))


@pytest.mark.parametrize("port", ["http", "80", 80])
def test_create_connection_takes_ports_as_the_standard_library_does(socks_server_factory, port):
    server = socks_server_factory(faults=answer_with(5))
    with pytest.raises(socksy.ProxyError) as caught:
        socksy.create_connection(["a.test", port], proxy=server.url("socks5h"))
    assert caught.value.target == ("a.test", 80)


@pytest.mark.parametrize("port", ["no-such-service", "-1", "65536", "", "8O"])
def test_create_connection_refuses_what_is_no_port(server, port):
    with pytest.raises(socksy.InvalidPortError):
        socksy.create_connection(("a.test", port), proxy=server.url("socks5h"))
    assert server.requests == []


def test_create_connection_from_a_source_address(server, echo_server):
    """As third argument, as ever."""
    with socksy.create_connection(
        echo_server, None, ("127.0.0.3", 0), proxy=server.url("socks5h")
    ) as sock:
        assert sock.gettimeout() is None
        assert server.requests[-1].client[0] == "127.0.0.3"


def test_create_connection_uses_the_default_proxy(server, echo_server):
    """In a block, here."""
    with socksy.using(server.url("socks5h")), socksy.create_connection(echo_server) as sock:
        check_echo(sock)

    assert len(server.requests) == 1


def test_create_connection_asks_a_callable_once(server, echo_server):
    """It may count, or rotate."""
    asked = []

    def choose(host, port):
        asked.append(host)
        return server.url("socks5h")

    socksy.create_connection(echo_server, proxy=choose).close()

    assert asked == ["127.0.0.1"]


def test_create_connection_without_a_proxy(echo_server):
    """Is the standard library's, and still gives one of ours."""
    with socksy.create_connection(echo_server, timeout=3, proxy=None) as sock:
        assert isinstance(sock, SocksSocket)
        assert sock.gettimeout() == 3
        check_echo(sock)
    with pytest.raises(ConnectionRefusedError):
        socksy.create_connection(("127.0.0.1", unused_port()), proxy=None)


def test_create_connection_closes_its_socket_when_it_fails(server):
    """See the fixture that counts."""
    with pytest.raises(socksy.TargetRefusedError):
        socksy.create_connection(("127.0.0.1", unused_port()), proxy=server.url("socks5h"))
    assert eventually(lambda: len(server.requests) == 1)
