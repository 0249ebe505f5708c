"""CPython's own tests, with `socket.socket` as it is, and with `SocksSocket` without a proxy.

    python integration/cpython.py [--python INTERPRETER] [--quick] [MODULE...]

runs each module twice, in processes of their own, and says what came out differently: nothing
should. A test that differs is run again in both ways, since some of CPython's tests are at the
mercy of the machine's load; what differs each time is a difference. Exit code 1 if there is one.

The interpreter needs `Lib/test`, which Debian packages and slim images leave out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
QUICK = (
    "test.test_asyncio.test_sock_lowlevel",
    "test.test_asyncio.test_streams",
    "test.test_ftplib",
    "test.test_poplib",
    "test.test_imaplib",
    "test.test_socketserver",
)
FULL = (
    "test.test_socket",
    "test.test_ssl",
    "test.test_asyncio.test_events",
    "test.test_asyncio.test_sslproto",
    "test.test_asyncio.test_base_events",
    "test.test_httplib",
    "test.test_smtplib",
    "test.test_selectors",
    *QUICK,
)
# It speaks to whatever runs this machine, on one port for all processes, and waits for ever.
LEFT_OUT = ("ThreadedVSOCKSocketStreamTest",)
PLAIN, OURS = "plain", "SocksSocket"
ATTEMPTS = 3
PATIENCE = 400.0

Outcomes = dict[str, str]


def has_tests(python: str) -> bool:
    """Whether this interpreter came with CPython's tests."""
    asked = subprocess.run([python, "-c", "import test.test_socket"], capture_output=True)
    return asked.returncode == 0


def outcomes(python: str, kind: str, tests: list[str]) -> Outcomes:
    """What became of each of the tests: {its name: "ok", "skipped: ...", "failure: ..."}."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "outcomes.json")
        ran = subprocess.run(
            [python, str(HERE), "--as", kind, "--into", str(found), *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if not found.exists():
            raise RuntimeError(f"{tests} as {kind} ended with {ran.returncode}:\n{ran.stderr}")
        return json.loads(found.read_text("utf-8"))  # type: ignore[no-any-return]


def differences(python: str, module: str) -> tuple[int, list[str]]:
    """How many tests a module has, and the ones that do not end the same way each time."""
    plain, ours = _both(python, [module])
    count = len(plain)
    for attempt in range(ATTEMPTS):
        names = sorted(
            name for name in plain.keys() | ours.keys() if _class(plain, name) != _class(ours, name)
        )
        if not names or attempt == ATTEMPTS - 1:
            break
        again = sorted({name.partition(" ")[0] for name in names if "." in name.partition(" ")[0]})
        plain, ours = _both(python, again or [module])
    return count, [f"{name}\n  {plain.get(name)}\n  {ours.get(name)}" for name in names]


def _both(python: str, tests: list[str]) -> tuple[Outcomes, Outcomes]:
    """With the plain class and with ours, at once: mostly they wait."""
    with ThreadPoolExecutor(2) as pool:
        plain, ours = (pool.submit(outcomes, python, kind, tests) for kind in (PLAIN, OURS))
        return plain.result(), ours.result()


def _class(found: Outcomes, name: str) -> str | None:
    """What counts: the kind of the outcome, and a skip's reason."""
    outcome = found.get(name)
    return outcome if outcome is None or outcome.startswith("skipped") else outcome.split(":")[0]


def _run(kind: str, into: str, tests: list[str]) -> None:
    """In a process of its own: run tests with one of the two classes, and write what came of it."""
    import faulthandler
    import socket
    import unittest

    faulthandler.dump_traceback_later(PATIENCE - 10, exit=True)  # says where a test hangs
    if kind == OURS:
        import socksy

        # before ssl and asyncio are imported: SSLSocket is then a subclass of ours
        assert "ssl" not in sys.modules
        socket.socket = socksy.SocksSocket  # type: ignore[misc]
    from test import support

    # nothing beyond this machine; test_socketserver calls loopback a network
    support.use_resources = ["network"] if "test_socketserver" in tests[0] else []

    class Result(unittest.TestResult):
        found: Outcomes = {}  # noqa: RUF012 - the only one

        def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
            self.found[test.id()] = "ok"

        def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
            self.found[test.id()] = f"skipped: {reason}"

        def addFailure(self, test: unittest.TestCase, err: object) -> None:  # noqa: N802
            self.found[test.id()] = f"failure: {self._exc_info_to_string(err, test)}"  # type: ignore[attr-defined]

        def addError(self, test: unittest.TestCase, err: object) -> None:  # noqa: N802
            self.found[test.id()] = f"error: {self._exc_info_to_string(err, test)}"  # type: ignore[attr-defined]

        def addSubTest(self, test, subtest, err) -> None:  # type: ignore[no-untyped-def]  # noqa: N802
            if err is not None:
                self.addFailure(test, err)

        def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:  # noqa: N802
            self.found[test.id()] = "expected failure"

        def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
            self.found[test.id()] = "unexpected success"

    result = Result()
    loaded = _flat(unittest.defaultTestLoader.loadTestsFromNames(tests))
    kept = [test for test in loaded if not any(name in test.id() for name in LEFT_OUT)]
    unittest.TestSuite(kept).run(result)
    Path(into).write_text(json.dumps(result.found), "utf-8")
    # a test that left a thread behind must not keep us
    sys.stdout.flush()
    os._exit(0)


def _flat(suite: Any) -> Iterator[Any]:
    try:
        for test in suite:
            yield from _flat(test)
    except TypeError:  # not a suite: a test
        yield suite


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="e.g. test.test_ssl; by default all")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to try")
    parser.add_argument("--quick", action="store_true", help="the modules that take seconds")
    parser.add_argument("--as", dest="kind", choices=(PLAIN, OURS), help=argparse.SUPPRESS)
    parser.add_argument("--into", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        _run(arguments.kind, arguments.into, arguments.modules)
    if not has_tests(arguments.python):
        print(f"{arguments.python} has no Lib/test")
        return 2
    modules = arguments.modules or (QUICK if arguments.quick else FULL)
    failed = False
    for module in modules:
        count, found = differences(arguments.python, module)
        print(f"{module}: {count} tests, {len(found)} end differently", flush=True)
        for difference in found:
            print("   ", difference.replace("\n", "\n    "), flush=True)
        failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
