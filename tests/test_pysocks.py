"""PySocks' interface: the names, the six values, the exceptions; and what is better."""

import asyncio
import errno
import http.client
import pickle
import select
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
        ((socks.SOCKS4, "h", None, True, "id", "p"), "socks4a://id@h:1080"),
        ((socks.HTTP, "h"), "http://h:8080"),
        ((socks.HTTP, "h", 1, False, "u", "p"), "http://u:p@h:1"),
        ((socks.SOCKS5, "::1", 1, True, "ü", "p"), "socks5h://%C3%BC:p@[::1]:1"),
        ((socks.SOCKS5, "[::1]", 1, True, b"u", b"p"), "socks5h://u:p@[::1]:1"),
        ((socks.SOCKS5, "h", 1, True, b"\xff", "p\udcfe"), "socks5h://%FF:p%FE@h:1"),
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


@pytest.mark.parametrize("password", ["hunter2\ud800", "hunter2" * 40], ids=ascii)
def test_a_wrong_password_is_not_told(password):
    """Not to who reads a log: one that cannot be encoded, and one that is too long."""
    for function in (socks.set_default_proxy, socks.socksocket.set_proxy):
        with socks.socksocket() as sock:
            arguments = [sock] if function is socks.socksocket.set_proxy else []
            with pytest.raises(socksy.InvalidProxyError) as caught:
                function(*arguments, socks.SOCKS5, "h", 1, True, "bob", password)
        assert "hunter2" not in repr(caught.value)
        assert caught.value.__context__ is None


def test_the_attribute_proxy_holds_the_six_values():
    with socks.socksocket() as sock:
        assert sock.proxy == (None,) * 6
        sock.set_proxy(socks.SOCKS5, "h", 1, True, "u", "p")
        assert sock.proxy == (socks.SOCKS5, "h", 1, True, b"u", b"p")
        sock.proxy = (socks.SOCKS4, "h")
        assert sock.proxy[:2] == (socks.SOCKS4, "h")
        sock.set_proxy(socks.SOCKS5, "h", 1, True, b"\xff", "\udcfe")
        assert sock.proxy[4:] == (b"\xff", b"\xfe")


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

# what happens -> how it begins in PySocks' words, its class of the inner error, and our class
CASES = [
    (
        (socks.SOCKS5, answer_with(5)),
        "Socket error: 0x05: Connection refused: ",
        socks.SOCKS5Error,
        socksy.TargetRefusedError,
    ),
    (
        (socks.SOCKS5, answer_with(0x63)),
        "Socket error: 0x63: Unknown error: ",
        socks.SOCKS5Error,
        socksy.ProxyReplyError,
    ),
    (
        (socks.SOCKS4, answer_with(0x5B)),
        "Socket error: 0x5b: Request rejected or failed: ",
        socks.SOCKS4Error,
        socksy.TargetRefusedError,
    ),
    (
        (socks.HTTP, answer_with(502)),
        "Socket error: 502: Bad Gateway: ",
        socks.HTTPError,
        socksy.HostUnreachableError,
    ),
    (
        (socks.SOCKS5, close_before("the reply")),
        "Socket error: ",
        socks.GeneralProxyError,
        socksy.ProxyProtocolError,
    ),
    (
        (socks.SOCKS5, stall_at("the reply")),
        "Socket error: timed out: ",
        TimeoutError,
        socksy.ProxyTimeoutError,
    ),
]


@pytest.mark.parametrize(("given", "text", "inner", "ours"), CASES, ids=str)
def test_an_error_is_both_pysocks_and_ours(socks_server_factory, given, text, inner, ours):
    """PySocks raises a GeneralProxyError, whatever it is, and has the class that says what it is
    as its socket_err; here `except` finds it by both, and by ours."""
    kind, fault = given
    server = socks_server_factory(faults=fault)
    with socks.socksocket() as sock:
        sock.set_proxy(kind, "127.0.0.1", server.port)
        sock.settimeout(0.3)
        with pytest.raises(socks.GeneralProxyError) as caught:
            sock.connect(("127.0.0.1", 9))
    error = caught.value
    assert isinstance(error, ours)
    assert isinstance(error, inner)
    assert isinstance(error, socks.ProxyError)
    assert error.msg == str(error)
    assert str(error).startswith(text)
    assert str(server.port) in str(error)
    assert type(error.socket_err) is inner
    assert str(error.socket_err) in (str(error).removeprefix("Socket error: "), "timed out")
    assert getattr(error.socket_err, "socket_err", None) is None
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.errno) == (type(error), str(error), error.errno)


@pytest.mark.parametrize(
    ("kind", "login", "text", "inner"),
    [
        (
            socks.SOCKS5,
            ("alice", "guess"),
            "Socket error: SOCKS5 authentication failed: ",
            socks.SOCKS5AuthError,
        ),
        (
            socks.SOCKS5,
            (),
            "Socket error: All offered SOCKS5 authentication methods were rejected: ",
            socks.SOCKS5AuthError,
        ),
        (
            socks.HTTP,
            ("alice", "guess"),
            "Socket error: 407: Proxy Authentication Required: ",
            socks.HTTPError,
        ),
    ],
)
def test_a_refused_login(socks_server_factory, kind, login, text, inner):
    server = socks_server_factory(users={"alice": "secret"})
    with socks.socksocket() as sock:
        sock.set_proxy(kind, "127.0.0.1", server.port, True, *login)
        with pytest.raises(socks.GeneralProxyError) as caught:
            sock.connect(("127.0.0.1", 9))
    assert isinstance(caught.value, inner)
    assert isinstance(caught.value, PermissionError)
    assert str(caught.value).startswith(text)
    assert type(caught.value.socket_err) is inner
    assert caught.value.socket_err.errno == caught.value.errno == errno.EACCES
    assert "guess" not in str(caught.value)


def test_a_name_that_is_unknown_here(server):
    """The inner error is the resolver's; this one travels between processes, too."""
    with socks.socksocket() as sock:
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", server.port, False)
        with pytest.raises(socks.GeneralProxyError) as caught:
            sock.connect(("nowhere.invalid", 80))
    assert str(caught.value).startswith(f"Socket error: [Errno {caught.value.errno}] ")
    assert isinstance(caught.value.socket_err, socket.gaierror)
    script = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(caught.value), capture_output=True
    )
    assert done.stdout.decode().split() == [type(caught.value).__name__], done.stderr


# -- exceptions of those who are not in connect()


@pytest.fixture
def refusing(socks_server_factory):
    """Refuses the login that `refused_socket` has, and does no UDP."""
    return socks_server_factory(users={"alice": "secret"}, commands=[1])


@pytest.fixture
def refused_socket(refusing):
    """Makes sockets whose login is refused."""
    sockets = []

    def refused_socket(kind=socket.SOCK_STREAM, timeout=5):
        sock = socks.socksocket(socket.AF_INET, kind)
        sockets.append(sock)
        sock.settimeout(timeout)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", refusing.port, True, "alice", "guess")
        return sock

    yield refused_socket
    for sock in sockets:
        sock.close()


def test_a_datagram_that_cannot_leave(refused_socket, refusing):
    for send in (
        lambda sock: sock.sendto(b"x", ("127.0.0.1", 9)),
        lambda sock: sock.connect(("127.0.0.1", 9)),
    ):
        with pytest.raises(socks.SOCKS5AuthError):
            send(refused_socket(socket.SOCK_DGRAM))
        for kind, name in ((socks.SOCKS5, socks.SOCKS5Error), (socks.HTTP, socks.ProxyError)):
            sock = refused_socket(socket.SOCK_DGRAM)
            sock.set_proxy(kind, "127.0.0.1", refusing.port, True, "alice", "secret")
            with pytest.raises(name):
                send(sock)


def test_a_datagram_that_cannot_leave_is_told_later(refused_socket):
    """On a non-blocking socket, by the next call."""
    sock = refused_socket(socket.SOCK_DGRAM, timeout=0)
    sock.sendto(b"x", ("127.0.0.1", 9))
    assert select.select([sock], [], [], 5)[0]
    with pytest.raises(socks.SOCKS5AuthError):
        sock.recv(10)


def test_an_association_that_ends(server):
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", server.port)
        sock.connect(("127.0.0.1", 9))
        server.drop_connections()
        with pytest.raises(socks.ProxyConnectionError) as caught:
            sock.recv(10)
    assert isinstance(caught.value, socksy.ProxyConnectionError)
    assert isinstance(caught.value.socket_err, ConnectionResetError)


def test_a_non_blocking_connect_that_fails(refused_socket):
    """In asyncio, which passes our error on; and for those who call another method, or ask."""

    async def connect():
        await asyncio.get_running_loop().sock_connect(refused_socket(timeout=0), ("127.0.0.1", 9))

    with pytest.raises(socks.SOCKS5AuthError):
        asyncio.run(connect())

    sock = refused_socket(timeout=0)
    assert sock.connect_ex(("127.0.0.1", 9)) == errno.EINPROGRESS
    sock.settimeout(5)
    with pytest.raises(socks.SOCKS5AuthError):
        sock.recv(10)
    assert isinstance(sock.last_error, socks.SOCKS5AuthError)


def test_the_last_error(refused_socket):
    """Of connect_ex, which has a number only."""
    sock = refused_socket()
    assert sock.last_error is None
    assert sock.connect_ex(("127.0.0.1", 9)) == errno.EACCES
    assert isinstance(sock.last_error, socks.SOCKS5AuthError)
    sock.last_error = None
    assert sock.last_error is None


def test_a_dead_proxy():
    """With what the system said, as programs look for it."""
    port = unused_port()
    with socks.socksocket() as sock:
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", port)
        with pytest.raises(socks.ProxyConnectionError) as caught:
            sock.connect(("127.0.0.1", 9))
        assert isinstance(caught.value, socksy.ProxyConnectionError)
        assert not isinstance(caught.value, socks.GeneralProxyError)
        assert str(caught.value).startswith(
            f"Error connecting to SOCKS5 proxy 127.0.0.1:{port}: [Errno {errno.ECONNREFUSED}] "
        )
        assert isinstance(caught.value.socket_err, ConnectionRefusedError)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(copy.socket_err, ConnectionRefusedError)
        assert sock.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError) as caught:
            sock.connect(("127.0.0.1", 9), catch_errors=True)
        assert not isinstance(caught.value, socks.ProxyError)


def test_a_proxy_that_does_not_answer_at_all():
    """It times out before there is a conversation."""
    error = socksy.ProxyTimeoutError(phase="the connection to the proxy")
    error.proxy = "socks4a://***:***@192.0.2.1:1080"
    rename(error)
    assert isinstance(error, socks.ProxyConnectionError)
    assert str(error).startswith("Error connecting to SOCKS4 proxy 192.0.2.1:1080: ")
    assert isinstance(error.socket_err, TimeoutError)


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
    rename(error)
    kind = type(error)
    rename(error)
    assert type(error) is kind
    with pytest.raises(AttributeError):
        socks.errors.SOCKS5Error_NoSuchError  # noqa: B018 - as unpickling asks for a class


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


def test_wrap_module_of_urllib_request_is_where_it_connects(socks_server_factory):
    """PySocks' users write that; there it changes every module."""
    server = socks_server_factory(names={"secret.test": ("127.0.0.1", unused_port())})
    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", server.port)
    with socks.wrap_module(urllib.request), pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://secret.test/", timeout=5)

    assert [request.host for request in server.requests] == ["secret.test"]
    assert not socksy.is_wrapped(http.client)


def test_wrap_module_uses_the_default_proxy_of_the_moment(socks_server_factory, target):
    """Whoever changes identities is not kept at the old one. Without a default it is direct, as a
    `socksocket` is."""
    import smtplib

    first, second = (socks_server_factory(names={NAME: "127.0.0.1"}) for _ in range(2))

    def connect(host=NAME):
        smtplib.socket.create_connection((host, target[1])).close()

    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", first.port)
    with socks.wrap_module(smtplib):
        connect()
        socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", second.port)
        connect()
        socks.set_default_proxy()
        connect("127.0.0.1")
    assert (len(first.requests), len(second.requests)) == (1, 1)

    with pytest.raises(socks.GeneralProxyError):
        socks.wrap_module(smtplib)


def test_a_wrapped_module_gets_pysocks_errors(refusing):
    """From streams and from datagrams, by whichever call."""
    import smtplib

    socks.set_default_proxy(socks.SOCKS5, "127.0.0.1", refusing.port, True, "alice", "guess")
    with socks.wrap_module(smtplib):
        with pytest.raises(socks.SOCKS5AuthError):
            smtplib.SMTP("mail.test")
        with smtplib.socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(socks.SOCKS5AuthError):
                sock.sendto(b"x", ("192.0.2.1", 9))
        with smtplib.socket.socket() as sock:
            assert sock.last_error is None
            assert sock.connect_ex(("192.0.2.1", 9)) == errno.EACCES
            assert isinstance(sock.last_error, socks.SOCKS5AuthError)


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
