"""A web site to be fetched through a proxy: HTTP/1.1 with keep-alive, plain or with TLS."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB


class Site(ThreadingHTTPServer):
    """Remembers what it was asked.

    Attributes:
        heard: of each request the first line and the headers.
        ended: set when it is to end; until then /slow is slow.
    """

    daemon_threads = False

    def __init__(self, host, context=None):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Page)
        self.context = context
        self.heard = []
        self.ended = threading.Event()
        self.open = set()

    def finish_request(self, request, client_address):
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:  # the client does not like our name
                return
        self.open.add(request)
        try:
            with request, contextlib.suppress(ConnectionError):
                self.RequestHandlerClass(request, client_address, self)
        finally:
            self.open.discard(request)

    def url(self, path="/", host=None):
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://{host or self.server_address[0]}:{self.server_address[1]}{path}"


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.heard.append((self.requestline, dict(self.headers)))
        path, _, query = self.path.partition("?")
        if path == "/slow":
            self.server.ended.wait(5)
            self.close_connection = True
        elif path == "/away":
            self.answer(b"", status=302, headers=(("Location", query),))
        else:
            self.answer(LARGE if path == "/large" else b"hello")

    def do_POST(self):
        self.server.heard.append((self.requestline, dict(self.headers)))
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.answer(body)

    def answer(self, body, status=200, headers=()):
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def site(host="127.0.0.1", context=None):
    """A site on loopback, with TLS if there is a context."""
    with Site(host, context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join(5)
            for connection in list(server.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
