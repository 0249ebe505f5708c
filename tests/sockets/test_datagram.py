"""Datagrams through a proxy's UDP relay, by every method, as unmodified code uses them."""

import asyncio
import contextlib
import errno
import gc
import os
import select
import socket
import sys
import threading
import time

import pytest

import socksy
from socksy.proxy import Proxy
from socksy.sockets import pending
from socksy.sockets.association import QUEUE, Association, relay_address
from socksy.sockets.datagram import DatagramSocket
from socksy.sockets.dial import run
from socksy.sockets.stream import SocksSocket
from socksy.testing import SocksServer
from socksy.testing.faults import (
    answer_with,
    bound_address,
    close_before,
    datagrams_from,
    pause_before,
    stall_at,
    stray_datagrams,
)

from ..support import echoing, eventually, read_exactly, serving, unused_port

NAME = "only-the-proxy-knows.test"
RUNT, FRAGMENT = b"\0\0\0", b"\0\0\1\1\x7f\0\0\1\0\1x"
RSV, ATYP = b"\1\0\0\1\x7f\0\0\1\0\1x", b"\0\0\0\7" + bytes(9)


@pytest.fixture(autouse=True)
def the_thread_ends_soon(monkeypatch):
    """Otherwise each test would wait for it."""
    monkeypatch.setattr(pending, "_IDLE", 0.01)


@pytest.fixture
def echo():
    """A UDP echo server on 127.0.0.1."""
    with echoing() as address:
        yield address


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows one name more than this machine."""
    return socks_server_factory(names={NAME: "127.0.0.1"})


@contextlib.contextmanager
def datagrams(proxy, family=socket.AF_INET, timeout=5):
    """A datagram socket with a proxy."""
    with SocksSocket(family, socket.SOCK_DGRAM, proxy=proxy) as sock:
        sock.settimeout(timeout)
        yield sock


def is_associated(sock):
    return eventually(lambda: sock.proxy_peername)


def associations(server):
    return [request for request in server.requests if request.command == 3]


# -- there and back

SENDING = {
    "sendto": lambda sock, data, to: sock.sendto(data, to),
    "sendto with flags": lambda sock, data, to: sock.sendto(data, 0, to),
    "sendmsg": lambda sock, data, to: sock.sendmsg([data[:2], data[2:]], [], 0, to),
    "send": lambda sock, data, to: (sock.connect(to), sock.send(data))[1],
    "sendall": lambda sock, data, to: (sock.connect(to), sock.sendall(data), len(data))[2],
    "sendmsg, connected": lambda sock, data, to: (sock.connect(to), sock.sendmsg([data]))[1],
    "write of a file": lambda sock, data, to: (sock.connect(to), write(sock, data))[1],
}


def write(sock, data):
    with sock.makefile("wb", buffering=0) as file:
        return file.write(data)


@pytest.mark.parametrize("how", SENDING)
@pytest.mark.parametrize("host", ["127.0.0.1", NAME])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_way_to_send(server, echo, how, host, kind):
    """Twice: the first makes the association, the second finds it."""
    with datagrams(server.url("socks5h")) as sock:
        for word in (b"first", b"second"):
            assert SENDING[how](sock, kind(word), (host, echo[1])) == len(word)
            assert sock.recvfrom(100) == (word, echo)
    assert len(associations(server)) == 1


RECEIVING = {
    "recv": lambda sock, size: sock.recv(size),
    "recvfrom": lambda sock, size: sock.recvfrom(size)[0],
    "recv with flags": lambda sock, size: sock.recv(size, socket.MSG_WAITALL),
    "recvfrom with flags": lambda sock, size: sock.recvfrom(size, socket.MSG_WAITALL)[0],
    "recv_into": lambda sock, size: (b := bytearray(size))[: sock.recv_into(b)],
    "recv_into, so many": lambda sock, size: (b := bytearray(size + 9))[: sock.recv_into(b, size)],
    "recvfrom_into": lambda sock, size: (b := bytearray(size))[: sock.recvfrom_into(b)[0]],
    "recvmsg": lambda sock, size: sock.recvmsg(size)[0],
    "recvmsg_into": lambda sock, size: scattered(sock, size),
}


def scattered(sock, size):
    one, two = bytearray(2), bytearray(size - 2)
    count = sock.recvmsg_into([one, two])[0]
    return (one + two)[:count]


@pytest.mark.trap(39)
@pytest.mark.parametrize("size", [1400, 5, 4, 3])
@pytest.mark.parametrize("how", RECEIVING)
def test_every_way_to_receive(server, echo, how, size):
    """The payload without its header, cut off where a plain socket cuts it off."""
    with datagrams(server.url("socks5h")) as sock:
        for word in (b"12345", b"67890"):
            sock.sendto(word, echo)
            assert RECEIVING[how](sock, size) == word[:size]


@pytest.mark.parametrize("how", ["recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"])
def test_the_source_is_the_target(server, echo, how):
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        buffer = bytearray(10)
        argument = {"recvfrom_into": buffer, "recvmsg_into": [buffer]}.get(how, 10)
        assert getattr(sock, how)(argument)[-1] == echo


def test_peeking_leaves_it_there(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"data", echo)
        assert sock.recv(2, socket.MSG_PEEK) == b"da"
        assert sock.recvfrom(100, socket.MSG_PEEK) == (b"data", echo)
        assert sock.recv(100) == b"data"


@pytest.mark.trap(39)
def test_a_truncated_datagram_says_so(server, echo):
    """As on a plain socket: recvmsg has a flag, MSG_TRUNC asks for the real length."""
    with datagrams(server.url("socks5h")) as sock:
        for _ in range(4):
            sock.sendto(b"12345", echo)
        assert sock.recvmsg(3)[2] & socket.MSG_TRUNC
        assert sock.recvmsg_into([bytearray(3)])[2] & socket.MSG_TRUNC
        assert sock.recv_into(bytearray(3), 0, socket.MSG_TRUNC) == 5
        assert not sock.recvmsg(5)[2] & socket.MSG_TRUNC


def test_ancillary_data_come_with_the_datagram(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL, 1) if hasattr(
            socket, "IP_RECVTTL"
        ) else sock.setsockopt(socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
        sock.sendto(b"x", echo)
        data, ancillary, _, source = sock.recvmsg(100, 100)
        assert (data, source) == (b"x", echo)
        assert ancillary


@pytest.mark.parametrize("size", [0, 1, 1400, 40_000])
def test_any_size(server, echo, size):
    data = os.urandom(size)
    with datagrams(server.url("socks5h")) as sock:
        assert sock.sendto(data, echo) == size
        assert sock.recv(65535) == data


def test_early_data_are_refused(server, echo):
    with datagrams(server.url("socks5h")) as sock, pytest.raises(socksy.InvalidArgumentError):
        sock.connect(echo, early_data=b"x")


def test_too_much_is_too_long(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        for connected in (False, True):
            with pytest.raises(OSError, match="too long") as caught:
                sock.sendto(bytes(65530), echo)
            assert caught.value.errno == errno.EMSGSIZE, connected
            sock.connect(echo)


@pytest.mark.parametrize("wrong", [-1, "x", None])
def test_wrong_sizes_are_refused_as_on_a_plain_socket(server, echo, wrong):
    with datagrams(server.url("socks5h")) as sock, socket.socket(type=socket.SOCK_DGRAM) as plain:
        sock.connect(echo)
        for method in ("recv", "recvfrom", "recvmsg"):
            with pytest.raises((ValueError, TypeError)) as expected:
                getattr(plain, method)(wrong)
            with pytest.raises(expected.type):
                getattr(sock, method)(wrong)


# -- who is asked what


@pytest.mark.trap(34)
def test_the_proxy_is_told_where_we_send_from(server, echo):
    """Never the target: zeros, because only the port is known, and the port."""
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        (request,) = associations(server)
        assert (request.host, request.port) == ("0.0.0.0", sock.getsockname()[1])


def test_a_name_goes_to_the_proxy_as_it_is(server, echo, no_local_lookup):
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", (NAME, echo[1]))
        assert sock.recv(10) == b"x"


def test_socks5_looks_names_up_here(server, echo, lookups):
    with datagrams(server.url("socks5")) as sock:
        sock.sendto(b"x", ("localhost", echo[1]))
        assert sock.recvfrom(10) == (b"x", echo)
    assert lookups == [b"localhost"]


def addresses_of(monkeypatch, *addresses):
    """Every name has these addresses; returns what was looked up."""
    asked = []

    def getaddrinfo(host, port, *_):
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in it else socket.AF_INET, 1, 6, "", (it, port))
            for it in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_a_name_with_addresses_of_both_families(server, echo, monkeypatch, addresses):
    """A datagram does not say whether it has arrived: one of the socket's family, as direct."""
    addresses_of(monkeypatch, *addresses)
    with datagrams(server.url("socks5")) as sock:
        sock.sendto(b"x", ("dual.test", echo[1]))
        assert sock.recvfrom(10) == (b"x", echo)


def test_a_name_without_an_address_of_the_family(server, echo, monkeypatch):
    """The proxy can reach it all the same."""
    addresses_of(monkeypatch, "127.0.0.1")
    with datagrams(server.url("socks5"), socket.AF_INET6) as sock:
        sock.sendto(b"x", ("four.test", echo[1]))
        assert sock.recv(10) == b"x"


def test_names_are_looked_up_each_time(server, echo, monkeypatch):
    """As on a plain socket: its address may change."""
    asked = addresses_of(monkeypatch, "127.0.0.1")
    with datagrams(server.url("socks5")) as sock:
        for _ in range(3):
            sock.sendto(b"x", ("a.test", echo[1]))
    assert len(asked) == 3


def test_a_peer_that_was_looked_up_here_is_the_only_one_heard(server, echo, monkeypatch):
    """We know its address then."""
    addresses_of(monkeypatch, "127.0.0.1")
    with echoing() as other, datagrams(server.url("socks5")) as sock:
        sock.connect(("a.test", echo[1]))
        assert sock.getpeername() == ("a.test", echo[1])
        sock.sendto(b"not heard", other)
        sock.send(b"heard")
        assert sock.recv(10) == b"heard"


@pytest.mark.trap(34)
def test_where_we_send_from_may_be_kept_from_the_proxy(server, echo):
    """A router between may change the port; RFC 1928, section 4, wants zeros then."""
    proxy = Proxy.from_url(server.url("socks5h"), udp_source_unknown=True)
    with datagrams(proxy) as sock:
        sock.sendto(b"x", echo)
        assert sock.recv(10) == b"x"
    (request,) = associations(server)
    assert (request.host, request.port) == ("0.0.0.0", 0)


@pytest.mark.parametrize("make", [bytearray, bytes, str.encode], ids=["bytearray", "bytes", "str"])
def test_a_host_of_any_type(server, echo, make):
    """Also one that cannot be remembered, as it can be changed."""
    host = make(b"127.0.0.1") if make is not str.encode else "127.0.0.1"
    with datagrams(server.url("socks5h")) as sock:
        for _ in range(2):
            sock.sendto(b"x", (host, echo[1]))
            assert sock.recvfrom(10) == (b"x", echo)


def test_onions_are_never_looked_up_here(server, no_local_lookup):
    with datagrams(server.url("socks5")) as sock, pytest.raises(socksy.ProxyUnsupportedError):
        sock.sendto(b"x", ("abc.onion", 53))


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("a b.test", 53), socksy.InvalidTargetError),
        (("a.test", 0), socksy.InvalidPortError),
        (("a.test", 65536), socksy.InvalidPortError),
        (("a" * 256, 53), socksy.InvalidTargetError),
        (("a.test", "53"), TypeError),
        ("a.test", TypeError),
        (["a.test", 53], TypeError),
    ],
    ids=str,
)
def test_a_wrong_address_is_refused_before_anything_is_sent(server, address, error):
    with datagrams(server.url("socks5h")) as sock:
        for call in (
            lambda: sock.sendto(b"x", address),
            lambda: sock.sendmsg([b"x"], [], 0, address),
            lambda: sock.connect(address),
        ):
            with pytest.raises(error):
                call()
    assert server.requests == []


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("target", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.trap(36)
def test_families_do_not_matter(socks_server_factory, family, host, target):
    """Of the socket, the proxy and the target: each may be another."""
    server = socks_server_factory(host)
    with echoing(target) as echo, datagrams(server.url("socks5h"), family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        number = sock.fileno()
        sock.sendto(b"x", echo)
        data, source = sock.recvfrom(10)
        assert (data, source[1]) == (b"x", echo[1])
        if family == socket.AF_INET6:
            mapped = f"::ffff:{echo[0]}" if target == socket.AF_INET else echo[0]
            assert source == (mapped, echo[1], 0, 0)
        else:
            assert source == echo
        assert (sock.family, sock.fileno()) == (family, number)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000
        assert sock.getsockname()[1] == associations(server)[0].port


def test_the_application_can_bind_first(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.sendto(b"x", echo)
        assert sock.recv(10) == b"x"
        assert sock.getsockname() == ("127.0.0.1", port)
        assert associations(server)[0].port == port


def relay(bound, there, url="socks5h://192.0.2.9"):
    return run(relay_address(Proxy.from_url(url), bound, there, None))


@pytest.mark.trap(35)
@pytest.mark.parametrize(
    ("bound", "there", "expected"),
    [
        (("9.9.9.9", 5), ("8.8.8.8", 1080), ("9.9.9.9", 5)),
        (("0.0.0.0", 5), ("8.8.8.8", 1080), ("8.8.8.8", 5)),
        (("::", 5), ("8.8.8.8", 1080), ("8.8.8.8", 5)),
        (("", 5), ("8.8.8.8", 1080), ("8.8.8.8", 5)),
        (("0.0.0.0", 5), ("2620:fe::fe", 1080, 0, 0), ("2620:fe::fe", 5)),
        (("0.0.0.0", 5), ("::ffff:8.8.8.8", 1080, 0, 0), ("8.8.8.8", 5)),
        (("10.0.0.1", 5), ("8.8.8.8", 1080), ("8.8.8.8", 5)),
        (("127.0.0.1", 5), ("8.8.8.8", 1080), ("8.8.8.8", 5)),
        (("fe80::1", 5), ("2620:fe::fe", 1080, 0, 0), ("2620:fe::fe", 5)),
        (("10.0.0.1", 5), ("192.168.0.1", 1080), ("10.0.0.1", 5)),
        (("0.0.0.0", 5), ("192.168.0.1", 1080), ("192.168.0.1", 5)),
        (("127.0.0.1", 5), ("127.0.0.2", 1080), ("127.0.0.1", 5)),
        (("127.0.0.1", 5), "/run/socks", ("127.0.0.1", 5)),
    ],
    ids=str,
)
def test_where_the_relay_is(bound, there, expected):
    """As replied; unspecified, or private while the proxy is public: where the proxy is."""
    assert relay(bound, there) == expected


@pytest.mark.trap(35)
@pytest.mark.parametrize(
    ("bound", "there", "error"),
    [
        (("relay.test", 5), ("8.8.8.8", 1080), socksy.ProxyUnsupportedError),
        (("0.0.0.0", 5), "/run/socks", socksy.ProxyUnsupportedError),
        (("9.9.9.9", 0), ("8.8.8.8", 1080), socksy.ProxyProtocolError),
    ],
    ids=str,
)
def test_where_the_relay_cannot_be(bound, there, error, no_local_lookup):
    with pytest.raises(error):
        relay(bound, there)


@pytest.mark.trap(35)
def test_a_relay_by_name_is_looked_up_where_names_are(lookups):
    assert relay(("localhost", 5), ("8.8.8.8", 1), "socks5://192.0.2.9")[1] == 5
    assert lookups == [b"localhost"]


def test_a_proxy_on_a_unix_socket(socks_server_factory, echo, tmp_path):
    """Its relay is where it says."""
    server = socks_server_factory(path=tmp_path / "s")
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        assert sock.recv(10) == b"x"


# -- what comes in


@pytest.mark.trap(37)
@pytest.mark.parametrize("how", RECEIVING)
def test_what_is_malformed_is_dropped_and_counted(socks_server_factory, echo, how):
    """Runts, fragments, other RSV, unknown ATYP: never an error, never data."""
    server = socks_server_factory(faults=stray_datagrams(RUNT, b"", FRAGMENT, RSV, ATYP))
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"good", echo)
        assert RECEIVING[how](sock, 100) == b"good"
        assert sock.dropped == 5


@pytest.mark.trap(37)
def test_peeking_does_not_stop_at_a_malformed_datagram(socks_server_factory, echo):
    server = socks_server_factory(faults=stray_datagrams(RUNT))
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"good", echo)
        assert sock.recv(10, socket.MSG_PEEK) == b"good"
        assert sock.recvmsg(10, 0, socket.MSG_PEEK)[0] == b"good"
        assert sock.recv(10) == b"good"


@pytest.mark.trap(37)
def test_only_the_relay_is_heard(server, echo):
    """Not even with a perfect header, and not what came before the association either."""
    forged = b"\0\0\0\1\x09\x09\x09\x09\0\x35forged"
    with (
        datagrams(server.url("socks5h")) as sock,
        socket.socket(type=socket.SOCK_DGRAM) as stranger,
    ):
        sock.bind(("127.0.0.1", 0))
        stranger.sendto(forged, sock.getsockname())
        sock.sendto(b"x", echo)
        stranger.sendto(forged, sock.getsockname())
        assert sock.recv(10) == b"x"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(10)


@pytest.mark.trap(37)
def test_dropping_does_not_stretch_a_timeout_without_end(socks_server_factory, echo):
    """A relay that sends rubbish for ever cannot keep a socket from timing out."""
    server = socks_server_factory(faults=stray_datagrams(*[RUNT] * 50))
    with datagrams(server.url("socks5h"), timeout=0.2) as sock:
        sock.connect((echo[0], unused_port()))  # so that good ones are dropped too
        began = time.monotonic()
        sock.sendto(b"x", echo)
        with pytest.raises(TimeoutError):
            sock.recv(10)
        assert time.monotonic() - began < 2


@pytest.mark.trap(37)
@pytest.mark.parametrize(
    "receive", [lambda sock: sock.recvmsg(10), lambda sock: sock.recvmsg_into([bytearray(10)])]
)
def test_not_for_recvmsg_either(echo, receive):
    """It comes slowly, so that no single wait is too long; and it comes for ever."""
    with socket.socket(type=socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        port = relay.getsockname()[1].to_bytes(2, "big")
        ended = threading.Event()

        def associate(connection):
            read_exactly(connection, 3)
            connection.sendall(b"\5\0")
            read_exactly(connection, 10)
            connection.sendall(b"\5\0\0\1\x7f\0\0\1" + port)
            source = relay.recvfrom(100)[1]
            while not ended.wait(0.05):  # the fault itself
                relay.sendto(RUNT, source)

        with serving(associate) as address:
            with datagrams("socks5h://{}:{}".format(*address), timeout=0.2) as sock:
                sock.sendto(b"x", echo)
                began = time.monotonic()
                with pytest.raises(TimeoutError):
                    receive(sock)
                assert time.monotonic() - began < 2
            ended.set()


def test_receiving_nothing_takes_nothing(server, echo):
    """As on a plain socket: recv(0) does not even look."""
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        assert select.select([sock], [], [], 5)[0]
        assert sock.recv(0) == b""
        assert sock.recv_into(bytearray()) == 0
        assert sock.recv(1) == b"x"
        assert sock.recv(0) == b""


@pytest.mark.parametrize(
    "receive",
    [
        lambda sock: sock.recv_into(b"12345"),
        lambda sock: sock.recvfrom_into(b"12345"),
        lambda sock: sock.recvmsg_into([bytearray(1), b"12345"]),
    ],
)
def test_a_buffer_that_cannot_be_written_costs_no_datagram(server, echo, receive):
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        assert select.select([sock], [], [], 5)[0]
        with pytest.raises(TypeError, match="read-write"):
            receive(sock)
        assert sock.recv(1) == b"x"


@pytest.mark.trap(38)
@pytest.mark.parametrize("source", [("192.0.2.7", 99), ("some.name.test", 99), ("2001:db8::7", 99)])
def test_who_was_asked_by_name_may_answer_from_anywhere(socks_server_factory, echo, source):
    """Only the proxy knows what a name means; its answer may even come from a name."""
    server = socks_server_factory(names={NAME: "127.0.0.1"}, faults=datagrams_from(*source))
    with datagrams(server.url("socks5h")) as sock:
        sock.connect((NAME, echo[1]))
        for _ in range(2):
            sock.send(b"x")
            assert sock.recvfrom(10) == (b"x", source)


@pytest.mark.trap(38)
@pytest.mark.parametrize("spelling", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_connected_socket_hears_its_peer_only(server, echo, spelling):
    with echoing() as other, datagrams(server.url("socks5h"), socket.AF_INET6) as sock:
        sock.sendto(b"before", other)
        assert sock.recv(10) == b"before"
        sock.connect((spelling, echo[1]))
        sock.sendto(b"not heard", other)
        sock.send(b"heard")
        assert sock.recv(10) == b"heard"
        while not sock.dropped:
            sock.send(b"again")
            assert sock.recv(10) == b"again"
        assert sock.getpeername()[:2] == (spelling, echo[1])


# -- the socket's names, copies and end


def test_names(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        for name in (sock.proxy_peername, sock.bound_address):
            assert name is None
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        sock.sendto(b"x", echo)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        sock.connect((NAME, echo[1]))
        assert sock.getpeername() == (NAME, echo[1])
        assert sock.proxy_peername == sock.bound_address != echo
        assert sock.proxy_sockname == sock.getsockname()
        with pytest.raises(OSError, match="connected") as caught:
            sock.set_proxy(None)
        assert caught.value.errno == errno.EISCONN
    assert sock.proxy_sockname is None


def test_a_duplicate_shares_the_association(server, echo):
    """Which lasts until the last of them is closed."""
    with datagrams(server.url("socks5h")) as sock:
        sock.connect(echo)
        with sock.dup() as copy:
            copy.settimeout(5)
            sock.close()
            copy.send(b"x")
            assert copy.recvfrom(10) == (b"x", echo)
    assert len(associations(server)) == 1
    server.wait_until_idle()


def test_duplicates_have_all_in_common_from_the_beginning(server, echo):
    """As they have one descriptor: the kernel knows one peer for both."""
    with datagrams(server.url("socks5h")) as sock, sock.dup() as copy:
        sock.sendto(b"of the first", echo)
        assert copy.recvfrom(20) == (b"of the first", echo)
        copy.sendto(b"of the second", echo)
        assert sock.recvfrom(20) == (b"of the second", echo)
        copy.connect(echo)
        assert sock.getpeername() == echo
        sock.send(b"to the peer")
        assert copy.recv(20) == b"to the peer"
        copy.close()
        sock.send(b"alone")
        assert sock.recv(20) == b"alone"
    assert len(associations(server)) == 1


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_duplicate_takes_over_what_is_made_in_the_background(socks_server_factory, echo, how):
    server = socks_server_factory(faults=pause_before("the reply", 0.1))
    sock = SocksSocket(type=socket.SOCK_DGRAM, proxy=server.url("socks5h"))
    sock.setblocking(False)
    sock.sendto(b"x", echo)
    with sock.dup() as copy:
        copy.settimeout(5)
        if how == "close":
            sock.close()
        del sock
        gc.collect()
        assert copy.recvfrom(10) == (b"x", echo)


def test_a_duplicate_hears_of_the_end_when_others_have_been_closed(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        sock.connect(echo)
        copies = [sock.dup() for _ in range(4)]
        last = copies.pop()
        sock.close()
        for copy in copies:
            copy.close()
        server.drop_connections()
        with last, pytest.raises(socksy.ProxyConnectionError):
            last.recv(1)


@pytest.mark.parametrize("timeout", [5, 0])
def test_closing_ends_the_association(server, echo, timeout):
    with datagrams(server.url("socks5h"), timeout=timeout) as sock:
        sock.sendto(b"x", echo)
        assert is_associated(sock)
    server.wait_until_idle()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("timeout", [5, 0])
def test_a_dropped_socket_ends_the_association(server, echo, timeout):
    sock = SocksSocket(type=socket.SOCK_DGRAM, proxy=server.url("socks5h"))
    sock.settimeout(timeout)
    sock.sendto(b"x", echo)
    assert is_associated(sock)
    del sock
    gc.collect()
    server.wait_until_idle()


def test_detaching_ends_the_association(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        sock.sendto(b"x", echo)
        os.close(sock.detach())
    server.wait_until_idle()


def test_subclasses_stay_what_they_are(server, echo):
    """Whoever derives from SocksSocket gets datagrams too."""

    class Mine(SocksSocket):
        def hello(self):
            return "hello"

    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with Mine(type=kind, proxy=server.url("socks5h")) as sock:
        assert isinstance(sock, Mine)
        assert isinstance(sock, DatagramSocket)
        assert sock.hello() == "hello"
        assert sock.gettimeout() == 0
        sock.settimeout(5)
        sock.sendto(b"x", echo)
        assert sock.recv(1) == b"x"
        with sock.dup() as copy:
            assert type(copy) is type(sock)


def test_subclasses_may_be_demanding(server, echo):
    """What a program wants to know of subclasses, it has been told: the one we make is none."""

    class Registry(type):
        def __new__(cls, name, bases, members, *, label=None):
            assert label is not None
            return super().__new__(cls, name, bases, members)

        def __init__(cls, name, bases, members, *, label=None):
            super().__init__(name, bases, members)

    class Mine(SocksSocket, metaclass=Registry, label="mine"):
        def __init_subclass__(cls, *, label):
            raise AssertionError("nobody derives from this")

    with Mine(type=socket.SOCK_DGRAM, proxy=server.url("socks5h")) as sock:
        sock.settimeout(5)
        sock.sendto(b"x", echo)
        assert sock.recv(1) == b"x"


def test_an_adopted_descriptor_is_a_datagram_socket_too():
    with socket.socket(type=socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        with SocksSocket(fileno=os.dup(plain.fileno())) as sock:
            assert isinstance(sock, DatagramSocket)


# -- the end of the control connection


@pytest.mark.trap(40)
@pytest.mark.parametrize("timeout", [None, 10])
def test_a_waiting_receiver_hears_of_the_end(server, echo, timeout):
    with datagrams(server.url("socks5h"), timeout=timeout) as sock:
        sock.connect(echo)
        ending = threading.Timer(0.1, server.drop_connections)
        ending.start()
        with pytest.raises(socksy.ProxyConnectionError, match="ended this socket's") as caught:
            sock.recv(10)
        ending.join()
        assert caught.value.errno == errno.ECONNRESET
        assert str(sock.last_error) == str(caught.value)


@pytest.mark.trap(40)
@pytest.mark.parametrize("timeout", [None, 10])
def test_all_threads_that_wait_hear_of_the_end(server, echo, timeout):
    told = []

    def receive(sock):
        try:
            sock.recv(10)
        except OSError as error:
            told.append(type(error))

    with datagrams(server.url("socks5h"), timeout=timeout) as sock:
        sock.connect(echo)
        threads = [threading.Thread(target=receive, args=(sock,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: all(is_waiting(thread) for thread in threads))
        server.drop_connections()
        for thread in threads:
            thread.join()
    assert told == [socksy.ProxyConnectionError] * 4


def is_waiting(thread):
    """Whether a thread is in `recv`."""
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_name == "recv"


@pytest.mark.trap(40)
@pytest.mark.parametrize(
    "call",
    [
        lambda sock, echo: sock.send(b"x"),
        lambda sock, echo: sock.sendto(b"x", echo),
        lambda sock, echo: sock.sendmsg([b"x"]),
        lambda sock, echo: sock.connect(echo),
        lambda sock, echo: sock.recv(1),
        lambda sock, echo: sock.recvfrom(1),
        lambda sock, echo: sock.recv_into(bytearray(1)),
        lambda sock, echo: sock.recvmsg(1),
        lambda sock, echo: sock.recvmsg_into([bytearray(1)]),
    ],
)
def test_every_call_says_that_it_has_ended(server, echo, call):
    """Also the second time: there is no way back. And a loop that watches it wakes up."""
    with datagrams(server.url("socks5h")) as sock:
        sock.connect(echo)
        server.drop_connections()
        assert select.select([sock], [], [], 5)[0]
        for _ in range(2):
            with pytest.raises(socksy.ProxyConnectionError):
                call(sock, echo)
        sock.setblocking(False)
        with pytest.raises(socksy.ProxyConnectionError):
            call(sock, echo)


@pytest.mark.trap(40)
def test_nothing_leaves_after_the_end(server, echo):
    """Not to the relay, not to the target, not by the base class' methods."""
    with datagrams(server.url("socks5h")) as sock:
        sock.connect(echo)
        server.drop_connections()
        assert select.select([sock], [], [], 5)[0]
        relay = sock.proxy_peername
        assert socket.socket.getpeername(sock) != relay


@pytest.mark.trap(40)
def test_the_control_connection_is_kept_alive(server, echo, monkeypatch):
    """Some proxies forget it after a minute of silence."""
    switched = []
    real = socket.socket.setsockopt

    def record(self, *arguments):
        switched.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(socket.socket, "setsockopt", record)
    with datagrams(server.url("socks5h")) as sock:
        sock.connect(echo)
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in switched


# -- no UDP here


@pytest.mark.parametrize("how", ["sendto", "connect", "sendmsg"])
@pytest.mark.parametrize("timeout", [5, 0])
@pytest.mark.parametrize(
    "proxy", ["socks4a://127.0.0.1:1", "http://127.0.0.1:1", ["socks5h://127.0.0.1:1"] * 2], ids=str
)
def test_who_does_no_udp_is_not_asked(echo, proxy, how, timeout):
    """And nothing goes around it."""
    with datagrams(proxy, timeout=timeout) as sock, pytest.raises(socksy.ProxyUnsupportedError):
        if how == "sendto":
            sock.sendto(b"x", echo)
        elif how == "sendmsg":
            sock.sendmsg([b"x"], [], 0, echo)
        else:
            sock.connect(echo)


@pytest.mark.parametrize(
    ("fault", "error", "hint"),
    [
        (answer_with(7), socksy.CommandNotSupportedError, "no UDP"),
        (close_before("the reply"), socksy.ProxyProtocolError, "no UDP"),
        (answer_with(1), socksy.ProxyReplyError, ""),
        (bound_address("127.0.0.1", 0), socksy.ProxyProtocolError, ""),
    ],
    ids=str,
)
def test_a_proxy_without_udp(socks_server_factory, echo, fault, error, hint):
    """Its refusal names the target, and the socket can be used again."""
    server = socks_server_factory(faults=fault)
    with datagrams(server.url("socks5h")) as sock:
        with pytest.raises(error) as caught:
            sock.sendto(b"x", echo)
        assert caught.value.target in (echo, None)
        assert hint in str(caught.value)
        assert sock.last_error is caught.value
        server.faults = ()
        sock.sendto(b"x", echo)
        assert sock.recv(1) == b"x"


def test_the_timeout_covers_the_association(socks_server_factory, echo):
    server = socks_server_factory(faults=stall_at("the reply"))
    with datagrams(server.url("socks5h"), timeout=0.2) as sock:
        with pytest.raises(socksy.ProxyTimeoutError):
            sock.sendto(b"x", echo)
        assert sock.gettimeout() == 0.2


def test_a_dead_proxy(echo):
    with datagrams(f"socks5h://127.0.0.1:{unused_port()}") as sock:
        with pytest.raises(socksy.ProxyConnectionError):
            sock.sendto(b"x", echo)
        assert sock.connect_ex(echo) == errno.ECONNREFUSED


def test_a_relay_that_cannot_be_reached(socks_server_factory, echo):
    """A typed error, which says what is the matter: a broadcast address is no relay."""
    server = socks_server_factory(faults=bound_address("255.255.255.255", 5000))
    with datagrams(server.url("socks5h")) as sock:
        with pytest.raises(socksy.ProxyConnectionError, match="relay at 255") as caught:
            sock.sendto(b"x", echo)
        assert (caught.value.proxy, caught.value.target) == (server.url("socks5h"), echo)
        assert caught.value.errno == errno.EACCES
        assert sock.last_error is caught.value


JOINING = {
    "MSG_MORE": lambda sock, to: sock.sendto(b"x", socket.MSG_MORE, to),
    "MSG_MORE in sendmsg": lambda sock, to: sock.sendmsg([b"x"], [], socket.MSG_MORE, to),
    "UDP_CORK": lambda sock, to: (sock.setsockopt(socket.IPPROTO_UDP, 1, 1), sock.sendto(b"x", to)),
    "UDP_SEGMENT": lambda sock, to: (
        sock.setsockopt(socket.IPPROTO_UDP, 103, 8),
        sock.sendto(b"x", to),
    ),
    "UDP_SEGMENT in sendmsg": lambda sock, to: sock.sendmsg(
        [b"x" * 9], [(socket.IPPROTO_UDP, 103, b"\4\0")], 0, to
    ),
}


@pytest.mark.parametrize("associated", [False, True])
@pytest.mark.parametrize("how", JOINING)
def test_what_would_join_datagrams_is_refused(server, echo, how, associated):
    """Each needs a header of its own: a silent mess would come out."""
    with datagrams(server.url("socks5h")) as sock:
        if associated:
            sock.connect(echo)
        with pytest.raises(socksy.ProxyUnsupportedError, match="header"):
            JOINING[how](sock, echo)
        sock.setsockopt(socket.IPPROTO_UDP, 1, 0)
        sock.setsockopt(socket.IPPROTO_UDP, 103, 0)
        sock.sendto(b"alone", echo)
        assert sock.recv(10) == b"alone"


def test_as_many_buffers_as_a_plain_socket_takes(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        for _ in range(2):
            assert sock.sendmsg([b"x"] * 1024, [], 0, echo) == 1024
            assert sock.recv(2000) == b"x" * 1024


def test_sending_to_nobody(server, echo):
    """As on a plain socket that is not connected."""
    with datagrams(server.url("socks5h")) as sock:
        for _ in range(2):
            for call in (lambda: sock.send(b"x"), lambda: sock.sendmsg([b"x"])):
                with pytest.raises(OSError, match="address required") as caught:
                    call()
                assert caught.value.errno == errno.EDESTADDRREQ
            sock.sendto(b"x", echo)
            assert sock.recv(1) == b"x"


# -- after a failure


def test_after_a_failure_nobody_is_heard(echo):
    """Whom else than the relay would a program expect that sends through a proxy?"""
    with datagrams(f"socks5h://127.0.0.1:{unused_port()}", timeout=0) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(echo)
        assert select.select([sock], [], [], 5)[0]
        with pytest.raises(socksy.ProxyConnectionError):
            sock.recv(10)
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"forged", sock.getsockname())
            assert select.select([sock], [], [], 5)[0]
            with pytest.raises(BlockingIOError):
                sock.recv(10)
            stranger.sendto(b"forged", sock.getsockname())
            sock.settimeout(5)
            with pytest.raises(socksy.ProxyConnectionError):
                sock.recv(10)


def test_after_a_failure_a_direct_connection_is_one(server, echo):
    """The destination that could not be reached is forgotten."""
    route = {"127.0.0.1": f"socks5h://127.0.0.1:{unused_port()}", "127.0.0.2": None}
    with (
        datagrams(lambda host, port: route[host], timeout=0) as sock,
        socket.socket(type=socket.SOCK_DGRAM) as other,
    ):
        other.bind(("127.0.0.2", 0))
        other.settimeout(5)
        sock.connect(echo)
        assert select.select([sock], [], [], 5)[0]
        with pytest.raises(socksy.ProxyConnectionError):
            sock.recv(10)
        sock.connect(other.getsockname())
        assert sock.getpeername() == other.getsockname()
        route["127.0.0.1"] = server.url("socks5h")
        sock.send(b"secret")
        data, source = other.recvfrom(10)
        assert (data, server.requests) == (b"secret", [])
        other.sendto(b"answer", source)
        sock.settimeout(5)
        assert sock.recv(10) == b"answer"


# -- non-blocking


def test_who_waits_for_an_association_has_a_timeout(socks_server_factory, echo):
    """Also if another call, which did not wait, has begun it."""
    server = socks_server_factory(faults=stall_at("the reply"))
    with datagrams(server.url("socks5h"), timeout=0) as sock:
        sock.connect(echo)
        sock.settimeout(0.1)
        for call in (lambda: sock.sendto(b"x", echo), lambda: sock.send(b"x")):
            with pytest.raises(socksy.ProxyTimeoutError) as caught:
                call()
            assert caught.value.proxy == server.url("socks5h")


def test_flags_and_ancillary_data_wait_too(server, echo):
    with datagrams(server.url("socks5h"), timeout=0) as sock:
        ttl = socket.IPPROTO_IP, socket.IP_TTL, (64).to_bytes(4, sys.byteorder)
        sock.sendmsg([b"x"], [ttl], socket.MSG_CONFIRM, echo)
        sock.settimeout(5)
        assert sock.recv(1) == b"x"


def test_nobody_waits_for_the_association(server, echo):
    """What is sent meanwhile goes out when it is there, in order."""
    with datagrams(server.url("socks5h"), timeout=0) as sock:
        for number in range(5):
            assert sock.sendto(b"%d" % number, (NAME, echo[1])) == 1
        sock.settimeout(5)
        assert [sock.recv(10) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_bounded_number_waits(socks_server_factory, echo):
    """As on a network, what is too much is lost."""
    server = socks_server_factory(faults=stall_at("the reply"))
    with datagrams(server.url("socks5h"), timeout=0) as sock:
        for _ in range(QUEUE + 3):
            sock.sendto(b"x", echo)
        assert sock.dropped == 3
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_a_failure_in_the_background_wakes_the_loop_and_is_told_once(echo):
    """As the kernel tells what ICMP says; then it may be tried again."""
    with datagrams(f"socks5h://127.0.0.1:{unused_port()}", timeout=0) as sock:
        sock.connect(echo)
        for call in (lambda: sock.recv(1), lambda: sock.send(b"x")):
            assert select.select([sock], [], [], 5)[0]
            with pytest.raises(socksy.ProxyConnectionError):
                call()
            with contextlib.suppress(BlockingIOError):
                sock.send(b"once more")


def test_a_relay_of_another_family_is_refused_on_a_non_blocking_socket(socks_server_factory, echo):
    """An event loop could not follow the descriptor."""
    server = socks_server_factory("::1")
    with datagrams(server.url("socks5h"), timeout=0) as sock:
        sock.sendto(b"x", echo)
        assert select.select([sock], [], [], 5)[0]
        with pytest.raises(socksy.ProxyUnsupportedError, match="another family"):
            sock.recv(1)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_an_asyncio_endpoint(server, echo, family, connected):
    target = (NAME, echo[1])

    async def main():
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        class Asking(asyncio.DatagramProtocol):
            def datagram_received(self, data, source):
                answer.set_result((data, source[1]))

        sock = SocksSocket(family, socket.SOCK_DGRAM, proxy=server.url("socks5h"))
        sock.setblocking(False)
        if connected:
            sock.connect(target)
        transport, _ = await loop.create_datagram_endpoint(Asking, sock=sock)
        try:
            transport.sendto(b"question", None if connected else target)
            assert await asyncio.wait_for(answer, 5) == (b"question", echo[1])
            if connected:
                assert transport.get_extra_info("peername")[:2] == target
        finally:
            transport.close()

    asyncio.run(main())


def test_an_asyncio_endpoint_is_told_of_the_end(server, echo):
    async def main():
        loop = asyncio.get_running_loop()
        told = loop.create_future()

        class Waiting(asyncio.DatagramProtocol):
            def error_received(self, error):
                if not told.done():
                    told.set_result(error)

        sock = SocksSocket(type=socket.SOCK_DGRAM, proxy=server.url("socks5h"))
        sock.settimeout(5)
        sock.connect(echo)
        sock.setblocking(False)
        transport, _ = await loop.create_datagram_endpoint(Waiting, sock=sock)
        server.drop_connections()
        assert isinstance(await asyncio.wait_for(told, 5), socksy.ProxyConnectionError)
        transport.close()

    asyncio.run(main())


def test_many_threads_make_one_association(server, echo):
    with datagrams(server.url("socks5h")) as sock:
        threads = [threading.Thread(target=sock.sendto, args=(b"x", echo)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sock.recv(1) for _ in threads] == [b"x"] * 8
    assert len(associations(server)) == 1


def test_two_threads_that_are_first_make_one_association(server, echo, mocker):
    """Both find that there is none, and go on at once."""
    both = threading.Barrier(2)
    mocker.patch.object(DatagramSocket, "_refuse", side_effect=lambda *_: both.wait())
    with datagrams(server.url("socks5h")) as sock:
        threads = [threading.Thread(target=sock.sendto, args=(b"x", echo)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sock.recv(1), sock.recv(1)] == [b"x"] * 2
    assert len(associations(server)) == 1


# -- without a proxy, and with one for some destinations


@pytest.mark.trap(41)
@pytest.mark.parametrize("how", SENDING)
def test_without_a_proxy_it_is_a_plain_socket(echo, how):
    with datagrams(None) as sock:
        assert SENDING[how](sock, b"12345", echo) == 5
        assert sock.recvfrom(3) == (b"123", echo)
        SENDING[how](sock, b"12345", echo)
        assert sock.recvmsg(3)[2] & socket.MSG_TRUNC


@pytest.mark.trap(41)
@pytest.mark.parametrize(
    "call",
    [
        lambda sock: sock.send(b"x"),
        lambda sock: sock.sendto(b"x"),
        lambda sock: sock.sendto(b"x", "a"),
        lambda sock: sock.sendto("x", ("127.0.0.1", 9)),
        lambda sock: sock.sendto(b"x", ("127.0.0.1", 65536)),
        lambda sock: sock.sendto(b"x", 0, ("127.0.0.1",)),
        lambda sock: sock.sendall(b"x"),
        lambda sock: sock.recv(-1),
        lambda sock: sock.recvfrom("1"),
        lambda sock: sock.recv_into(b""),
        lambda sock: sock.getpeername(),
        lambda sock: sock.connect(("127.0.0.1", -1)),
        lambda sock: sock.listen(),
        lambda sock: sock.sendfile(open(os.devnull, "rb")),  # noqa: SIM115
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_without_a_proxy_errors_are_those_of_a_plain_socket(call):
    """To the last word."""
    with datagrams(None, timeout=None) as sock, socket.socket(type=socket.SOCK_DGRAM) as plain:
        with pytest.raises(Exception) as expected:
            call(plain)
        with pytest.raises(expected.type) as caught:
            call(sock)
    assert str(caught.value) == str(expected.value)


def test_a_callable_chooses_for_each_destination(server, echo):
    """Direct until the first proxied one; from then on direct ones are refused."""
    route = {"127.0.0.1": None, NAME: server.url("socks5h")}
    with datagrams(lambda host, port: route[host]) as sock:
        sock.sendto(b"direct", echo)
        assert sock.recvfrom(10) == (b"direct", echo)
        assert server.requests == []
        sock.sendto(b"proxied", (NAME, echo[1]))
        assert sock.recv(10) == b"proxied"
        for call in (
            lambda: sock.sendto(b"direct", echo),
            lambda: sock.connect(echo),
            lambda: sock.sendmsg([b"direct"], [], 0, echo),
        ):
            with pytest.raises(socksy.ProxyUnsupportedError, match="direct"):
                call()


def test_one_socket_has_one_proxy(server, echo, socks_server_factory):
    other = socks_server_factory()
    route = {"127.0.0.1": server.url("socks5h"), "127.0.0.2": other.url("socks5h")}
    with datagrams(lambda host, port: route[host]) as sock:
        sock.sendto(b"x", echo)
        with pytest.raises(socksy.ProxyUnsupportedError, match="another proxy"):
            sock.sendto(b"x", ("127.0.0.2", 9))


def test_an_upset_proxy_that_talks_on_the_control_connection_is_listened_to(echo):
    """Its words mean nothing; the association goes on."""
    with SocksServer() as real:

        def chatty(connection):
            read_exactly(connection, 3)
            connection.sendall(b"\5\0")
            read_exactly(connection, 10)
            with socket.create_connection(("127.0.0.1", real.port)) as behind:
                behind.sendall(b"\5\1\0")
                read_exactly(behind, 2)
                behind.sendall(b"\5\3\0\1" + bytes(6))
                connection.sendall(read_exactly(behind, 10) + b"welcome")
                connection.recv(1)

        with serving(chatty) as address, datagrams("socks5h://{}:{}".format(*address)) as sock:
            for _ in range(2):
                sock.sendto(b"x", echo)
                assert sock.recv(1) == b"x"


def test_closing_in_another_thread_while_associating(server, echo, mocker):
    make = Association.make

    def make_and_close(self, sock):
        make(self, sock)
        sock.close()

    mocker.patch.object(Association, "make", make_and_close)
    with datagrams(server.url()) as sock:
        with pytest.raises(OSError) as caught:
            sock.sendto(b"x", echo)
        assert caught.value.errno == errno.EBADF
    server.wait_until_idle()
