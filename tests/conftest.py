"""What every test shares."""

import gc
import threading

import pytest

from socksy.sockets import pending

from .support import eventually


@pytest.fixture(scope="module", autouse=True)
def what_is_there_for_good():
    """Many tests collect garbage, to find sockets left open: spare them what was there before."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def the_thread_ends(monkeypatch):
    """There is one thread while anything is pending, and soon none; here sooner than usual."""
    monkeypatch.setattr(pending, "_IDLE", 0.01)
    yield
    assert eventually(lambda: "socksy-negotiator" not in [t.name for t in threading.enumerate()])
