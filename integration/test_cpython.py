"""CPython's own tests pass the same with our class as with the plain one.

By default on this interpreter, and of the modules those that take seconds. All of it, as `.ci/test`
wants it: SOCKSY_CPYTHON=full, and SOCKSY_PYTHONS with more interpreters, one a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from . import cpython

FULL = os.environ.get("SOCKSY_CPYTHON") == "full"
MODULES = cpython.FULL if FULL else cpython.QUICK
PYTHONS = os.environ.get("SOCKSY_PYTHONS", sys.executable).split("\n")
AT_ONCE = 3  # each is two processes, which mostly wait

Found = tuple[int, list[str]]


@pytest.fixture(scope="module")
def found() -> Iterator[dict[tuple[str, str], Future[Found]]]:
    """All of them, on their way."""
    able = [python for python in PYTHONS if cpython.has_tests(python)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (python, module): pool.submit(cpython.differences, python, module)
            for python in able
            for module in MODULES
        }


@pytest.mark.timeout(6 * cpython.PATIENCE)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("module", MODULES)
def test_nothing_ends_differently(
    python: str, module: str, found: dict[tuple[str, str], Future[Found]]
):
    if (python, module) not in found:
        pytest.skip(
            f"{python} has no Lib/test; CPython's tests come with a Python built from source, "
            "or with Debian's libpython3.11-testsuite"
        )
    count, differences = found[python, module].result()
    assert count > 0
    assert differences == []
