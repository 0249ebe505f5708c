"""PySocks' interface: the names, the six values, the exceptions; and what is better."""

import errno
import pickle
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import trustme

import socksy
import socksy.pysocks as socks
from socksy.pysocks import sockshandler
from socksy.pysocks.errors import rename
from socksy.testing.faults import answer_with, bound_address, close_before, stall_at

from .support import BANNER, echo, serve_web, serving, unused_port

NAME = "only-the-proxy-knows.test"


@pytest.fixture(autouse=True)
def no_default_proxy():
    yield
    socks.socksocket.default_proxy = None


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


@pytest.fixture
def target():
    with serving(echo) as address:
        yield address


# -- choosing a proxy


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ((socks.SOCKS5, "h"), "socks5h://h:1080"),
        ((socks.SOCKS5, "h", 9, False), "socks5://h:9"),
        ((socks.SOCKS4, "h"), "socks4a://h:1080"),
        ((socks.SOCKS4, "h", None, False, "id"), "socks4://id@h:1080"),
        ((socks.HTTP, "h"), "http://h:8080"),
        ((socks.HTTP, "h", 1, False, "u", "p"), "http://u:p@h:1"),
        ((socks.SOCKS5, "::1", 1, True, "ü", "p"), "socks5h://%C3%BC:p@[::1]:1"),
        ((socks.SOCKS5, "[::1]", 1, True, b"u", b"p"), "socks5h://u:p@[::1]:1"),
        ((socks.SOCKS5, "h", 1, True, "only a name"), "socks5h://only%20a%20name@h:1"),
        ((socks.SOCKS5, "h", 1, True, None, "no name"), "socks5h://h:1"),
    ],
    ids=str,
)
def test_the_six_values(values, url):
    with socks.socksocket() as sock:
        sock.set_proxy(*values)
        assert sock._route_now() == (socksy.Proxy.from_url(url),)
        sock.set_proxy()
        assert sock._route_now() is None


@pytest.mark.parametrize(
    "values",
    [(9, "h"), (socks.SOCKS5,), (socks.SOCKS5, "a b"), (socks.SOCKS5, "h", 70000)],
    ids=str,
)
def test_wrong_values_are_refused_at_once(values):
    """Not when it is too late. By every function that takes them."""
    with socks.socksocket() as sock:
        for function in (sock.set_proxy, sock.setproxy, socks.set_default_proxy):
            with pytest.raises(socksy.InvalidProxyError):
                function(*values)


def test_the_attribute_proxy_holds_the_six_values():
    with socks.socksocket() as sock:
        assert sock.proxy == (None,) * 6
        sock.set_proxy(socks.SOCKS5, "h", 1, True, "u", "p")
        assert sock.proxy == (socks.SOCKS5, "h", 1, True, b"u", b"p")
        sock.proxy = (socks.SOCKS4, "h")
        assert sock.proxy[:2] == (socks.SOCKS4, "h")


def test_a_default_proxy_is_for_sockets_made_from_now_on(server, target):
    before = socks.socksocket()
    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", server.port)
    assert socks.get_default_proxy()[:3] == (socks.SOCKS5, "127.0.0.1", server.port)
    with before, socks.socksocket() as sock:
        sock.connect((NAME, target[1]))
        before.connect(target)
    assert [request.host for request in server.requests] == [NAME]


def test_old_spellings(server, target):
    """Of SocksiPy, from which PySocks comes."""
    socks.setdefaultproxy(proxytype=socks.PROXY_TYPE_SOCKS5, addr="127.0.0.1", port=server.port)
    assert socks.getdefaultproxy()[0] == socks.PROXY_TYPE_SOCKS5
    with socks.socksocket() as sock:
        sock.setproxy(proxytype=socks.PROXY_TYPE_SOCKS4, addr="127.0.0.1", port=server.port)
        sock.connect((NAME, target[1]))
        assert sock.getproxysockname() == sock.get_proxy_sockname() == sock.bound_address
        assert sock.getproxypeername() == sock.get_proxy_peername() == ("127.0.0.1", server.port)
        assert sock.get_peername() == (NAME, target[1])
    assert server.requests[0].protocol == "SOCKS4"


def test_the_proxys_address_before_connecting():
    with socks.socksocket() as sock:
        assert sock.get_proxy_sockname() is None
        with pytest.raises(OSError, match="not connected") as caught:
            sock.get_proxy_peername()
        assert caught.value.errno == errno.ENOTCONN


def test_names():
    """Those that programs use."""
    assert set(socks.__all__) <= set(dir(socks))
    assert socks.PRINTABLE_PROXY_TYPES[socks.SOCKS5] == "SOCKS5"
    assert socks.DEFAULT_PORTS == {socks.SOCKS4: 1080, socks.SOCKS5: 1080, socks.HTTP: 8080}
    assert socks.__version__ == "1.7.1"


# -- connecting


@pytest.mark.parametrize("kind", [socks.SOCKS4, socks.SOCKS5, socks.HTTP])
@pytest.mark.parametrize("host", [NAME, "127.0.0.1", "[::ffff:127.0.0.1]"])
def test_create_connection(server, target, kind, host):
    """Every protocol, names and addresses; with socket options and a timeout of its own."""
    with socks.create_connection(
        (host, target[1]),
        timeout=5,
        proxy_type=kind,
        proxy_addr="127.0.0.1",
        proxy_port=server.port,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as sock:
        assert sock.recv(100) == BANNER
        assert sock.gettimeout() == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert isinstance(sock, socks.socksocket)


def test_create_connection_uses_the_default_proxy(server, target):
    """PySocks looks the proxy None up."""
    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", server.port)
    with socks.create_connection((NAME, target[1])):
        assert server.requests


def test_create_connection_without_any_proxy(target):
    with socks.create_connection(("localhost", target[1]), 5, ("127.0.0.1", 0)) as sock:
        assert sock.recv(100) == BANNER
    with pytest.raises(ConnectionRefusedError):
        socks.create_connection(("127.0.0.1", unused_port()))


def test_non_blocking_connects_do_not_block(server, target):
    """PySocks makes the socket blocking meanwhile."""
    with socks.socksocket() as sock:
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", server.port)
        sock.setblocking(False)
        assert sock.connect_ex((NAME, target[1])) == errno.EINPROGRESS
        sock.settimeout(5)
        assert sock.recv(100) == BANNER


def test_datagrams(server):
    with socks.socksocket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=2) as peer:
        peer.bind(("127.0.0.1", 0))
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", server.port)
        sock.sendto(b"x", (NAME, peer.getsockname()[1]))
        data, relay = peer.recvfrom(10)
        assert data == b"x"
        assert relay != sock.getsockname()


# -- exceptions

CASES = [
    (answer_with(5), socks.SOCKS5, socks.SOCKS5Error, socksy.TargetRefusedError),
    (answer_with(0x5B), socks.SOCKS4, socks.SOCKS4Error, socksy.TargetRefusedError),
    (answer_with(403), socks.HTTP, socks.HTTPError, socksy.NotAllowedError),
    (close_before("the reply"), socks.SOCKS5, socks.GeneralProxyError, socksy.ProxyProtocolError),
    (stall_at("the reply"), socks.SOCKS5, socks.GeneralProxyError, socksy.ProxyTimeoutError),
]


@pytest.mark.parametrize(("fault", "kind", "name", "ours"), CASES, ids=lambda value: str(value))
def test_an_error_is_both_pysocks_and_ours(socks_server_factory, fault, kind, name, ours):
    server = socks_server_factory(faults=fault)
    with socks.socksocket() as sock:
        sock.set_proxy(kind, "127.0.0.1", server.port)
        sock.settimeout(0.3)
        with pytest.raises(name) as caught:
            sock.connect(("127.0.0.1", 9))
    error = caught.value
    assert isinstance(error, ours)
    assert isinstance(error, socks.ProxyError)
    assert error.msg == str(error)
    assert str(server.port) in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.errno) == (type(error), str(error), error.errno)


def test_a_refused_login(socks_server_factory):
    server = socks_server_factory(users={"alice": "secret"})
    for kind, name in ((socks.SOCKS5, socks.SOCKS5AuthError), (socks.HTTP, socks.HTTPError)):
        with socks.socksocket() as sock:
            sock.set_proxy(kind, "127.0.0.1", server.port, True, "alice", "guess")
            with pytest.raises(name) as caught:
                sock.connect(("127.0.0.1", 9))
            assert isinstance(caught.value, PermissionError)
            assert "guess" not in str(caught.value)


def test_a_dead_proxy():
    """With what the system said, as programs look for it."""
    port = unused_port()
    with socks.socksocket() as sock:
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", port)
        with pytest.raises(socks.ProxyConnectionError) as caught:
            sock.connect(("127.0.0.1", 9))
        assert isinstance(caught.value, socksy.ProxyConnectionError)
        assert isinstance(caught.value.socket_err, ConnectionRefusedError)
        assert sock.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError) as caught:
            sock.connect(("127.0.0.1", 9), catch_errors=True)
        assert not isinstance(caught.value, socks.ProxyError)


def test_a_passed_deadline_can_be_told_apart(socks_server_factory):
    """urllib3 asks whether socket_err is a timeout."""
    server = socks_server_factory(faults=stall_at("the reply"))
    with pytest.raises(socks.ProxyError) as caught:
        socks.create_connection(("a.test", 9), 0.2, None, socks.SOCKS5, "127.0.0.1", server.port)
    assert isinstance(caught.value.socket_err, socket.timeout)


def test_programs_may_raise_them_too():
    cause = OSError(errno.EPIPE, "broken")
    for name in (socks.ProxyError, socks.GeneralProxyError, socks.HTTPError):
        error = name("text", cause)
        assert (str(error), error.msg, error.socket_err) == (f"text: {cause}",) * 2 + (cause,)
        assert error.errno == errno.EPIPE
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert str(name("text")) == "text"


def test_an_error_is_renamed_once():
    error = socksy.ProxyProtocolError(message="x")
    rename(error, "SOCKS5")
    kind = type(error)
    rename(error, "SOCKS4")
    assert type(error) is kind


# -- patching, and taking the place of PySocks


def test_wrap_module_is_for_that_module_only(server, target):
    import smtplib

    with pytest.raises(socks.GeneralProxyError):
        socks.wrap_module(smtplib)
    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", server.port)
    with socks.wrapmodule(smtplib):
        assert smtplib.socket is not socket
        with smtplib.socket.create_connection((NAME, target[1])) as sock:
            assert sock.recv(100) == BANNER
    assert smtplib.socket is socket
    assert [request.host for request in server.requests] == [NAME]


def test_install_as_socks(server):
    """In a process of its own: requests then runs on it."""
    with serving(serve_web) as web:
        code = f"""
import socksy.pysocks
socksy.pysocks.install_as_socks()
import socks, sockshandler, requests
assert socks.socksocket is socksy.pysocks.socksocket
assert sockshandler.SocksiPyHandler
proxies = {{"http": "socks5h://127.0.0.1:{server.port}"}}
print(requests.get("http://{NAME}:{web[1]}/", proxies=proxies, timeout=5).text)
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30
        )
    assert (done.stdout, done.stderr) == ("ok\n", "")
    assert server.requests[0].host == NAME


# -- sockshandler


@pytest.fixture(scope="module")
def tls():
    """Contexts of a server named NAME, and of a client that trusts it."""
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(NAME).configure_cert(served)
    authority.configure_trust(trusting)
    return served, trusting


def test_urllib(server):
    opener = urllib.request.build_opener(
        sockshandler.SocksiPyHandler(socks.SOCKS5, "127.0.0.1", server.port)
    )
    with serving(serve_web) as web:
        with opener.open(f"http://{NAME}:{web[1]}/", timeout=5) as response:
            assert response.read() == b"ok"
        with pytest.raises(urllib.error.URLError) as caught:
            opener.open(f"http://127.0.0.1:{unused_port()}/", timeout=5)
    assert isinstance(caught.value.reason, socks.SOCKS5Error)


def test_urllib_with_tls(server, tls):
    """Which is verified; PySocks takes no context."""

    def serve(connection):
        with tls[0].wrap_socket(connection, server_side=True) as secure:
            serve_web(secure)

    values = socks.SOCKS5, "127.0.0.1", server.port
    with serving(serve) as web:
        opener = urllib.request.build_opener(sockshandler.SocksiPyHandler(*values, context=tls[1]))
        with opener.open(f"https://{NAME}:{web[1]}/", timeout=5) as response:
            assert response.read() == b"ok"
    with serving(lambda connection: connection.recv(4000)) as web:
        opener = urllib.request.build_opener(sockshandler.SocksiPyHandler(*values))
        with pytest.raises(urllib.error.URLError):
            opener.open(f"https://{NAME}:{web[1]}/", timeout=5)


def test_what_the_proxy_bound_is_text(socks_server_factory, target):
    """PySocks gives bytes for a name."""
    server = socks_server_factory(faults=bound_address("some.name", 7))
    with socks.socksocket() as sock:
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", server.port)
        sock.connect(target)
        assert sock.get_proxy_sockname() == ("some.name", 7)
