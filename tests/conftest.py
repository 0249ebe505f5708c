"""What every test shares."""

import gc


def pytest_collection_finish():
    """Many tests collect garbage, to find sockets left open: spare them what is there for good."""
    gc.collect()
    gc.freeze()
