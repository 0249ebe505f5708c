"""Those who watch a number stay when what is under it is replaced.

epoll and kqueue do not keep the number that they are told to watch but what is under it at that
time. An event loop that goes on with its registration after a non-blocking connect would find it
gone, and wait for ever; one that has watched a socket from before would still watch that one.

The kernel tells who watches what only in the fdinfo of each epoll, which takes about a microsecond
for each number that it watches, and to find the epolls takes another for each descriptor that is
open (see proc(5)). Where thousands connect at a time neither can be had for each of them. So:

* The selector of the asyncio loop that runs in this thread knows what it watches. So does one that
  has asked a pending socket for its number: see `selector_that_asks`.
* The epolls that were found are remembered, with their selectors if these are known.
* At the end of a connect, whoever is not among these is looked for.
* At its beginning hardly anybody watches the number yet. Then we look again only if this program
  has made or dropped an epoll since, or if it has been a second.
"""

from __future__ import annotations

import os
import select
import selectors
import sys
import weakref
from time import monotonic

from .options import put_under

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any

_UNTYPED = 0o7777  # the greatest mode without a type of file
_EPOLL = "anon_inode:[eventpoll]"
_EPOLL_SELECTOR: Any = getattr(selectors, "EpollSelector", ())
_FRESH = 1.0  # seconds

# Whether the reference count of a class tells how many instances there are; not without the GIL.
_COUNTS = hasattr(sys, "getrefcount") and "t" not in getattr(sys, "abiflags", "")


class _Epoll:
    """A registration with an epoll."""

    def __init__(self, epoll: int, number: int, events: int) -> None:
        self._epoll = epoll
        self._number = number
        self._events = events

    def stop(self) -> None:
        self._control("unregister", self._number)

    def go_on(self) -> None:
        self._control("register", self._number, self._events)

    def _control(self, method: str, *arguments: int) -> None:
        try:
            with _epoll_class().fromfd(os.dup(self._epoll)) as epoll:
                getattr(epoll, method)(*arguments)
        except OSError:  # closed meanwhile, or changed by another thread
            pass


class _Selector:
    """A registration with the selector of this thread's loop."""

    def __init__(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        self._selector = selector
        self._key = key

    def stop(self) -> None:
        self._selector.unregister(self._key.fileobj)

    def go_on(self) -> None:
        self._selector.register(self._key.fileobj, self._key.events, self._key.data)


def put_under_watch(
    new: socket.socket,
    own: socket.socket,
    watchers: Iterable[_Epoll | _Selector],
    keep: bool = False,
) -> None:
    """`put_under`, and whoever has watched the number of `own` watches `new`."""
    for watcher in watchers:
        watcher.stop()
    try:
        put_under(new, own, keep)
    finally:
        for watcher in watchers:
            watcher.go_on()


def watchers_of(
    number: int, askers: Iterable[selectors.BaseSelector] = (), thoroughly: bool = True
) -> list[_Epoll | _Selector]:
    """Whoever watches a number.

    Args:
        askers: the selectors that have asked for the number, as far as that was seen.
        thoroughly: False: it is most likely that nobody does.
    """
    selector = _selector_of_the_loop()
    if selector is not None:
        remember(selector)
        key = (selector.get_map() or {}).get(number)
        return [] if key is None else [_Selector(selector, key)]
    if _is_in_trio():
        return []
    if askers:
        return [watcher for asker in askers for watcher in _in_selector(asker, number)]
    news = _is_out_of_date()
    if news:
        _look_around()
    found = _among_the_epolls(number)
    if thoroughly and not found and not news:
        _look_around()
        found = _among_the_epolls(number)
    return found


# -- who can be asked


def _selector_of_the_loop() -> selectors.BaseSelector | None:
    """That of the asyncio loop which runs in this thread, if there is one."""
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    selector = getattr(running and running(), "_selector", None)
    return selector if isinstance(selector, selectors.BaseSelector) else None


def _is_in_trio() -> bool:
    """trio makes a new registration where it cannot change one, so nobody has to look for it."""
    library = getattr(sys.modules.get("sniffio"), "thread_local", None)
    return getattr(library, "name", None) == "trio"


def selector_that_asks(frame: FrameType | None) -> selectors.BaseSelector | None:
    """The selector that has called `fileno`: it is about to register the socket, most likely."""
    ours = vars(selectors)
    while frame is not None and frame.f_globals is ours:
        asker = frame.f_locals.get("self")
        if isinstance(asker, selectors.BaseSelector):
            return asker
        frame = frame.f_back
    return None


def _in_selector(selector: selectors.BaseSelector, number: int) -> list[_Epoll | _Selector]:
    """Its registration; poll and select have no memory of theirs."""
    key = (selector.get_map() or {}).get(number)
    if key is None or not isinstance(selector, _EPOLL_SELECTOR):
        return []
    reads, writes = key.events & selectors.EVENT_READ, key.events & selectors.EVENT_WRITE
    events = (reads and select.POLLIN) | (writes and select.POLLOUT)
    return [_Epoll(selector.fileno(), number, events)]


# -- who must be looked for

# The number of each epoll that was found, and the selector that it belongs to, if we know it.
_epolls: dict[int, weakref.ref[selectors.BaseSelector] | None] = {}
_found: tuple[float, int] = -_FRESH, 0  # when that was, and how many instances there were


def remember(selector: selectors.BaseSelector) -> None:
    """Its map is to be read, not the fdinfo of its epoll."""
    if isinstance(selector, _EPOLL_SELECTOR):
        known = _epolls.get(selector.fileno())
        if known is None or known() is not selector:
            _epolls[selector.fileno()] = weakref.ref(selector)


def _epoll_class() -> Any:
    """`select.epoll`; gevent takes it out of there, since it does not let other greenlets run."""
    found = getattr(select, "epoll", None)
    if found is None and "gevent.monkey" in sys.modules:
        found = sys.modules["gevent.monkey"].get_original("select", "epoll")
    return found


def _instances() -> int:
    """Changes when an epoll is made: each instance has a reference to its class. Crude, but quick.

    Those of C libraries do not count: they are found at the end of the first connect.
    """
    return sys.getrefcount(_epoll_class())


def _is_out_of_date() -> bool:
    when, instances = _found
    return not _COUNTS or monotonic() - when > _FRESH or instances != _instances()


def _look_around() -> None:
    """Find every epoll of this process."""
    global _epolls, _found
    began, instances, known = monotonic(), _instances(), _epolls
    fstat = os.fstat
    found = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # not on Linux, or without /proc
        names = []
    for name in names:
        try:  # files, sockets, pipes have types; epolls have none
            if fstat(int(name)).st_mode > _UNTYPED:
                continue
            if os.readlink(f"/proc/self/fd/{name}") == _EPOLL:
                found[int(name)] = known.get(int(name))
        except OSError:  # closed meanwhile
            pass
    _epolls = found
    _found = began, instances


def _among_the_epolls(number: int) -> list[_Epoll | _Selector]:
    found: list[_Epoll | _Selector] = []
    for epoll, reference in list(_epolls.items()):
        selector: Any = None if reference is None else reference()
        try:
            if selector is not None and selector.fileno() == epoll:
                found += _in_selector(selector, number)
                continue
        except ValueError:  # it was closed; the number may be another one's
            pass
        events = _events_in(epoll, number)
        if events is not None:
            found.append(_Epoll(epoll, number, events))
    return found


def _events_in(epoll: int, number: int) -> int | None:
    """For which events an epoll watches a number: see proc(5), fdinfo."""
    try:
        with open(f"/proc/self/fdinfo/{epoll}", "rb", buffering=0) as file:
            text = file.read()
        begin = text.find(b"tfd: %8d " % number)
        if begin >= 0:
            words = text[begin:].split(b"\n", 1)[0].split()
            # the number may have been another socket's when that was registered
            if b"ino:%x" % os.fstat(number).st_ino in words:
                return int(words[3], 16)
    except OSError:  # closed meanwhile
        pass
    return None
