"""How long an event loop stands still while hundreds of handshakes are pending.

    python benchmarks/stall.py [--count 300] [--seconds 0.6] [--rounds 5]

One asyncio loop starts so many connects at once, each of which takes that long, first directly,
then through a proxy. A task that sleeps for a millisecond again and again sees how late it is woken
up. Printed are the longest delay while the connects are made and while they are pending, the
processor time of the process, and its threads. Proxy and target are in a process of their own.
"direct" connects at once and then waits as long.

A blocking socket in each connect would make that `count` times `seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import socksy

START = 0.05  # seconds
Connect = Callable[[], Awaitable[None]]


def serve(pipe: Connection, seconds: float) -> None:
    """A SOCKS5 proxy that takes half of the time for each of its two answers, and a target."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(3)
            await asyncio.sleep(seconds / 2)
            writer.write(b"\5\0")
            await reader.readexactly(10)
            await asyncio.sleep(seconds / 2)
            writer.write(b"\5\0\0\1\0\0\0\0\0\0")
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> None:
        servers = [await asyncio.start_server(f, "127.0.0.1", 0, backlog=4096) for f in FUNCTIONS]
        pipe.send([server.sockets[0].getsockname() for server in servers])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    FUNCTIONS = (client, target)  # noqa: N806
    asyncio.run(main())


class Measured(NamedTuple):
    starting: float  # the longest delay in the first 50 ms, when so many connects are made at once
    pending: float  # and after that, up to the end of the last one
    cpu: float
    threads: int
    took: float


async def measure(connect: Connect, count: int) -> Measured:
    """Many connects at once, and a task that wants to be woken up every millisecond."""
    longest, most_threads = [0.0, 0.0], 0
    began = None
    done = False

    async def watch() -> None:
        nonlocal most_threads
        while not done:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            phase = began is not None and before - began > START
            longest[phase] = max(longest[phase], time.perf_counter() - before - 0.001)
            most_threads = max(most_threads, threading.active_count())

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0.01)
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(connect() for _ in range(count)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    done = True
    await watching
    return Measured(*longest, cpu, most_threads, took)


def ways(proxy: str, target: tuple[str, int], seconds: float) -> dict[str, Connect]:
    """What is compared."""

    async def connect(sock: socket.socket, place: tuple[str, int]) -> None:
        with sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, place)

    async def direct() -> None:
        await connect(socket.socket(), target)
        await asyncio.sleep(seconds)

    async def through() -> None:
        await connect(socksy.SocksSocket(proxy=proxy), ("192.0.2.1", 80))

    return {"direct": direct, "SocksSocket": through}


def stalls(found: list[Measured], phase: str) -> str:
    """Median and worst of all rounds, in milliseconds."""
    times = [getattr(one, phase) * 1000 for one in found]
    return f"{statistics.median(times):.1f} / {max(times):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))

    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(theirs, arguments.seconds), daemon=True)
    server.start()
    proxy, target = ours.recv()
    print(f"{arguments.count} connects at once, of {arguments.seconds} s each")
    print(f"{'':14}{'longest stall (ms), median / worst':>40}{'processor':>12}")
    print(f"{'':14}{'starting':>18}{'pending':>22}{'(ms)':>12}{'threads':>9}{'took (s)':>10}")
    for name, connect in ways(
        f"socks5h://{proxy[0]}:{proxy[1]}", target, arguments.seconds
    ).items():
        found = [
            asyncio.run(measure(connect, arguments.count)) for _ in range(arguments.rounds + 1)
        ][1:]
        print(
            f"{name:14}{stalls(found, 'starting'):>18}{stalls(found, 'pending'):>22}"
            f"{statistics.median(one.cpu for one in found) * 1000:12.0f}"
            f"{max(one.threads for one in found):9}"
            f"{statistics.median(one.took for one in found):10.2f}"
        )
    ours.send(None)
    server.join(5)


if __name__ == "__main__":
    main()
