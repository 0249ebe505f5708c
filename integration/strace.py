"""What a process and its children ask of the network, as the kernel is told: `strace`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .servers import find

CALLS = "connect,sendto,sendmsg,sendmmsg,openat"
# Files that only name lookups open, and daemons that do them. (User names are asked of nscd too,
# which mostly is not there.)
LOOKUP = re.compile(r'"(/etc/(?:hosts|resolv\.conf)|/[\w/.]*resolve[\w/.]*)"|nscd.* = 0')
INET = re.compile(
    r'sin6?_port=htons\((\d+)\).*?inet_(?:addr\(|pton\(AF_INET6, )"(?:::ffff:)?([^"]+)"'
)


@dataclass(frozen=True)
class Trace:
    """The calls of a finished program that left the machine, or could have."""

    #: (address, port) of every connect, sendto, sendmsg and sendmmsg of the Internet families;
    #: IPv4 addresses as such, also from sockets of IPv6
    destinations: frozenset[tuple[str, int]]
    #: lines of the trace that are name lookups
    lookups: tuple[str, ...]


def traced(
    command: list[str], tmp: Path, **options: object
) -> tuple[subprocess.CompletedProcess[str], Trace]:
    """Run a command to its end, watched."""
    log = tmp / "strace.log"
    argv = [find("strace", "strace"), "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(log), *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    lines = log.read_text().splitlines()
    found = {(address, int(port)) for line in lines for port, address in INET.findall(line)}
    return done, Trace(frozenset(found), tuple(line for line in lines if LOOKUP.search(line)))
