"""Unmodified programs under `socksy run` reach a host that only the proxy can resolve, and ask the
kernel for nothing but the proxy.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from socksy.protocol.codes import Command
from socksy.testing import SocksServer

from .patched_programs import HOST, PROGRAMS
from .services import serving_all
from .strace import traced

ROOT = Path(__file__).parent.parent
# several in one process: what is imported counts, not what is done
GROUPS = {
    "the standard library": "http_client urllib_request xmlrpc_client ftplib_passive "
    "smtplib imaplib poplib asyncio_streams a_server_in_the_process",
    "active FTP": "ftplib_active",
    "requests and its kin": "requests urllib3 boto3 httpx",
    "asynchronous HTTP": "httpx_async aiohttp",
    "clients": "websockets websocket_client paramiko asyncssh redis dnspython_tcp",
    "datagrams": "asyncio_datagrams dnspython_udp aioquic",
    "other loops": "anyio trio twisted",
    "loops on asyncio": "tornado twisted_on_asyncio",
}


def test_every_program_is_in_a_group():
    """None is forgotten."""
    assert sorted(" ".join(GROUPS.values()).split()) == sorted(PROGRAMS)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with serving_all(tmp_path_factory.mktemp("services")) as ports:
        yield ports


@pytest.fixture
def proxy() -> Iterator[SocksServer]:
    with SocksServer(names={HOST: "127.0.0.1"}) as proxy:
        yield proxy


@pytest.mark.parametrize("group", GROUPS)
def test_programs(group: str, ports: dict[str, int], proxy: SocksServer, tmp_path: Path):
    names = GROUPS[group].split()
    command = [sys.executable, "-m", "socksy", "run", "--proxy", proxy.url(), "--bypass", ""]
    if group == "active FTP":
        command.append("--remote-bind")
    command += ["-m", "integration.patched_programs", json.dumps(ports), *names]
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done, trace = traced(command, tmp_path, cwd=ROOT, env=env)

    assert done.stdout.split() == names, done.stderr
    relays = {asked.bound for asked in proxy.requests if asked.command == Command.UDP_ASSOCIATE}
    assert trace.destinations == {proxy.address} | relays
    assert trace.lookups == ()
    if group == "datagrams":
        assert len(relays) == len(names)
    else:
        assert sum(asked.host == HOST for asked in proxy.requests) >= len(names)


@pytest.mark.parametrize("names", ["http_client"])
def test_the_trace_would_show_it(names: str, ports: dict[str, int], tmp_path: Path):
    """The same program without the patch looks the name up."""
    command = [sys.executable, "-m", "integration.patched_programs", json.dumps(ports), names]
    done, trace = traced(command, tmp_path, cwd=ROOT)

    assert done.returncode != 0
    assert trace.lookups
