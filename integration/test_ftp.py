"""FTP in active mode: the server connects back, to the proxy, because the proxy listens for us."""

from __future__ import annotations

import ftplib
import io
import os
import socket
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import socksy
from socksy.testing import SocksServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it stands on asyncore
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

Url = Callable[[str, str], str]


@pytest.fixture
def ftp_server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server with one file, which refuses to connect elsewhere than to its client."""
    (tmp_path / "file").write_bytes(b"content")
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "secret", str(tmp_path), perm="elrw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05})
    thread.start()
    try:
        yield server.address
    finally:
        server.close_all()
        thread.join(5)


@pytest.fixture(params=["embedded", "danted"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """The URL of a proxy that does BIND, of the scheme that is asked for."""
    if request.param == "danted":
        url: Url = request.getfixturevalue("url")
        yield lambda scheme: url(scheme, "danted")
    else:
        with SocksServer() as server:
            yield server.url


def substitute(proxy: str) -> types.ModuleType:
    """What ftplib finds as `socket`: the same, but with sockets that go through the proxy."""

    class Active(socksy.SocksSocket):
        remote_bind = True

    def create_connection(address: Any, timeout: Any = 10, source_address: Any = None) -> Active:
        sock = Active(proxy=proxy)
        sock.settimeout(timeout)
        sock.connect(address)
        return sock

    def create_server(address: Any, *, family: int = -1, backlog: int = 5) -> Active:
        sock = Active(family, proxy=proxy)
        try:
            sock.bind(address)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    module = types.ModuleType("socket")
    module.__dict__.update(vars(socket))
    module.__dict__.update(
        socket=Active, create_connection=create_connection, create_server=create_server
    )
    return module


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_ftplib_in_active_mode(
    proxy: Callable[[str], str],
    ftp_server: tuple[str, int],
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """List, fetch and store, each over a connection of its own that the server makes."""
    monkeypatch.setattr(ftplib, "socket", substitute(proxy(scheme)))
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect(*ftp_server)
        ftp.login("user", "secret")
        ftp.set_pasv(False)
        assert ftp.nlst() == ["file"]
        fetched = io.BytesIO()
        ftp.retrbinary("RETR file", fetched.write)
        assert fetched.getvalue() == b"content"
        sent = os.urandom(300_000)
        ftp.storbinary("STOR another", io.BytesIO(sent))
        fetched = io.BytesIO()
        ftp.retrbinary("RETR another", fetched.write)
        assert fetched.getvalue() == sent


def test_a_proxy_without_bind(
    url: Url, ftp_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
):
    """The error says what the proxy cannot do; nothing listens here instead."""
    monkeypatch.setattr(ftplib, "socket", substitute(url("socks5h", "microsocks")))
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect(*ftp_server)
        ftp.login("user", "secret")
        ftp.set_pasv(False)
        with pytest.raises(socksy.CommandNotSupportedError):
            ftp.nlst()
