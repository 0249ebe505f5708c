"""Other people's own tests: of PySocks and urllib3 on `socksy.pysocks`, of httplib2 under a patch.

`fetch.sh` has put their sources, at the versions named there, below .venv/suites; each is run as
its authors do, but for what is listed here as an exception, with the reason.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from socksy.testing import SocksServer

from .servers import MUST_HAVE
from .targets import IN_NAMESPACE

HERE = Path(__file__).parent
SUITES = Path(os.environ.get("SOCKSY_SUITES") or HERE.parent / ".venv" / "suites")
PYTHON = SUITES / "bin" / "python"


def folder(package: str, tmp_path: Path, *parts: str) -> Path:
    """A copy of these parts of a package's sources, without the package itself."""
    # before Python 3.11, a pattern that ends with a slash finds files, too
    found = [path for path in (SUITES / "sources").glob(f"{package}-*") if path.is_dir()]
    if not found or not PYTHON.exists():
        text = f"the tests of {package} are not there: `make integration` fetches them"
        if MUST_HAVE:
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    for part in parts:
        shutil.copytree(found[0] / part, tmp_path / part)
    return tmp_path


def run(where: Path, *arguments: str, command: tuple[str, ...] = ()) -> dict[str, int]:
    """Run pytest there; how many tests ended how. `command` is what comes before ``-m pytest``."""
    done = subprocess.run(
        [PYTHON, *command, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=where,
        env={**os.environ, "PYTHONPATH": f".:{HERE / 'foreign'}", "CI": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    last = done.stdout.rstrip().rpartition("\n")[2]
    outcomes = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", last)}
    assert not {"failed", "error", "errors"} & set(outcomes), done.stdout[-5000:]
    assert outcomes.get("passed"), done.stdout[-5000:] + done.stderr[-2000:]
    return outcomes


@pytest.mark.skipif(not IN_NAMESPACE, reason="it wants fixed ports, and an address without a route")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="PySocks brings its proxy as a binary")
def test_pysocks_own_tests(tmp_path: Path):
    """All of them, through the proxy that they bring along."""
    where = folder("PySocks", tmp_path, "test")
    assert run(where, "-p", "socksy_as_socks", "test/test_pysocks.py")["passed"] == 17


def test_urllib3s_own_socks_tests(tmp_path: Path):
    """All of them."""
    where = folder("urllib3", tmp_path, "test", "dummyserver")
    outcomes = run(where, "-p", "socksy_as_socks", "test/contrib/test_socks.py")
    assert outcomes["passed"] == 21


#: tests that cannot pass, and why
HTTPLIB2_EXCEPTIONS = [
    # expects a failed lookup here; under a patch the proxy looks up, and its refusal is raised
    "tests/test_http.py::test_unknown_server",
]
HTTPLIB2_TESTS = ["auth", "cache", "encoding", "http", "other", "uri"]


def test_httplib2s_own_tests_under_a_patch(tmp_path: Path):
    """As many pass as without; each of their requests goes through the proxy, loopback too."""
    where = folder("httplib2", tmp_path, "tests")
    arguments = [f"tests/test_{name}.py" for name in HTTPLIB2_TESTS]
    arguments += [f"--deselect={test}" for test in HTTPLIB2_EXCEPTIONS]
    with SocksServer(real_lookups=True) as server:
        patched = ("-m", "socksy", "run", "--proxy", server.url(), "--bypass", "")
        outcomes = run(where, *arguments, command=patched)
        assert len(server.requests) > 50
    assert outcomes["passed"] == 156


def test_httplib2_on_socks(tmp_path: Path):
    """It asks for PySocks by its name."""
    folder("httplib2", tmp_path)
    code = """
import sys
import socksy.pysocks
socksy.pysocks.install_as_socks()
import httplib2, socks
proxy = httplib2.ProxyInfo(socks.PROXY_TYPE_SOCKS5, "127.0.0.1", int(sys.argv[1]))
http = httplib2.Http(proxy_info=proxy)
try:
    http.request("http://only-the-proxy.test/")
except socksy.HostUnreachableError as error:
    print(error.target)
"""
    with SocksServer() as server:
        done = subprocess.run(
            [PYTHON, "-c", code, str(server.port)], capture_output=True, text=True, timeout=30
        )
        assert (done.stdout, done.stderr) == ("('only-the-proxy.test', 80)\n", "")
