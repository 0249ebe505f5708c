"""A tap in the line between client and proxy, and the web server that the page comes from."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..testing.relay import READ, Dropped, Lifeline, relay
from .fields import HEARD, SAID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from ..proxy import Proxy

PAGE = b"<title>socksy</title>This page came through a proxy.\n"


class Tap:
    """Passes one connection on to a proxy, and records what goes by.

    Attributes:
        proxy: what to connect to instead of the real proxy.
        tape: what passed, with its direction, in order.
        error: why the real proxy could not be reached.
    """

    def __init__(self, proxy: Proxy, timeout: float) -> None:
        self._real = proxy
        self._timeout = timeout
        self._lifeline = Lifeline()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, name="socksy-tap", daemon=True)
        self.proxy = proxy.replace(
            host="127.0.0.1", port=self._listener.getsockname()[1], path=None
        )
        self.tape: list[tuple[str, bytes]] = []
        self.error: OSError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lifeline.cut()
        self._thread.join(self._timeout)
        self._listener.close()
        self._lifeline.close()

    def _run(self) -> None:
        def record(source: socket.socket, data: bytes) -> None:
            self.tape.append((SAID if source is client else HEARD, data))

        try:
            self._lifeline.wait((self._listener, READ))
            client, _ = self._listener.accept()
            with client, self._reach() as proxy:
                client.setblocking(False)
                relay(self._lifeline, client, proxy, record)
        except Dropped:
            pass
        except OSError as exc:
            self.error = exc

    def _reach(self) -> socket.socket:
        real = self._real
        if real.path is None:
            sock = socket.create_connection((real.host, real.port), self._timeout)
        else:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(real.path)
            except OSError:
                sock.close()
                raise
        sock.setblocking(False)
        return sock


class _Page(socketserver.StreamRequestHandler):
    """Answers whatever is asked with the same page."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
        self.wfile.write(head % len(PAGE) + PAGE)


class _WebServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def web_server() -> Iterator[int]:
    """A web server on loopback, IPv4 and, on the same port, IPv6 if there is any; its port."""
    servers = [_WebServer(("127.0.0.1", 0), _Page)]
    port: int = servers[0].server_address[1]
    kind = type("_WebServer6", (_WebServer,), {"address_family": socket.AF_INET6})
    try:
        servers.append(kind(("::1", port), _Page))
    except OSError:
        pass  # no IPv6 here, or the port is taken there
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield port
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
