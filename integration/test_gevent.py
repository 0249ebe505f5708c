"""gevent: sockets let other greenlets run; what would compete with its patches is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from socksy.testing.faults import pause_before
from tests import test_docs
from tests.sockets import conftest as shared
from tests.support import BANNER

certified = test_docs.tls
echo_server = shared.echo_server

PAUSE = 0.3  # seconds that the proxy takes for each connect

BEGIN = """
from gevent import monkey
monkey.patch_all()
import gevent, select, socket, socksy, sys
url, target = sys.argv[1], ("only-the-proxy-knows.test", int(sys.argv[2]))
turns = 0

def count():
    global turns
    while True:
        turns += 1
        gevent.sleep(0.01)

gevent.spawn(count)
"""

WAYS = {
    "a timeout": "sock = socksy.create_connection(target, 10, proxy=url)",
    "no timeout": "sock = socksy.create_connection(target, proxy=url)",
    "another family": (
        "sock = socksy.SocksSocket(socket.AF_INET6, proxy=url)\nsock.connect(target)"
    ),
    "a name": (
        "sock = socksy.create_connection(target, 10, proxy=url.replace('127.0.0.1', 'localhost'))"
    ),
    "a chain": "sock = socksy.create_connection(target, 10, proxy=[url, url])",
    "not blocking": """
sock = socksy.SocksSocket(proxy=url)
sock.setblocking(False)
sock.connect_ex(target)
assert select.select([], [sock], [], 10)[1] == [sock]
assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
sock.setblocking(True)
""",
}

DATAGRAMS = """
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind(("127.0.0.1", 0))
with socksy.SocksSocket(socket.AF_INET, socket.SOCK_DGRAM, proxy=url) as sock:
    sock.settimeout(10)
    sock.sendto(b"there", peer.getsockname())
    data, source = peer.recvfrom(10)
    peer.sendto(b"back", source)
    assert sock.recv(10) == b"back"
peer.close()
assert turns > 5, turns
"""

DIRECT = """
import socket, sys, urllib.request
import socksy
if sys.argv[3:] == ["wrap"]:
    socksy.wrap_module(proxy=sys.argv[1], guard=True)
from gevent import monkey
monkey.patch_all()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for attempt in (
    lambda: urllib.request.urlopen("http://only-the-proxy-knows.test"),
    lambda: socket.create_connection(("192.0.2.1", 80), 1),
    lambda: sock.sendto(b"x", ("192.0.2.1", 9)),
):
    try:
        attempt()
    except OSError as exc:
        exc = getattr(exc, "reason", exc)
        assert isinstance(exc, socksy.DirectTrafficError), exc
    else:
        raise AssertionError("it went direct")
"""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def slow(socks_server_factory: Any) -> Any:
    """A proxy that thinks before it answers."""
    names = {"only-the-proxy-knows.test": "127.0.0.1"}
    return socks_server_factory(names=names, faults=pause_before("the reply", PAUSE))


@pytest.mark.parametrize("way", WAYS)
def test_other_greenlets_run_meanwhile(slow: Any, echo_server: tuple[str, int], way: str):
    check = f"""
assert turns > 5, turns
with sock:
    assert sock.recv(100) == {BANNER!r}
    sock.sendall(b"ping")
    assert sock.recv(100) == b"ping"
"""
    run(sys.executable, "-c", BEGIN + WAYS[way] + check, slow.url(), str(echo_server[1]))


def test_datagrams_let_other_greenlets_run(slow: Any):
    run(sys.executable, "-c", BEGIN + DATAGRAMS, slow.url(), "0")


def test_many_greenlets_at_once(slow: Any, echo_server: tuple[str, int]):
    """One after the other they would take fifteen seconds."""
    program = """
import time
began = time.monotonic()
jobs = [gevent.spawn(socksy.create_connection, target, 10, proxy=url) for _ in range(50)]
gevent.joinall(jobs)
assert time.monotonic() - began < 7
for job in jobs:
    job.value.close()
"""
    run(sys.executable, "-c", BEGIN + program, slow.url(), str(echo_server[1]))


def test_a_patch_does_not_compete_with_those_of_gevent(slow: Any):
    program = """
import smtplib
for modules in ((), (smtplib,)):
    try:
        socksy.wrap_module(*modules, proxy=url)
    except socksy.ProxyUnsupportedError as exc:
        assert "gevent" in str(exc)
    else:
        raise AssertionError("not refused")
    assert not socksy.is_wrapped(*modules)
"""
    run(sys.executable, "-c", BEGIN + program, slow.url(), "0")


@pytest.mark.parametrize("how", ["guard", "socksy run"])
def test_nothing_goes_direct_when_gevent_takes_the_place_of_a_patch(
    slow: Any, how: str, tmp_path: Path
):
    program = tmp_path / "program.py"
    program.write_text(DIRECT)
    if how == "guard":
        run(sys.executable, str(program), slow.url(), "0", "wrap")
    else:
        start = sys.executable, "-m", "socksy", "run", "--proxy", slow.url()
        run(*start, str(program), slow.url(), "0")
    assert slow.requests == []


PAGE = test_docs.ROOT / "docs" / "gevent.md"


@pytest.mark.parametrize("example", [*test_docs.examples([PAGE])])
def test_example(example: str, socks_server_factory: Any, certified: Any, tmp_path: Path):
    test_docs.run_behind_a_proxy(example, socks_server_factory, certified, tmp_path)
