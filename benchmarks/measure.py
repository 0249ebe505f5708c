"""Interleaved rounds, medians and spread, in CPU time of this process.

Client and server are pinned to one core: what is compared is then the client's own work, not what
it costs a machine to wake up another core. Ratios are of medians of the same rounds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from time import process_time
from typing import Any


def raise_descriptor_limit() -> None:
    """As many descriptors as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pin() -> None:
    """Run on one core, with every process started from here."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@contextlib.contextmanager
def server() -> Iterator[tuple[int, int]]:
    """The server's TCP port and its relay's UDP port."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port, relay = map(int, process.stdout.readline().split())
            yield port, relay
        finally:
            process.kill()


def microseconds(candidates: dict[str, Callable[[], Any]], rounds: int, batch: int) -> Any:
    """CPU microseconds per call of each candidate, all of them in every round.

    Returns:
        {name: list of one number per round}
    """
    for call in candidates.values():
        for _ in range(2 * batch):
            call()
    found: dict[str, list[float]] = {name: [] for name in candidates}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in candidates.items():
                began = process_time()
                for _ in range(batch):
                    call()
                found[name].append((process_time() - began) / batch * 1e6)
    finally:
        gc.enable()
    return found


def summary(numbers: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(numbers, n=4)
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}
