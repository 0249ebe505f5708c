"""One round trip: which real servers can do it, and which keep early data."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

import socksy
from socksy import Proxy
from socksy.sockets import pipelining

from .servers import Places, Server, each
from .talk import assert_echoes
from .targets import Targets

Url = Callable[[str, str], str]

# docs/performance.md has this table.
CANNOT = {"microsocks"}


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pipelining.forget()
    monkeypatch.setattr(pipelining, "SILENCE", 0.5)
    yield
    pipelining.forget()


def pipelined(url: str, server: Server) -> Proxy:
    return Proxy.from_url(url, pipelined=True, require_auth=server.login)


@each("socks5h")
def test_whether_a_server_can_is_found_out_and_every_connect_works(
    url: Url, targets: Targets, scheme: str, server: Server
):
    proxy = pipelined(url(scheme, server.name), server)
    for _ in range(2):
        with socksy.create_connection(("127.0.0.1", targets.echo), 10, proxy=proxy) as sock:
            assert_echoes(sock, 10)

    assert list(pipelining._known.values()) == [server.process not in CANNOT]


@each("socks5h", where=lambda server: server.process in CANNOT)
def test_early_data_are_lost(url: Url, targets: Targets, scheme: str, server: Server):
    """It takes each segment for one message: whoever asks for early data has to know that."""
    target, proxy = ("127.0.0.1", targets.echo), url(scheme, server.name)
    with socksy.create_connection(target, 10, proxy=proxy, early_data=b"hello") as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(5)


@each("socks5h", where=lambda server: server.process not in CANNOT)
def test_early_data_are_kept(url: Url, targets: Targets, scheme: str, server: Server):
    """Behind the request; the second time behind greeting, login and request."""
    proxies = [url(scheme, server.name), *[pipelined(url(scheme, server.name), server)] * 2]
    for proxy in proxies:
        target = ("127.0.0.1", targets.echo)
        with socksy.create_connection(target, 10, proxy=proxy, early_data=b"hello") as sock:
            sock.settimeout(2)
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"


def test_tor_can(start: Callable[[str], Places]):
    """Without a login; its answer is a refusal here, where it has no network."""
    proxy = Proxy.from_url(f"socks5h://{start('tor')['tor']}", pipelined=True)
    with pytest.raises(socksy.ProxyReplyError) as caught:
        socksy.create_connection((f"{'a' * 56}.onion", 80), 10, proxy=proxy)

    assert caught.value.code == 0xF6
