"""What the tests connect to through the proxies: HTTP, TLS, echo, banner, UDP echo, and DNS.

All of them run in one asyncio loop in a thread of their own, on loopback. In the namespace that
`run` makes they also listen on an address that is not loopback, and the DNS server is the one that
every program there asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import dnslib
import trustme

#: whether the tests run in a namespace of their own, made by `run`
IN_NAMESPACE = "SOCKSY_NETNS" in os.environ
#: a target's address that is not loopback; in the namespace only
OTHER_ADDRESS = "10.99.0.1"
#: an address without a route; in the namespace only (it is for documentation, RFC 5737)
UNROUTED_ADDRESS = "192.0.2.1"

BANNER = b"220 first word: the server's\r\n" * 40

#: each name also with one more label in front, for who remembers answers
NAMES = {
    "www.test.example": (("A", "127.0.0.1"), ("AAAA", "::1")),
    "v4.test.example": (("A", "127.0.0.1"),),
    "v6.test.example": (("AAAA", "::1"),),
    # only ever resolved, never connected to
    "pub.test.example": (("A", "93.184.216.34"),),
}
REVERSE_ZONES = (".in-addr.arpa", ".ip6.arpa")


_handed_out: set[int] = set()


def free_port() -> int:
    """A port that is free on every loopback address, for TCP and UDP.

    Below the range that the kernel picks from for outgoing connections, so that it stays free.
    """
    while True:
        port = random.randrange(20000, 32000)
        if port in _handed_out:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    for family, host in (
                        (socket.AF_INET, "127.0.0.1"),
                        (socket.AF_INET6, "::1"),
                    ):
                        sock = stack.enter_context(socket.socket(family, kind))
                        if family == socket.AF_INET6:
                            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        sock.bind((host, port))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
                continue
            _handed_out.add(port)
            return port


class Stream(asyncio.Protocol):
    """A connection that its listener can cut off in the end."""

    def __init__(self, connections: set[Stream]) -> None:
        self.connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


class Echo(Stream):
    """Sends back what it gets; reads no faster than it can."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Banner(Stream):
    """Speaks first, then closes: its bytes come right behind a proxy's reply."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport.write(BANNER)
        self.transport.close()


class Http(Stream):
    """Answers each request with one line about itself."""

    request = b""

    def data_received(self, data: bytes) -> None:
        self.request += data
        if not self.request[:1].isalpha():  # a SOCKS client
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
        elif b"\r\n\r\n" in self.request:
            host = self.transport.get_extra_info("sockname")[0]
            body = f"socksy target at {host}\n".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.transport.sendto(data, source)


class Query(NamedTuple):
    """A question that the DNS server was asked."""

    name: str
    kind: str
    #: whether it was this process that asked, not a proxy
    ours: bool


class Dns(asyncio.DatagramProtocol):
    """Answers from `NAMES`, and remembers who asked."""

    def __init__(self, queries: list[Query]) -> None:
        self.queries = queries

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        question = dnslib.DNSRecord.parse(data)
        name = str(question.q.qname).rstrip(".").lower()
        kind = dnslib.QTYPE[question.q.qtype]
        self.queries.append(Query(name, kind, ours=_is_our_socket(source[1])))
        answer = question.reply()
        if name.endswith(REVERSE_ZONES):
            answer.add_answer(*dnslib.RR.fromZone(f"{name} 60 PTR www.test.example."))
        elif records := NAMES.get(name) or NAMES.get(name.partition(".")[2]):
            for found, address in records:
                if found == kind:
                    answer.add_answer(*dnslib.RR.fromZone(f"{name} 60 {kind} {address}"))
        else:
            answer.header.rcode = dnslib.RCODE.NXDOMAIN
        self.transport.sendto(answer.pack(), source)


def _is_our_socket(port: int) -> bool:
    """Whether the UDP socket on this local port belongs to this process.

    The asker waits for our answer, so its socket is still there to be looked at.
    """
    ours = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/self/fd/{fd}"))
            if found:
                ours.add(found[1])
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port and columns[9] in ours:
                return True
    return False


@dataclass
class Targets:
    """Where the targets listen, each on `addresses`."""

    addresses: tuple[str, ...]
    http: int
    https: int
    echo: int
    banner: int
    udp: int
    #: nobody listens here
    closed: int
    #: for clients of the TLS target
    trusting: ssl.SSLContext
    queries: list[Query] = field(default_factory=list)


@contextlib.contextmanager
def serving_targets() -> Iterator[Targets]:
    """Run the targets for the length of a with-block."""
    authority = trustme.CA()
    certificate = authority.issue_cert("www.test.example", "localhost", "127.0.0.1", "::1")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(certified)

    other = (OTHER_ADDRESS,) if IN_NAMESPACE else ()
    targets = Targets(
        addresses=("127.0.0.1", "::1", *other),
        http=free_port(),
        https=free_port(),
        echo=free_port(),
        banner=free_port(),
        udp=free_port(),
        closed=free_port(),
        trusting=trusting,
    )
    started: Future[Callable[[], None]] = Future()
    thread = threading.Thread(
        target=asyncio.run, args=(_serve(targets, certified, started),), name="targets", daemon=True
    )
    thread.start()
    stop = started.result(10)
    try:
        yield targets
    finally:
        stop()
        thread.join(10)


async def _serve(
    targets: Targets, certified: ssl.SSLContext, started: Future[Callable[[], None]]
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    connections: set[Stream] = set()
    with contextlib.ExitStack() as stack:
        try:
            for kind, port, context in (
                (Http, targets.http, None),
                (Http, targets.https, certified),
                (Echo, targets.echo, None),
                (Banner, targets.banner, None),
            ):
                server = await loop.create_server(
                    partial(kind, connections), targets.addresses, port, ssl=context
                )
                stack.callback(server.close)
            for address in targets.addresses:
                await _datagrams(stack, UdpEcho, address, targets.udp)
            if IN_NAMESPACE:
                await _datagrams(stack, partial(Dns, targets.queries), "127.0.0.1", 53)
        except Exception as exc:
            started.set_exception(exc)
            raise
        started.set_result(partial(loop.call_soon_threadsafe, stopping.set))
        await stopping.wait()
    for connection in list(connections):
        connection.transport.abort()
    while connections:
        await asyncio.sleep(0)  # the loop tells them one by one


async def _datagrams(
    stack: contextlib.ExitStack, kind: Callable[[], asyncio.DatagramProtocol], host: str, port: int
) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(kind, local_addr=(host, port))
    stack.callback(transport.close)
