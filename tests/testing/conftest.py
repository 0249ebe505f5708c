"""What the tests of the embedded proxy share."""

import gc
import socket
import threading

import pytest

from ..support import echo, eventually, open_descriptors, serving


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Every test here leaves as many sockets and threads behind as it found."""
    gc.collect()
    descriptors, threads = len(open_descriptors()), threading.active_count()
    yield
    gc.collect()
    assert eventually(lambda: len(open_descriptors()) <= descriptors), open_descriptors()
    assert eventually(lambda: threading.active_count() <= threads), threading.enumerate()


@pytest.fixture
def echo_server():
    """A TCP server on 127.0.0.1 that says a banner and echoes; its address."""
    with serving(echo) as address:
        yield address


@pytest.fixture
def udp_echo():
    """Makes UDP servers that send back what they get, in capitals."""
    sockets, threads = [], []

    def make(family=socket.AF_INET):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        sockets.append(sock)

        def serve():
            while True:
                data, source = sock.recvfrom(65536)
                if data == b"stop":
                    return
                sock.sendto(data.upper(), source)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return sock.getsockname()[:2]

    yield make
    for sock, thread in zip(sockets, threads, strict=True):
        with socket.socket(sock.family, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"stop", sock.getsockname())
        thread.join(5)
        sock.close()
