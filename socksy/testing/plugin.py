"""pytest fixtures, found by pytest itself (entry point ``pytest11``).

=======================  ==========================================================================
``socks_server``         a `SocksServer` on a free port of 127.0.0.1, without login
``socks_server_factory`` makes more of them, with any of its options; all are stopped at the end
``dns_recorder``         the names that were looked up locally: ``assert not dns_recorder.names``
``no_local_lookup``      the test fails as soon as one is
=======================  ==========================================================================
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .lookups import watch_lookups
    from .server import SocksServer


@pytest.fixture
def socks_server() -> Iterator[SocksServer]:
    """A proxy on loopback: SOCKS4, 4a, 5 and HTTP CONNECT, without login."""
    from .server import SocksServer

    with SocksServer() as server:
        yield server


@pytest.fixture
def socks_server_factory() -> Iterator[Callable[..., SocksServer]]:
    """Makes and starts proxies: ``socks_server_factory(users={"alice": "secret"})``."""
    from contextlib import ExitStack

    from .server import SocksServer

    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(SocksServer(*arguments, **options))


@pytest.fixture
def dns_recorder() -> Iterator[watch_lookups]:
    """Hears every local name lookup of the test, in all threads; see `watch_lookups`."""
    from .lookups import watch_lookups

    with watch_lookups() as lookups:
        yield lookups


@pytest.fixture
def no_local_lookup() -> Iterator[watch_lookups]:
    """Fails the test if a name is looked up locally, also where the program hides the error."""
    from .lookups import watch_lookups

    with watch_lookups(forbid=True) as lookups:
        yield lookups
    if lookups.names:
        pytest.fail(f"looked up locally: {', '.join(lookups.names)}", pytrace=False)
