"""A stand-in for the package `test_server` of years ago, which PySocks' own tests ask for.

The one on the package index has another interface by now.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class TestServer:
    """A web server that answers what it is told to, and remembers what it was asked."""

    __test__ = False  # for pytest

    def __init__(self, address: str, port: int, engine: str) -> None:
        self._address = address, port
        self.reset()

    def reset(self) -> None:
        self.response: dict[str, Any] = {"data": b"", "sleep": 0}
        self.request: dict[str, Any] = {}

    def start(self) -> None:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                served.request["headers"] = {k.lower(): v for k, v in self.headers.items()}
                served.request["client_ip"] = self.client_address[0]
                time.sleep(served.response["sleep"])
                body = served.response["data"]
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                # in one piece: the tests take one recv() for all of it
                self.wfile.write(head.encode() + body)

            def log_message(self, *arguments: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(self._address, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get_url(self) -> str:
        return "http://{}:{}/".format(*self._address)
