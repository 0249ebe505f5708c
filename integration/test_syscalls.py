"""System calls of a handshake, counted by strace."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from .servers import find
from .targets import Targets

Url = Callable[[str, str], str]

# The allocator's own come with any Python program.
_MEMORY = ("mmap", "munmap", "brk", "madvise")

_CLIENT = """
import os, socksy
def handshake():
    sock = socksy.SocksSocket(proxy=proxy)
    if {timeout} is not None:
        sock.settimeout({timeout})
    sock.connect(("127.0.0.1", {port}))
    sock.close()
proxy = socksy.Proxy.from_url({url!r}, require_auth={require_auth})
handshake()
os.write(2, b"<<<")
handshake()
os.write(2, b">>>")
"""


def system_calls(url: str, port: int, timeout: float | None, require_auth: bool) -> list[str]:
    code = _CLIENT.format(url=url, port=port, timeout=timeout, require_auth=require_auth)
    strace = find("strace", "strace")
    done = subprocess.run(
        [strace, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    between = done.stderr.partition('write(2, "<<<"')[2].partition('write(2, ">>>"')[0]
    calls = re.findall(r"^(\w+)\(", between, re.M)
    return [call for call in calls if call not in _MEMORY]


@pytest.mark.parametrize(
    ("scheme", "server", "timeout", "most"),
    [
        ("socks5h", "ssh -D", None, 8),
        ("socks5h", "ssh -D", 10.0, 13),
        ("socks4a", "ssh -D", None, 5),
        ("socks5h", "microsocks with login", None, 10),
    ],
)
def test_system_calls(
    url: Url,
    targets: Targets,
    scheme: str,
    server: str,
    timeout: float | None,
    most: int,
):
    """From socket() to close(): one more than the least, which would read past a short reply."""
    login = "login" in server
    calls = system_calls(url(scheme, server), targets.echo, timeout, login)

    assert calls[0] == "socket"
    assert calls[-1] == "close"
    assert len(calls) <= most, calls
