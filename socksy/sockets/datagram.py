"""Datagrams through a proxy: UDP ASSOCIATE behind every method (RFC 1928, section 7).

The application's descriptor is the UDP socket from beginning to end. When the first datagram for a
proxied destination leaves, an *association* is made (see `association`), and the kernel connects
the descriptor to the proxy's relay: it then drops what others send, and reports what ICMP says of
the relay. Two dicts make the fast path: address -> header on the way out, header -> address on the
way in. Both are empty or missing whenever there is something to think about. They, the association
and the peer belong to the descriptor: duplicates have them in common (`association.Shared`).

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
from ..protocol.steps import REPLY, timed_out
from ..proxy import SOCKS5
from .association import DONTWAIT, UDP_ASSOCIATE, Association, Shared, discard_all
from .dial import PATIENCE, POLLIN, family_of, run, wait
from .kinds import combine
from .lookup import target_addresses
from .remote import in_family
from .stream import SocksSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any, NoReturn

    from typing_extensions import Buffer, Self

    from ..protocol.steps import Address
    from ..proxy import Chain, ProxyLike

_ROOM = 262  # the longest header: 4 + 1 + 255 + 2 bytes
_LARGEST = 65535 + _ROOM
_CACHED = 1024  # headers and sources that are remembered
_MOST_BUFFERS = 1024  # of one sendmsg: IOV_MAX
_IPV6 = int(socket.AF_INET6)

_Plain = socket.SocketType
_connect = _Plain.connect
_send, _sendmsg = _Plain.send, _Plain.sendmsg
_recv, _recvmsg = _Plain.recv, _Plain.recvmsg
_PEEK = int(socket.MSG_PEEK)
_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_ERRQUEUE = int(getattr(socket, "MSG_ERRQUEUE", 0))
_MORE = int(getattr(socket, "MSG_MORE", 0))
# Options (udp(7)) that make one datagram of several, or the other way round. Python names none.
_SEVERAL = ((socket.IPPROTO_UDP, 1), (socket.IPPROTO_UDP, 103), (socket.IPPROTO_UDP, 104))


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

    _shared: Shared
    # seconds for an association that is made in the background
    _patience = PATIENCE
    # no event loop knows the descriptor yet, although the socket is non-blocking
    _is_unwatched = False

    # -- sending

    def sendto(self, data: Buffer, *arguments: Any) -> int:
        try:
            (address,) = arguments
            header = self._shared.headers[address]
        except (LookupError, TypeError, ValueError):
            return self._sendto(data, arguments)
        return _send(self, header + data) - len(header)

    def _sendto(self, data: Buffer, arguments: tuple[Any, ...]) -> int:
        header = self._header_to(arguments[-1]) if arguments else None
        if header is None:
            return _Plain.sendto(self, data, *arguments)
        flags = arguments[0] if len(arguments) > 1 else 0
        return self._transmit(header, (data,), (), flags)

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        header = self._shared.peer_header
        if header is not None and not flags:
            return _send(self, header + data) - len(header)
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
        return self._transmit(header, tuple(buffers), list(ancdata), flags)

    def _transmit(
        self,
        header: bytes,
        buffers: Sequence[Buffer],
        ancdata: Collection[tuple[int, int, Buffer]],
        flags: int,
    ) -> int:
        if flags & _MORE or any((level, kind) in _SEVERAL for level, kind, _ in ancdata):
            raise _several_in_one()
        association = self._shared.association
        if association is None:  # another thread has closed the socket, or was told of a failure
            number = errno.EBADF if self.fileno() == -1 else errno.ENOTCONN
            raise OSError(number, os.strerror(number))
        if association.ready:
            if len(buffers) >= _MOST_BUFFERS:  # with the header it would be one too many
                buffers = (b"".join(buffers),)
            return _sendmsg(self, (header, *buffers), ancdata, flags) - len(header)
        datagram = b"".join((header, *buffers))
        if len(datagram) > 65507:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        association.enqueue(datagram, ancdata, flags, self)
        return len(datagram) - len(header)

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """As on a plain socket; what would put several datagrams behind one header is refused."""
        if (level, option) in _SEVERAL and value != (0,) and self._shared.association is not None:
            raise _several_in_one()
        super().setsockopt(level, option, *value)

    def _header_to(self, address: Any) -> bytes | None:
        """The header for a destination, with the association that it needs; None: send directly."""
        way = self._chain_for(address)
        if way is None:
            self._go_direct()
            return None
        chain, host, port = way
        asked = self._as_asked(chain, host, port)
        header = pack_header(asked, port)
        association = self._associate(chain, (host, port))
        if association.ready and asked == host:  # a name that is looked up here is so each time
            if len(association.headers) >= _CACHED:
                association.headers.clear()
            try:
                association.headers[address] = header
            except TypeError:  # a host that can be changed, such as a bytearray
                pass
            self._forget_sources()
        return header

    def _header_to_peer(self) -> bytes | None:
        shared = self._shared
        peer, association = shared.peer, shared.association
        if peer is None:
            if association is None:
                return None
            if association.check() is not None:
                self._report(association)
            raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
        if association is None or association.check() is not None or not association.ready:
            self._associate(self._chain_to(peer[1]), peer[1])
        return peer[2]

    def _chain_to(self, target: Address) -> Chain:
        way = self._chain_for(target)
        if way is None:
            raise ProxyUnsupportedError(message="this socket is connected through a proxy")
        return way[0]

    def _as_asked(self, chain: Chain, host: str, port: int) -> str:
        """The host as the proxy is asked: an address of a name that is to be looked up here.

        A datagram does not say whether it has arrived, so not every address can be tried: one of
        the socket's own family if there is one, as a plain socket would have it.
        """
        if chain[-1].scheme != SOCKS5 or pack_ip(host) is not None:
            return host
        timeout = self.gettimeout()
        deadline = monotonic() + timeout if timeout else None
        found: list[str] = run(target_addresses(host, port, 0, deadline))
        own = [address for address in found if (":" in address) == (family_of(self) == _IPV6)]
        return (own or found)[0]

    def _go_direct(self) -> None:
        """What goes direct cannot be mixed with what does not: refuse it if there is such."""
        shared = self._shared
        association = shared.association
        if association is None:
            shared.failure = None  # it listens to others than the relay again
            return
        if association.check() is not None:
            self._report(association)
        raise ProxyUnsupportedError(
            message="this datagram would go direct, but the socket sends through a proxy",
            hint="Nothing was sent; use one socket for each",
        )

    def _associate(self, chain: Chain, target: Address) -> Association:
        """The association, which is made if there is none yet."""
        association = self._shared.association
        if association is None:
            self._refuse(chain, target)
            mine = Association(chain, self._shared.users, target)
            association = self._shared.propose(mine)
            if association is mine:
                self._make(association)
                return association
        if association.chain != chain:
            raise ProxyUnsupportedError(message="the socket is associated with another proxy")
        timeout = self.gettimeout()
        if not association.ready and timeout != 0 and not association.over.wait(timeout):
            error = timed_out(REPLY)
            name_the_leg(error, ((chain[0], *target),), 0)
            raise error
        if association.check() is not None:
            self._report(association)
        return association

    def _refuse(self, chain: Chain, target: Address) -> None:
        """What cannot be, here and now and not in the background.

        Raises:
            ProxyUnsupportedError: see the class.
        """
        if len(chain) > 1:
            raise ProxyUnsupportedError(
                message="datagrams cannot go through a chain of proxies",
                hint="They would leave this machine for the last proxy's relay directly",
            )
        if any(self._options.get(key, (0,)) != (0,) for key in _SEVERAL):
            raise _several_in_one()
        try:
            handshake((chain[0], "0.0.0.0", 0), UDP_ASSOCIATE).close()
        except ProxyError as error:
            name_the_leg(error, ((chain[0], *target),), 0)
            self.last_error = error
            raise

    def _make(self, association: Association) -> None:
        try:
            association.make(self)
        except BaseException as exc:
            self._shared.drop(association, association.fail(exc))
            if isinstance(exc, ProxyError):
                self.last_error = exc
            raise

    def _report(self, association: Association) -> NoReturn:
        """Say what went wrong: a loss every time, a failure once, then it may be tried again."""
        error = association.error
        assert error is not None
        # Of threads that wait, each takes one of the datagrams that wake them up.
        if not association.lost or self.gettimeout() == 0:
            discard_all(self)
        if not association.lost:
            self._shared.drop(association, error)
        raise self._told(error)

    def _told(self, error: Exception) -> Exception:
        """The error for one more who is told; with a traceback, it would keep sockets alive."""
        if isinstance(error, ProxyError):
            self.last_error = error
        return copy.copy(error)

    # -- receiving

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Any]:
        sources = self._shared.sources
        if sources is not None and not flags and 0 <= size <= 65535:
            data = _recv(self, size + _ROOM)
            source = sources.get(data[:10])  # of an IPv4 address
            if source is not None:
                return data[10 : 10 + size], source
            begin, data, source = self._next(0, data)
            return data[begin : begin + size], source
        if not self._is_proxied():
            return _Plain.recvfrom(self, size, flags)
        if size < 0:
            raise ValueError("negative buffersize in recvfrom")
        begin, data, source = self._next(flags)
        return (data[begin:] if flags & _TRUNC else data[begin : begin + size]), source

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        sources = self._shared.sources
        if sources is not None and not flags and 0 < size <= 65535:
            data = _recv(self, size + _ROOM)
            if data[:10] in sources:
                return data[10 : 10 + size]
            begin, data, _ = self._next(0, data)
            return data[begin : begin + size]
        if size == 0 or not self._is_proxied():  # 0: nothing is received
            return _recv(self, size, flags)
        return self.recvfrom(size, flags)[0]

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        if memoryview(buffer).readonly or not self._is_proxied():
            return _Plain.recvfrom_into(self, buffer, nbytes, flags)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if nbytes < 0:
                raise ValueError("negative buffersize in recvfrom_into")
            if nbytes > len(view):
                raise ValueError("nbytes is greater than the length of the buffer")
            begin, data, source = self._next(flags)
            length = len(data) - begin
            count = min(length, nbytes or len(view))
            view[:count] = data[begin : begin + count]
            return (length if flags & _TRUNC else count), source

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer)
        if view.readonly or not view.nbytes or not self._is_proxied():  # 0: nothing is received
            return _Plain.recv_into(self, buffer, nbytes, flags)
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvmsg(
        self, size: int, ancillary_size: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        if flags & _ERRQUEUE or not self._is_proxied():
            return _recvmsg(self, size, ancillary_size, flags)
        if size < 0:
            raise ValueError("negative buffer size in recvmsg()")
        begin, source, (data, ancillary, got, _) = self._next_message(flags, ancillary_size)
        if len(data) - begin > size:
            got |= _TRUNC
        return data[begin : begin + size], ancillary, got, source

    def recvmsg_into(
        self, buffers: Iterable[Any], ancillary_size: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        buffers = list(buffers)
        if any(memoryview(buffer).readonly for buffer in buffers):
            raise TypeError("recvmsg_into() argument 1 must be an iterable of read-write buffers")
        if flags & _ERRQUEUE or not self._is_proxied():
            return _Plain.recvmsg_into(self, buffers, ancillary_size, flags)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        begin, source, (data, ancillary, got, _) = self._next_message(flags, ancillary_size)
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
        shared = self._shared
        if shared.sources is not None:
            return True
        association = shared.association
        if association is None:
            if shared.failure is not None:
                self._hear_nobody(shared.failure)
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

    def _hear_nobody(self, failure: Exception) -> NoReturn:
        """There is no association, though one was wanted: what comes in is of somebody else."""
        discard_all(self)
        if self.gettimeout() == 0:  # where a loop has been told
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        raise self._told(failure)

    def _next(self, flags: int, first: bytes | None = None) -> tuple[int, bytes, Any]:
        """The next datagram for the application: where its payload begins, all of it, its source.

        Args:
            first: one that has been received.
        """
        flags &= ~_TRUNC
        got = None if first is None else (first,)
        begin, source, (data,) = self._sift(lambda: (_recv(self, _LARGEST, flags),), flags, got)
        return begin, data, source

    def _next_message(
        self, flags: int, ancillary_size: int
    ) -> tuple[int, Any, tuple[bytes, list[tuple[int, int, bytes]], int, Any]]:
        """The same of recvmsg: where the payload begins, its source, what recvmsg returned."""
        flags &= ~_TRUNC
        return self._sift(lambda: _recvmsg(self, _LARGEST, ancillary_size, flags), flags)

    def _sift(
        self, receive: Callable[[], Any], flags: int, got: Any = None
    ) -> tuple[int, Any, Any]:
        """Drop what is not for the application: where the payload begins, its source, all of it.

        The first that is dropped may make a socket with a timeout wait anew, but once only.

        Args:
            receive: a datagram, in a tuple with whatever else there is.
            got: what was received already.
        """
        deadline: float | None = None
        while True:
            if got is None:
                if deadline is not None and not wait(self, POLLIN, deadline):
                    raise TimeoutError("timed out")
                got = receive()
            found = self._recognise(got[0])
            if found is not None:
                return *found, got
            if flags & _PEEK:
                _recv(self, 1, DONTWAIT)
            if deadline is None:
                timeout = self.gettimeout()
                deadline = monotonic() + timeout if timeout else None
            got = None

    def _recognise(self, data: bytes) -> tuple[int, Any] | None:
        """Where the payload begins, and whom it is from; None if it must be dropped."""
        shared = self._shared
        association, sources, peer = shared.association, shared.sources, shared.peer
        if association is None:
            if shared.failure is not None:
                self._hear_nobody(shared.failure)
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # closed by another thread
        if association.check() is not None:
            self._report(association)
        found = parse_header(data)
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
        sources = self._shared.sources
        if sources:
            sources.clear()

    # -- who is there

    def connect(self, address: Any, *, early_data: Buffer = b"") -> None:
        """Send to and receive from this destination only; makes the association at once.

        A datagram is taken from the destination's address and port, or, if the proxy resolves its
        name, from anybody: the proxy does not say which address that name has.

        Raises:
            ProxyError: there is no association to be had.
            InvalidArgumentError: early data are for streams.
        """
        if early_data:
            raise InvalidArgumentError("early_data is for stream sockets; datagrams can be sent")
        way = self._chain_for(address)
        if way is None:
            self._go_direct()
            _connect(self, address)
            self._shared.peer = None
            return
        chain, host, port = way
        self._connect_to(address, chain, (host, port), self._as_asked(chain, host, port))

    def _connect_to(self, address: Any, chain: Chain, target: Address, asked: str) -> None:
        """`connect`, when it is known whom the proxy will be asked for."""
        peer = self._peer_form(address), (asked, target[1]), pack_header(asked, target[1])
        association = self._associate(chain, target)
        shared = self._shared
        shared.peer = peer
        if association.ready:
            shared.go_live(association.headers)  # with new sources: others are filtered now

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except socket.gaierror:
            raise
        except OSError as exc:
            return exc.errno or errno.EIO
        return 0

    def getpeername(self) -> Any:
        shared = self._shared
        if shared.peer is not None and self.fileno() != -1:
            return shared.peer[0]
        if shared.association is not None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return _Plain.getpeername(self)

    def getsockname(self) -> Any:
        association = self._shared.association
        if association is None or association.names is None:
            return _Plain.getsockname(self)
        name = association.names[0]  # of another family: in the form of our own
        return name[:2] if family_of(self) == socket.AF_INET else in_family(self.family, *name)

    @property
    def proxy_peername(self) -> Any:
        """The address of the proxy's relay; None without an association."""
        association = self._shared.association
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
        association = self._shared.association
        return None if association is None else association.bound

    @property
    def dropped(self) -> int:
        """How many datagrams were not for the application: malformed, fragments, of others, or too
        many while the association was being made."""
        association = self._shared.association
        return 0 if association is None else association.dropped

    def set_proxy(self, proxy: ProxyLike) -> None:
        if self._shared.association is not None:
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        super().set_proxy(proxy)

    def dup(self) -> Self:
        copy = super().dup()
        copy._shared.users.add(copy)
        return copy

    def detach(self) -> int:
        """As on a plain socket; without duplicates, the association ends with it."""
        number = super().detach()
        self._leave()
        return number

    def _real_close(self, *arguments: Any) -> None:
        self._leave()
        super()._real_close(*arguments)  # type: ignore[misc]

    def _leave(self) -> None:
        """Have nothing in common with the duplicates any more."""
        self._shared.users.discard(self)
        self._shared = Shared(self)


def _several_in_one() -> ProxyUnsupportedError:
    return ProxyUnsupportedError(
        message="MSG_MORE, UDP_CORK and UDP_SEGMENT join datagrams that each need a header",
        hint="Send them one by one",
    )


def _canonical(target: Address) -> Address:
    packed = pack_ip(target[0])
    return (target[0] if packed is None else unpack_ip(packed)), target[1]


def take_over(sock: SocksSocket) -> None:
    """Make a socket for datagrams a `DatagramSocket`, as its constructor does at its end."""
    if not isinstance(sock, DatagramSocket):
        sock.__class__ = datagram_class(type(sock))
    assert isinstance(sock, DatagramSocket)
    sock._shared = Shared(sock)


_classes: dict[type, type] = {SocksSocket: DatagramSocket}


def datagram_class(kind: type) -> type:
    """What `kind`, SocksSocket or a subclass of it, becomes for SOCK_DGRAM."""
    found = _classes.get(kind)
    if found is None:
        members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        found = _classes[kind] = combine(kind.__name__, (kind, DatagramSocket), members)
    return found
