"""Datagrams through a proxy: UDP ASSOCIATE behind every method (RFC 1928, section 7).

The application's descriptor is the UDP socket from beginning to end. When the first datagram for a
proxied destination leaves, an *association* is made (see `association`), and the kernel connects
the descriptor to the proxy's relay: it then drops what others send, and reports what ICMP says of
the relay. Two dicts make the fast path: address -> header on the way out, header -> address on the
way in. Both are empty or missing whenever there is something to think about.

Nothing ever goes direct that should go through a proxy, and once a socket is associated it refuses
destinations that would be direct: their answers could not come in.
"""

from __future__ import annotations

import copy
import errno
import os
import socket
from time import monotonic

from ..errors import InvalidArgumentError, ProxyError, ProxyUnsupportedError
from ..hosts import pack_ip, unpack_ip
from ..protocol import handshake, name_the_leg
from ..protocol.datagram import pack_header, parse_header
from ..proxy import SOCKS5
from .association import DONTWAIT, UDP_ASSOCIATE, Association, discard_all
from .dial import POLLIN, family_of, run, wait
from .lookup import target_addresses
from .remote import in_family
from .stream import SocksSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from typing_extensions import Buffer, Self

    from ..protocol.steps import Address
    from ..proxy import Chain, ProxyLike

_ROOM = 262  # the longest header: 4 + 1 + 255 + 2 bytes
_LARGEST = 65535 + _ROOM
_CACHED = 1024  # headers and sources that are remembered
_UNKNOWN: dict[Any, bytes] = {}  # never filled: the headers of a socket without an association

_Plain = socket.SocketType
_connect = _Plain.connect
_send, _sendmsg = _Plain.send, _Plain.sendmsg
_recv, _recvmsg = _Plain.recv, _Plain.recvmsg
_PEEK = int(socket.MSG_PEEK)
_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_ERRQUEUE = int(getattr(socket, "MSG_ERRQUEUE", 0))


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
        if association is None:  # another thread has closed the socket, or was told of a failure
            number = errno.EBADF if self.fileno() == -1 else errno.ENOTCONN
            raise OSError(number, os.strerror(number))
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
            self._forget_sources()
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
            handshake((chain[0], "0.0.0.0", 0), UDP_ASSOCIATE).close()
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
        discard_all(self)
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
                _recv(self, 1, DONTWAIT)
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
                _recv(self, 1, DONTWAIT)

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
        source = self._seen_as(host, port)
        if sources is not None:
            if len(sources) >= _CACHED:
                sources.clear()
            sources[data[:begin]] = source
        return begin, source

    def _seen_as(self, host: str, port: int) -> Any:
        """The source of a datagram, as the application is told."""
        return in_family(family_of(self), host, port)

    def _forget_sources(self) -> None:
        """What `_seen_as` makes of an address depends on who was asked."""
        sources = self._sources
        if sources:
            sources.clear()

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
