"""Programs as users write them, for mypy, which reads this file with the package; nothing runs it.

Each ``type: ignore`` stands on a mistake that has to be found: mypy complains of one in vain.
"""

import socket
from ipaddress import ip_address

from typing_extensions import assert_type

import socksy
import socksy.adapters.urllib
from socksy import Nonsense  # type: ignore[attr-defined]
from socksy.testing import SocksServer, SoxServer, faults  # type: ignore[attr-defined]

__all__ = ["Nonsense", "SoxServer"]


def misspelt() -> None:
    socksy.create_conection(("example.com", 80))  # type: ignore[attr-defined]
    socksy.testing.SoxServer()  # type: ignore[attr-defined]
    socksy.aio.open_conection("example.com", 80)  # type: ignore[attr-defined]
    faults.close_befor("the reply")  # type: ignore[attr-defined]


def fetch(host: socksy.Host, proxy: socksy.ProxyLike = None) -> bytes:
    with socksy.create_connection((host, 80), 5, proxy=proxy) as sock:
        assert_type(sock, socksy.SocksSocket)
        return sock.recv(1)


def proxies() -> None:
    proxy = socksy.Proxy.from_url("socks5h://127.0.0.1:1080")
    fetch("example.com", proxy)
    fetch(b"example.com", "socks5h://127.0.0.1:1080")
    fetch(ip_address("192.0.2.1"), [proxy, "socks4a://127.0.0.1:1080"])
    fetch("example.com", lambda host, port: socksy.Proxy.from_environ(host=host, port=port))
    fetch("example.com", socksy.Proxy.from_environ)  # type: ignore[arg-type]
    fetch("example.com", ("127.0.0.1", 1080))  # type: ignore[arg-type]
    fetch(80)  # type: ignore[arg-type]


def errors() -> None:
    try:
        fetch("example.com")
    except socksy.ProxyReplyError as error:
        assert_type(error.code, int)
    except socksy.ProxyError as error:
        assert_type(error.target, tuple[str, int] | None)


def patches() -> None:
    with socksy.wrap_module(proxy="socks5h://127.0.0.1:1080", guard=True) as patch:
        assert_type(patch, socksy.Patch)
    with socksy.using("socks5h://127.0.0.1:1080"):
        socksy.adapters.urllib.SocksHandler()


async def without_an_import_of_their_own() -> None:
    assert_type(await socksy.aio.connect("example.com", 80), socksy.SocksSocket)
    socksy.pysocks.socksocket().set_proxy(socksy.pysocks.SOCKS5, "127.0.0.1", 1080)


def tests() -> None:
    with SocksServer(names={"www.test": "127.0.0.1"}, faults=faults.answer_with(5)) as server:
        assert_type(server.requests[0].host, str)
        assert_type(server.url(), str)


def a_socket_is_one(sock: socksy.SocksSocket) -> socket.socket:
    return sock
