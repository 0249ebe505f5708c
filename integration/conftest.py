"""Fixtures: the targets, and the servers, each started once, when a test first asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .servers import PROCESSES, SERVERS, Places, only_in_namespace
from .targets import IN_NAMESPACE, Targets, serving_targets


@pytest.fixture(scope="session")
def targets() -> Iterator[Targets]:
    with serving_targets() as targets:
        yield targets


@pytest.fixture
def names() -> None:
    """For tests that need the names of `targets.NAMES`."""
    only_in_namespace()


@pytest.fixture(scope="session")
def here() -> str:
    """A name for the targets that works everywhere."""
    return "www.test.example" if IN_NAMESPACE else "localhost"


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory, targets: Targets
) -> Iterator[Callable[[str], Places]]:
    """Start a process of `PROCESSES`, or use the one that runs; returns the places it is at.

    After `targets`, because those are stopped last then: they are the DNS server.
    """
    started: dict[str, Places | BaseException] = {}
    with contextlib.ExitStack() as stack:

        def start(process: str) -> Places:
            if process not in started:
                tmp: Path = tmp_path_factory.mktemp("server")
                try:
                    started[process] = stack.enter_context(PROCESSES[process](tmp))
                except (Exception, pytest.fail.Exception, pytest.skip.Exception) as exc:
                    started[process] = exc  # one that does not start is not tried again
            outcome = started[process]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        yield start


@pytest.fixture(scope="session")
def url(start: Callable[[str], Places]) -> Callable[[str, str], str]:
    """The proxy URL of a server of `SERVERS`, which is started if need be."""

    def url(scheme: str, name: str) -> str:
        return f"{scheme}://{start(SERVERS[name].process)[name]}"

    return url
