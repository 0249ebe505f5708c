"""What goes through: both directions, their ends, early data, and datagrams."""

import socket
import struct

import pytest

from socksy.testing import SocksServer, faults, session

from ..support import read_exactly
from . import raw
from .raw import connected

CONNECT, ASSOCIATE = 1, 3


@pytest.fixture
def pair():
    """The two ends of a connection through a proxy."""
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        SocksServer() as server,
        connected(server) as client,
    ):
        raw.ask5(client, CONNECT, raw.ip(target.getsockname()))
        peer, _ = target.accept()
        peer.settimeout(5)
        with peer:
            yield client, peer


@pytest.mark.parametrize("turned", [False, True], ids=["by the client", "by the target"])
def test_half_close(pair, turned):
    one, other = pair[::-1] if turned else pair
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert raw.everything(other) == b"question"
    other.sendall(b"answer")
    other.close()
    assert raw.everything(one) == b"answer"


@pytest.mark.parametrize("turned", [False, True], ids=["by the client", "by the target"])
def test_a_reset_is_passed_on(pair, turned):
    one, other = pair[::-1] if turned else pair
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    with pytest.raises(ConnectionResetError):
        other.recv(1)


def test_much_data_both_ways_at_once(pair):
    client, peer = pair
    much = bytes(range(256)) * 20_000
    for sock in pair:
        sock.setblocking(False)
    left, heard = {client: much, peer: much}, {client: b"", peer: b""}
    import select

    while min(map(len, heard.values())) < len(much):
        sending = [sock for sock in pair if left[sock]]
        readable, writable, _ = select.select(pair, sending, [], 5)
        for sock in writable:
            left[sock] = left[sock][sock.send(left[sock][:100_000]) :]
        for sock in readable:
            heard[sock] += sock.recv(100_000)
    assert heard == {client: much, peer: much}


@pytest.mark.parametrize("protocol", ["SOCKS4", "SOCKS4a", "SOCKS5", "HTTP"])
def test_early_data_behind_the_request_is_not_lost(protocol):
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        SocksServer(names={"www.test": "127.0.0.1"}) as server,
        connected(server) as sock,
    ):
        port = target.getsockname()[1]
        requests = {
            "SOCKS4": b"\4\1" + port.to_bytes(2, "big") + b"\x7f\0\0\1me\0",
            "SOCKS4a": b"\4\1" + port.to_bytes(2, "big") + b"\0\0\0\1me\0www.test\0",
            "SOCKS5": b"\5\1\0" + b"\5\1\0" + raw.name("www.test", port),
            "HTTP": b"CONNECT www.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port,
        }
        sock.sendall(requests[protocol] + b"early")
        peer, _ = target.accept()
        with peer:
            peer.settimeout(5)
            assert read_exactly(peer, 5) == b"early"


def test_a_client_that_takes_no_data_is_given_up():
    """The answer does not fit in between."""
    flood = faults.instead_of("the reply", bytes(50_000_000))
    with SocksServer(timeout=0.1, faults=flood) as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0" + raw.ip(("127.0.0.1", 9)))
        server.wait_until_idle()


def test_a_refused_client_that_does_not_go_is_given_up(monkeypatch):
    monkeypatch.setattr(session, "_LINGER", 0.05)
    with SocksServer() as server, connected(server) as sock:
        raw.ask5(sock, CONNECT, raw.name("unknown.test", 80))
        server.wait_until_idle()


# -- datagrams (RFC 1928, section 7)


@pytest.fixture
def associate():
    """Makes associations: server, control connection, our socket, the relay's address."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(host="127.0.0.1", port=0, **options):
            server = stack.enter_context(SocksServer(host, **options))
            control = stack.enter_context(connected(server))
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            ours = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            ours.bind((host, 0))
            ours.settimeout(5)
            raw.greet(control)
            anywhere = "::" if ":" in host else "0.0.0.0"
            control.sendall(b"\5\3\0" + raw.ip((anywhere, port and ours.getsockname()[1])))
            code, relay = raw.reply5(control)
            assert code == 0
            return server, control, ours, relay

        yield make


def test_a_datagram_there_and_back(associate, udp_echo):
    _, _, ours, relay = associate()
    target = udp_echo()
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"hello", relay)
    datagram, source = ours.recvfrom(100)
    assert source == relay
    assert datagram == b"\0\0\0" + raw.ip(target) + b"HELLO"


def test_a_datagram_to_a_name(associate, udp_echo):
    _, _, ours, relay = associate(names={"www.test": "127.0.0.1"})
    target = udp_echo()
    ours.sendto(b"\0\0\0" + raw.name("www.test", target[1]) + b"hello", relay)
    assert ours.recv(100) == b"\0\0\0" + raw.ip(target) + b"HELLO"


def test_a_datagram_to_ipv6_through_ipv4(associate, udp_echo):
    _, _, ours, relay = associate()
    target = udp_echo(socket.AF_INET6)
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"hello", relay)
    assert ours.recv(100) == b"\0\0\0" + raw.ip(target) + b"HELLO"


def test_an_association_over_ipv6(associate, udp_echo):
    _, _, ours, relay = associate("::1")
    target = udp_echo(socket.AF_INET6)
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"hello", relay)
    assert ours.recv(100) == b"\0\0\0" + raw.ip(target) + b"HELLO"


def test_one_association_serves_many_targets(associate, udp_echo):
    _, _, ours, relay = associate()
    for target in (udp_echo(), udp_echo(socket.AF_INET6), udp_echo()):
        ours.sendto(b"\0\0\0" + raw.ip(target) + b"x", relay)
        assert ours.recv(100) == b"\0\0\0" + raw.ip(target) + b"X"


@pytest.mark.parametrize(
    "bad",
    [
        b"\0\0\1" + raw.ip(("127.0.0.1", 9)) + b"a fragment",
        b"\0\0\0\1\x7f",
        b"\0\0\0\2" + bytes(20),
        b"",
        b"\0\0\0" + raw.name("unknown.test", 9) + b"x",
        b"\0\0\0" + raw.name("::1%\0", 9) + b"x",
    ],
    ids=["fragment", "runt", "unknown address type", "empty", "unknown name", "NUL in a name"],
)
def test_bad_datagrams_are_dropped(associate, udp_echo, bad):
    _, _, ours, relay = associate()
    target = udp_echo()
    ours.sendto(bad, relay)
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"good", relay)
    assert ours.recv(100).endswith(b"GOOD")


def test_datagrams_of_others_are_dropped(associate, udp_echo):
    _, _, ours, relay = associate()
    target = udp_echo()
    message = b"\0\0\0" + raw.ip(target)
    ours.sendto(message + b"1", relay)
    assert ours.recv(100).endswith(b"1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(message + b"intruder", relay)
        ours.sendto(message + b"2", relay)
        assert ours.recv(100).endswith(b"2")
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(100)


def test_datagrams_come_from_where_the_control_connection_does(associate, udp_echo):
    """What comes first from another address does not settle who the client is."""
    _, _, ours, relay = associate()
    target = udp_echo()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        other.sendto(b"\0\0\0" + raw.ip(target) + b"intruder", relay)
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"us", relay)
    assert ours.recv(100).endswith(b"US")


def test_the_port_that_the_client_declared_counts(associate, udp_echo):
    _, _, ours, relay = associate(port=True)
    target = udp_echo()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"\0\0\0" + raw.ip(target) + b"intruder", relay)
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"us", relay)
    assert ours.recv(100).endswith(b"US")


def test_the_association_dies_with_its_control_connection(associate):
    server, control, ours, relay = associate()
    control.close()
    server.wait_until_idle()
    ours.connect(relay)
    ours.send(b"\0\0\0" + raw.ip(("127.0.0.1", 9)))
    with pytest.raises(ConnectionRefusedError):
        ours.recv(1)


def test_the_control_connection_dies_with_the_association(associate):
    server, control, _, _ = associate()
    server.drop_connections()
    assert control.recv(1) == b""


def test_talk_on_the_control_connection_means_nothing(associate, udp_echo):
    _, control, ours, relay = associate()
    target = udp_echo()
    control.sendall(b"still there?")
    ours.sendto(b"\0\0\0" + raw.ip(target) + b"hello", relay)
    assert ours.recv(100).endswith(b"HELLO")


def test_an_association_over_a_unix_socket(tmp_path, udp_echo):
    with (
        SocksServer(path=tmp_path / "proxy") as server,
        connected(server) as control,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
    ):
        raw.greet(control)
        control.sendall(b"\5\3\0" + raw.ip(("0.0.0.0", 0)))
        _, relay = raw.reply5(control)
        target = udp_echo()
        ours.settimeout(5)
        ours.sendto(b"\0\0\0" + raw.ip(target) + b"hello", relay)
        assert ours.recv(100).endswith(b"HELLO")


def test_socks4_has_no_datagrams():
    with SocksServer() as server, connected(server) as sock:
        assert raw.ask4(sock, ASSOCIATE, "0.0.0.0", 0)[0] == 0x5B


def test_stray_datagrams(associate, udp_echo):
    strays = b"", b"\0\0\1" + raw.ip(("127.0.0.1", 9)) + b"fragment"
    _, _, ours, relay = associate(faults=faults.stray_datagrams(*strays))
    ours.sendto(b"\0\0\0" + raw.ip(udp_echo()) + b"real", relay)
    assert [ours.recv(100) for _ in strays] == list(strays)
    assert ours.recv(100).endswith(b"REAL")


def test_datagrams_from_a_name(associate, udp_echo):
    _, _, ours, relay = associate(faults=faults.datagrams_from("www.test", 53))
    ours.sendto(b"\0\0\0" + raw.ip(udp_echo()) + b"x", relay)
    assert ours.recv(100) == b"\0\0\0" + raw.name("www.test", 53) + b"X"
