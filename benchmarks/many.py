"""Many asyncio connections at once, in a process of their own.

python -m benchmarks.many sockets|streams CLIENT PORT COUNT

prints how many were opened per second, and KiB each.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter
from typing import Any

from .clients import asyncio_by_hand, asyncio_by_socksy, streams_by_hand, streams_by_socksy
from .measure import pin, raise_descriptor_limit

CLIENTS = ("by hand", "socksy")


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4  # KiB


async def _open_all(kind: str, client: str, port: int, count: int) -> tuple[float, float]:
    by_hand: Any = streams_by_hand if kind == "streams" else asyncio_by_hand
    by_socksy = streams_by_socksy if kind == "streams" else asyncio_by_socksy
    connect: Any = by_hand if client == "by hand" else by_socksy(port)
    (await connect(port)).close()
    before, began = _resident(), perf_counter()
    connections = await asyncio.gather(*(connect(port) for _ in range(count)))
    took = perf_counter() - began
    each = (_resident() - before) / count
    for connection in connections:
        connection.close()
    return count / took, each


if __name__ == "__main__":
    raise_descriptor_limit()
    pin()
    print(*asyncio.run(_open_all(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
