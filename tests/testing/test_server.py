"""SocksServer: each protocol by hand, its record, and its life and end."""

import errno
import os
import socket
import threading
import time

import pytest

import socksy
from socksy.protocol.codes import Command
from socksy.testing import SocksServer, faults
from socksy.testing import server as server_module

from ..support import eventually, read_exactly, unused_port
from . import raw
from .raw import BANNER, connected

CONNECT = 1


def hears_echo(sock):
    assert read_exactly(sock, len(BANNER)) == BANNER
    sock.sendall(b"hello")
    assert read_exactly(sock, 5) == b"hello"
    return True


# -- the protocols


def test_socks5_to_an_address(echo_server):
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, CONNECT, raw.ip(echo_server)) == 0
        assert hears_echo(sock)


def test_socks5_tells_the_address_it_connects_from(echo_server):
    with SocksServer() as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0" + raw.ip(echo_server))
        assert raw.reply5(sock) == (0, server.requests[0].bound)


def test_socks5_to_a_name_of_its_own(echo_server):
    with (
        SocksServer(names={"www.test": "127.0.0.1"}) as server,
        connected(server) as sock,
    ):
        assert raw.ask5(sock, CONNECT, raw.name("www.test", echo_server[1])) == 0
        assert hears_echo(sock)


def test_socks5_over_ipv6_to_ipv6():
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as target,
        SocksServer("::1") as server,
        connected(server) as sock,
    ):
        assert raw.ask5(sock, CONNECT, raw.ip(target.getsockname()[:2])) == 0
        peer, _ = target.accept()
        with peer:
            peer.sendall(b"six")
            assert read_exactly(sock, 3) == b"six"


def test_socks4(echo_server):
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask4(sock, CONNECT, *echo_server, user=b"fred")[0] == 0x5A
        assert hears_echo(sock)
        assert server.requests[0].username == "fred"


def test_socks4a(echo_server):
    with SocksServer(names={"www.test": "127.0.0.1"}) as server, connected(server) as sock:
        code, _ = raw.ask4(sock, CONNECT, "0.0.0.1", echo_server[1], name=b"www.test")
        assert code == 0x5A
        assert hears_echo(sock)


def test_http_connect(echo_server):
    with SocksServer() as server, connected(server) as sock:
        sock.sendall(b"CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (b"127.0.0.1", echo_server[1]))
        assert read_exactly(sock, 39) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert hears_echo(sock)


def test_a_unix_socket(tmp_path, echo_server):
    path = str(tmp_path / "proxy")
    with SocksServer(path=path) as server, connected(server) as sock:
        assert server.address == path
        assert raw.ask5(sock, CONNECT, raw.ip(echo_server)) == 0
        assert hears_echo(sock)
        assert server.requests[0].client == ()
    assert not os.path.exists(path)


def test_a_unix_socket_that_was_left_behind_is_no_obstacle(tmp_path):
    path = tmp_path / "proxy"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with SocksServer(path=path) as server, connected(server) as sock:
        raw.greet(sock)


def test_a_unix_socket_that_is_in_use_is_left_alone(tmp_path):
    path = tmp_path / "proxy"
    with SocksServer(path=path) as server:
        with pytest.raises(OSError, match="in use"):
            SocksServer(path=path).start()
        with connected(server) as sock:
            raw.greet(sock)


def test_what_is_no_proxy_protocol_is_hung_up_on():
    with SocksServer() as server, connected(server) as sock:
        sock.sendall(b"\x16\3\1")
        assert raw.everything(sock) == b""
        assert "0x16" in server.errors[0].strerror


# -- login


def login(sock, username, password):
    sock.sendall(b"\5\2\0\2")
    assert read_exactly(sock, 2) == b"\5\2"
    sock.sendall(b"\1" + bytes([len(username)]) + username + bytes([len(password)]) + password)
    return read_exactly(sock, 2)


def test_the_right_login(echo_server):
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        assert login(sock, b"alice", b"secret") == b"\1\0"
        sock.sendall(b"\5\1\0" + raw.ip(echo_server))
        assert raw.reply5(sock)[0] == 0
        assert server.requests[0].username == "alice"


@pytest.mark.parametrize(
    ("username", "password"),
    [(b"alice", b"wrong"), (b"bob", b"secret"), (b"bob", b""), (b"alice", b"")],
)
def test_a_wrong_login(username, password):
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        assert login(sock, username, password) == b"\1\1"
        assert raw.everything(sock) == b""
        assert isinstance(server.errors[0], socksy.ProxyAuthenticationError)
        assert server.requests == []


def test_no_login_where_one_is_required():
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        sock.sendall(raw.NO_LOGIN)
        assert raw.everything(sock) == b"\5\xff"


def test_socks4_has_no_login():
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        assert raw.ask4(sock, CONNECT, "127.0.0.1", 1)[0] == 0x5B


def test_http_login(echo_server):
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        sock.sendall(
            b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n"
            b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n" % echo_server[1]
        )
        assert read_exactly(sock, 12) == b"HTTP/1.1 200"
        assert server.requests[0].username == "alice"


def test_http_without_the_login_is_407():
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        sock.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
        assert raw.everything(sock).startswith(b"HTTP/1.1 407 ")


def test_a_function_decides_who_may_pass():
    with SocksServer(users=lambda name, password: name == password) as server:
        for password, answer in ((b"x", b"\1\0"), (b"y", b"\1\1")):
            with connected(server) as sock:
                assert login(sock, b"x", password) == answer


# -- refusals


def test_a_refused_connection_is_reply_5():
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, CONNECT, raw.ip(("127.0.0.1", unused_port()))) == 5
        assert raw.everything(sock) == b""


def test_other_names_are_not_looked_up(monkeypatch):
    monkeypatch.delattr(socket, "getaddrinfo")
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, CONNECT, raw.name("www.test", 80)) == 4


def test_real_lookups_are_an_option(echo_server):
    with SocksServer(real_lookups=True) as server, connected(server) as sock:
        assert raw.ask5(sock, CONNECT, raw.name("localhost", echo_server[1])) == 0


def test_onion_names_are_never_looked_up(monkeypatch):
    monkeypatch.delattr(socket, "getaddrinfo")
    with SocksServer(real_lookups=True) as server, connected(server) as sock:
        assert raw.ask5(sock, CONNECT, raw.name("abc.onion", 80)) == 4


def test_a_command_that_is_not_served_is_reply_7():
    with SocksServer(commands=[Command.CONNECT]) as server, connected(server) as sock:
        assert raw.ask5(sock, Command.BIND, raw.ip(("0.0.0.0", 0))) == 7


def test_an_unknown_command_is_reply_7_and_on_record():
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask5(sock, 0x42, raw.ip(("127.0.0.1", 1))) == 7
        assert server.requests[0].command == 0x42


def test_an_unknown_address_type_is_reply_8():
    with SocksServer() as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0\2" + bytes(6))
        assert read_exactly(sock, 2) == b"\5\x08"


def test_the_reply_survives_data_that_nobody_reads():
    with SocksServer() as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0" + raw.ip(("127.0.0.1", unused_port())) + b"early" * 1000)
        assert raw.reply5(sock)[0] == 5
        assert raw.everything(sock) == b""


def test_a_client_that_takes_too_long_is_hung_up_on():
    with SocksServer(timeout=0.1) as server, connected(server) as sock:
        sock.sendall(b"\5")
        assert raw.everything(sock) == b""
        assert "too long" in server.errors[0].strerror


def test_a_port_probe_is_no_error():
    with SocksServer() as server:
        with connected(server):
            pass
        assert server.wait_until_idle() == []
        assert server.errors == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda sock: raw.ask5(sock, CONNECT, b"\3\6::1%\0x\0\x50"),
        lambda sock: raw.ask5(sock, CONNECT, b"\3\x0b127.0.0.1\0x\0\x50"),
        lambda sock: raw.ask5(sock, Command.RESOLVE_PTR, raw.name("\0", 0)),
        lambda sock: raw.ask5(sock, Command.RESOLVE_PTR, raw.name("a" * 64, 0)),
        lambda sock: raw.ask5(sock, CONNECT, b"\3\1\xff\0\x50"),
    ],
    ids=["NUL in a zone", "NUL in a name", "PTR of NUL", "PTR of a name", "not UTF-8"],
)
def test_what_no_resolver_takes_is_unreachable(ask):
    """Whatever the client sends, it has an answer."""
    with SocksServer(real_lookups=True) as server, connected(server) as sock:
        assert ask(sock) == 4


def test_what_no_resolver_takes_is_unreachable_in_http():
    with SocksServer(real_lookups=True) as server, connected(server) as sock:
        sock.sendall(b"CONNECT [::1%\0]:80 HTTP/1.1\r\n\r\n")
        assert read_exactly(sock, 12) == b"HTTP/1.1 502"


# -- the record


def chain_of(error):
    """An error, and all that it drags along."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "login",
    [
        b"\5\1\2" + b"\1\5alice\5wrong",
        b"CONNECT x:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n\r\n",
        b"\5\1\2" + b"\7\1",
    ],
)
def test_an_error_on_record_keeps_no_frames(login):
    """They would hold what the client has said, its password too, and much memory."""
    with SocksServer(users={"alice": "secret"}) as server, connected(server) as sock:
        sock.sendall(login)
        raw.everything(sock)
        assert [error.__traceback__ for error in chain_of(server.errors[0])] == [None]


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (b"\5\1\0", "the method choice"),
        (b"\5\1\2" + b"\1\5alice\5wrong", "the login answer"),
        (b"GET / HTTP/1.1\r\n\r\n", "the reply"),
    ],
)
def test_an_error_is_on_record_before_its_client_knows(said, phase):
    on_record = []

    def look(moment, script):
        if moment.phase == phase:
            on_record.append(len(server.errors))
        return script

    with SocksServer(users={"alice": "secret"}, faults=faults.Fault("look", look)) as server:
        with connected(server) as sock:
            sock.sendall(said)
            assert raw.everything(sock)
    assert on_record == [1]


def test_a_server_that_runs_for_long_keeps_the_newest_only():
    with SocksServer(keep=1) as server:
        for code in (0x42, 0x43):
            with connected(server) as sock:
                raw.ask5(sock, code, raw.ip(("127.0.0.1", 1)))
            with connected(server) as sock:
                sock.sendall(bytes((code, 0)))
                raw.everything(sock)
        assert [request.command for request in server.requests] == [0x43]
        assert ["0x43" in error.strerror for error in server.errors] == [True]


def test_a_request_is_on_record_before_its_client_knows_the_answer(echo_server):
    with SocksServer(names={"www.test": "127.0.0.1"}) as server:
        with socksy.create_connection(("www.test", echo_server[1]), 5, proxy=server.url()) as sock:
            (request,) = server.requests
            assert request.client == sock.proxy_sockname
        assert (request.protocol, request.command) == ("SOCKS5", Command.CONNECT)
        assert (request.host, request.port) == ("www.test", echo_server[1])
        assert request.username is None
        assert (request.code, request.succeeded) == (0, True)


def test_a_failed_request_is_on_record_with_its_code():
    with SocksServer() as server:
        with pytest.raises(socksy.HostUnreachableError):
            socksy.create_connection(("www.test", 80), 5, proxy=server.url())
        assert (server.requests[0].code, server.requests[0].succeeded) == (4, False)


def test_wait_for_waits(echo_server):
    def ask():
        with socksy.create_connection(echo_server, 5, proxy=server.url()):
            pass

    with SocksServer() as server:
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert len(server.wait_for(3)) == 3
        for thread in threads:
            thread.join()


def test_wait_for_gives_up():
    with SocksServer() as server, pytest.raises(TimeoutError, match="1 requests"):
        server.wait_for(1, timeout=0.01)


def test_wait_for_can_count_errors():
    with SocksServer() as server, connected(server) as sock:
        sock.sendall(b"\x16\3")
        assert server.wait_for(1, errors=True) == []


def test_the_log_has_no_credentials(echo_server):
    lines = []
    with SocksServer(users={"alice": "secret"}, log=lines.append) as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url()):
            pass
        with pytest.raises(PermissionError):
            socksy.create_connection(echo_server, 5, proxy=server.url(password="wrong"))
    assert f"SOCKS5 CONNECT 127.0.0.1:{echo_server[1]} -> succeeded" in lines[0]
    assert lines[1] == "refused: the client's user name or password is wrong"
    assert "alice" not in str(lines)


def test_the_log_is_safe_from_what_clients_send():
    lines = []
    with SocksServer(log=lines.append) as server, connected(server) as sock:
        raw.ask5(sock, 0x42, raw.name("a\nb\x1b[0m", 1))
    assert lines[0].endswith(r"SOCKS5 command 0x42 'a\nb\x1b[0m':1 -> command not supported")


# -- as a proxy for clients


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h", "http"])
def test_its_url_works(scheme, echo_server):
    with SocksServer() as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url(scheme)) as sock:
            assert hears_echo(sock)


@pytest.mark.parametrize("scheme", ["socks5h", "http"])
def test_its_url_has_the_login(scheme, echo_server):
    with SocksServer(users={"al:ice@" if scheme == "socks5h" else "alice": "p/w"}) as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url(scheme)) as sock:
            assert hears_echo(sock)


def test_its_url_on_ipv6(echo_server):
    with SocksServer("::1") as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url()) as sock:
            assert hears_echo(sock)


def test_its_url_on_a_unix_socket(tmp_path, echo_server):
    with SocksServer(path=tmp_path / "proxy") as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url()) as sock:
            assert hears_echo(sock)


def test_its_proxy_takes_options():
    with SocksServer(users={"alice": "secret"}) as server:
        proxy = server.proxy(username="bob", password="other", require_auth=True)
        assert (proxy.port, proxy.username, proxy.require_auth) == (server.port, "bob", True)
        assert server.proxy(username=None).username is None


# -- life and end


def test_connections_in_every_state_end_with_the_server(echo_server):
    with SocksServer() as server:
        silent, greeted, through = (socket.create_connection(server.address, 5) for _ in range(3))
        raw.greet(greeted)
        raw.ask5(through, CONNECT, raw.ip(echo_server))
        assert eventually(lambda: server.connections == 3)
    for sock in (silent, greeted, through):
        with sock:
            raw.everything(sock)


def test_nobody_listens_after_the_end():
    with SocksServer() as server:
        address = server.address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)


def test_a_server_can_be_stopped_twice_and_started_again():
    server = SocksServer()
    for _ in range(2):
        with server, connected(server) as sock:
            raw.greet(sock)
        server.stop()


def test_a_server_runs_once():
    with SocksServer() as server, pytest.raises(RuntimeError, match="running"):
        server.start()


def test_dropped_connections_end_and_new_ones_are_welcome(echo_server):
    with SocksServer() as server, connected(server) as sock:
        raw.ask5(sock, CONNECT, raw.ip(echo_server))
        assert read_exactly(sock, len(BANNER)) == BANNER
        server.drop_connections()
        assert sock.recv(1) == b""
        assert server.connections == 0
        with connected(server) as another:
            assert raw.ask5(another, CONNECT, raw.ip(echo_server)) == 0


def test_the_number_of_connections_is_bounded():
    with SocksServer(max_connections=1) as server, connected(server) as first:
        raw.greet(first)
        with connected(server) as second:
            assert second.recv(1) == b""


def test_without_descriptors_it_pauses_instead_of_asking_again_and_again(monkeypatch):
    asked = []

    class Crowded(socket.socket):
        def accept(self):
            asked.append(time.monotonic())
            if len(asked) < 3:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    def listen(place):
        listener = Crowded()
        listener.bind(place)
        listener.listen()
        listener.setblocking(False)
        return listener

    monkeypatch.setattr(server_module, "_listen", listen)
    with SocksServer() as server, connected(server) as sock:
        raw.greet(sock)
    assert asked[1] - asked[0] > 0.09
    assert asked[2] - asked[1] > 0.09


def test_a_port_in_use_is_an_error():
    with SocksServer() as server, pytest.raises(OSError, match="in use"):
        SocksServer(port=server.port).start()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"host": ""}, ValueError),
        ({"host": 1080}, TypeError),
        ({"host": "127.0.0.1:80"}, ValueError),
        ({"port": -1}, ValueError),
        ({"port": 65536}, ValueError),
        ({"port": "80"}, ValueError),
        ({"path": ""}, ValueError),
        ({"path": "\0abstract"}, ValueError),
        ({"users": "alice:secret"}, TypeError),
        ({"users": {"alice": b"secret"}}, TypeError),
        ({"names": {"www.test": "localhost"}}, ValueError),
        ({"commands": ["CONNECT"]}, TypeError),
        ({"commands": Command.CONNECT}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"max_connections": 0}, ValueError),
        ({"keep": -1}, ValueError),
        ({"log": "file"}, TypeError),
    ],
    ids=str,
)
def test_a_wrong_argument_is_an_error_at_once(options, error):
    with pytest.raises(error):
        SocksServer(**options)


@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_any_timeout_will_do(timeout):
    with SocksServer(timeout=timeout) as server, connected(server) as sock:
        raw.greet(sock)


@pytest.mark.parametrize("ask", [lambda server: server.port, lambda server: server.url()])
def test_before_it_runs_it_is_nowhere(ask):
    with pytest.raises(RuntimeError, match="not running"):
        ask(SocksServer())


def test_on_a_unix_socket_it_has_no_port(tmp_path):
    with SocksServer(path=tmp_path / "proxy") as server:
        with pytest.raises(RuntimeError, match="Unix socket"):
            _ = server.port


def test_its_port_is_known_after_its_end():
    """As the place where no proxy is."""
    with SocksServer() as server:
        port = server.port
    assert server.port == port


def test_it_listens_here_in_a_process_that_listens_elsewhere():
    with SocksServer() as outer, socksy.wrap_module(proxy=outer.url(), remote_bind=True):
        with SocksServer() as server:
            assert server.address[0] == "127.0.0.1"
        assert outer.requests == []


def test_its_repr_says_where_it_is():
    server = SocksServer()
    assert repr(server) == "<SocksServer not running>"
    with server:
        assert str(server.port) in repr(server)
