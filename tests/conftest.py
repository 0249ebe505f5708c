"""What every test shares."""

import gc


def pytest_collection_finish():
    """Many tests collect garbage, to find sockets left open: keep what is there for good out of it."""
    gc.collect()
    gc.freeze()
