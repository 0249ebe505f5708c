"""CPython's own tests pass the same with our class as with the plain one.

By default on this interpreter, and of the modules those that take seconds. All of it, which takes
minutes for each: SOCKSY_CPYTHON=full, and SOCKSY_PYTHONS with more interpreters, one a line.
"""

from __future__ import annotations

import os
import sys

import pytest

from . import cpython

FULL = os.environ.get("SOCKSY_CPYTHON") == "full"
PYTHONS = os.environ.get("SOCKSY_PYTHONS", sys.executable).split("\n")


@pytest.mark.timeout(6 * cpython.PATIENCE)
@pytest.mark.parametrize("module", cpython.FULL if FULL else cpython.QUICK)
@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_ends_differently(python: str, module: str):
    if not cpython.has_tests(python):
        pytest.skip(
            f"{python} has no Lib/test; CPython's tests come with a Python built from source"
        )
    count, found = cpython.differences(python, module)
    assert count > 0
    assert found == []
