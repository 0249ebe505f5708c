"""guard=True: what would go around the proxy is refused."""

import _socket
import asyncio
import ftplib
import socket
import sys

import pytest

import socksy
from socksy.testing import SocksServer

from ..support import BANNER, echo, read_exactly, service, serving

PLAIN = socket.socket


@pytest.fixture
def proxy(socks_server_factory):
    """A proxy that alone knows secret.test, an echo server."""
    with serving(echo) as echoing:
        yield socks_server_factory(names={"secret.test": echoing})


@pytest.fixture
def old_sockets():
    """Sockets from before the patch: a stream and a datagram one."""
    with PLAIN() as stream, PLAIN(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        yield stream, datagram


ATTEMPTS = {
    "connect": lambda stream, _: stream.connect(("192.0.2.1", 80)),
    "connect_ex": lambda stream, _: stream.connect_ex(("192.0.2.1", 80)),
    "connect of the C class": lambda *_: c_class(lambda sock: sock.connect(("192.0.2.1", 80))),
    "a connected datagram socket": lambda _, datagram: datagram.connect(("192.0.2.1", 80)),
    "sendto": lambda _, datagram: datagram.sendto(b"x", ("192.0.2.1", 53)),
    "sendmsg": lambda _, datagram: datagram.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)),
    "fast open": lambda stream, _: stream.sendto(b"x", socket.MSG_FASTOPEN, ("192.0.2.1", 80)),
    "a placeholder": lambda stream, _: stream.connect(("240.0.0.1", 80)),
    "getaddrinfo": lambda *_: _socket.getaddrinfo("secret.test", 80),
    "getaddrinfo of bytes": lambda *_: _socket.getaddrinfo(b"secret.test", 80),
    "gethostbyname": lambda *_: _socket.gethostbyname("secret.test"),
    "gethostbyname_ex": lambda *_: _socket.gethostbyname_ex("secret.test"),
    "gethostbyaddr": lambda *_: _socket.gethostbyaddr("192.0.2.1"),
    "getnameinfo": lambda *_: _socket.getnameinfo(("192.0.2.1", 80), 0),
    "SocksSocket without a proxy": lambda *_: explicit(None),
    "create_connection without a proxy": lambda *_: socksy.create_connection(
        ("192.0.2.1", 80), 5, proxy=None
    ),
    "the same with a name": lambda *_: socksy.create_connection(("secret.test", 80), 5, proxy=None),
}


def c_class(use):
    sock = _socket.socket()
    try:
        use(sock)
    finally:
        sock.close()


def explicit(proxy):
    with socksy.SocksSocket(proxy=proxy) as sock:
        sock.connect(("192.0.2.1", 80))


@pytest.mark.trap(26)
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_would_go_around_is_refused(proxy, old_sockets, attempt):
    with socksy.wrap_module(proxy=proxy.url(), guard=True):
        with pytest.raises(socksy.DirectTrafficError) as caught:
            ATTEMPTS[attempt](*old_sockets)
    assert isinstance(caught.value, PermissionError)
    assert "around the proxy" in str(caught.value)
    assert any(host in str(caught.value) for host in ("192.0.2.1", "secret.test", "240.0.0.1"))
    assert proxy.requests == []


def test_what_goes_through_the_proxy_is_let_go(proxy, no_local_lookup):
    async def talk():
        _, writer = await asyncio.open_connection("secret.test", 7)
        writer.close()
        await writer.wait_closed()

    with socksy.wrap_module(proxy=proxy.url(), guard=True):
        with socket.create_connection(("secret.test", 7), 10) as sock:
            assert read_exactly(sock, len(BANNER)) == BANNER
        asyncio.run(talk())
        with socksy.create_connection(("secret.test", 7), proxy=proxy.url()) as sock:
            assert read_exactly(sock, len(BANNER)) == BANNER
        assert socket.getnameinfo((socket.gethostbyname("secret.test"), 80), 0)[0] == "secret.test"
        assert socket.getnameinfo(("192.0.2.1", 80), 0) == ("192.0.2.1", service(80))


def test_a_proxy_by_name_and_local_lookups_for_it(socks_server, no_local_lookup):
    with serving(echo) as address:
        url = f"socks5://localhost:{socks_server.address[1]}"
        with socksy.wrap_module(proxy=url, bypass=(), guard=True):
            for timeout in (None, 10):
                with socket.create_connection(("localhost", address[1]), timeout) as sock:
                    assert read_exactly(sock, len(BANNER)) == BANNER


def test_what_the_rules_let_go_is_let_go(proxy, old_sockets, no_local_lookup):
    with serving(echo) as address, socksy.wrap_module(proxy=proxy.url(), guard=True):
        with socket.create_connection(address) as sock:
            assert read_exactly(sock, len(BANNER)) == BANNER
        old_sockets[0].connect(address)
        old_sockets[1].sendto(b"x", address)
        assert _socket.gethostbyname("localhost") == "127.0.0.1"
        assert _socket.gethostbyname("192.0.2.1") == "192.0.2.1"
        assert _socket.getaddrinfo(None, 80, 0, 1)
        one, other = socket.socketpair()
        one.close()
        other.close()


def test_the_proxy_itself_may_be_reached(proxy, old_sockets):
    with socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True):
        old_sockets[0].connect(proxy.address)
        with pytest.raises(socksy.DirectTrafficError):
            old_sockets[1].sendto(b"x", ("127.0.0.1", 9))


def test_a_proxy_in_this_process_may_connect(no_local_lookup):
    with serving(echo) as address, SocksServer(names={"secret.test": address}) as proxy:
        with socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True):
            with socket.create_connection(("secret.test", 7)) as sock:
                assert read_exactly(sock, len(BANNER)) == BANNER


def test_without_a_default_proxy_nothing_goes(socks_server, old_sockets):
    with socksy.using(socks_server.url()):
        patch = socksy.wrap_module(guard=True)
    with patch, pytest.raises(socksy.DirectTrafficError):
        old_sockets[0].connect(("192.0.2.1", 80))


def test_it_covers_what_a_patch_of_one_module_does_not(proxy, old_sockets):
    with socksy.wrap_module(ftplib, proxy=proxy.url(), guard=True):
        with pytest.raises(socksy.DirectTrafficError):
            socket.create_connection(("secret.test", 80))


@pytest.mark.parametrize("first", [0, 1])
def test_it_is_off_again_after_undo(proxy, old_sockets, first):
    """With two patches, when both are undone."""
    with serving(echo) as address:
        patches = [socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True) for _ in range(2)]
        patches[first].undo()
        with pytest.raises(socksy.DirectTrafficError):
            old_sockets[0].connect(address)
        patches[1 - first].undo()
        old_sockets[0].connect(address)
        assert read_exactly(old_sockets[0], len(BANNER)) == BANNER


def test_unix_sockets_are_none_of_its_business(proxy, old_sockets, tmp_path):
    with serving(echo, path=str(tmp_path / "s")), PLAIN(socket.AF_UNIX) as sock:
        with socksy.wrap_module(proxy=proxy.url(), bypass=(), guard=True):
            sock.connect(str(tmp_path / "s"))
            assert read_exactly(sock, len(BANNER)) == BANNER


@pytest.mark.parametrize("name", ["uvloop", "pycares", "pycurl", "grpc"])
@pytest.mark.parametrize("how", ["import {0}", "from {0}.loop import Loop", "import_module('{0}')"])
def test_libraries_whose_sockets_nobody_sees_cannot_be_imported(
    proxy, tmp_path, monkeypatch, name, how
):
    """As if they were not installed: programs that can do without take Python's own sockets."""
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text(f"from {name}.loop import Loop")
    (package / "loop.py").write_text("class Loop: pass")
    monkeypatch.syspath_prepend(tmp_path)
    program = f"from importlib import import_module; {how.format(name)}"

    with socksy.wrap_module(proxy=proxy.url(), guard=True):
        with pytest.raises(ImportError, match="guard") as caught:
            exec(program, {})
        assert caught.value.name.partition(".")[0] == name
    exec(program, {})
    for module in (name, f"{name}.loop"):
        del sys.modules[module]
