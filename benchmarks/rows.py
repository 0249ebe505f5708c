"""What is measured: each section yields (name, {"value": ratio, "others": ..., raw numbers})."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from time import process_time, sleep
from typing import Any, NamedTuple

import socksy

from . import clients
from .many import CLIENTS
from .measure import microseconds, summary
from .server import SINK, SOURCE, WEB

Found = Iterator[tuple[str, dict[str, Any]]]
BASE = "by hand"


class Section(NamedTuple):
    """A few rows that are measured together.

    Attributes:
        targets: row -> at least, aim; "" for every other row of the section.
    """

    name: str
    run: Callable[[int, int, bool], Found]
    targets: dict[str, tuple[float, float]]


def _ratios(found: dict[str, list[float]], base: str = BASE) -> dict[str, Any]:
    """Medians in terms of that of `base`."""
    unit = statistics.median(found[base])
    ratio = {name: round(statistics.median(list_) / unit, 3) for name, list_ in found.items()}
    return {
        "value": ratio.pop("socksy"),
        "others": {name: value for name, value in ratio.items() if name != base},
        "microseconds": {name: summary(list_) for name, list_ in found.items()},
    }


# -- the handshake


def handshakes(port: int, relay: int, quick: bool) -> Found:
    """CPU time, over that of the client written by hand."""
    for kind in clients.SCHEMES:
        for timeout in (None, 30.0):
            everybody = {
                name: make(kind, port, timeout) for name, make in clients.EVERYBODY.items()
            }
            found = microseconds(everybody, 25 if quick else 150, 100)
            with_timeout = "" if timeout is None else ", timeout"
            yield f"handshake {kind}{with_timeout}", _ratios(found)


def calls(port: int, relay: int, quick: bool) -> Found:
    """Python functions and generators entered, as tests/test_costs.py counts them."""
    counts = {}
    for name, make in clients.EVERYBODY.items():
        handshake = make("SOCKS5", port, None)
        handshake()
        counted = []
        sys.setprofile(lambda frame, event, arg: counted.append(event == "call"))  # noqa: B023
        try:
            handshake()
        finally:
            sys.setprofile(None)
        counts[name] = sum(counted) - 1
    yield "Python calls, SOCKS5", {"value": counts.pop("socksy"), "others": counts}


def system_calls(port: int, relay: int, quick: bool) -> Found:
    """Counted by strace, if that is installed: the difference between one handshake and two."""
    if shutil.which("strace") is None:
        return
    for kind in ("SOCKS5", "SOCKS5 login", "SOCKS4a", "SOCKS5, timeout"):
        counts = {
            name: _traced(name, kind.removesuffix(", timeout"), port, "timeout" in kind)
            for name in clients.EVERYBODY
        }
        yield f"system calls, {kind}", {"value": counts.pop("socksy"), "others": counts}


def _traced(name: str, kind: str, port: int, with_timeout: bool) -> int:
    code = f"""
import os
from benchmarks.clients import EVERYBODY
handshake = EVERYBODY[{name!r}]({kind!r}, {port}, {30.0 if with_timeout else None})
handshake()
os.write(2, b"<<<")
handshake()
os.write(2, b">>>")
"""
    done = subprocess.run(
        ["strace", sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    between = done.stderr.partition('write(2, "<<<"')[2].partition('write(2, ">>>"')[0]
    lines = [line for line in between.splitlines()[1:] if "(" in line and " = " in line]
    # the allocator's own, which come with any Python program
    return sum(not line.startswith(("mmap", "munmap", "brk")) for line in lines)


# -- the data path


def _tunnel(port: int, target: int) -> socksy.SocksSocket:
    return socksy.create_connection(
        ("example.com", target), None, proxy=f"socks5h://127.0.0.1:{port}"
    )


def transfers(port: int, relay: int, quick: bool) -> Found:
    """Calls per CPU second, as a share of a plain socket on the same connection."""
    buffer, data = bytearray(64), bytes(64)
    for name, target, call in (
        ("recv", SOURCE, lambda sock: lambda: sock.recv(64)),
        ("send", SINK, lambda sock: lambda: sock.send(data)),
        ("recv_into", SOURCE, lambda sock: lambda: sock.recv_into(buffer)),
        ("sendall", SINK, lambda sock: lambda: sock.sendall(data)),
    ):
        with _tunnel(port, target) as ours:
            with socket.socket(fileno=os.dup(ours.fileno())) as plain:
                both = {"plain": _own_copy(call(plain)), "socksy": _own_copy(call(ours))}
                found = microseconds(both, 100 if quick else 500, 200)
        yield f"{name}, share of a plain socket", _share(found, "plain")


def _own_copy(function: Any) -> Any:
    """The interpreter adapts a piece of code to the class that it meets: one copy for each."""
    code = function.__code__.replace()
    return types.FunctionType(code, function.__globals__, closure=function.__closure__)


def _share(found: dict[str, list[float]], base: str) -> dict[str, Any]:
    shares = [a / b for a, b in zip(found[base], found["socksy"], strict=True)]
    return {
        "value": round(statistics.median(shares), 3),
        "spread": summary(shares),
        "microseconds": {name: summary(list_) for name, list_ in found.items()},
    }


# -- datagrams


def datagrams(port: int, relay: int, quick: bool) -> Found:
    """As a share of a plain socket that puts a ready-made header in front of its data."""
    target = ("192.0.2.7", 53)
    header = b"\0\0\0\1" + socket.inet_aton(target[0]) + target[1].to_bytes(2, "big")
    with (
        socksy.SocksSocket(
            socket.AF_INET, socket.SOCK_DGRAM, proxy=f"socks5h://127.0.0.1:{port}"
        ) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain,
    ):
        plain.connect(("127.0.0.1", relay))
        for sock in (ours, plain):  # rather fail than hang; unlike settimeout, this costs nothing
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
        for size in (64, 1400):
            lost, kept = bytes(size), b"x" * size

            def send(data: bytes = lost) -> None:
                plain.send(header + data)

            def send_ours(data: bytes = lost) -> None:
                ours.sendto(data, target)

            def echo(data: bytes = kept) -> None:
                plain.send(header + data)
                assert len(plain.recvfrom(2048)[0][10:]) == len(data)

            def echo_ours(data: bytes = kept) -> None:
                ours.sendto(data, target)
                assert len(ours.recvfrom(2048)[0]) == len(data)

            for way, theirs, mine in (
                ("one way", send, send_ours),
                ("there and back", echo, echo_ours),
            ):
                sleep(
                    0.2
                )  # the relay's buffer is full of what came one way: a lost echo is waited for
                found = microseconds({"plain": theirs, "socksy": mine}, 60 if quick else 300, 100)
                numbers = _share(found, "plain")
                numbers["per second"] = {
                    name: summary([1e6 / each for each in list_]) for name, list_ in found.items()
                }
                yield f"UDP {way}, {size} bytes", numbers


# -- import


def imports(port: int, relay: int, quick: bool) -> Found:
    """Time of `import socksy` in a fresh interpreter, over `import socket`."""
    times: dict[str, list[float]] = {"socket": [], "socksy": []}
    counts = {}
    for _ in range(15 if quick else 60):
        for name, list_ in times.items():
            took, count = _import(name)
            list_.append(took * 1e6)
            counts[name] = count
    yield "import, times import socket", _ratios(times, "socket")
    yield "modules loaded", {"value": counts["socksy"], "socket alone": counts["socket"]}


def _import(name: str) -> tuple[float, int]:
    code = f"""
import site, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(socksy.__file__))!r})
from time import process_time, sleep
before, began = len(sys.modules), process_time()
import {name}
print(process_time() - began, len(sys.modules) - before)
"""
    # -S and `import site`: what start-up loads, without what an environment's .pth files load
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
    took, count = done.stdout.split()
    return float(took), int(count)


# -- asyncio


def asyncio_handshakes(port: int, relay: int, quick: bool) -> Found:
    """CPU time, over that of the asyncio client written by hand: with streams, and with sockets."""

    async def repeat(connect: Any) -> None:
        for _ in range(20):
            (await connect(port)).close()

    for kind, by_hand, by_socksy in (
        ("streams", clients.streams_by_hand, clients.streams_by_socksy(port)),
        ("sockets", clients.asyncio_by_hand, clients.asyncio_by_socksy(port)),
    ):
        found: dict[str, list[float]] = {BASE: [], "socksy": []}
        both: dict[str, Any] = {BASE: by_hand, "socksy": by_socksy}
        loop = asyncio.new_event_loop()
        with contextlib.closing(loop):
            gc.disable()
            for connect in both.values():
                loop.run_until_complete(repeat(connect))
            for _ in range(40 if quick else 200):
                for name, connect in both.items():
                    began = process_time()
                    loop.run_until_complete(repeat(connect))
                    found[name].append((process_time() - began) / 20 * 1e6)
            gc.enable()
        yield f"asyncio handshake, {kind}", _ratios(found)


def many(kind: str, count: int) -> Callable[[int, int, bool], Found]:
    """So many asyncio connections at once, each client in a fresh process."""

    def run(port: int, relay: int, quick: bool) -> Found:
        speeds: dict[str, list[float]] = {name: [] for name in CLIENTS}
        sizes: dict[str, list[float]] = {name: [] for name in CLIENTS}
        for _ in range(3 if quick else 9):
            for name in CLIENTS:
                command = [sys.executable, "-m", "benchmarks.many", kind, name]
                command += [str(port), str(count)]
                done = subprocess.run(command, capture_output=True, check=True)
                speed, size = map(float, done.stdout.split())
                speeds[name].append(speed)
                sizes[name].append(size)
        speed, size = _medians(speeds), _medians(sizes)
        yield (
            f"{count} asyncio {kind} at once, opened per second",
            {"value": round(speed["socksy"] / speed[BASE], 3), "per second": speeds},
        )
        yield (
            f"{count} asyncio {kind} at once, KiB each",
            {"value": round(size["socksy"] / size[BASE], 3), "KiB": sizes},
        )

    return run


def _medians(numbers: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(list_) for name, list_ in numbers.items()}


# -- requests


def requests_per_second(port: int, relay: int, quick: bool) -> Found:
    """Requests with a new connection each, as a share of direct ones; requests has PySocks."""
    import requests

    from socksy.adapters.requests import SocksAdapter

    url = f"socks5h://127.0.0.1:{port}"
    direct, ours, theirs = requests.Session(), requests.Session(), requests.Session()
    for session in (direct, ours, theirs):
        session.trust_env = False
        session.headers["Connection"] = "close"
    ours.mount("http://", SocksAdapter(url))
    theirs.proxies = {"http": url}
    there, name = f"http://127.0.0.1:{port}/", f"http://example.com:{WEB}/"
    found = microseconds(
        {
            "direct": lambda: direct.get(there),
            "socksy": lambda: ours.get(name),
            "PySocks": lambda: theirs.get(name),
        },
        30 if quick else 150,
        5,
    )
    unit = statistics.median(found["direct"])
    share = {name: round(unit / statistics.median(list_), 3) for name, list_ in found.items()}
    yield (
        "requests, share of direct",
        {
            "value": share["socksy"],
            "others": {"PySocks": share["PySocks"]},
            "microseconds": {name: summary(list_) for name, list_ in found.items()},
        },
    )


SECTIONS = [
    Section("handshake", handshakes, {"": (1.25, 1.12)}),
    Section("Python calls", calls, {"": (35, 22)}),
    Section(
        "system calls",
        system_calls,
        {
            "system calls, SOCKS5": (8, 7),
            "system calls, SOCKS5 login": (10, 9),
            "system calls, SOCKS4a": (6, 5),
            "system calls, SOCKS5, timeout": (16, 15),
        },
    ),
    Section("transfers", transfers, {"": (0.98, 1.0)}),
    Section(
        "UDP",
        datagrams,
        {
            **{f"UDP one way, {size} bytes": (0.75, 0.85) for size in (64, 1400)},
            **{f"UDP there and back, {size} bytes": (0.90, 0.95) for size in (64, 1400)},
        },
    ),
    Section(
        "imports",
        imports,
        {"import, times import socket": (1.8, 1.4), "modules loaded": (30, 24)},
    ),
    Section("asyncio handshake", asyncio_handshakes, {"": (1.20, 1.10)}),
    *(
        Section(
            f"many {kind}, {count}",
            many(kind, count),
            {
                f"{count} asyncio {kind} at once, opened per second": (0.85, 0.95),
                f"{count} asyncio {kind} at once, KiB each": (1.15, 1.05),
            },
        )
        for kind in ("streams", "sockets")
        for count in (1000, 5000)
    ),
    Section("requests", requests_per_second, {"": (0.80, 0.85)}),
]
