"""Unmodified clients against our own server, `socksy serve`: it speaks what they speak."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .servers import find, privoxy, socksy_serve
from .targets import Targets

REQUEST = b"GET / HTTP/1.1\r\nHost: target\r\n\r\n"
PAGE = "socksy target at "


@dataclass
class Serving:
    """A running `socksy serve`."""

    place: str
    log: Path

    @property
    def port(self) -> str:
        return self.place.rpartition(":")[2]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, targets: Targets) -> Iterator[Serving]:
    """Without login."""
    with socksy_serve(tmp_path_factory.mktemp("serve")) as (place, log):
        yield Serving(place, log)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, targets: Targets) -> Iterator[Serving]:
    """The user alice has the password secret."""
    with socksy_serve(tmp_path_factory.mktemp("serve"), "--user", "alice:secret") as (place, log):
        yield Serving(place, log)


@contextlib.contextmanager
def asked(serving: Serving, protocol: str, *targets: str) -> Iterator[None]:
    """In the with-block the server is asked for one of these, in this protocol."""
    before = len(serving.log.read_text())
    yield
    lines = serving.log.read_text()[before:].splitlines()
    wanted = tuple(f" {protocol} CONNECT {target} -> succeeded" for target in targets)
    assert any(line.endswith(wanted) for line in lines), (wanted, lines)


def run(argv: list[str], package: str, *, home: Path, text: bytes = b"", **env: str) -> str:
    """Run a client with `text` on its stdin, and return what it writes.

    Without the environment of whoever runs the tests: proxies are named in it, and HOME has
    settings.
    """
    argv = [find(argv[0], package), *argv[1:]]
    done = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        timeout=20,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
    )
    assert done.returncode == 0, (argv, done)
    return done.stdout.decode()


def by_address(port: int) -> list[str]:
    """What the log has if the client looks the name up itself."""
    return [f"127.0.0.1:{port}", f"[::1]:{port}"]


# -- curl


@pytest.mark.parametrize(
    ("options", "protocol", "by_name"),
    [
        (["--socks4"], "SOCKS4", False),
        (["--socks4a"], "SOCKS4", True),
        (["--socks5"], "SOCKS5", False),
        (["--socks5-hostname"], "SOCKS5", True),
        (["--proxytunnel", "-x"], "HTTP", True),
    ],
    ids=["socks4", "socks4a", "socks5", "socks5-hostname", "http"],
)
def test_curl(
    serving: Serving,
    targets: Targets,
    here: str,
    tmp_path: Path,
    options: list[str],
    protocol: str,
    by_name: bool,
):
    wanted = [f"{here}:{targets.http}"] if by_name else by_address(targets.http)
    argv = ["curl", "-sS", "--max-time", "10", *options, serving.place]
    with asked(serving, protocol, *wanted):
        page = run([*argv, f"http://{here}:{targets.http}/"], "curl", home=tmp_path)
    assert page.startswith(PAGE)


@pytest.mark.parametrize("options", [["--socks5-hostname"], ["--proxytunnel", "-x"]])
def test_curl_with_login(
    guarded: Serving, targets: Targets, here: str, tmp_path: Path, options: list[str]
):
    argv = ["curl", "-sS", "--max-time", "10", "--proxy-user", "alice:secret", *options]
    argv += [guarded.place, f"http://{here}:{targets.http}/"]
    assert run(argv, "curl", home=tmp_path).startswith(PAGE)


@pytest.mark.parametrize("login", [[], ["--proxy-user", "alice:wrong"]])
def test_curl_without_the_right_login(
    guarded: Serving, targets: Targets, tmp_path: Path, login: list[str]
):
    argv = [find("curl", "curl"), "-sS", "--max-time", "10", *login, "--socks5-hostname"]
    argv += [guarded.place, f"http://127.0.0.1:{targets.http}/"]
    done = subprocess.run(argv, capture_output=True, env={"HOME": str(tmp_path)}, timeout=20)
    assert done.returncode == 97  # CURLE_PROXY
    assert not done.stdout


# -- clients that connect their stdin and stdout


PIPES = [
    # command line, Debian package, protocol, whether the name goes to the server
    ("nc.openbsd -X 5 -x {proxy} {name} {port}", "netcat-openbsd", "SOCKS5", True),
    ("nc.openbsd -X 4 -x {proxy} {name} {port}", "netcat-openbsd", "SOCKS4", False),
    ("nc.openbsd -X connect -x {proxy} {name} {port}", "netcat-openbsd", "HTTP", True),
    ("ncat --proxy {proxy} --proxy-type socks5 {name} {port}", "ncat", "SOCKS5", True),
    ("ncat --proxy {proxy} --proxy-type socks4 {name} {port}", "ncat", "SOCKS4", True),
    ("ncat --proxy {proxy} --proxy-type http {name} {port}", "ncat", "HTTP", True),
    ("connect-proxy -5 -R remote -S {proxy} {name} {port}", "connect-proxy", "SOCKS5", True),
    ("connect-proxy -4 -R remote -S user@{proxy} {name} {port}", "connect-proxy", "SOCKS4", True),
    ("connect-proxy -H {proxy} {name} {port}", "connect-proxy", "HTTP", True),
    ("socat -t 10 - SOCKS4:127.0.0.1:{name}:{port},socksport={at}", "socat", "SOCKS4", False),
    ("socat -t 10 - SOCKS4A:127.0.0.1:{name}:{port},socksport={at}", "socat", "SOCKS4", True),
    ("socat -t 10 - PROXY:127.0.0.1:{name}:{port},proxyport={at}", "socat", "HTTP", True),
]


@pytest.mark.parametrize(
    ("line", "package", "protocol", "by_name"), PIPES, ids=[line for line, *_ in PIPES]
)
def test_pipe(
    serving: Serving,
    targets: Targets,
    here: str,
    tmp_path: Path,
    line: str,
    package: str,
    protocol: str,
    by_name: bool,
):
    wanted = [f"{here}:{targets.http}"] if by_name else by_address(targets.http)
    argv = filled_in(line, serving, here, targets.http)
    with asked(serving, protocol, *wanted):
        answer = run(argv, package, home=tmp_path, text=REQUEST)
    assert PAGE in answer


def filled_in(line: str, serving: Serving, name: str, port: int) -> list[str]:
    return line.format(proxy=serving.place, at=serving.port, name=name, port=port).split()


def test_ncat_with_login(guarded: Serving, targets: Targets, here: str, tmp_path: Path):
    line = "ncat --proxy {proxy} --proxy-type socks5 --proxy-auth alice:secret {name} {port}"
    argv = filled_in(line, guarded, here, targets.http)
    with asked(guarded, "SOCKS5", f"{here}:{targets.http}"):
        assert PAGE in run(argv, "ncat", home=tmp_path, text=REQUEST)


def test_connect_proxy_with_login(guarded: Serving, targets: Targets, here: str, tmp_path: Path):
    line = "connect-proxy -5 -R remote -S alice@{proxy} {name} {port}"
    argv = filled_in(line, guarded, here, targets.http)
    with asked(guarded, "SOCKS5", f"{here}:{targets.http}"):
        answer = run(argv, "connect-proxy", home=tmp_path, text=REQUEST, SOCKS5_PASSWORD="secret")
    assert PAGE in answer


# -- proxychains


@pytest.mark.parametrize(
    ("kind", "protocol"), [("socks4", "SOCKS4"), ("socks5", "SOCKS5"), ("http", "HTTP")]
)
def test_proxychains(
    serving: Serving, targets: Targets, names: None, tmp_path: Path, kind: str, protocol: str
):
    line = f"{kind} 127.0.0.1 {serving.port}"
    with asked(serving, protocol, f"www.test.example:{targets.http}"):
        assert through_proxychains(line, targets, tmp_path).startswith(PAGE)


def test_proxychains_with_login(guarded: Serving, targets: Targets, names: None, tmp_path: Path):
    line = f"socks5 127.0.0.1 {guarded.port} alice secret"
    with asked(guarded, "SOCKS5", f"www.test.example:{targets.http}"):
        assert through_proxychains(line, targets, tmp_path).startswith(PAGE)


def through_proxychains(line: str, targets: Targets, tmp: Path) -> str:
    """Fetch the page with a curl that proxychains has loaded itself into."""
    config = tmp / "proxychains.conf"
    config.write_text(f"strict_chain\nproxy_dns\n[ProxyList]\n{line}\n")
    argv = ["proxychains4", "-q", "-f", str(config), find("curl", "curl"), "-sS"]
    argv += ["--max-time", "10", f"http://www.test.example:{targets.http}/"]
    return run(argv, "proxychains4", home=tmp)


# -- privoxy: HTTP in, SOCKS out


@pytest.mark.parametrize(
    ("forward", "protocol", "by_name"),
    [
        ("forward-socks4", "SOCKS4", False),
        ("forward-socks4a", "SOCKS4", True),
        ("forward-socks5", "SOCKS5", True),
        # the request and the page's request in one segment
        ("forward-socks5t", "SOCKS5", True),
    ],
)
def test_privoxy(
    serving: Serving,
    targets: Targets,
    here: str,
    tmp_path: Path,
    forward: str,
    protocol: str,
    by_name: bool,
):
    wanted = [f"{here}:{targets.http}"] if by_name else by_address(targets.http)
    with (
        privoxy(tmp_path, f"{forward} / {serving.place} .") as at,
        asked(serving, protocol, *wanted),
    ):
        assert through_privoxy(at["privoxy"], here, targets, tmp_path).startswith(PAGE)


def test_privoxy_with_login(guarded: Serving, targets: Targets, here: str, tmp_path: Path):
    with privoxy(tmp_path, f"forward-socks5 / alice:secret@{guarded.place} .") as at:
        assert through_privoxy(at["privoxy"], here, targets, tmp_path).startswith(PAGE)


def through_privoxy(place: str, here: str, targets: Targets, tmp: Path) -> str:
    argv = ["curl", "-sS", "--max-time", "10", "-x", f"http://{place}"]
    return run([*argv, f"http://{here}:{targets.http}/"], "curl", home=tmp)


# -- tor-resolve


def test_tor_resolve(serving: Serving, names: None, tmp_path: Path):
    argv = ["tor-resolve", "v4.test.example", serving.place]
    assert run(argv, "tor", home=tmp_path) == "127.0.0.1\n"


def test_tor_resolve_an_address(serving: Serving, names: None, tmp_path: Path):
    argv = ["tor-resolve", "-x", "93.184.216.34", serving.place]
    assert run(argv, "tor", home=tmp_path) == "www.test.example\n"
