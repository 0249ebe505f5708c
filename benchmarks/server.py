"""The other side of every benchmark, in a process of its own: as little work as possible.

    python -m benchmarks.server      prints its TCP port and its relay's, and serves until killed

It is a proxy for SOCKS4a, SOCKS5 (with a login if one is offered) and HTTP CONNECT that takes each
recv for one whole message, and is itself the target: the port that is asked for says which.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator

SINK, SOURCE, ECHO, WEB = 9, 19, 7, 80  # ports; 9, 19 and 7 as in RFC 863, 864 and 862

_FLOOD = bytes(65536)
_PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
_SELECTOR = selectors.DefaultSelector()


def _conversation() -> Iterator[bytes]:
    """Yields answers, is sent messages; returns the target's port."""
    message = yield b""
    if message[0] == 5:
        if 2 in message[2:]:
            message = yield b"\5\2"
            message = yield b"\1\0"
        else:
            message = yield b"\5\0"
        if message[1] == 3:
            relay = _RELAY.getsockname()[1].to_bytes(2, "big")
            yield b"\5\0\0\1\x7f\0\0\1" + relay
            return ECHO
        yield b"\5\0\0\1\0\0\0\0\0\0"
        return int.from_bytes(message[-2:], "big")
    if message[0] == 4:
        yield b"\0\x5a\0\0\0\0\0\0"
        return int.from_bytes(message[2:4], "big")
    if message.startswith(b"CONNECT"):
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        return int(message.split()[1].rpartition(b":")[2])
    yield _PAGE  # a direct request
    return SINK


class _Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.talk = _conversation()
        next(self.talk)
        self.port: int | None = None
        self.answered = False

    def ready(self) -> None:
        try:
            if self.port == SOURCE:
                self.sock.send(_FLOOD)
                return
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionResetError
            self.hear(data)
        except BlockingIOError:
            pass
        except OSError:
            _SELECTOR.unregister(self.sock)
            self.sock.close()

    def hear(self, data: bytes) -> None:
        if self.port == ECHO:
            self.sock.send(data)
        elif self.port == WEB:
            self.sock.send(_PAGE)
        elif self.port is None:
            answer = self.talk.send(data)
            self.sock.send(answer)
            if len(answer) > 2:  # not the method choice, nor the login answer
                try:
                    next(self.talk)
                except StopIteration as stop:
                    self.port = stop.value
                if self.port == SOURCE:
                    _SELECTOR.modify(self.sock, selectors.EVENT_WRITE, self.ready)


def _accept() -> None:
    sock, _ = _LISTENER.accept()
    sock.setblocking(False)
    _SELECTOR.register(sock, selectors.EVENT_READ, _Client(sock).ready)


def _relay() -> None:
    """Send every datagram back: its header names the target, which this pretends to be."""
    try:
        for _ in range(64):
            data, client = _RELAY.recvfrom(65536)
            if data[-1:] != b"\0":  # zeros are one way
                _RELAY.sendto(data, client)
    except BlockingIOError:
        pass


def main() -> None:
    """Serve until killed."""
    _SELECTOR.register(_LISTENER, selectors.EVENT_READ, _accept)
    _SELECTOR.register(_RELAY, selectors.EVENT_READ, _relay)
    print(_LISTENER.getsockname()[1], _RELAY.getsockname()[1], flush=True)
    while True:
        for key, _ in _SELECTOR.select():
            resume: Callable[[], None] = key.data
            resume()


if __name__ == "__main__":
    from .measure import raise_descriptor_limit

    raise_descriptor_limit()
    _LISTENER = socket.create_server(("127.0.0.1", 0), backlog=4096)
    _RELAY = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    _RELAY.bind(("127.0.0.1", 0))
    _RELAY.setblocking(False)
    main()
