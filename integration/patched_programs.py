"""Programs of every kind, none of which knows a proxy: `test_patched` has `socksy run` run them.

    python -m integration.patched_programs PORTS NAME...

PORTS is {service: port}, as JSON. Each program reaches its service at the host HOST, which only the
proxy can resolve, and then says its name on a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

HOST = "hidden.invalid"
PAGE = "hello from the target"
PORTS: dict[str, int] = {}
PROGRAMS: dict[str, Callable[[], None]] = {}


def program(function: Callable[[], Any]) -> Callable[[], Any]:
    """A program's name is that of its function."""
    PROGRAMS[function.__name__] = function
    return function


def url(scheme: str = "http", service: str = "http") -> str:
    return f"{scheme}://{HOST}:{PORTS[service]}/"


# -- the standard library


@program
def http_client() -> None:
    from http.client import HTTPConnection

    with contextlib.closing(HTTPConnection(HOST, PORTS["http"], timeout=10)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read().decode() == PAGE


@program
def urllib_request() -> None:
    from urllib.request import urlopen

    with urlopen(url(), timeout=10) as answer:
        assert answer.read().decode() == PAGE


@program
def xmlrpc_client() -> None:
    from xmlrpc.client import ServerProxy

    with ServerProxy(url(service="xmlrpc")) as server:
        assert server.pow(2, 5) == 32  # type: ignore[operator]


def _ftp(passive: bool) -> None:
    from ftplib import FTP

    with FTP(timeout=10) as ftp:
        ftp.connect(HOST, PORTS["ftp"])
        ftp.login("user", "secret")
        ftp.set_pasv(passive)
        fetched = io.BytesIO()
        ftp.retrbinary("RETR file", fetched.write)
        assert fetched.getvalue() == b"content"


@program
def ftplib_passive() -> None:
    _ftp(passive=True)


@program
def ftplib_active() -> None:
    _ftp(passive=False)


@program
def smtplib() -> None:
    from smtplib import SMTP

    with SMTP(HOST, PORTS["smtp"], timeout=10) as client:
        assert client.sendmail("me@a.test", ["you@b.test"], "Subject: hi\r\n\r\nhi") == {}


@program
def imaplib() -> None:
    from imaplib import IMAP4

    with IMAP4(HOST, PORTS["imap"], timeout=10) as client:
        assert client.noop()[0] == "OK"


@program
def poplib() -> None:
    from poplib import POP3

    client = POP3(HOST, PORTS["pop"], timeout=10)
    assert client.stat() == (0, 0)
    client.quit()


@program
def asyncio_streams() -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(HOST, PORTS["echo"])
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())


# -- requests and its kin


@program
def requests() -> None:
    import requests

    assert requests.get(url(), timeout=10).text == PAGE


@program
def urllib3() -> None:
    import urllib3

    with urllib3.PoolManager() as pool:
        assert pool.request("GET", url(), timeout=10).data.decode() == PAGE


@program
def boto3() -> None:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=url().rstrip("/"),
        region_name="none",
        aws_access_key_id="id",
        aws_secret_access_key="key",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    assert client.get_object(Bucket="bucket", Key="key")["Body"].read().decode() == PAGE


@program
def httpx() -> None:
    import httpx

    assert httpx.get(url(), timeout=10).text == PAGE


@program
def httpx_async() -> None:
    import httpx

    async def main() -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            assert (await client.get(url())).text == PAGE

    asyncio.run(main())


@program
def aiohttp() -> None:
    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.get(url()) as answer:
            assert await answer.text() == PAGE

    asyncio.run(main())


# -- websockets, SSH, redis, DNS


@program
def websockets() -> None:
    from websockets.asyncio.client import connect

    async def main() -> None:
        # it would look for a proxy by itself, and find none
        async with connect(url("ws", "websocket")) as client:
            await client.send("ping")
            assert await client.recv() == "ping"

    asyncio.run(main())


@program
def websocket_client() -> None:
    import websocket

    client = websocket.create_connection(url("ws", "websocket"), timeout=10)
    client.send("ping")
    assert client.recv() == "ping"
    client.close()


@program
def paramiko() -> None:
    import paramiko

    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            HOST,
            PORTS["ssh"],
            "user",
            "secret",
            timeout=10,
            allow_agent=False,
            look_for_keys=False,
        )
        assert client.exec_command("hi")[1].read() == b"did hi"


@program
def asyncssh() -> None:
    import asyncssh

    async def main() -> None:
        async with asyncssh.connect(
            HOST,
            PORTS["ssh"],
            username="user",
            password="secret",
            known_hosts=None,
            config=None,
            agent_path=None,
            client_keys=None,
        ) as client:
            assert (await client.run("hi")).stdout == "did hi"

    asyncio.run(main())


@program
def redis() -> None:
    import redis

    with redis.Redis(HOST, PORTS["redis"], socket_timeout=10) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"


def _dns(ask: Callable[..., Any], where: str) -> None:
    import dns.message

    answer = ask(dns.message.make_query("a.test.", "A"), where, timeout=10, port=PORTS["dns"])
    assert str(answer.answer[0][0]) == "192.0.2.7"


@program
def dnspython_tcp() -> None:
    import socket

    import dns.query

    # it wants an address of a server, as a program has that looked one up
    _dns(dns.query.tcp, socket.gethostbyname(HOST))


@program
def dnspython_udp() -> None:
    import socket

    import dns.query

    # it takes answers from the address that it has asked only, and that is a placeholder
    _dns(dns.query.udp, socket.gethostbyname(HOST))


@program
def aioquic() -> None:
    import ssl

    from aioquic.asyncio import connect
    from aioquic.quic.configuration import QuicConfiguration

    async def main() -> bytes:
        settings = QuicConfiguration(alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE)
        async with connect(HOST, PORTS["quic"], configuration=settings) as connection:
            reader, writer = await connection.create_stream()
            writer.write(b"x" * 5000)
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(main()) == b"x" * 5000


@program
def asyncio_datagrams() -> None:
    class Ask(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            transport.sendto(bytes(query.pack()))

        def datagram_received(self, data: bytes, addr: Any) -> None:
            heard.set_result(data)

        def error_received(self, exc: Exception) -> None:
            heard.set_exception(exc)

    async def main() -> bytes:
        nonlocal heard
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(Ask, remote_addr=(HOST, PORTS["dns"]))
        try:
            return await asyncio.wait_for(heard, 10)
        finally:
            transport.close()

    from dnslib import DNSRecord

    heard: asyncio.Future[bytes]
    query = DNSRecord.question("a.test")
    assert str(DNSRecord.parse(asyncio.run(main())).a.rdata) == "192.0.2.7"


# -- other loops


@program
def anyio() -> None:
    import anyio

    async def main() -> None:
        async with await anyio.connect_tcp(HOST, PORTS["echo"]) as stream:
            await stream.send(b"ping")
            assert await stream.receive() == b"ping"

    anyio.run(main)


@program
def trio() -> None:
    import trio

    async def main() -> None:
        async with await trio.open_tcp_stream(HOST, PORTS["echo"]) as stream:
            await stream.send_all(b"ping")
            assert await stream.receive_some(4) == b"ping"

    trio.run(main)


@program
def tornado() -> None:
    from tornado.httpclient import AsyncHTTPClient

    async def main() -> None:
        for _ in range(2):
            assert (await AsyncHTTPClient().fetch(url())).body.decode() == PAGE

    asyncio.run(main())


@program
def twisted_on_asyncio() -> None:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    twisted()


@program
def twisted() -> None:
    from twisted.internet import endpoints, protocol, reactor, task

    class Ping(protocol.Protocol):
        def connectionMade(self) -> None:  # noqa: N802
            self.transport.write(b"ping")

        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            heard.append(data)
            self.transport.loseConnection()
            done.callback(None)

    from twisted.internet.defer import Deferred

    heard: list[bytes] = []
    done: Deferred[None] = Deferred()

    async def main(reactor: Any) -> None:
        for name in (HOST, None):  # by a host name endpoint, then by the older connectTCP
            nonlocal done
            done = Deferred()
            factory = protocol.Factory.forProtocol(Ping)
            if name:
                await endpoints.HostnameEndpoint(reactor, HOST, PORTS["echo"]).connect(factory)
            else:
                client = protocol.ClientFactory()
                client.protocol = Ping
                reactor.connectTCP(HOST, PORTS["echo"], client, timeout=10)
            await done
        assert heard == [b"ping", b"ping"]

    with contextlib.suppress(SystemExit):
        task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    assert reactor is not None
    assert heard == [b"ping", b"ping"]


# -- what else goes on in a patched process


@program
def a_server_in_the_process() -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        # through the proxy, as nothing is bypassed
        with socket.create_connection(listener.getsockname(), 10) as client:
            assert client.recv(1) == b""


def main() -> None:
    PORTS.update(json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    for name in sys.argv[2:]:
        PROGRAMS[name]()
        print(name, flush=True)


if __name__ == "__main__":
    main()
