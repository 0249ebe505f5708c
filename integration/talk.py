"""What a test says to a target through a connected socket."""

from __future__ import annotations

import os
import socket
import threading


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def fetch(sock: socket.socket) -> str:
    """The body of the page that the HTTP target serves."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: target\r\n\r\n")
    head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


def assert_echoes(sock: socket.socket, size: int = 100_000) -> None:
    """Send random bytes to the echo target, and find the same ones coming back meanwhile."""
    sent = os.urandom(size)
    sender = threading.Thread(target=sock.sendall, args=(sent,))
    sender.start()
    got = bytearray()
    try:
        while len(got) < size and (chunk := sock.recv(65536)):
            got += chunk
    finally:
        sender.join(10)
    assert bytes(got) == sent
