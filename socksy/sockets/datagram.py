"""Datagrams through a proxy: UDP ASSOCIATE behind every method (RFC 1928, section 7).

The application's descriptor is the UDP socket from beginning to end. When the first datagram for a
proxied destination leaves, an *association* is made over a TCP connection of its own, and the
kernel connects the descriptor to the relay: it then drops what others send, and reports what ICMP
says of the relay. Three dicts make the fast path: address -> header on the way out, header ->
address on the way in, and both are empty or missing whenever there is something to think about.

The association lives as long as its control connection, which the thread of `pending` watches. On
a non-blocking socket that thread also makes the association; until then a few datagrams wait.

Nothing ever goes direct that should go through a proxy, and once a socket is associated it refuses
destinations that would be direct: their answers could not come in.
"""

from __future__ import annotations

import copy
import errno
import os
import select
import socket
import threading
import weakref
from time import monotonic

from ..errors import (
    CommandNotSupportedError,
    InvalidArgumentError,
    ProxyConnectionError,
    ProxyError,
    ProxyProtocolError,
    ProxyUnsupportedError,
)
from ..hosts import pack_ip, unpack_ip
from ..protocol import handshake, name_the_leg
from ..protocol.datagram import pack_header, parse_header
from ..protocol.steps import REPLY
from ..proxy import SOCKS5
from . import pending
from .dial import PATIENCE, POLLIN, Dial, family_of, run, wait
from .lookup import target_addresses
from .options import bind_like, put_under, set_again
from .remote import in_family
from .stream import SocksSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from typing import Any

    from typing_extensions import Buffer, Self

    from ..protocol.steps import Address
    from ..proxy import Chain, Proxy, ProxyLike
    from .dial import Wait

#: how many datagrams wait for an association that is made in the background; further ones are lost
QUEUE = 64

_UDP_ASSOCIATE = 3
_ROOM = 262  # the longest header: 4 + 1 + 255 + 2 bytes
_LARGEST = 65535 + _ROOM
_CACHED = 1024  # headers and sources that are remembered
_UNKNOWN: dict[Any, bytes] = {}  # never filled: the headers of a socket without an association

_Plain = socket.SocketType
_connect = _Plain.connect
_send, _sendmsg = _Plain.send, _Plain.sendmsg
_recv, _recvmsg = _Plain.recv, _Plain.recvmsg
_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_PEEK = int(socket.MSG_PEEK)
_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_ERRQUEUE = int(getattr(socket, "MSG_ERRQUEUE", 0))
# What the application asks of its socket that its control connection must not ignore.
_BINDING = [
    (socket.SOL_SOCKET, getattr(socket, name))
    for name in ("SO_BINDTODEVICE", "SO_MARK")
    if hasattr(socket, name)
]
# Some proxies, and what lies between, forget a connection that says nothing for a minute.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


# -- the association


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
    """

    def __init__(self, chain: Chain, sock: DatagramSocket, target: Address) -> None:
        self.chain = chain
        self.target = target
        self.sockets = weakref.WeakSet([sock])
        self.ready = False
        self.lost = False
        self.error: Exception | None = None
        self.relay: Any = None
        self.bound: Address | None = None
        self.names: tuple[Any, Any] | None = None
        self.dropped = 0
        self.headers: dict[Any, bytes] = {}
        self.over = threading.Event()  # made, or failed
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._errand: pending.Errand | None = None

    def __del__(self) -> None:
        if self._errand is not None:
            pending.cancel(self._errand)

    # -- making it

    def make(self, sock: DatagramSocket) -> None:
        """Ask the proxy, within the socket's timeout; on a non-blocking socket in the background.

        Raises:
            ProxyError: it cannot be had; the socket is as it was.
        """
        timeout = sock.gettimeout()
        port = _port_of(sock)
        control, dial = self._dial(sock, PATIENCE if timeout == 0 else timeout)
        asking = _ask(dial, control, self.chain, port)
        if timeout == 0:
            control.setblocking(False)
            task = _make(weakref.ref(self), weakref.ref(sock), control, asking)
            self._errand = pending.Errand(task, control)
        else:
            try:
                self.settle(sock, control, *run(asking))
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

    def settle(
        self, sock: DatagramSocket, control: socket.socket, bound: Address, relay: Address
    ) -> None:
        """The proxy has said where its relay is: connect to it, and let the datagrams go."""
        self.bound, self.relay = bound, relay
        if self.chain[0].path is None:
            control.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    control.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with self._lock:
            self.names = _connect_to_relay(sock, relay)
            _discard(sock)  # what came before the kernel knew whom to listen to
            for datagram in self._queue:
                try:
                    _send(sock, datagram)
                except OSError:  # as a network would: lost
                    pass
            self._queue.clear()
            self.ready = True
        for user in list(self.sockets):
            user._go_live(self)
        self.over.set()

    def enqueue(self, sock: DatagramSocket, datagram: bytes) -> None:
        """Send a datagram when there is an association; too many are dropped."""
        with self._lock:
            if self.ready:
                _send(sock, datagram)
            elif len(self._queue) < QUEUE:
                self._queue.append(datagram)
            else:
                self.dropped += 1

    def discard(self, sock: DatagramSocket) -> None:
        """Throw away what comes from nobody knows whom, as long as that is so."""
        with self._lock:
            if not self.ready:
                _discard(sock)

    # -- its end

    def check(self) -> Exception | None:
        """Why there is none; after a fork, the thread that was making it is not here."""
        errand = self._errand
        if errand is not None and errand.done and not self.ready and self.error is None:
            self.error = errand.error
            self.over.set()
        return self.error

    def fail(self, error: Exception) -> None:
        """It could not be made, in the background: the next call says so."""
        if isinstance(error, ProxyError):
            self._explain(error)
        self.error = error.with_traceback(None)
        self.over.set()
        for sock in list(self.sockets)[:1]:
            _nudge(sock)

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
        users = list(self.sockets)
        for sock in users:
            sock._go_dead()
        for sock in users[:1]:
            _wake(sock, self.names)

    def _explain(self, error: ProxyError) -> None:
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
    bound = yield from dial.through(chain, anywhere, port, _UDP_ASSOCIATE)
    there = control.getpeername() if dial.names is None else dial.names[1]
    return bound, (yield from relay_address(chain[0], bound, there, dial.deadline))


# What runs in the thread knows the association by a weak reference: sockets keep it alive, and when
# the last one is gone, it cancels its errand.


def _make(
    reference: weakref.ref[Association],
    user: weakref.ref[DatagramSocket],
    control: socket.socket,
    asking: Generator[Wait, bool, tuple[Address, Address]],
) -> Generator[Wait, bool, None]:
    """In the background: make an association, and watch it."""
    try:
        bound, relay = yield from asking
        association, sock = reference(), user()
        if association is None or sock is None:
            return
        association.settle(sock, control, bound, relay)
    except Exception as exc:
        association = reference()
        if association is not None:
            association.fail(exc)
        return
    del association, sock
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
    if sock.gettimeout() == 0:
        # an event loop may have registered the descriptor, and would not learn of another one
        raise ProxyUnsupportedError(
            message=f"the proxy's UDP relay is {host}, which is of another family than this socket",
            hint="Make the socket with AF_INET6",
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


def _discard(sock: socket.socket) -> None:
    """Throw away what has come in."""
    poller = select.poll()
    poller.register(sock, POLLIN)
    try:
        while poller.poll(0):  # MSG_DONTWAIT does not keep Python from waiting for a timeout
            _recv(sock, 1, _DONTWAIT)
    except OSError:
        pass


def _nudge(sock: DatagramSocket) -> None:
    """Make an unconnected socket readable, by an empty datagram from this machine."""
    try:
        host, port, *_ = _Plain.getsockname(sock)
        own = family_of(sock)
        if not any(pack_ip(host) or b""):
            host = "::1" if own == socket.AF_INET6 else "127.0.0.1"
        with socket.socket(own, socket.SOCK_DGRAM) as helper:
            _Plain.sendto(helper, b"", (host, port))
    except OSError:
        pass


def _wake(sock: DatagramSocket, names: tuple[Any, Any] | None) -> None:
    """Make a socket readable that is connected to a relay, and cut it off from there."""
    try:
        family = family_of(sock) if names is None else _family(names[0])
        with socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(sock.fileno())) as own:
            here = own.getsockname()
            with socket.socket(family, socket.SOCK_DGRAM) as helper:
                helper.bind((here[0], 0, *here[2:]))
                _connect(own, helper.getsockname())
                _Plain.sendto(helper, b"", here)
    except OSError:  # closed meanwhile
        pass


def _family(name: Any) -> int:
    return socket.AF_INET6 if ":" in name[0] else socket.AF_INET


# -- the socket


class DatagramSocket(SocksSocket):
    """What `SocksSocket` makes for SOCK_DGRAM: every method, through a SOCKS5 proxy's UDP relay.

    Methods do what `socket.socket` documents. Beyond that:

    * `connect` makes the association, so that a proxy without UDP is known at once; without it the
      first send does. Both keep to the socket's timeout. On a non-blocking socket it is made in the
      background, up to `QUEUE` datagrams wait for it, and the next call reports its failure.
    * When the control connection ends, sends and receives raise `ProxyConnectionError`, also those
      that wait: make a new socket.
    * A destination that would go direct (the proxy is a callable that says so) is refused once the
      socket is associated; until then the socket is a plain one.

    Raises:
        ProxyUnsupportedError: SOCKS4, HTTP and chains do no UDP. No datagram goes around them.
        CommandNotSupportedError, ProxyProtocolError: this proxy does no UDP.
    """

    _association: Association | None = None
    _headers: dict[Any, bytes] = _UNKNOWN
    _sources: dict[bytes, Any] | None = None
    _peer_header: bytes | None = None  # only while datagrams can leave
    _peer: tuple[Any, tuple[str, int], bytes] | None = None  # as named, as asked, its header

    # -- sending

    def sendto(self, data: Buffer, *arguments: Any) -> int:
        try:
            header = self._headers[arguments[-1]]
        except (LookupError, TypeError):
            return self._sendto(data, arguments)
        if len(arguments) == 1:
            return _send(self, header + data) - len(header)
        return _send(self, header + data, arguments[0]) - len(header)

    def _sendto(self, data: Buffer, arguments: tuple[Any, ...]) -> int:
        header = self._header_to(arguments[-1]) if arguments else None
        if header is None:
            return _Plain.sendto(self, data, *arguments)
        flags = arguments[0] if len(arguments) > 1 else 0
        return self._transmit(header, (data,), (), flags)

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        header = self._peer_header
        if header is not None:
            return _send(self, header + data, flags) - len(header)
        header = self._header_to_peer()
        if header is None:
            return _send(self, data, flags)
        return self._transmit(header, (data,), (), flags)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        self.send(data, flags)

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        header = self._header_to_peer() if address is None else self._header_to(address)
        if header is None:
            return _sendmsg(self, buffers, ancdata, flags, address)
        return self._transmit(header, tuple(buffers), ancdata, flags)

    def _transmit(
        self,
        header: bytes,
        buffers: Sequence[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]],
        flags: int,
    ) -> int:
        association = self._association
        assert association is not None
        if association.ready:
            return _sendmsg(self, (header, *buffers), ancdata, flags) - len(header)
        datagram = b"".join((header, *buffers))
        if len(datagram) > 65507:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        association.enqueue(self, datagram)
        return len(datagram) - len(header)

    def _header_to(self, address: Any) -> bytes | None:
        """The header for a destination, with the association that it needs; None: send directly."""
        way = self._chain_for(address)
        if way is None:
            self._refuse_direct()
            return None
        chain, host, port = way
        header = self._header_for(chain, host, port)
        association = self._associate(chain, (host, port))
        if association.ready:
            if len(association.headers) >= _CACHED:
                association.headers.clear()
            association.headers[address] = header
        return header

    def _header_to_peer(self) -> bytes | None:
        peer = self._peer
        if peer is None:
            self._refuse_direct()
            return None
        association = self._association
        if association is None or association.check() is not None:
            self._associate(self._chain_to(peer[1]), peer[1])
        return peer[2]

    def _chain_to(self, target: Address) -> Chain:
        way = self._chain_for(target)
        if way is None:
            raise ProxyUnsupportedError(message="this socket is connected through a proxy")
        return way[0]

    def _header_for(self, chain: Chain, host: str, port: int) -> bytes:
        if chain[-1].scheme == SOCKS5 and pack_ip(host) is None:
            timeout = self.gettimeout()
            deadline = monotonic() + timeout if timeout else None
            host = run(target_addresses(host, port, 0, deadline))[0]
        return pack_header(host, port)

    def _refuse_direct(self) -> None:
        """What goes direct cannot be mixed with what does not."""
        association = self._association
        if association is None:
            return
        if association.check() is not None:
            self._report(association)
        raise ProxyUnsupportedError(
            message="this datagram would go direct, but the socket sends through a proxy",
            hint="Nothing was sent; use one socket for each",
        )

    def _associate(self, chain: Chain, target: Address) -> Association:
        """The association, which is made if there is none yet."""
        association = self._association
        if association is not None:
            if association.chain != chain:
                raise ProxyUnsupportedError(message="the socket is associated with another proxy")
            if not association.ready and self.gettimeout() != 0:
                association.over.wait(self.gettimeout())
            if association.check() is not None:
                self._report(association)
            return association
        if len(chain) > 1:
            raise ProxyUnsupportedError(
                message="datagrams cannot go through a chain of proxies",
                hint="They would leave this machine for the last proxy's relay directly",
            )
        try:
            # refuses SOCKS4 and HTTP here and now, not in the background
            handshake((chain[0], "0.0.0.0", 0), _UDP_ASSOCIATE).close()
        except ProxyError as error:
            name_the_leg(error, ((chain[0], *target),), 0)
            raise
        association = Association(chain, self, target)
        self._association = association
        try:
            association.make(self)
        except BaseException as exc:
            self._association = None
            association.error = exc if isinstance(exc, Exception) else InterruptedError()
            association.over.set()  # for other threads
            if isinstance(exc, ProxyError):
                self.last_error = exc
            raise
        return association

    def _report(self, association: Association) -> None:
        """Say what went wrong: a loss every time, a failure once, then it may be tried again."""
        error = association.error
        assert error is not None
        _discard(self)
        if not association.lost:
            self._association = None
            self._go_dead()
        if isinstance(error, ProxyError):
            self.last_error = error
        raise copy.copy(error)  # with a traceback, it would keep the association alive

    def _go_live(self, association: Association) -> None:
        self._headers = association.headers
        self._sources = {}
        self._peer_header = None if self._peer is None else self._peer[2]

    def _go_dead(self) -> None:
        self._headers = _UNKNOWN
        self._sources = None
        self._peer_header = None

    # -- receiving

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Any]:
        sources = self._sources
        if sources is not None and not flags and 0 <= size <= 65535:
            data = _recv(self, size + _ROOM)
            source = sources.get(data[:10])  # of an IPv4 address
            if source is not None:
                return data[10 : 10 + size], source
            begin, data, source = self._next(data, 0)
            return data[begin : begin + size], source
        if not self._is_proxied():
            return _Plain.recvfrom(self, size, flags)
        if size < 0:
            raise ValueError("negative buffersize in recvfrom")
        begin, data, source = self._next(None, flags)
        return (data[begin:] if flags & _TRUNC else data[begin : begin + size]), source

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        sources = self._sources
        if sources is not None and not flags and 0 <= size <= 65535:
            data = _recv(self, size + _ROOM)
            if data[:10] in sources:
                return data[10 : 10 + size]
            begin, data, _ = self._next(data, 0)
            return data[begin : begin + size]
        if not self._is_proxied():
            return _recv(self, size, flags)
        return self.recvfrom(size, flags)[0]

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        if not self._is_proxied():
            return _Plain.recvfrom_into(self, buffer, nbytes, flags)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if nbytes < 0:
                raise ValueError("negative buffersize in recvfrom_into")
            if nbytes > len(view):
                raise ValueError("nbytes is greater than the length of the buffer")
            begin, data, source = self._next(None, flags)
            length = len(data) - begin
            count = min(length, nbytes or len(view))
            view[:count] = data[begin : begin + count]
            return (length if flags & _TRUNC else count), source

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if not self._is_proxied():
            return _Plain.recv_into(self, buffer, nbytes, flags)
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvmsg(
        self, size: int, ancillary_size: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        if flags & _ERRQUEUE or not self._is_proxied():
            return _recvmsg(self, size, ancillary_size, flags)
        if size < 0:
            raise ValueError("negative buffer size in recvmsg()")
        begin, data, source, ancillary, got = self._next_message(flags, ancillary_size)
        length = len(data) - begin
        if length > size:
            got |= _TRUNC
        return data[begin : begin + size], ancillary, got, source

    def recvmsg_into(
        self, buffers: Iterable[Any], ancillary_size: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        if flags & _ERRQUEUE or not self._is_proxied():
            return _Plain.recvmsg_into(self, buffers, ancillary_size, flags)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        begin, data, source, ancillary, got = self._next_message(flags, ancillary_size)
        end = len(data)
        at = begin
        for view in views:
            count = min(len(view), end - at)
            view[:count] = data[at : at + count]
            at += count
        if at < end:
            got |= _TRUNC
        return (end if flags & _TRUNC else at) - begin, ancillary, got, source

    def _is_proxied(self) -> bool:
        """Whether what comes in comes from a relay; raises what there is to report."""
        if self._sources is not None:
            return True
        association = self._association
        if association is None:
            return False
        if not association.ready and association.check() is None:
            association.discard(self)
            if not association.over.wait(self.gettimeout()):
                if self.gettimeout() == 0:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                raise TimeoutError("timed out")
        if association.check() is not None:
            self._report(association)
        return True

    def _next(self, data: bytes | None, flags: int) -> tuple[int, bytes, Any]:
        """The next datagram for the application: where its payload begins, all of it, its source.

        What is not for the application is dropped. The first of these may make a socket with a
        timeout wait anew, but once only.

        Args:
            data: one that has been received.
        """
        flags &= ~_TRUNC
        deadline: float | None = None
        while True:
            if data is None:
                if deadline is not None and not wait(self, POLLIN, deadline):
                    raise TimeoutError("timed out")
                data = _recv(self, _LARGEST, flags)
            found = self._recognise(data)
            if found is not None:
                return found[0], data, found[1]
            if flags & _PEEK:
                _recv(self, 1, _DONTWAIT)
            if deadline is None:
                timeout = self.gettimeout()
                deadline = monotonic() + timeout if timeout else None
            data = None

    def _next_message(
        self, flags: int, ancillary_size: int
    ) -> tuple[int, bytes, Any, list[tuple[int, int, bytes]], int]:
        """`_next` with ancillary data and the flags of recvmsg."""
        while True:
            data, ancillary, got, _ = _recvmsg(self, _LARGEST, ancillary_size, flags & ~_TRUNC)
            found = self._recognise(data)
            if found is not None:
                return found[0], data, found[1], ancillary, got
            if flags & _PEEK:
                _recv(self, 1, _DONTWAIT)

    def _recognise(self, data: bytes) -> tuple[int, Any] | None:
        """Where the payload begins, and whom it is from; None if it must be dropped."""
        association, sources = self._association, self._sources
        if association is None:  # closed by another thread
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if association.check() is not None:
            self._report(association)
        found = parse_header(data)
        peer = self._peer
        # As the kernel does for a connected socket; who was asked by name answers from an address.
        if found is None or (
            peer is not None and pack_ip(peer[1][0]) is not None and found[1] != _canonical(peer[1])
        ):
            association.dropped += 1
            return None
        begin, (host, port) = found
        source = in_family(family_of(self), host, port)
        if sources is not None:
            if len(sources) >= _CACHED:
                sources.clear()
            sources[data[:begin]] = source
        return begin, source

    # -- who is there

    def connect(self, address: Any, *, early_data: Buffer = b"") -> None:
        """Send to and receive from this destination only; makes the association at once.

        A datagram is taken from the destination's address and port, or, if it was given by name,
        from anybody: the proxy does not say which address that name has.

        Raises:
            ProxyError: there is no association to be had.
            InvalidArgumentError: early data are for streams.
        """
        if early_data:
            raise InvalidArgumentError("early_data is for stream sockets; datagrams can be sent")
        way = self._chain_for(address)
        if way is None:
            self._refuse_direct()
            _connect(self, address)
            return
        chain, host, port = way
        header = self._header_for(chain, host, port)
        association = self._associate(chain, (host, port))
        self._peer = self._peer_form(address), (host, port), header
        if association.ready:
            self._go_live(association)  # with new sources: others are filtered now

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except socket.gaierror:
            raise
        except OSError as exc:
            return exc.errno or errno.EIO
        return 0

    def getpeername(self) -> Any:
        if self._peer is not None:
            return self._peer[0]
        if self._association is not None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return _Plain.getpeername(self)

    def getsockname(self) -> Any:
        association = self._association
        if association is None or association.names is None:
            return _Plain.getsockname(self)
        name = association.names[0]  # of another family: in the form of our own
        return name[:2] if family_of(self) == socket.AF_INET else in_family(self.family, *name)

    @property
    def proxy_peername(self) -> Any:
        """The address of the proxy's relay; None without an association."""
        association = self._association
        return None if association is None or not association.ready else association.relay

    @property
    def proxy_sockname(self) -> Any:
        """The address that datagrams leave from; None if the socket is closed."""
        try:
            return self.getsockname()
        except OSError:
            return None

    @property
    def bound_address(self) -> Address | None:
        """BND.ADDR and BND.PORT of the reply, as the proxy sent them: where its relay is."""
        return None if self._association is None else self._association.bound

    @property
    def dropped(self) -> int:
        """How many datagrams were not for the application: malformed, fragments, of others, or too
        many while the association was being made."""
        return 0 if self._association is None else self._association.dropped

    def set_proxy(self, proxy: ProxyLike) -> None:
        if self._association is not None:
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        super().set_proxy(proxy)

    def dup(self) -> Self:
        copy = super().dup()
        if self._association is not None:
            self._association.sockets.add(copy)
        return copy

    def detach(self) -> int:
        """As on a plain socket; the association ends with it."""
        number = super().detach()
        self._forget()
        return number

    def _real_close(self, *arguments: Any) -> None:
        self._forget()
        super()._real_close(*arguments)

    def _forget(self) -> None:
        self._association = None
        self._peer = None
        self._go_dead()


def _canonical(target: Address) -> Address:
    packed = pack_ip(target[0])
    return (target[0] if packed is None else unpack_ip(packed)), target[1]


_classes: dict[type, type] = {SocksSocket: DatagramSocket}


def datagram_class(kind: type) -> type:
    """What `kind`, SocksSocket or a subclass of it, becomes for SOCK_DGRAM."""
    found = _classes.get(kind)
    if found is None:
        members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        found = _classes[kind] = type(kind)(kind.__name__, (kind, DatagramSocket), members)
    return found
