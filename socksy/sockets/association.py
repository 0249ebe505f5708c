"""The association of a datagram socket: how it is made, where its relay is, how it ends.

It lives as long as its control connection, a TCP connection to the proxy, which the thread of
`pending` watches. On a non-blocking socket that thread also makes it; until then a few datagrams
wait. What runs there knows the association by a weak reference: sockets keep it alive, and when the
last one is gone, it cancels its errand. It takes whichever of them is open: duplicates have one
descriptor in common, and so one peer and one association (`Shared`).
"""

from __future__ import annotations

import copy
import errno
import os
import socket
import threading
import weakref

from ..errors import (
    CommandNotSupportedError,
    ProxyConnectionError,
    ProxyError,
    ProxyProtocolError,
    ProxyUnsupportedError,
)
from ..hosts import pack_ip, unpack_ip
from ..protocol.steps import REPLY
from ..proxy import SOCKS5
from . import pending
from .dial import POLLIN, Dial, family_of, run, watching
from .lookup import target_addresses
from .options import bind_like, put_under, set_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from ..protocol.steps import Address
    from ..proxy import Chain, Proxy
    from .datagram import DatagramSocket
    from .dial import Wait

#: how many datagrams wait for an association that is made in the background; further ones are lost
QUEUE = 64
UDP_ASSOCIATE = 3  # as in `protocol.codes`

_Plain = socket.SocketType
_connect, _sendmsg, _recv = _Plain.connect, _Plain.sendmsg, _Plain.recv
DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
# What the application asks of its socket that its control connection must not ignore.
_BINDING = [
    (socket.SOL_SOCKET, getattr(socket, name))
    for name in ("SO_BINDTODEVICE", "SO_MARK")
    if hasattr(socket, name)
]
# Some proxies, and what lies between, forget a connection that says nothing for a minute.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class Shared:
    """What a datagram socket and its duplicates have in common, as in the kernel.

    Attributes:
        users: those of them that are open.
        association: theirs, if there is one; made by whoever is first (see `propose`).
        failure: why there is none, if one was tried last. Then nobody is heard: whom else would an
            application expect that sends through a proxy?
        peer: whom they are connected to: as it was named, as the proxy is asked, its header.
        headers: address -> header. For sending without a thought: filled only while they can leave.
        sources: header -> source, likewise; None while nothing can come in.
        peer_header: the header to the peer, likewise.
    """

    association: Association | None = None  # not in __dict__ yet

    def __init__(self, sock: DatagramSocket) -> None:
        self.users = weakref.WeakSet([sock])
        self.failure: Exception | None = None
        self.peer: tuple[Any, Address, bytes] | None = None
        self.headers: dict[Any, bytes] = {}
        self.sources: dict[bytes, Any] | None = None
        self.peer_header: bytes | None = None

    def propose(self, association: Association) -> Association:
        """The association there is, which is this one if there was none: in one step."""
        return self.__dict__.setdefault("association", association)  # type: ignore[no-any-return]

    def drop(self, association: Association, error: Exception) -> None:
        """It has failed; the next may be tried. Several threads may be told, one does this."""
        if association.is_dropped_now():
            self.failure = error
            self.__dict__.pop("association", None)
            self.go_dead()

    def go_live(self, headers: dict[Any, bytes]) -> None:
        """Datagrams can leave and come in."""
        self.failure = None
        self.headers = headers
        self.sources = {}
        self.peer_header = None if self.peer is None else self.peer[2]

    def go_dead(self) -> None:
        """They cannot: every call has to look why."""
        self.headers = {}
        self.sources = None
        self.peer_header = None


class Association:
    """What the proxy gave one socket, and its duplicates: a relay, as long as `control` is open.

    Attributes:
        chain: through whom.
        ready: whether datagrams can leave.
        error: why there is none, or none any more.
        lost: it was there, and has ended.
        relay, bound: the relay's address; BND.ADDR and BND.PORT as the proxy sent them.
        names: own and relay's address, if the descriptor is of another family than the socket.
        dropped: datagrams that were not for the application: malformed, fragments, of somebody
            else, or too many before the association was there.
        headers: those that have been made for it.
    """

    def __init__(self, chain: Chain, users: weakref.WeakSet[DatagramSocket], target: Address):
        self.chain = chain
        self.target = target
        self.ready = False
        self.lost = False
        self.error: Exception | None = None
        self.relay: Any = None
        self.bound: Address | None = None
        self.names: tuple[Any, Any] | None = None
        self.dropped = 0
        self.headers: dict[Any, bytes] = {}
        self.over = threading.Event()  # made, or failed
        self._users = users
        self._lock = threading.Lock()
        self._queue: list[tuple[bytes, Any, int]] = []
        self._waiting: list[Callable[[], None]] = []
        self._errand: pending.Errand | None = None
        self._droppable = [True]  # pop() is atomic, and so needs no lock

    def __del__(self) -> None:
        if self._errand is not None:
            pending.cancel(self._errand)

    def is_dropped_now(self) -> bool:
        """Whether the caller is the first to drop it."""
        try:
            return self._droppable.pop()
        except IndexError:
            return False

    # -- making it

    def make(self, sock: DatagramSocket) -> None:
        """Ask the proxy, within the socket's timeout; on a non-blocking socket in the background.

        Raises:
            ProxyError: it cannot be had; the socket is as it was.
        """
        timeout = sock.gettimeout()
        port = _port_of(sock)
        if self.chain[0].udp_source_unknown:
            port = 0
        control, dial = self._dial(sock, sock._patience if timeout == 0 else timeout)
        asking = _ask(dial, control, self.chain, port)
        if timeout == 0:
            control.setblocking(False)
            self._errand = pending.Errand(_make(weakref.ref(self), control, asking), control)
        else:
            try:
                self.settle(control, *run(asking))
            except BaseException as exc:
                control.close()
                if isinstance(exc, ProxyError):
                    self._explain(exc)
                raise
            control.setblocking(False)
            self._errand = pending.Errand(_watch(weakref.ref(self), control), control)
        pending.submit(self._errand)

    def _dial(self, sock: DatagramSocket, timeout: float | None) -> tuple[socket.socket, Dial]:
        """An unconnected control connection that leaves this machine as the datagrams will."""
        proxy = self.chain[0]
        control = socket.socket(socket.AF_INET6 if ":" in proxy.host else socket.AF_INET)
        try:
            control.settimeout(timeout)
            options = {key: sock._options[key] for key in _BINDING if key in sock._options}
            set_again(options, control)
            local = sock._local
            if local is not None and pack_ip(local[0]) not in (bytes(4), bytes(16)):
                local = (local[0], 0, *local[2:])
                bind_like(local, control)
            else:
                local = None
            return control, Dial(control, timeout, local, options)
        except BaseException:
            control.close()
            raise

    def settle(self, control: socket.socket, bound: Address, relay: Address) -> None:
        """The proxy has said where its relay is: connect to it, and let the datagrams go.

        Raises:
            ProxyConnectionError: that address cannot be reached from here.
            OSError: EBADF, all sockets have been closed.
        """
        self.bound, self.relay = bound, relay
        if self.chain[0].path is None:
            control.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    control.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with self._lock:
            sock = self._connect_one(relay)
            discard_all(sock)  # what came before the kernel knew whom to listen to
            for datagram, ancillary, flags in self._queue:
                try:
                    _sendmsg(sock, [datagram], ancillary, flags)
                except OSError:  # as a network would: lost
                    pass
            self._queue.clear()
            self.ready = True
        shared = sock._shared
        if shared.association is self:
            shared.go_live(self.headers)
        self._end_waiting()

    def _connect_one(self, relay: Address) -> DatagramSocket:
        """Connect one of the sockets, and so all; any may be closed at any time."""
        for sock in list(self._users):
            try:
                self.names = _connect_to_relay(sock, relay)
                return sock
            except ProxyError:
                raise
            except OSError as exc:
                if sock.fileno() != -1:
                    raise ProxyConnectionError(
                        exc.errno or errno.EHOSTUNREACH,
                        f"cannot send to the proxy's UDP relay at {relay[0]}: {exc.strerror}",
                        phase=REPLY,
                    ) from exc
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call this, in whatever thread, when it is made or has failed."""
        self._waiting.append(callback)
        if self.over.is_set():
            self._end_waiting()

    def _end_waiting(self) -> None:
        self.over.set()
        while self._waiting:
            try:
                callback = self._waiting.pop()
            except IndexError:  # another thread was faster
                return
            callback()

    def enqueue(self, datagram: bytes, ancillary: Any, flags: int, sock: DatagramSocket) -> None:
        """Send a datagram when there is an association; too many are dropped."""
        with self._lock:
            if self.ready:
                _sendmsg(sock, [datagram], ancillary, flags)
            elif len(self._queue) < QUEUE:
                self._queue.append((datagram, ancillary, flags))
            else:
                self.dropped += 1

    def discard(self, sock: DatagramSocket) -> None:
        """Throw away what comes from nobody knows whom, as long as that is so."""
        with self._lock:
            if not self.ready:
                discard_all(sock)

    # -- its end

    def check(self) -> Exception | None:
        """Why there is none; after a fork, the thread that was making it is not here."""
        errand = self._errand
        if errand is not None and errand.done and not self.ready and self.error is None:
            self.error = errand.error
            self._end_waiting()
        return self.error

    def fail(self, error: BaseException) -> Exception:
        """It could not be made: what to tell the next call, and other threads that wait for it."""
        if isinstance(error, ProxyError):
            self._explain(error)
        # a copy: with a traceback it would keep the sockets alive
        told = copy.copy(error) if isinstance(error, Exception) else _given_up()
        self.error = told
        self._end_waiting()
        return told

    def nudge(self) -> None:
        """Wake up a loop that watches the socket."""
        for sock in list(self._users):
            if _nudge(sock):
                return

    def lose(self) -> None:
        """The control connection has ended, and with it the association (RFC 1928, section 7)."""
        error = ProxyConnectionError(
            errno.ECONNRESET,
            "the proxy has closed the control connection, and so ended this socket's association",
            hint="Make a new socket",
        )
        error.proxy = str(self.chain[0])
        self.lost = True
        self.error = error
        users = list(self._users)
        for sock in users:
            sock._shared.go_dead()  # the same for all, but for those that were closed just now
        # Loops all see one datagram. Of threads that wait, each has to take one.
        waits = any(sock.gettimeout() != 0 for sock in users)
        count = min(threading.active_count(), QUEUE) if waits else 1
        for sock in users:
            if _wake(sock, self.names, count):
                return

    def _explain(self, error: ProxyError) -> None:
        error.proxy = error.proxy or str(self.chain[0])
        error.target = self.target
        if isinstance(error, CommandNotSupportedError):
            error.hint = "This server has no UDP; Tor and microsocks, for instance, have none"
        elif isinstance(error, ProxyProtocolError) and error.phase == REPLY:
            error.hint = "OpenSSH (ssh -D) closes like this: it has no UDP"


def _ask(
    dial: Dial, control: socket.socket, chain: Chain, port: int
) -> Generator[Wait, bool, tuple[Address, Address]]:
    """UDP ASSOCIATE: the bound address of the reply, and the relay's.

    What is asked is the address that we shall send from. Only its port is known: then the address
    is zeros (RFC 1928, section 4).
    """
    anywhere = "::" if ":" in chain[0].host else "0.0.0.0"
    bound = yield from dial.through(chain, anywhere, port, UDP_ASSOCIATE)
    there = control.getpeername() if dial.names is None else dial.names[1]
    return bound, (yield from relay_address(chain[0], bound, there, dial.deadline))


# -- what runs in the thread


def _make(
    reference: weakref.ref[Association],
    control: socket.socket,
    asking: Generator[Wait, bool, tuple[Address, Address]],
) -> Generator[Wait, bool, None]:
    """In the background: make an association, and watch it."""
    try:
        bound, relay = yield from asking
        association = reference()
        if association is None:
            return
        association.settle(control, bound, relay)
    except Exception as exc:
        association = reference()
        if association is not None:
            association.fail(exc)
            association.nudge()
        return
    del association
    yield from _watch(reference, control)


def _watch(
    reference: weakref.ref[Association], control: socket.socket
) -> Generator[Wait, bool, None]:
    """In the background: wait for the end of the control connection."""
    while True:
        yield control, POLLIN, None
        try:
            if control.recv(512):
                continue  # nothing has to be said here; some servers talk all the same
        except BlockingIOError:
            continue
        except OSError:
            pass
        break
    association = reference()
    if association is not None:
        association.lose()


def _port_of(sock: DatagramSocket) -> int:
    """The port that datagrams will leave from."""
    port: int = _Plain.getsockname(sock)[1]
    if not port:
        _Plain.bind(sock, ("::" if family_of(sock) == socket.AF_INET6 else "0.0.0.0", 0))
        port = _Plain.getsockname(sock)[1]
    return port


# -- where the relay is


def relay_address(
    proxy: Proxy, bound: Address, there: Any, deadline: float | None
) -> Generator[Wait, bool, Address]:
    """The relay's address, from the reply and the other end of the control connection.

    As replied; but the proxy's own address if that is unspecified, or is a private one of a proxy
    that is not in a private network: it is behind a translating router and does not know itself.
    A name is looked up only if the proxy's URL lets names be looked up here.

    Raises:
        ProxyUnsupportedError: the reply names a relay that cannot be used.
        ProxyProtocolError: it names none.
    """
    host, port = bound
    if not port:
        raise ProxyProtocolError(message="the proxy names no port for its relay", phase=REPLY)
    packed = pack_ip(host)
    if packed is None and host:
        if proxy.scheme != SOCKS5:
            raise ProxyUnsupportedError(
                message=f"the proxy names its UDP relay {host!r}, and names are not looked up here",
                hint="socks5:// allows it",
            )
        found = yield from target_addresses(host, port, 0, deadline)
        return found[0], port
    if not isinstance(there, tuple):
        if packed is None or not any(packed):
            raise ProxyUnsupportedError(
                message="a proxy on a Unix socket must say where its UDP relay is, and did not"
            )
        return unpack_ip(packed), port
    peer = pack_ip(there[0].partition("%")[0]) or b""
    if packed is None or not any(packed) or (_is_private(packed) and not _is_private(peer)):
        return (there[0] if len(peer) == 16 else unpack_ip(peer)), port
    return unpack_ip(packed), port


def _is_private(packed: bytes) -> bool:
    from ipaddress import ip_address

    address = ip_address(packed)
    return address.is_private or address.is_loopback or address.is_link_local


def _connect_to_relay(sock: DatagramSocket, relay: Address) -> tuple[Any, Any] | None:
    """Connect the descriptor to the relay; own and relay's address if it had to be another one."""
    host, port = relay
    if (family_of(sock) == socket.AF_INET6) == (":" in host):
        _connect(sock, relay)
        return None
    if ":" not in host and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        _connect(sock, (f"::ffff:{host}", port))
        return None
    if sock.gettimeout() == 0 and not sock._is_unwatched:
        # an event loop may have registered the descriptor, and would not learn of another one
        wanted = "AF_INET6" if ":" in host else "AF_INET, or without IPV6_V6ONLY"
        raise ProxyUnsupportedError(
            message=f"the proxy's UDP relay is {host}, which is of another family than this socket",
            hint=f"Make the socket with {wanted}",
        )
    spare = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        set_again(sock._options, spare)
        if ":" in host:
            spare.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bind_like(_Plain.getsockname(sock), spare)
        _connect(spare, relay)
        spare.settimeout(sock.gettimeout())
        names = spare.getsockname(), spare.getpeername()
        put_under(spare, sock)
    except BaseException:
        spare.close()
        raise
    return names


# -- waking up who waits for a datagram


def discard_all(sock: socket.socket) -> None:
    """Throw away what has come in."""
    try:
        poller = watching(sock, POLLIN)
        while poller.poll(0):  # MSGDONTWAIT does not keep Python from waiting for a timeout
            _recv(sock, 1, DONTWAIT)
    except OSError:
        pass


def _nudge(sock: DatagramSocket) -> bool:
    """Make an unconnected socket readable, by an empty datagram from this machine."""
    try:
        host, port, *_ = _Plain.getsockname(sock)
        own = family_of(sock)
        if not any(pack_ip(host) or b""):
            host = "::1" if own == socket.AF_INET6 else "127.0.0.1"
        with socket.socket(own, socket.SOCK_DGRAM) as helper:
            _Plain.sendto(helper, b"", (host, port))
    except OSError:  # closed meanwhile
        return False
    return True


def _wake(sock: DatagramSocket, names: tuple[Any, Any] | None, count: int) -> bool:
    """Make a socket readable that is connected to a relay, and cut it off from there."""
    try:
        family = family_of(sock) if names is None else _family(names[0])
        with socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(sock.fileno())) as own:
            here = own.getsockname()
            with socket.socket(family, socket.SOCK_DGRAM) as helper:
                helper.bind((here[0], 0, *here[2:]))
                _connect(own, helper.getsockname())
                for _ in range(count):
                    _Plain.sendto(helper, b"", here)
    except OSError:  # closed meanwhile
        return False
    return True


def _given_up() -> OSError:
    """For other threads, when Ctrl-C has ended the one that was making it."""
    return OSError(errno.EINTR, os.strerror(errno.EINTR))


def _family(name: Any) -> int:
    return socket.AF_INET6 if ":" in name[0] else socket.AF_INET
