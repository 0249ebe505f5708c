"""What the patched programs talk to: a small server of every kind, on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import subprocess
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

from .patched_programs import PAGE
from .servers import find
from .targets import free_port

HERE = "127.0.0.1"


class Pages(BaseHTTPRequestHandler):
    """One page, whatever is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Lines(socketserver.StreamRequestHandler):
    """A protocol of lines: a greeting, and an answer for each verb."""

    greeting = ""
    answers: dict[str, str] = {}  # noqa: RUF012 - subclasses have theirs
    otherwise = ""

    def handle(self) -> None:
        self.say(self.greeting)
        for line in self.rfile:
            words = line.decode().split() or [""]
            self.say(self.answer(words))
            if "QUIT" in words[0] or "LOGOUT" in words:
                return

    def answer(self, words: list[str]) -> str:
        return self.answers.get(words[0].upper(), self.otherwise)

    def say(self, text: str) -> None:
        if text:
            self.wfile.write(text.encode() + b"\r\n")


class Smtp(Lines):
    """Takes every mail."""

    greeting = "220 hi"
    otherwise = "250 ok"
    answers = {"DATA": "354 go on", "QUIT": "221 bye"}  # noqa: RUF012

    def answer(self, words: list[str]) -> str:
        if words[0].upper() == "DATA":
            self.say("354 go on")
            while self.rfile.readline() != b".\r\n":
                pass
            return self.otherwise
        return super().answer(words)


class Imap(Lines):
    """Knows no more than to be there."""

    greeting = "* OK hi"

    def answer(self, words: list[str]) -> str:
        if words[1] == "CAPABILITY":
            self.say("* CAPABILITY IMAP4rev1")
        if words[1] == "LOGOUT":
            self.say("* BYE")
        return f"{words[0]} OK done"


class Pop(Lines):
    """An empty mailbox."""

    greeting = "+OK hi"
    otherwise = "+OK"
    answers = {"STAT": "+OK 0 0"}  # noqa: RUF012


class Threading(socketserver.ThreadingTCPServer):
    """Does not wait for its clients in the end."""

    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextlib.contextmanager
def _ftp(folder: Path) -> Iterator[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it stands on asyncore
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer
    (folder / "file").write_bytes(b"content")
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "secret", str(folder), perm="elr")
    server = FTPServer((HERE, 0), type("Handler", (FTPHandler,), {"authorizer": authorizer}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05})
    thread.start()
    try:
        yield server.address[1]
    finally:
        server.close_all()
        thread.join(10)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[int]:
    port = free_port()
    command = [find("redis-server", "redis-server"), "--port", str(port), "--bind", HERE]
    command += ["--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            yield port
        finally:
            process.terminate()


@contextlib.contextmanager
def _dns() -> Iterator[int]:
    """Every name is 192.0.2.7, over UDP and TCP."""
    from dnslib import RR
    from dnslib.server import BaseResolver, DNSLogger, DNSServer

    class Resolver(BaseResolver):  # type: ignore[misc]
        def resolve(self, request: Any, handler: Any) -> Any:
            answer = request.reply()
            answer.add_answer(*RR.fromZone("a.test. 60 A 192.0.2.7"))
            return answer

    port = free_port()
    quiet = DNSLogger("-request,-reply,-truncated,-error")
    servers = [DNSServer(Resolver(), HERE, port, tcp, quiet) for tcp in (False, True)]
    try:
        for server in servers:
            server.start_thread()
        yield port
    finally:
        for server in servers:
            server.stop()
            server.server.server_close()


async def _serve_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@contextlib.contextmanager
def _in_asyncio(folder: Path) -> Iterator[dict[str, int]]:
    """Echo, websocket, SSH and QUIC."""
    import asyncssh
    import trustme
    from aioquic.asyncio import serve as serve_quic
    from aioquic.quic.configuration import QuicConfiguration
    from websockets.asyncio.server import serve

    class Guests(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def repeat(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def shell(process: Any) -> None:
        process.stdout.write(f"did {process.command}")
        process.exit(0)

    settings = QuicConfiguration(alpn_protocols=["echo"], is_client=False)
    certificate, key_file = folder / "quic.pem", folder / "quic.key"
    issued = trustme.CA().issue_cert(HERE)
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key_file))
    settings.load_cert_chain(certificate, key_file)

    def quic_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(_serve_echo(reader, writer)))

    async def main() -> None:
        stopping = asyncio.Event()
        quic_port = free_port()
        quic = await serve_quic(HERE, quic_port, configuration=settings, stream_handler=quic_echo)
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with (
            await asyncio.start_server(_serve_echo, HERE) as echo,
            serve(repeat, HERE, 0) as websocket,
            await asyncssh.create_server(
                Guests, HERE, 0, server_host_keys=[key], process_factory=shell
            ) as ssh,
        ):
            ports["echo"] = echo.sockets[0].getsockname()[1]
            ports["websocket"] = next(iter(websocket.sockets)).getsockname()[1]
            ports["ssh"] = ssh.get_port()
            ports["quic"] = quic_port
            stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
            loop = asyncio.get_running_loop()
            ready.set()
            await stopping.wait()
        quic.close()

    tasks: list[Any] = []
    ports: dict[str, int] = {}
    stop: list[Any] = []
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield ports
    finally:
        stop[0]()
        thread.join(10)


@contextlib.contextmanager
def serving_all(folder: Path) -> Iterator[dict[str, int]]:
    """Run all of them: {service: port}."""
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(_in_asyncio(folder))
        ports["http"] = stack.enter_context(_serving(ThreadingHTTPServer((HERE, 0), Pages)))
        xmlrpc = SimpleXMLRPCServer((HERE, 0), logRequests=False)
        xmlrpc.register_function(pow, "pow")
        ports["xmlrpc"] = stack.enter_context(_serving(xmlrpc))
        for name, handler in (("smtp", Smtp), ("imap", Imap), ("pop", Pop)):
            ports[name] = stack.enter_context(_serving(Threading((HERE, 0), handler)))
        ports["ftp"] = stack.enter_context(_ftp(folder))
        ports["redis"] = stack.enter_context(_redis(folder))
        ports["dns"] = stack.enter_context(_dns())
        yield ports
