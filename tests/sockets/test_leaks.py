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
import tempfile
import threading
import warnings

import pytest

import socksy
from socksy import Proxy, aio
from socksy.sockets import pipelining
from socksy.sockets.stream import SocksSocket
from socksy.testing import SocksServer
from socksy.testing.faults import one_recv_per_message

from ..support import echoing, eventually, open_descriptors, serving, unused_port

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
        self.chain = [self.proxy, with_login.url(), self.proxy]
        path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "socks")
        self.unix = stack.enter_context(SocksServer(path=path)).url()
        self.local_dns = self.proxy.replace("socks5h", "socks5")
        self.name = ("localhost", self.target[1])
        self.no_name = ("a" * 64, 80)  # which no resolver takes
        swallowing = stack.enter_context(SocksServer(faults=one_recv_per_message()))
        self.pipelined = Proxy.from_url(swallowing.url(), pipelined=True)
        self.udp_target = stack.enter_context(echoing())
        self.without_udp = stack.enter_context(SocksServer(commands=[1])).url()


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


def pipelined_in_vain(places):
    """A second connection, in the plain way."""
    pipelining.forget()
    blocking("pipelined", "target", 0.1)(places)


def datagrams(proxy, timeout=5.0, ends="answered"):
    def outcome(places):
        with SocksSocket(type=socket.SOCK_DGRAM, proxy=getattr(places, proxy)) as sock:
            sock.settimeout(timeout)
            with contextlib.suppress(OSError):
                sock.sendto(b"x", places.udp_target)
                if ends != "closed at once":
                    assert select.select([sock], [], [], 10)[0]
                    sock.recv(1)
            if ends == "duplicated":
                sock.dup().close()

    return outcome


def datagrams_given_up(places):
    with SocksSocket(type=socket.SOCK_DGRAM, proxy=places.silent) as sock:
        sock.setblocking(False)
        sock.sendto(b"x", places.udp_target)
    swallow(places)


def in_asyncio(proxy, target, timeout=5.0):
    """By `socksy.aio`."""

    def outcome(places):
        async def main():
            with contextlib.suppress(OSError):
                options = {"proxy": getattr(places, proxy), "timeout": timeout}
                _, writer = await aio.open_connection(*getattr(places, target), **options)
                writer.close()
                await writer.wait_closed()

        asyncio.run(main())
        swallow(places)

    return outcome


def an_endpoint(proxy, timeout=5.0):
    def outcome(places):
        async def main():
            with contextlib.suppress(OSError):
                transport, _ = await aio.create_datagram_endpoint(
                    asyncio.DatagramProtocol,
                    remote_addr=places.udp_target,
                    proxy=getattr(places, proxy),
                    timeout=timeout,
                )
                transport.close()
                await asyncio.sleep(0)

        asyncio.run(main())
        swallow(places)

    return outcome


def patched(places):
    with socksy.wrap_module(proxy=places.proxy, bypass=()):
        socket.create_connection(places.target, 5).close()


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
    "a chain": blocking("chain", "target"),
    "a chain, refused": blocking("chain", "closed"),
    "background chain": ends_in_background("chain", "target"),
    "a Unix socket": blocking("unix", "target"),
    "background Unix socket": ends_in_background("unix", "target"),
    "a name, looked up here": blocking("local_dns", "name"),
    "an unknown name": blocking("local_dns", "no_name"),
    "background unknown name": ends_in_background("local_dns", "no_name"),
    "pipelined in vain": pipelined_in_vain,
    "datagrams": datagrams("proxy"),
    "datagrams, a duplicate": datagrams("proxy", ends="duplicated"),
    "datagrams, another family": datagrams("other_family"),
    "datagrams, no UDP": datagrams("without_udp"),
    "datagrams, dead proxy": datagrams("dead"),
    "background datagrams": datagrams("proxy", 0),
    "background datagrams, no UDP": datagrams("without_udp", 0),
    "background datagrams, dead proxy": datagrams("dead", 0),
    "background datagrams, closed at once": datagrams("proxy", 0, "closed at once"),
    "background datagrams, given up": datagrams_given_up,
    "asyncio": in_asyncio("proxy", "target"),
    "asyncio, refused": in_asyncio("proxy", "closed"),
    "asyncio, timeout": in_asyncio("silent", "target", 0.001),
    "asyncio, a chain": in_asyncio("chain", "target"),
    "asyncio datagrams": an_endpoint("proxy"),
    "asyncio datagrams, no UDP": an_endpoint("without_udp"),
    "asyncio datagrams, timeout": an_endpoint("silent", 0.001),
    "patched": patched,
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
