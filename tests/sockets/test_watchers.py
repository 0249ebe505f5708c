"""Who watches a number is found, and what it costs is counted.

That whoever watches it goes on with the connection is in test_pending.py.
"""

import asyncio
import contextlib
import errno
import select
import selectors
import socket
import threading
import weakref

import pytest

from socksy.sockets import pending, watchers
from socksy.sockets.stream import SocksSocket

from ..support import eventually, serving

pytestmark = [
    pytest.mark.usefixtures("the_thread_ends"),
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is no epoll here"),
]


@pytest.fixture
def target():
    """What connects to it is told nothing."""
    with serving(lambda connection: connection.recv(1)) as address:
        yield address


@pytest.fixture
def counted(monkeypatch):
    """How often descriptors were gone through, and the fdinfo of an epoll was read."""
    counts = {"look around": 0, "fdinfo": 0}

    def counting(name, what):
        real = getattr(watchers, name)

        def count(*arguments):
            counts[what] += 1
            return real(*arguments)

        monkeypatch.setattr(watchers, name, count)

    counting("_look_around", "look around")
    counting("_events_in", "fdinfo")
    return counts


def connecting(server, target):
    sock = SocksSocket(proxy=server.url())
    sock.setblocking(False)
    assert sock.connect_ex(target) == errno.EINPROGRESS
    return sock


def test_thousands_in_one_selector_cost_the_same_for_each(socks_server, target, counted):
    """Here it is thirty: nothing is looked for where the selector can be asked."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(30):
            sock = stack.enter_context(connecting(socks_server, target))
            selector.register(sock, selectors.EVENT_WRITE)
        begun = dict(counted)
        unseen = 30
        while unseen:
            for key, _ in selector.select(10):
                assert key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                selector.modify(key.fileobj, selectors.EVENT_READ)
                unseen -= 1

    assert begun["look around"] <= 2  # the first one; and the thread has an epoll of its own
    assert begun["fdinfo"] <= 2
    assert counted == begun


def test_a_selector_that_does_not_watch_it_any_more_is_believed(socks_server, target, counted):
    """Most programs take the socket out before they ask how it went."""
    with selectors.DefaultSelector() as selector, connecting(socks_server, target) as sock:
        selector.register(sock, selectors.EVENT_WRITE)
        assert selector.select(10)
        selector.unregister(sock)
        begun = dict(counted)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert counted == begun


@pytest.mark.parametrize("kind", [selectors.PollSelector, selectors.SelectSelector])
def test_a_selector_without_a_memory_needs_nothing(socks_server, target, counted, kind):
    with kind() as selector, connecting(socks_server, target) as sock:
        selector.register(sock, selectors.EVENT_WRITE)
        begun = dict(counted)
        assert selector.select(10)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert counted == begun


def test_a_known_epoll_is_read_and_no_other_is_looked_for(socks_server, target, counted):
    """An epoll does not tell its class what it watches: its fdinfo does."""
    with select.epoll() as epoll:
        for number in range(3):
            with connecting(socks_server, target) as sock:
                epoll.register(sock, select.EPOLLOUT)
                assert epoll.poll(10)
                begun = dict(counted)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                assert epoll.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
                assert number == 0 or counted["look around"] == begun["look around"]


def is_moved(epoll, sock):
    """The registration is with the connection, for the same events."""
    epoll.modify(sock, select.EPOLLOUT | select.EPOLLIN)
    return epoll.poll(10) == [(sock.fileno(), select.EPOLLOUT)]


def test_an_epoll_made_at_the_last_moment_is_found(socks_server, target):
    """When others are known already."""
    with select.epoll() as known, connecting(socks_server, target) as first:
        known.register(first, select.EPOLLOUT)
        assert known.poll(10)
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with connecting(socks_server, target) as sock, select.epoll() as fresh:
            fresh.register(sock.fileno(), select.EPOLLOUT)
            assert fresh.poll(10)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert is_moved(fresh, sock)


def test_an_epoll_made_after_the_last_look_is_found_before_connecting(socks_server, target):
    """The number is watched already, by an epoll that is younger than what we know."""
    connecting(socks_server, target).close()
    with select.epoll() as epoll, SocksSocket(proxy=socks_server.url()) as sock:
        epoll.register(sock, select.EPOLLOUT)
        sock.setblocking(False)
        assert sock.connect_ex(target) == errno.EINPROGRESS
        assert epoll.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert is_moved(epoll, sock)


def test_a_selector_watches_a_number_before_connecting(socks_server, target):
    """It was seen with another socket: its map is read."""
    with selectors.DefaultSelector() as selector:
        with connecting(socks_server, target) as first:
            selector.register(first, selectors.EVENT_WRITE)
            assert selector.select(10)
            selector.unregister(first)
        with SocksSocket(proxy=socks_server.url()) as sock:
            selector.register(sock, selectors.EVENT_WRITE)
            sock.setblocking(False)
            assert sock.connect_ex(target) == errno.EINPROGRESS
            assert [key.fileobj for key, _ in selector.select(10)] == [sock]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            assert [mask for _, mask in selector.select(10)] == [selectors.EVENT_WRITE]


def test_the_number_of_a_closed_selector_may_be_another_ones(socks_server, target):
    """What it has watched is not asked of it any more."""
    selector = selectors.DefaultSelector()
    selector.close()
    with select.epoll() as epoll, connecting(socks_server, target) as sock:
        watchers._epolls[epoll.fileno()] = weakref.ref(selector)
        epoll.register(sock, select.EPOLLOUT)
        assert epoll.poll(10)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert is_moved(epoll, sock)


def test_without_a_count_of_epolls_it_is_looked_every_time(
    socks_server, target, counted, monkeypatch
):
    """On a Python without the GIL, say."""
    monkeypatch.setattr(watchers, "_COUNTS", False)
    for _ in range(3):
        connecting(socks_server, target).close()
    assert counted["look around"] == 3


def test_what_cannot_be_found_is_left(socks_server, target, monkeypatch):
    """Without /proc, say."""

    def missing(path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(watchers.os, "listdir", missing)
    with connecting(socks_server, target) as sock:
        assert select.select([], [sock], [], 10)[1]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_nobody_has_to_wait_while_one_looks(socks_server, target, monkeypatch):
    """Other threads put their connections in place meanwhile."""
    looking, go_on = threading.Event(), threading.Event()
    real = pending.watchers_of

    def slow(number, *arguments):
        if threading.current_thread() is looker:
            looking.set()
            assert go_on.wait(5)
        return real(number, *arguments)

    with connecting(socks_server, target) as first, connecting(socks_server, target) as second:
        for sock in (first, second):
            assert select.select([], [sock], [], 10)[1]
        monkeypatch.setattr(pending, "watchers_of", slow)
        looker = threading.Thread(target=first.getpeername)
        looker.start()
        assert looking.wait(5)
        assert second.getpeername() == target
        go_on.set()
        looker.join(5)
        assert type(first) is SocksSocket


def test_a_loop_of_another_thread_is_asked_too(socks_server, target, counted):
    """It is a selector that has asked for the number."""

    async def main():
        loop = asyncio.get_running_loop()
        with connecting(socks_server, target) as sock:
            writable = asyncio.Event()
            loop.add_writer(sock, writable.set)
            await asyncio.wait_for(writable.wait(), 10)
            begun = dict(counted)
            assert await loop.run_in_executor(None, sock.getpeername) == target
            assert counted == begun
            writable.clear()
            await asyncio.wait_for(writable.wait(), 10)
            assert loop.remove_writer(sock)

    asyncio.run(main())
    assert eventually(lambda: pending._negotiator._thread is None)
