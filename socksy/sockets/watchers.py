"""Those who watch a number stay when what is under it is replaced.

epoll and kqueue do not keep the number that they are told to watch but what is under it at that
time. An event loop that goes on with its registration after a non-blocking connect would find it
gone, and wait for ever; one that has watched a socket from before would still watch that one.
"""

from __future__ import annotations

import os
import select
import selectors
import sys

from .options import put_under

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

_UNTYPED = 0o7777  # the greatest mode without a type of file


def put_under_watch(new: socket.socket, own: socket.socket, keep: bool = False) -> None:
    """`put_under`, and whoever has watched the number of `own` watches `new`."""
    number = own.fileno()
    selector = _selector_of_the_loop()
    if selector is None:
        watchers = [] if _is_in_trio() else _epolls_of(number)
        _control(watchers, lambda epoll, _: epoll.unregister(number))
        try:
            put_under(new, own, keep)
        finally:
            _control(watchers, lambda epoll, events: epoll.register(number, events))
        return
    key = (selector.get_map() or {}).get(number)
    if key is not None:
        selector.unregister(key.fileobj)
    try:
        put_under(new, own, keep)
    finally:
        if key is not None:
            selector.register(key.fileobj, key.events, key.data)


def _selector_of_the_loop() -> selectors.BaseSelector | None:
    """That of the asyncio loop which runs in this thread, if there is one."""
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    selector = getattr(running and running(), "_selector", None)
    return selector if isinstance(selector, selectors.BaseSelector) else None


def _is_in_trio() -> bool:
    """trio makes a new registration where it cannot change one, so nobody has to look for it."""
    library = getattr(sys.modules.get("sniffio"), "thread_local", None)
    return getattr(library, "name", None) == "trio"


def _epolls_of(number: int) -> list[tuple[int, int]]:
    """The epoll descriptors that watch a number, and for which events: see proc(5), fdinfo."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # not on Linux, or without /proc
        return []
    fstat = os.fstat
    found = []
    for name in names:
        try:
            if fstat(int(name)).st_mode > _UNTYPED:
                continue  # a file, a socket, a pipe; epolls are of no type
            with open(f"/proc/self/fdinfo/{name}", "rb", buffering=0) as file:
                text = file.read()
        except OSError:  # closed meanwhile
            continue
        begin = text.find(b"tfd: %8d " % number)
        if begin >= 0:
            words = text[begin:].split(b"\n", 1)[0].split()
            # the number may have been another socket's when that was registered
            if b"ino:%x" % fstat(number).st_ino in words:
                found.append((int(name), int(words[3], 16)))
    return found


def _epoll_class() -> Any:
    """`select.epoll`; gevent takes it out of there, since it does not let other greenlets run."""
    found = getattr(select, "epoll", None)
    return sys.modules["gevent.monkey"].get_original("select", "epoll") if found is None else found


def _control(watchers: list[tuple[int, int]], change: Any) -> None:
    for number, events in watchers:
        try:
            with _epoll_class().fromfd(os.dup(number)) as epoll:
                change(epoll, events)
        except OSError:  # closed meanwhile, or changed by another thread
            pass
