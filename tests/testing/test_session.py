"""BIND, Tor's RESOLVE, and what an error of the system is told as."""

import errno
import socket
from contextlib import contextmanager

import pytest

import socksy
from socksy.testing import SocksServer, faults, session
from socksy.testing.session import reply_code

from ..support import eventually, read_exactly
from . import raw
from .raw import connected

BIND, RESOLVE, RESOLVE_PTR = 2, 0xF0, 0xF1
ANY = "0.0.0.0", 0


@contextmanager
def bound5(server, expected=ANY):
    """A control connection, and where the proxy listens for it."""
    with connected(server) as control:
        raw.greet(control)
        control.sendall(b"\5\2\0" + raw.ip(expected))
        code, address = raw.reply5(control)
        assert code == 0
        yield control, address


def test_bind_with_socks5():
    with SocksServer() as server, bound5(server) as (control, address):
        with socket.create_connection(address, 5) as peer:
            assert raw.reply5(control) == (0, peer.getsockname())
            peer.sendall(b"from the peer")
            assert read_exactly(control, 13) == b"from the peer"
            control.sendall(b"from us")
            assert read_exactly(peer, 7) == b"from us"
        assert control.recv(1) == b""
        assert server.requests[0].bound == address


def test_bind_with_socks4():
    with SocksServer() as server, connected(server) as control:
        code, address = raw.ask4(control, BIND, "0.0.0.0", 0)
        assert code == 0x5A
        with socket.create_connection(address, 5) as peer:
            assert raw.reply4(control) == (0x5A, peer.getsockname())
            peer.sendall(b"hello")
            assert read_exactly(control, 5) == b"hello"


@pytest.mark.parametrize("expected", [("::", 0), ("::1", 7), ANY], ids=str)
def test_bind_with_ipv6(expected):
    with SocksServer("::1") as server, bound5(server, expected) as (control, address):
        assert address[0] == "::1"
        with socket.create_connection(address, 5) as peer:
            assert raw.reply5(control) == (0, peer.getsockname()[:2])


def test_bind_for_an_ipv6_peer_over_ipv4():
    with SocksServer() as server, bound5(server, ("::1", 0)) as (control, address):
        with socket.create_connection(address, 5) as peer:
            assert raw.reply5(control) == (0, peer.getsockname()[:2])


def test_bind_lets_in_the_peer_that_was_named():
    with SocksServer() as server, bound5(server, ("127.0.0.1", 1)) as (control, address):
        with socket.create_connection(address, 5):
            assert raw.reply5(control)[0] == 0


def test_bind_lets_nobody_else_in():
    with SocksServer() as server, bound5(server, ("192.0.2.1", 1)) as (control, address):
        with socket.create_connection(address, 5) as peer:
            assert raw.reply5(control)[0] == 2
            assert raw.everything(control) == b""
            assert raw.everything(peer) == b""


def test_bind_for_a_peer_by_name():
    names = {"peer.test": ["192.0.2.1", "127.0.0.1"]}
    with SocksServer(names=names) as server, connected(server) as control:
        raw.greet(control)
        control.sendall(b"\5\2\0" + raw.name("peer.test", 20))
        _, address = raw.reply5(control)
        with socket.create_connection(address, 5):
            assert raw.reply5(control)[0] == 0


def test_bind_for_an_unknown_peer():
    with SocksServer() as server, connected(server) as control:
        assert raw.ask5(control, BIND, raw.name("peer.test", 20)) == 4


def test_bind_gives_up_waiting():
    with SocksServer(timeout=0.1) as server, bound5(server) as (control, _):
        assert raw.reply5(control)[0] == 6


def test_bind_ends_when_its_client_goes():
    with SocksServer() as server:
        with bound5(server) as (_, address):
            pass
        server.wait_until_idle()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)


def test_what_a_client_says_ahead_of_the_second_reply_is_for_the_peer():
    with SocksServer() as server, bound5(server) as (control, address):
        control.sendall(b"early")
        with socket.create_connection(address, 5) as peer:
            assert read_exactly(peer, 5) == b"early"


def test_both_bind_replies_in_one_segment():
    with (
        SocksServer(faults=faults.glue_bind_replies()) as server,
        connected(server) as control,
    ):
        raw.greet(control)
        control.sendall(b"\5\2\0" + raw.ip(ANY))
        (request,) = server.wait_for(1)
        with socket.create_connection(request.bound, 5) as peer:
            both = control.recv(100)
            assert both[:2] == both[10:12] == b"\5\0"
            assert both[3:10] == raw.ip(request.bound)
            assert both[13:] == raw.ip(peer.getsockname())


@pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
def test_bind_with_our_client(scheme):
    with SocksServer() as server, socksy.SocksSocket(proxy=server.url(scheme)) as listener:
        listener.settimeout(5)
        listener.bind_remote()
        with socket.create_connection(listener.getsockname(), 5) as peer:
            conn, address = listener.accept()
            with conn:
                assert address == peer.getsockname()
                peer.sendall(b"hello")
                assert read_exactly(conn, 5) == b"hello"


def test_resolve():
    with SocksServer(names={"www.test": "192.0.2.7"}) as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\xf0\0" + raw.name("www.test", 0))
        assert raw.reply5(sock) == (0, ("192.0.2.7", 0))


def test_resolve_an_unknown_name():
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, RESOLVE, raw.name("www.test", 0)) == 4


def test_resolve_ptr():
    with SocksServer(names={"www.test": "192.0.2.7"}) as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\xf1\0" + raw.ip(("192.0.2.7", 0)))
        assert raw.reply5(sock) == (0, ("www.test", 0))


def test_resolve_ptr_of_an_unknown_address():
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, RESOLVE_PTR, raw.ip(("192.0.2.7", 0))) == 4


def test_a_second_address_is_tried(echo_server):
    names = {"www.test": ["::1", echo_server[0]]}
    with SocksServer(names=names) as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.name("www.test", echo_server[1])) == 0


def test_every_address_is_tried(echo_server):
    names = {"www.test": ["127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.4"]}
    with SocksServer(names=names) as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.name("www.test", echo_server[1])) == 0


def test_the_end_of_file_comes_right_behind_a_refusal(monkeypatch):
    """The server reads on for a while, so that its reply is not lost."""
    monkeypatch.setattr(session, "_LINGER", 60.0)
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.name("unknown.test", 80)) == 4
        assert raw.everything(sock) == b""
        assert server.connections == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ECONNREFUSED, ""), 5),
        (OSError(errno.ENETUNREACH, ""), 3),
        (OSError(errno.EHOSTUNREACH, ""), 4),
        (OSError(errno.ETIMEDOUT, ""), 6),
        (OSError(errno.EACCES, ""), 2),
        (OSError(errno.EAFNOSUPPORT, ""), 8),
        (OSError(errno.EMFILE, ""), 1),
        (socket.gaierror(socket.EAI_NONAME, ""), 4),
    ],
    ids=str,
)
def test_the_reply_for_an_error(error, code):
    assert reply_code(error) == code


def test_a_target_that_does_not_answer_is_reply_6():
    # a full backlog: the kernel drops further connection attempts
    with socket.socket() as target:
        target.bind(("127.0.0.1", 0))
        target.listen(0)
        address = target.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            with SocksServer(timeout=0.3) as server, connected(server) as sock:
                assert raw.ask5(sock, 1, raw.ip(address)) == 6
        finally:
            for filler in fillers:
                filler.close()


def test_a_server_can_stop_while_a_target_does_not_answer():
    with socket.socket() as target:
        target.bind(("127.0.0.1", 0))
        target.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(target.getsockname())
        try:
            with SocksServer() as server, connected(server) as sock:
                raw.greet(sock)
                sock.sendall(b"\5\1\0" + raw.ip(target.getsockname()))
                assert eventually(lambda: server.connections == 1)
        finally:
            for filler in fillers:
                filler.close()
