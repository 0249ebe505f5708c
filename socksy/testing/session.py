"""One client of the embedded proxy, from its greeting to the end of its connection.

A thin driver over `protocol.accept` and `protocol.reply_bytes`, with a fault in the way of all that
is said.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ..errors import ProxyError, ProxyProtocolError
from ..hosts import pack_ip
from ..names import unpatched
from ..protocol import http, socks4
from ..protocol.codes import Command, Reply, Socks4Reply
from ..protocol.server import Request, accept, reply_bytes
from ..protocol.steps import HTTP_ANSWER, REPLY, SECOND_REPLY
from . import relay
from .faults import CLOSE, CONNECT, RESET, STALL, Fault, Moment, Pause
from .names import Names
from .relay import READ, Dropped, Lifeline

if TYPE_CHECKING:
    from typing import NoReturn

    from ..protocol.socks5 import Check
    from ..protocol.steps import Address, Handshake, Step
    from .faults import Script

T = TypeVar("T")

_LINGER = 1.0  # seconds to read on after our end of file: closing at once could become a reset

#: what the operating system says -> what the client is told (RFC 1928, section 6)
_REPLIES: dict[int | None, Reply] = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Reply.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.TTL_EXPIRED,
    errno.EACCES: Reply.NOT_ALLOWED,
    errno.EPERM: Reply.NOT_ALLOWED,
    errno.EAFNOSUPPORT: Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}


def reply_code(error: OSError) -> Reply:
    """The reply that tells a client of an error."""
    if isinstance(error, (socket.gaierror, socket.herror)):
        return Reply.HOST_UNREACHABLE
    return _REPLIES.get(error.errno, Reply.GENERAL_FAILURE)


@dataclass(frozen=True)
class ServedRequest:
    """What the server was asked, and what it answered.

    Attributes:
        protocol: ``"SOCKS4"`` (4a too), ``"SOCKS5"`` or ``"HTTP"``.
        command: `socksy.protocol.codes.Command`; an unknown one keeps its number.
        host, port: the target exactly as it was sent: a name if it was a name.
        username: who logged in; the user id in SOCKS4. Passwords are not kept.
        client: the address the client came from; empty for a Unix socket.
        code: the reply, as a SOCKS5 code (or one of a fault); 0 if all went well.
        bound: BND.ADDR and BND.PORT of the reply.
    """

    protocol: str
    command: int
    host: str
    port: int
    username: str | None
    client: tuple[str, int] | tuple[()]
    code: int
    bound: tuple[str, int]

    @property
    def succeeded(self) -> bool:
        """Whether the client got what it asked for."""
        return self.code == Reply.SUCCEEDED


@dataclass(frozen=True)
class Settings:
    """What a session needs to know of its server."""

    fault: Fault
    check: Check | None
    names: Names
    commands: Container[int]
    timeout: float
    record: Callable[[ServedRequest], None]
    refuse: Callable[[ProxyError], None]


class _Done(Exception):
    """There is nothing more to say to this client: close the connection."""


class Session:
    """One client's connection; `run` serves it in the calling thread.

    Args:
        number: which of the server's connections this is, counted from 1.
    """

    def __init__(
        self, settings: Settings, client: socket.socket, number: int, lifeline: Lifeline
    ) -> None:
        self._settings = settings
        self._fault = settings.fault
        self._client = client
        self._lifeline = lifeline
        self._moment = Moment(CONNECT, number)
        self._deadline = monotonic() + settings.timeout
        self._one_recv: bytes | None = None
        self._sockets = [client]

    def run(self) -> None:
        """Serve the client until its connection ends, or the lifeline is cut."""
        try:
            try:
                self._converse()
            except _Done:
                self._client.shutdown(socket.SHUT_WR)
                relay.discard(self._lifeline, self._client, monotonic() + _LINGER)
        except (Dropped, OSError):
            pass  # somebody has hung up
        finally:
            for sock in self._sockets:
                sock.close()

    def _converse(self) -> None:
        self._client.setblocking(False)
        relay.no_delay(self._client)
        self._play(CONNECT, b"")
        request = self._drive(accept(self._settings.check))
        self._moment = replace(self._moment, request=request)
        self._answer(request)

    # -- saying and hearing

    def _drive(self, handshake: Handshake[T]) -> T:
        """Run the server's side, whose steps say something or hear something.

        What is said waits until it is known what follows: an error is on record before its client
        can know of it.
        """
        last: Step | None = None
        try:
            step = next(handshake)
            while True:
                if step.need:
                    step = handshake.send(self._receive(step))
                    continue
                last = step
                step = handshake.send(b"")
                self._say(last)
                last = None
        except StopIteration as stop:
            result: T = stop.value
            return result
        except ProxyError as error:
            self._settings.refuse(error)
            if last is not None:
                self._say(last)
            raise _Done from None
        finally:
            handshake.close()

    def _say(self, step: Step) -> None:
        self._play(step.awaiting, step.send)
        self._one_recv = None

    def _receive(self, step: Step) -> bytes:
        if self._fault.one_recv_per_message:
            return self._receive_from_one_recv(step)
        got = b""
        while len(got) < step.enough:
            got += self._recv(step.need - len(got), step, socket.MSG_PEEK if step.peek else 0)
        return got

    def _receive_from_one_recv(self, step: Step) -> bytes:
        if self._one_recv is None:
            self._one_recv = self._recv(4096, step)
        got = self._one_recv[: step.need]
        if len(got) < step.enough:
            raise ProxyProtocolError(message="the client has split a message", phase=step.awaiting)
        if not step.peek:
            self._one_recv = self._one_recv[len(got) :]
        return got

    def _recv(self, size: int, step: Step, flags: int = 0) -> bytes:
        if not self._lifeline.wait((self._client, READ), deadline=self._deadline):
            raise ProxyProtocolError(message="the client takes too long", phase=step.awaiting)
        data = self._client.recv(size, flags)
        if not data:
            if step.awaiting == "the greeting":
                raise _Done  # somebody wanted to know whether we listen
            raise ProxyProtocolError(message="the client has hung up", phase=step.awaiting)
        return data

    def _play(self, phase: str, message: bytes, code: int | None = None) -> None:
        """Say a message, or what the faults make of it."""
        phase = REPLY if phase == HTTP_ANSWER else phase
        script: Script = [message] if message else []
        for piece in self._fault.play(replace(self._moment, phase=phase, code=code), script):
            if isinstance(piece, bytes):
                deadline = monotonic() + self._settings.timeout
                relay.send_all(self._lifeline, self._client, piece, deadline)
            elif isinstance(piece, Pause):
                self._lifeline.wait(deadline=monotonic() + piece.seconds)
            elif piece is STALL:
                relay.discard(self._lifeline, self._client, None)
                raise _Done
            elif piece is RESET:
                relay.close_with_reset(self._client)
                raise Dropped
            elif piece is CLOSE:
                raise _Done

    def _reply(self, code: int, bound: Address = ("0.0.0.0", 0), phase: str = REPLY) -> None:
        """Tell the client; what was asked is on record before it can know the answer."""
        moment = replace(self._moment, phase=phase, code=code)
        request = moment.request
        assert request is not None
        if code == Reply.SUCCEEDED:
            bound = self._fault.bound(moment, bound)
        if phase == REPLY:
            self._settings.record(_record(request, self._client, code, bound))
        self._play(phase, _reply_bytes(request, code, *bound), code)

    def _refuse(self, code: int, phase: str = REPLY) -> NoReturn:
        self._reply(code, phase=phase)
        raise _Done

    def _verdict(self, phase: str) -> None:
        """Refuse, or pretend, if a fault says so."""
        code = self._fault.verdict(replace(self._moment, phase=phase))
        if code is not None:
            self._refuse(code, phase)

    # -- doing what was asked

    def _answer(self, request: Request) -> None:
        self._verdict(REPLY)
        if request.command not in self._settings.commands:
            self._refuse(Reply.COMMAND_NOT_SUPPORTED)
        services: dict[int, Callable[[Request], None]] = {
            Command.CONNECT: self._connect,
            Command.BIND: self._bind,
            Command.UDP_ASSOCIATE: self._associate,
            Command.RESOLVE: self._resolve,
            Command.RESOLVE_PTR: self._resolve_ptr,
        }
        if request.protocol == "SOCKS4":
            del services[Command.UDP_ASSOCIATE]
        serve = services.get(request.command)
        if serve is None:
            self._refuse(Reply.COMMAND_NOT_SUPPORTED)
        serve(request)

    def _connect(self, request: Request) -> None:
        try:
            target = self._dial(request)
        except OSError as exc:
            self._refuse(reply_code(exc))
        self._sockets.append(target)
        self._reply(Reply.SUCCEEDED, _address(target.getsockname()))
        relay.relay(self._lifeline, self._client, target)

    def _dial(self, request: Request) -> socket.socket:
        endpoints = self._settings.names.endpoints(request.host, request.port)
        deadline = monotonic() + self._settings.timeout
        for family, address in endpoints[:-1]:
            try:
                return relay.connect(self._lifeline, family, address, deadline)
            except OSError:
                continue
        family, address = endpoints[-1]
        return relay.connect(self._lifeline, family, address, deadline)

    def _bind(self, request: Request) -> None:
        """RFC 1928, section 4; SOCKS4.protocol, "BIND"."""
        try:
            expected = self._expected_peers(request)
            listener = self._near(self._family_for(request), socket.SOCK_STREAM)
            listener.listen(1)
        except OSError as exc:
            self._refuse(reply_code(exc))
        self._reply(Reply.SUCCEEDED, _address(listener.getsockname()))
        self._verdict(SECOND_REPLY)
        peer = self._accept_peer(listener)
        if peer is None:
            self._refuse(Reply.TTL_EXPIRED, SECOND_REPLY)
        self._sockets.append(peer)
        came_from = _address(peer.getpeername())
        if expected and pack_ip(came_from[0]) not in expected:
            peer.close()
            self._refuse(Reply.NOT_ALLOWED, SECOND_REPLY)
        self._reply(Reply.SUCCEEDED, came_from, SECOND_REPLY)
        relay.relay(self._lifeline, self._client, peer)

    def _expected_peers(self, request: Request) -> list[bytes | None]:
        """The addresses that BIND lets in; empty for any."""
        packed = pack_ip(request.host)
        if packed is not None:
            return [packed] if any(packed) else []
        endpoints = self._settings.names.endpoints(request.host, request.port)
        return [pack_ip(address) for _, (address, _) in endpoints]

    def _accept_peer(self, listener: socket.socket) -> socket.socket | None:
        """The connection that BIND waits for; None if it takes too long.

        Raises:
            _Done: the client does not wait any longer.
        """
        deadline = monotonic() + self._settings.timeout
        watched = [(listener, READ), (self._client, READ)]
        try:
            while ready := self._lifeline.wait(*watched, deadline=deadline):
                if self._client.fileno() in ready:
                    if not self._client.recv(1, socket.MSG_PEEK):
                        raise _Done
                    del watched[1:]  # it talks ahead; that is for the peer
                if listener.fileno() in ready:
                    peer, _ = listener.accept()
                    peer.setblocking(False)
                    relay.no_delay(peer)
                    return peer
            return None
        finally:
            listener.close()

    def _associate(self, request: Request) -> None:
        """RFC 1928, sections 4 and 7; DST.PORT is where the client sends from, if it knows."""
        over_tcp = self._client.family != socket.AF_UNIX
        family = self._client.family if over_tcp else self._family_for(request)
        try:
            inner = self._near(family, socket.SOCK_DGRAM)
        except OSError as exc:
            self._refuse(reply_code(exc))
        client = self._client.getpeername()[0] if over_tcp else None
        association = relay.DatagramRelay(
            self._lifeline,
            self._client,
            inner,
            client=(client, request.port),
            route=lambda host, port: self._settings.names.endpoints(host, port)[0],
            change=self._fault.datagrams,
        )
        self._reply(Reply.SUCCEEDED, _address(inner.getsockname()))
        association.run()

    def _resolve(self, request: Request) -> None:
        """Tor's RESOLVE (socks-extensions): the address is told as BND.ADDR."""
        try:
            _, (address, _) = self._settings.names.endpoints(request.host, 0)[0]
        except OSError as exc:
            self._refuse(reply_code(exc))
        self._reply(Reply.SUCCEEDED, (address, 0))
        raise _Done

    def _resolve_ptr(self, request: Request) -> None:
        """Tor's RESOLVE_PTR (socks-extensions): the name is told as BND.ADDR."""
        try:
            name = self._settings.names.name_of(request.host)
        except OSError as exc:
            self._refuse(reply_code(exc))
        self._reply(Reply.SUCCEEDED, (name, 0))
        raise _Done

    # -- sockets that others connect or send to

    def _family_for(self, request: Request) -> int:
        """The family for a BIND: that of the peer, or, for any peer, of the control connection."""
        packed = pack_ip(request.host)
        if packed is not None and (any(packed) or self._client.family == socket.AF_UNIX):
            return int(socket.AF_INET if len(packed) == 4 else socket.AF_INET6)
        if request.protocol == "SOCKS4" or self._client.family == socket.AF_UNIX:
            return int(socket.AF_INET)
        return int(self._client.family)

    def _near(self, family: int, kind: int) -> socket.socket:
        """A socket bound to a free port, where the client has found us."""
        local = self._client.getsockname()
        if isinstance(local, tuple) and self._client.family == family:
            host = local[0]
        else:
            here = not isinstance(local, tuple) or ipaddress.ip_address(local[0]).is_loopback
            if family == socket.AF_INET:
                host = "127.0.0.1" if here else "0.0.0.0"
            else:
                host = "::1" if here else "::"
        sock = unpatched(socket.socket, family, kind)
        self._sockets.append(sock)
        sock.setblocking(False)
        sock.bind((host, 0))
        return sock


def _address(name: tuple[str, int]) -> Address:
    """Host and port of a socket address, without a scope."""
    return name[0].partition("%")[0], name[1]


def _record(
    request: Request, client: socket.socket, code: int, bound: tuple[str, int]
) -> ServedRequest:
    peer = client.getpeername()
    try:
        command = Command(request.command)
    except ValueError:
        command = request.command  # type: ignore[assignment]
    return ServedRequest(
        request.protocol,
        command,
        request.host,
        request.port,
        request.username,
        _address(peer) if isinstance(peer, tuple) else (),
        code,
        bound,
    )


def _reply_bytes(request: Request, code: int, host: str, port: int) -> bytes:
    """`reply_bytes`, which also takes SOCKS4's and HTTP's own codes.

    From 0xF0 they are Tor's for SOCKS5; HTTP has no such status, and would take it for a success.
    """
    if request.protocol == "SOCKS4" and Socks4Reply.GRANTED <= code < 0xF0:
        return socks4.reply(code, host, port)
    if request.protocol == "HTTP" and code >= 100 and not 0xF0 <= code <= 0xFF:
        return http.reply(code)
    return reply_bytes(request, code if code < 256 else Reply.GENERAL_FAILURE, host, port)
