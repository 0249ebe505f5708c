"""FTP in active mode: the server connects back, to the proxy, because the proxy listens for us."""

from __future__ import annotations

import contextlib
import ftplib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

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


@contextlib.contextmanager
def active_ftp(proxy: str) -> Iterator[ftplib.FTP]:
    """An unmodified ftplib, which has the server connect back."""
    with (
        socksy.wrap_module(ftplib, proxy=proxy, bypass=(), remote_bind=True),
        ftplib.FTP(timeout=10) as ftp,
    ):
        ftp.set_pasv(False)
        yield ftp


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_ftplib_in_active_mode(
    proxy: Callable[[str], str],
    ftp_server: tuple[str, int],
    scheme: str,
):
    """List, fetch and store, each over a connection of its own that the server makes."""
    with active_ftp(proxy(scheme)) as ftp:
        ftp.connect(*ftp_server)
        ftp.login("user", "secret")
        assert ftp.nlst() == ["file"]
        fetched = io.BytesIO()
        ftp.retrbinary("RETR file", fetched.write)
        assert fetched.getvalue() == b"content"
        sent = os.urandom(300_000)
        ftp.storbinary("STOR another", io.BytesIO(sent))
        fetched = io.BytesIO()
        ftp.retrbinary("RETR another", fetched.write)
        assert fetched.getvalue() == sent


def test_a_proxy_without_bind(url: Url, ftp_server: tuple[str, int]):
    """The error says what the proxy cannot do; nothing listens here instead."""
    with active_ftp(url("socks5h", "microsocks")) as ftp:
        ftp.connect(*ftp_server)
        ftp.login("user", "secret")
        with pytest.raises(socksy.CommandNotSupportedError):
            ftp.nlst()
