"""wrap_module() with modules: they change, and nothing else does."""

import contextlib
import ftplib
import http.client
import importlib
import smtplib
import socket
import types
import urllib.request
from itertools import permutations

import pytest

import socksy
from socksy import InvalidArgumentError

from ..support import BANNER, echo, read_exactly, script, serve_web, serving

PLAIN = socket.socket


def module_with(source, name="program"):
    """A module made of this source."""
    module = types.ModuleType(name)
    exec(source, vars(module))
    return module


@pytest.fixture
def proxy(socks_server_factory):
    """A proxy that alone knows secret.test, an echo server."""
    with serving(echo) as echoing:
        yield socks_server_factory(names={"secret.test": echoing})


WAYS_TO_IMPORT = [
    ("import socket", "socket.create_connection(('secret.test', 7))"),
    ("import socket as net", "net.create_connection(('secret.test', 7), 10)"),
    ("from socket import create_connection", "create_connection(('secret.test', 7))"),
    ("from socket import create_connection as c", "c(('secret.test', 7), None, ('127.0.0.1', 0))"),
    (
        "from socket import socket, getaddrinfo",
        "connected(socket(), getaddrinfo('secret.test', 7)[0][4])",
    ),
    (
        "from socket import *\nfrom socket import socket",
        "connected(socket(), (gethostbyname('secret.test'), 7))",
    ),
    ("import socket", "connected(socket.socket(), (socket.gethostbyname('secret.test'), 7))"),
]


@pytest.mark.need(6)
@pytest.mark.parametrize(("imports", "connect"), WAYS_TO_IMPORT)
def test_each_way_to_import_it_goes_through_the_proxy(proxy, no_local_lookup, imports, connect):
    helper = "\ndef connected(sock, address):\n    sock.connect(address)\n    return sock\n"
    module = module_with(f"{imports}{helper}\ndef connect():\n    return {connect}\n")
    before = dict(vars(module))
    patch = socksy.wrap_module(module, proxy=proxy.url())
    with module.connect() as sock:
        assert read_exactly(sock, len(BANNER)) == BANNER
    assert socksy.is_wrapped(module)
    assert repr(patch) == "<Patch of program>"
    patch.undo()

    assert vars(module) == before
    assert not socksy.is_wrapped(module)
    assert [request.host for request in proxy.requests] == ["secret.test"]


def test_the_socket_module_does_not_change(proxy):
    before = dict(vars(socket))
    with socksy.wrap_module(ftplib, http.client, proxy=proxy.url()):
        assert vars(socket) == before
        assert "__new__" not in PLAIN.__dict__
        with socket.socket() as sock:
            assert type(sock) is PLAIN
        assert not socksy.is_wrapped()
        assert ftplib.socket.AF_INET is socket.AF_INET
        assert ftplib.socket.gaierror is socket.gaierror
    assert ftplib.socket is http.client.socket is socket


@pytest.mark.need(6)
def test_wrapping_smtplib_leaves_urllib_direct(socks_server_factory, no_local_lookup):
    mail = script(
        (0, b"220 hi\r\n"), (b"ehlo me\r\n", b"250 ok\r\n"), (b"QUIT\r\n", b"221 bye\r\n")
    )
    with serving(mail) as mailing, serving(serve_web) as (_, port):
        proxy = socks_server_factory(names={"mail.test": mailing})
        with socksy.wrap_module(smtplib, proxy=proxy.url(), bypass=()):
            with smtplib.SMTP("mail.test", 25, local_hostname="me", timeout=10) as client:
                assert client.ehlo()[0] == 250
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert answer.read() == b"ok"
    assert [request.host for request in proxy.requests] == ["mail.test"]


def test_two_modules_through_two_proxies(socks_server_factory, no_local_lookup):
    source = (
        "import socket\ndef connect():\n    socket.create_connection(('secret.test', 7)).close()\n"
    )
    modules = [module_with(source, name) for name in ("one", "other")]
    with serving(echo) as address:
        servers = [socks_server_factory(names={"secret.test": address}) for _ in modules]
        with contextlib.ExitStack() as stack:
            for module, server in zip(modules, servers, strict=True):
                stack.enter_context(socksy.wrap_module(module, proxy=server.url()))
            modules[0].connect()
            assert [len(server.requests) for server in servers] == [1, 0]
            modules[1].connect()
    assert [len(server.requests) for server in servers] == [1, 1]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_module_wrapped_again_and_again_is_unwrapped_in_any_order(socks_server_factory, order):
    """Process, module, module: what was done to the module counts, the latest first."""
    source = (
        "import socket\nfrom socket import create_connection\ndef connect():\n"
        "    for make in (socket.create_connection, create_connection):\n"
        "        make(('secret.test', 7)).close()\n"
    )
    module = module_with(source)
    before = dict(vars(module))
    with serving(echo) as address:
        servers = [socks_server_factory(names={"secret.test": address}) for _ in range(3)]
        patches = [
            socksy.wrap_module(proxy=servers[0].url()),
            socksy.wrap_module(module, proxy=servers[1].url()),
            socksy.wrap_module(module, proxy=servers[2].url()),
        ]
        left = {0, 1, 2}
        for number in order:
            asked = len(servers[max(left)].requests)
            module.connect()
            assert len(servers[max(left)].requests) == asked + 2
            patches[number].undo()
            left.remove(number)
    assert vars(module) == before
    assert socket.socket is PLAIN


def test_unwrapping_one_of_several_modules(proxy):
    patch = socksy.wrap_module(ftplib, smtplib, proxy=proxy.url())
    socksy.unwrap_module(ftplib)

    assert ftplib.socket is socket
    assert not socksy.is_wrapped(ftplib)
    assert socksy.is_wrapped(smtplib)
    assert patch.active
    socksy.unwrap_module(smtplib)
    assert not patch.active
    assert smtplib.socket is socket
    assert repr(patch) == "<Patch of nothing any more>"


def test_what_somebody_else_put_there_stays(proxy):
    module = module_with("import socket\nfrom socket import create_connection")
    patch = socksy.wrap_module(module, proxy=proxy.url())
    module.create_connection = print
    patch.undo()

    assert module.create_connection is print
    assert module.socket is socket


def test_a_module_that_does_not_use_sockets_itself_is_an_error(proxy):
    """And the others that were named with it stay as they were."""
    with pytest.raises(socksy.InvalidArgumentError, match="json does not"):
        socksy.wrap_module(ftplib, module_with("import json", "json"), proxy=proxy.url())

    assert ftplib.socket is socket
    assert not socksy.is_wrapped(ftplib)


@pytest.mark.parametrize("module", ["ftplib", None, socket.socket])
def test_only_modules_can_be_wrapped(proxy, module):
    with pytest.raises(TypeError):
        socksy.wrap_module(module, proxy=proxy.url())


@pytest.mark.parametrize("name", ["socket", "create_connection", "getaddrinfo"])
@pytest.mark.parametrize("rival", ["gevent._socketcommon", "eventlet.green.socket"])
@pytest.mark.parametrize("modules", [(), (smtplib,)])
def test_what_asks_resolvers_of_its_own_is_not_competed_with(
    proxy, monkeypatch, modules, rival, name
):
    """The functions of gevent's patch would look names up past ours."""
    theirs = types.FunctionType(test_active_ftp.__code__, {"__name__": rival})
    monkeypatch.setattr(socket, name, theirs)

    with pytest.raises(socksy.ProxyUnsupportedError, match=rival.partition(".")[0]):
        socksy.wrap_module(*modules, proxy=proxy.url())
    assert getattr(socket, name) is theirs
    assert not socksy.is_wrapped(*modules)


def test_active_ftp(socks_server_factory, no_local_lookup):
    """With remote_bind the proxy listens, and the server is told where."""
    told = []

    def server(connection):
        connection.sendall(b"220 hi\r\n")
        for line in connection.makefile("rb"):
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "PORT":
                *address, high, low = rest.split(",")
                told.append((".".join(address), int(high) * 256 + int(low)))
            if verb == "NLST":
                connection.sendall(b"150 here\r\n")
                with socket.create_connection(told[-1]) as data:
                    data.sendall(b"file\r\n")
            connection.sendall(b"221 bye\r\n" if verb == "QUIT" else b"230 ok\r\n")

    with serving(server) as address:
        proxy = socks_server_factory(names={"ftp.test": address})
        with socksy.wrap_module(ftplib, proxy=proxy.url(), bypass=(), remote_bind=True):
            with ftplib.FTP("ftp.test", timeout=10) as client:
                client.set_pasv(False)
                assert client.nlst() == ["file"]
    assert [request.command.name for request in proxy.requests] == ["CONNECT", "BIND"]
    assert told[0][0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("urllib.request", "http.client"),
        ("requests.adapters", "urllib3.util.connection"),
        ("requests.utils", "urllib3.util.connection"),
        ("urllib3.connection", "urllib3.util.connection"),
    ],
)
def test_a_module_that_connects_in_another_one_is_not_enough(name, needed):
    """It would look like success, and go direct."""
    module, other = importlib.import_module(name), importlib.import_module(needed)
    dead = "socks5h://127.0.0.1:1"
    with pytest.raises(InvalidArgumentError, match=f"are made in {needed}"):
        socksy.wrap_module(module, proxy=dead)
    assert not socksy.is_wrapped(module)

    with socksy.wrap_module(module, other, proxy=dead):
        assert socksy.is_wrapped(module)
    with socksy.wrap_module(other, proxy=dead), socksy.wrap_module(module, proxy=dead):
        assert socksy.is_wrapped(module)
    with socksy.wrap_module(proxy=dead), socksy.wrap_module(module, proxy=dead):
        assert socksy.is_wrapped(module)
