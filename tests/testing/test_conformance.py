"""The published behaviours of a socket: on the base class, on ours, through every protocol."""

import contextlib
import errno
import socket
from functools import partial

import pytest

from socksy.sockets.stream import SocksSocket
from socksy.testing import SOCKET_BEHAVIOURS, SocksServer, check_socket_like

pytestmark = pytest.mark.usefixtures("the_thread_ends")

WAYS = ["socks4", "socks4a", "socks5", "socks5h", "http", "login", "chain", "unix"]


@pytest.fixture(scope="module", params=["socket.socket", "no proxy", *WAYS])
def subject(request, tmp_path_factory):
    """(which way, what makes sockets, the errno of a refusal)."""
    way = request.param
    if way == "socket.socket":
        yield way, socket.socket, errno.ECONNREFUSED
    elif way == "no proxy":
        yield way, SocksSocket, errno.ECONNREFUSED
    else:
        with contextlib.ExitStack() as stack:
            proxy = _proxy(way, stack, tmp_path_factory)
            # HTTP has one status, 502, for every way in which a target cannot be reached
            refused = errno.EHOSTUNREACH if way == "http" else errno.ECONNREFUSED
            yield way, partial(SocksSocket, proxy=proxy), refused


def _proxy(way, stack, tmp_path_factory):
    if way == "login":
        server = stack.enter_context(SocksServer(users={"alice": "secret"}))
        return server.url("socks5h", username="alice", password="secret")
    if way == "unix":
        path = str(tmp_path_factory.mktemp("proxy") / "s")
        return stack.enter_context(SocksServer(path=path)).url()
    server = stack.enter_context(SocksServer())
    if way == "chain":
        return [server.url(scheme) for scheme in ("socks4a", "http", "socks5h")]
    return server.url(way)


# What no proxy of that kind can do; see docs/differences.md
INHERENT = {
    ("socks4", "connects_over_ipv6"),
    ("socks4a", "connects_over_ipv6"),
    ("unix", "connects_from_where_it_is_bound"),
}


@pytest.mark.trap(29, 30, 33)
@pytest.mark.parametrize("behaviour", SOCKET_BEHAVIOURS)
def test_it_is_a_socket(subject, behaviour):
    """In every respect, through every protocol."""
    way, make, refused = subject
    if (way, behaviour) in INHERENT:
        with pytest.raises(AssertionError) as caught:
            check_socket_like(make, [behaviour], refused=refused)
        assert isinstance(caught.value.__cause__, OSError)
    else:
        check_socket_like(make, [behaviour], refused=refused)


class Lax(SocksSocket):
    """Not quite a socket."""

    def getpeername(self):
        return None

    def setblocking(self, flag):
        pass


def test_what_is_missing_is_said():
    """The behaviour by its name, and what was expected of it."""
    with pytest.raises(AssertionError, match=r"^is_not_connected_at_first: No peer"):
        check_socket_like(Lax, ["is_not_connected_at_first"])
    with pytest.raises(AssertionError, match=r"^has_timeouts: "):
        check_socket_like(Lax, ["has_timeouts"])


def test_only_known_behaviours_can_be_asked_for():
    """A misspelt one is not passed over."""
    with pytest.raises(KeyError):
        check_socket_like(SocksSocket, ["flies"])
