"""What the tests of real sockets share."""

import gc
import socket

import pytest

from ..support import echo, eventually, open_descriptors, serving


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    """Every test here leaves as many sockets behind as it found."""
    gc.collect()
    before = len(open_descriptors())
    yield
    gc.collect()
    assert eventually(lambda: len(open_descriptors()) <= before), open_descriptors()


@pytest.fixture
def echo_server():
    """A TCP server on 127.0.0.1 that says a banner and echoes; its address."""
    with serving(echo) as address:
        yield address


@pytest.fixture
def echo_server_v6():
    """The same on ::1."""
    with serving(echo, socket.AF_INET6) as address:
        yield address[:2]


@pytest.fixture
def lookups(monkeypatch):
    """Every name that is looked up in this process, while the lookup still works."""
    asked = []
    real = socket.getaddrinfo

    def record(host, *arguments, **options):
        asked.append(host)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", record)
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, lambda *a: pytest.fail("a local lookup"))
    return asked
