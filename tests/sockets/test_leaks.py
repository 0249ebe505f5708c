"""Nothing is left behind: no descriptor, no thread, whatever becomes of a connect.

A few of each outcome; with SOCKSY_CONNECTS=10000 in the environment so many of each.
"""

import asyncio
import contextlib
import errno
import gc
import os
import select
import socket
import threading
import warnings

import pytest

from socksy.sockets.stream import SocksSocket
from socksy.testing import SocksServer

from ..support import eventually, open_descriptors, serving, unused_port

CONNECTS = int(os.environ.get("SOCKSY_CONNECTS", "25"))

pytestmark = [pytest.mark.usefixtures("the_thread_ends"), pytest.mark.timeout(60 + CONNECTS // 5)]


class Places:
    """Where to connect, and through what."""

    def __init__(self, stack):
        self.target = stack.enter_context(serving(lambda connection: connection.recv(1)))
        self.closed = ("127.0.0.1", unused_port())
        self.proxy = stack.enter_context(SocksServer()).url()
        with_login = stack.enter_context(SocksServer(users={"alice": "secret"}))
        self.wrong_login = with_login.url(username="alice", password="wrong")
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        self.silent = f"socks5h://127.0.0.1:{silent.getsockname()[1]}"
        self.dead = f"socks5h://127.0.0.1:{unused_port()}"
        garbage = stack.enter_context(serving(lambda connection: connection.sendall(b"HTTP/1.1 4")))
        self.garbage = f"socks5h://127.0.0.1:{garbage[1]}"
        over_ipv6 = stack.enter_context(SocksServer(host="::1"))
        self.other_family = over_ipv6.url()
        self.silent_socket = silent


@pytest.fixture(scope="module")
def places():
    with contextlib.ExitStack() as stack:
        yield Places(stack)


# -- one connect of each outcome


def blocking(proxy, target, timeout=5.0, family=socket.AF_INET):
    def outcome(places):
        with SocksSocket(family, proxy=getattr(places, proxy)) as sock:
            sock.settimeout(timeout)
            with contextlib.suppress(OSError):
                sock.connect(getattr(places, target))

    return outcome


def ends_in_background(proxy, target):
    """The outcome is asked for, and is there."""

    def outcome(places):
        with SocksSocket(proxy=getattr(places, proxy)) as sock:
            sock.setblocking(False)
            assert sock.connect_ex(getattr(places, target)) == errno.EINPROGRESS
            assert select.select([], [sock], [], 10)[1]
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    return outcome


def closed_unseen(places):
    """It has ended, but nobody looked."""
    with SocksSocket(proxy=places.proxy) as sock:
        sock.setblocking(False)
        sock.connect_ex(places.target)
        assert select.select([], [sock], [], 10)[1]


def closed_while_pending(places):
    with SocksSocket(proxy=places.silent) as sock:
        sock.setblocking(False)
        sock.connect_ex(places.target)
    swallow(places)


def closed_at_once(places):
    """In the middle of whatever the other thread does."""
    with SocksSocket(proxy=places.proxy) as sock:
        sock.setblocking(False)
        sock.connect_ex(places.target)


def collected(places):
    """Never closed at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        sock = SocksSocket(proxy=places.silent)
        sock.setblocking(False)
        sock.connect_ex(places.target)
        del sock
    swallow(places)


def detached(places):
    with SocksSocket(proxy=places.proxy) as sock:
        sock.setblocking(False)
        sock.connect_ex(places.target)
        os.close(sock.detach())


def cancelled(places):
    """By asyncio."""

    async def main():
        with SocksSocket(proxy=places.silent) as sock:
            sock.setblocking(False)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                connecting = asyncio.get_running_loop().sock_connect(sock, places.target)
                await asyncio.wait_for(connecting, 0.001)

    asyncio.run(main())
    swallow(places)


def listening_unvisited(places):
    """A BIND that nobody came for, with the thread waiting."""
    with SocksSocket(proxy=places.proxy) as sock:
        sock.settimeout(5)
        sock.bind_remote()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()


def visited(places):
    """A BIND that somebody came for."""
    with SocksSocket(proxy=places.proxy) as sock:
        sock.settimeout(5)
        sock.bind_remote()
        with socket.create_connection(sock.getsockname()):
            sock.accept()[0].close()


def swallow(places):
    """The silent proxy's queue of connections is emptied."""
    places.silent_socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            places.silent_socket.accept()[0].close()


OUTCOMES = {
    "success": blocking("proxy", "target"),
    "without timeout": blocking("proxy", "target", None),
    "another family": blocking("proxy", "target", 5.0, socket.AF_INET6),
    "a proxy of another family": blocking("other_family", "target"),
    "refused": blocking("proxy", "closed"),
    "dead proxy": blocking("dead", "target"),
    "timeout": lambda places: [blocking("silent", "target", 0.001)(places), swallow(places)],
    "failed login": blocking("wrong_login", "target"),
    "garbage": blocking("garbage", "target"),
    "background success": ends_in_background("proxy", "target"),
    "background refused": ends_in_background("proxy", "closed"),
    "background dead proxy": ends_in_background("dead", "target"),
    "background failed login": ends_in_background("wrong_login", "target"),
    "background other family": ends_in_background("other_family", "target"),
    "background garbage": ends_in_background("garbage", "target"),
    "closed unseen": closed_unseen,
    "closed while pending": closed_while_pending,
    "closed at once": closed_at_once,
    "garbage collected": collected,
    "detached": detached,
    "cancelled": cancelled,
    "BIND, nobody came": listening_unvisited,
    "BIND, somebody came": visited,
}


@pytest.mark.trap(32)
@pytest.mark.parametrize("name", OUTCOMES)
def test_nothing_leaks(places, name):
    """As many descriptors and threads as before, but for the one thread that is still idle."""
    outcome = OUTCOMES[name]
    outcome(places)  # what is made once
    settled()
    before = len(open_descriptors())
    for _ in range(CONNECTS):
        outcome(places)
        assert len(ours()) <= 2  # one may be ending while the next begins
    settled()

    assert eventually(lambda: len(open_descriptors()) <= before, 30), open_descriptors()


def ours():
    """The threads that our sockets need, not those of the servers."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name in ("socksy-negotiator", "socksy-lookup")
    ]


def settled():
    """What went on in the background has come to its end."""
    gc.collect()
    assert eventually(lambda: not ours())
