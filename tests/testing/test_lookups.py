"""watch_lookups: what counts as a local lookup, whoever makes it."""

import socket
from socket import getaddrinfo

import pytest

from socksy.testing import LocalLookup, watch_lookups

NAME = "does-not-exist.invalid"


def datagram_to(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", address)


def message_to(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendmsg([b""], [], 0, address)


def stream_to(address):
    with socket.socket() as sock:
        sock.connect(address)


LOOKUPS = {
    "getaddrinfo": lambda: getaddrinfo(NAME, 80),
    "getaddrinfo with bytes": lambda: getaddrinfo(NAME.encode(), 80),
    "gethostbyname": lambda: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda: socket.gethostbyaddr(NAME),
    "getfqdn": lambda: socket.getfqdn(NAME),
    "create_connection": lambda: socket.create_connection((NAME, 80)),
    "connect": lambda: stream_to((NAME, 80)),
    "sendto": lambda: datagram_to((NAME, 80)),
    "sendmsg": lambda: message_to((NAME, 80)),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_lookup_is_heard(name):
    with watch_lookups() as lookups:
        try:
            LOOKUPS[name]()
        except OSError:
            pass
    assert NAME in lookups.names


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_forbidden_lookup_does_not_happen(name):
    with watch_lookups(forbid=True), pytest.raises(LocalLookup, match=NAME):
        LOOKUPS[name]()


@pytest.mark.parametrize(
    "call",
    [lambda: socket.gethostbyaddr("192.0.2.1"), lambda: socket.getnameinfo(("192.0.2.1", 80), 0)],
    ids=["gethostbyaddr", "getnameinfo"],
)
def test_a_reverse_lookup_is_heard(call):
    with watch_lookups(forbid=True) as lookups, pytest.raises(LocalLookup):
        call()
    assert lookups.names == ["192.0.2.1"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: socket.getaddrinfo("192.0.2.1", 80),
        lambda: socket.getaddrinfo("::1", 80),
        lambda: socket.getaddrinfo("fe80::1%lo", 80),
        lambda: socket.getaddrinfo(None, 80),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: socket.getfqdn("127.0.0.1"),
        lambda: datagram_to(("127.0.0.1", 9)),
    ],
)
def test_what_stays_here_does_not_count(call):
    with watch_lookups(forbid=True) as lookups:
        call()
    assert lookups.names == []


def test_unix_sockets_have_no_names(tmp_path):
    with watch_lookups(forbid=True), socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))


def test_watchers_can_be_nested():
    with watch_lookups() as outer:
        with watch_lookups(forbid=True) as inner, pytest.raises(LocalLookup):
            socket.create_connection((NAME, 80))
        with pytest.raises(OSError, match=r"\d"):
            datagram_to((NAME, 80))
    assert (outer.names, inner.names) == ([NAME, NAME], [NAME])


def test_nothing_is_heard_afterwards():
    methods = set(vars(socket.socket))
    with watch_lookups() as lookups:
        pass
    with pytest.raises(OSError, match=r"\d"):
        socket.getaddrinfo(NAME, 80)
    assert lookups.names == []
    assert set(vars(socket.socket)) == methods


def test_methods_that_somebody_else_replaced_stay_replaced(monkeypatch):
    def theirs(self, address):
        raise AssertionError("not called")

    with watch_lookups():
        monkeypatch.setattr(socket.socket, "connect", theirs)
    assert socket.socket.connect is theirs


def test_methods_that_were_replaced_before_are_called_and_come_back(monkeypatch):
    called = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: called.append(address))
    before = socket.socket.connect
    with watch_lookups() as lookups:
        stream_to((NAME, 80))
    assert (called, lookups.names) == ([(NAME, 80)], [NAME])
    assert socket.socket.connect is before
