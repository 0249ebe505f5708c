"""Real peers on loopback for the tests: each a context manager, on port 0, in a thread."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

BANNER = b"220 ready\r\n"


@contextlib.contextmanager
def serving(handler, family=socket.AF_INET, path=None):
    """Run `handler(connection)` for each connection; yields the address.

    What a handler raises fails the test, except that its client went away.
    """
    listener = socket.socket(socket.AF_UNIX if path else family, socket.SOCK_STREAM)
    listener.bind(path or ("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    listener.listen(64)
    address = listener.getsockname()
    threads, connections, errors = [], [], []
    stopping = threading.Event()

    def handle(connection):
        with connection:
            try:
                handler(connection)
            except (ConnectionError, BrokenPipeError, TimeoutError):
                pass
            except BaseException as exc:
                if not stopping.is_set():
                    errors.append(exc)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if stopping.is_set():
                connection.close()
                return
            connections.append(connection)
            thread = threading.Thread(target=handle, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield address
    finally:
        stopping.set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for thread in threads:
            thread.join(5)
    if errors:
        raise errors[0]


def echo(connection):
    """Say hello, then repeat what is heard, until the other side has finished."""
    connection.sendall(BANNER)
    while data := connection.recv(65536):
        connection.sendall(data)


@contextlib.contextmanager
def echoing(family=socket.AF_INET):
    """A UDP server that sends back what it gets; its address. An empty datagram ends it."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))

        def serve():
            while True:
                data, source = sock.recvfrom(65535)
                if not data and source == closer:
                    return
                sock.sendto(data, source)

        with socket.socket(family, socket.SOCK_DGRAM) as ending:
            ending.bind((sock.getsockname()[0], 0))
            closer = ending.getsockname()
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield sock.getsockname()[:2]
            finally:
                ending.sendto(b"", sock.getsockname())
                thread.join(5)


def serve_web(connection):
    """Answer one HTTP request, whatever it is, with the two bytes "ok"."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = connection.recv(65536)
        if not data:
            return
        heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    read_exactly(connection, int(length[1]) - len(body) if length else 0)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")


def read_exactly(connection, count):
    """`count` bytes, or fewer at the end."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def script(*exchanges):
    """A handler that reads what is expected, or that many bytes, and answers, step by step.

    At the end it waits until the client closes.
    """

    def handler(connection):
        for expected, answer in exchanges:
            count = expected if isinstance(expected, int) else len(expected)
            heard = read_exactly(connection, count)
            if not isinstance(expected, int):
                assert heard == expected
            connection.sendall(answer)
        connection.recv(1)

    return handler


def service(port, protocol="tcp"):
    """What getnameinfo calls a port here: bare systems have no names for them."""
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return str(port)


def unused_port():
    """A port nobody listens on, at least for the next moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def open_descriptors():
    """What descriptors this process has, as {number: what it is}."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def eventually(condition, timeout=5.0):
    """Whether the condition becomes true; asked again and again, for what other threads finish."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True


def run_example(code, proxy, trusted, folder):
    """Run an example of the documentation; it must end well, in silence but for what it announces.

    One that defines tests is run by pytest.

    Args:
        proxy: (host, port) of the proxy that 127.0.0.1:1080 stands for.
        trusted: the file of the authority that the example trusts.
        folder: where it runs.
    """
    code = code.replace("127.0.0.1:1080", "{}:{}".format(*proxy))
    code = code.replace('"127.0.0.1", 1080', '"{}", {}'.format(*proxy))
    command = ["-c", code]
    if re.search(r"^def test_", code, re.M):
        (folder / "test_example.py").write_text(code)
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, "SSL_CERT_FILE": str(trusted), "REQUESTS_CA_BUNDLE": str(trusted)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for announced in re.findall(r"# prints (.+)$", code, re.M):
        assert announced in done.stdout
