"""The real SOCKS servers: how each is started, and what it can do.

`SERVERS` is the table that the tests are parametrised by; one process of `PROCESSES` may be several
of them, on several addresses. Nothing is started at import.
"""

from __future__ import annotations

import contextlib
import enum
import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .targets import IN_NAMESPACE, free_port

IS_ROOT = os.getuid() == 0
#: a server that is not installed is then a failure
MUST_HAVE = os.environ.get("CI") == "true" or os.environ.get("SOCKSY_REQUIRE_SERVERS") == "1"

#: where a proxy is, as a URL has it behind "scheme://": by the name of the server
Places = dict[str, str]


class Refusal(enum.Enum):
    """How a server says that it did not get through to a target."""

    REPLY = "with a reply code"
    CLOSE = "by hanging up"
    GRANTED = "not at all: it grants first, and hangs up then"


@dataclass(frozen=True)
class Server:
    """One way in, and what is to be expected of it (a row of the README's table)."""

    name: str
    process: str
    schemes: tuple[str, ...]
    refusal: Refusal
    #: SOCKS5 replies: the target refused, and its name is unknown (SOCKS4 has one for both)
    refused: int | None = None
    unknown: int | None = None
    #: whether a good reply has the address that it connects from
    real_bound_address: bool = False
    login: bool = False


SOCKS4, SOCKS4A, SOCKS5 = ("socks4",), ("socks4", "socks4a"), ("socks5", "socks5h")
_DANTE: dict[str, Any] = {
    "refusal": Refusal.REPLY,
    "refused": 5,
    "unknown": 4,
    "real_bound_address": True,
}
_MICROSOCKS: dict[str, Any] = {"refusal": Refusal.REPLY, "refused": 5, "unknown": 1}

SERVERS = {
    server.name: server
    for server in (
        Server("danted", "danted", SOCKS4 + SOCKS5, **_DANTE),
        Server("danted on ::1", "danted", SOCKS4 + SOCKS5, **_DANTE),
        Server("danted with login", "danted with login", SOCKS5, login=True, **_DANTE),
        Server("microsocks", "microsocks", SOCKS5, **_MICROSOCKS),
        Server("microsocks on ::1", "microsocks", SOCKS5, **_MICROSOCKS),
        Server("microsocks with login", "microsocks", SOCKS5, login=True, **_MICROSOCKS),
        Server("ssh -D", "ssh", SOCKS4A + SOCKS5, Refusal.CLOSE),
        Server("ssh -D on ::1", "ssh", SOCKS4A + SOCKS5, Refusal.CLOSE),
        Server("ssh -D on a Unix socket", "ssh", SOCKS4A + SOCKS5, Refusal.CLOSE),
        Server("plink -D", "plink", SOCKS4A + SOCKS5, Refusal.GRANTED),
        Server("ss-local", "ss-local", SOCKS5, Refusal.GRANTED),
        Server("v2ray", "v2ray", SOCKS4A + SOCKS5, Refusal.GRANTED),
        Server("v2ray with login", "v2ray", SOCKS5, Refusal.GRANTED, login=True),
    )
}


def each(
    *schemes: str, where: Callable[[Server], bool] = lambda server: True
) -> pytest.MarkDecorator:
    """Run a test with each server and each scheme that it speaks (of these, if any are given)."""
    return pytest.mark.parametrize(
        ("scheme", "server"),
        [
            pytest.param(scheme, server, id=f"{server.name}, {scheme}")
            for server in SERVERS.values()
            for scheme in server.schemes
            if where(server) and (not schemes or scheme in schemes)
        ],
    )


# -- processes


def find(program: str, package: str) -> str:
    """Where a program is; without it the test is skipped, or fails where it must be there."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        text = f"{program} is not installed: Debian package {package}, see integration/install.sh"
        if MUST_HAVE:
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return path


@contextlib.contextmanager
def running(
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    seconds: float = 10,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of a with-block, which is entered when it is ready.

    Args:
        log: what it says goes there, and its end is shown if it does not become ready.
        ready: asked each 50 ms.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
    try:
        deadline = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                code = process.poll()
                how = f"not ready within {seconds} s" if code is None else f"exit code {code}"
                pytest.fail(f"{argv[0]}: {how}; its log ends with\n{_tail(log)}", pytrace=False)
            time.sleep(0.05)
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as it likes to be ended; then whatever of it is left."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):  # as it should be
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def accepts(*addresses: tuple[str, int] | str) -> Callable[[], bool]:
    """Whether connecting to all of these works now; a str is the path of a Unix socket."""

    def ready() -> bool:
        for address in addresses:
            family = socket.AF_INET
            if isinstance(address, str):
                family = socket.AF_UNIX
            elif ":" in address[0]:
                family = socket.AF_INET6
            with socket.socket(family) as sock:
                sock.settimeout(1)
                if sock.connect_ex(address):
                    return False
        return True

    return ready


def only_in_namespace() -> None:
    """Skip a test of what must not, or cannot, be tried on this machine's own network."""
    if not IN_NAMESPACE:
        pytest.skip("needs the network namespace of integration/run (as root)")


# -- the servers


@contextlib.contextmanager
def danted(tmp: Path) -> Iterator[Places]:
    port = free_port()
    with _danted(tmp, port, "none"):
        yield {"danted": f"127.0.0.1:{port}", "danted on ::1": f"[::1]:{port}"}


@contextlib.contextmanager
def danted_with_login(tmp: Path) -> Iterator[Places]:
    """Dante's logins are accounts of the system; ours has no shell and a random password."""
    if not IS_ROOT:
        pytest.skip("danted checks system accounts: needs root")
    port = free_port()
    # of the same name as the namespace, so that `run` can remove it if we are killed
    account = os.environ.get("SOCKSY_NETNS", f"socksy-test-{os.getpid()}")
    password = secrets.token_hex(16)
    shell = "/usr/sbin/nologin"
    subprocess.run(["useradd", "--no-create-home", "--shell", shell, account], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{account}:{password}\n".encode(), check=True)
        with _danted(tmp, port, "username"):
            yield {"danted with login": f"{account}:{password}@127.0.0.1:{port}"}
    finally:
        subprocess.run(["userdel", account], check=True)


@contextlib.contextmanager
def _danted(tmp: Path, port: int, method: str) -> Iterator[None]:
    program = find("danted", "dante-server")
    users = ("root", "nobody") if IS_ROOT else (getpass.getuser(),) * 2
    config = tmp / "danted.conf"
    # 0/0 covers both families; `log` must come last in its rule
    config.write_text(f"""\
logoutput: stderr
internal: 127.0.0.1 port = {port}
internal: ::1 port = {port}
external: 127.0.0.1
external: ::1
clientmethod: none
socksmethod: {method}
user.privileged: {users[0]}
user.unprivileged: {users[1]}
client pass {{ from: 0/0 to: 0/0 }}
socks pass {{ from: 0/0 to: 0/0 command: bind connect udpassociate bindreply udpreply
 log: error }}
""")
    argv = [program, "-f", config, "-N", "1", "-p", tmp / "danted.pid"]
    with running(argv, log=tmp / "log", ready=accepts(("127.0.0.1", port), ("::1", port))):
        yield


@contextlib.contextmanager
def microsocks(tmp: Path) -> Iterator[Places]:
    program = find("microsocks", "microsocks")
    plain, v6, login = free_port(), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        for host, port, options in (
            ("127.0.0.1", plain, []),
            ("::1", v6, []),
            ("127.0.0.1", login, ["-u", "alice", "-P", "secret"]),
        ):
            argv = [program, "-i", host, "-p", str(port), *options]
            log = tmp / f"log-{port}"
            stack.enter_context(running(argv, log=log, ready=accepts((host, port))))
        yield {
            "microsocks": f"127.0.0.1:{plain}",
            "microsocks on ::1": f"[::1]:{v6}",
            "microsocks with login": f"alice:secret@127.0.0.1:{login}",
        }


@contextlib.contextmanager
def _sshd(tmp: Path) -> Iterator[int]:
    """An sshd that admits the key $tmp/client-key; yields its port."""
    program = find("sshd", "openssh-server")
    keygen = find("ssh-keygen", "openssh-client")
    port = free_port()
    for key in ("host-key", "client-key"):
        argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp / key]
        subprocess.run(argv, check=True, timeout=20)
    config = tmp / "sshd_config"
    config.write_text(f"""\
ListenAddress 127.0.0.1:{port}
HostKey {tmp}/host-key
AuthorizedKeysFile {tmp}/client-key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
""")
    # where sshd insists to separate its privileges when started as root
    privilege_separation = Path("/run/sshd")
    made = IS_ROOT and not privilege_separation.exists()
    if made:
        privilege_separation.mkdir(mode=0o755)
    try:
        argv = [program, "-D", "-e", "-f", config]
        with running(argv, log=tmp / "sshd-log", ready=accepts(("127.0.0.1", port))):
            yield port
    finally:
        if made:
            with contextlib.suppress(OSError):
                privilege_separation.rmdir()


@contextlib.contextmanager
def ssh(tmp: Path) -> Iterator[Places]:
    program = find("ssh", "openssh-client")
    path, port = str(tmp / "socks.sock"), free_port()
    with _sshd(tmp) as sshd_port:
        argv = [program, "-F", "none", "-i", str(tmp / "client-key"), "-p", str(sshd_port), "-N"]
        for option in (
            "UserKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
            "ExitOnForwardFailure=yes",
            "BatchMode=yes",
        ):
            argv += ["-o", option]
        argv += ["-D", f"127.0.0.1:{port}", "-D", f"[::1]:{port}", "-D", path]
        argv += [f"{getpass.getuser()}@127.0.0.1"]
        ready = accepts(("127.0.0.1", port), ("::1", port), path)
        with running(argv, log=tmp / "ssh-log", ready=ready):
            yield {
                "ssh -D": f"127.0.0.1:{port}",
                "ssh -D on ::1": f"[::1]:{port}",
                "ssh -D on a Unix socket": f"localhost{path}",
                "sshd": f"127.0.0.1:{sshd_port}",
            }


@contextlib.contextmanager
def plink(tmp: Path) -> Iterator[Places]:
    program, keygen = find("plink", "putty-tools"), find("puttygen", "putty-tools")
    port = free_port()
    with _sshd(tmp) as sshd_port:
        argv = [keygen, tmp / "client-key", "-O", "private", "-o", tmp / "client-key.ppk"]
        subprocess.run(argv, check=True, timeout=20)
        argv = [find("ssh-keygen", "openssh-client"), "-lf", tmp / "host-key.pub"]
        shown = subprocess.run(argv, check=True, timeout=20, capture_output=True, text=True)
        fingerprint = shown.stdout.split()[1]
        argv = [program, "-batch", "-ssh", "-N", "-noagent", "-i", tmp / "client-key.ppk"]
        argv += ["-hostkey", fingerprint, "-P", str(sshd_port), "-D", f"127.0.0.1:{port}"]
        argv += [f"{getpass.getuser()}@127.0.0.1"]
        # it keeps its settings and random seed below HOME
        env = {**os.environ, "HOME": str(tmp)}
        ready = accepts(("127.0.0.1", port))
        with running(argv, log=tmp / "plink-log", ready=ready, env=env):
            yield {"plink -D": f"127.0.0.1:{port}"}


@contextlib.contextmanager
def ss_local(tmp: Path) -> Iterator[Places]:
    client = find("ss-local", "shadowsocks-libev")
    server = find("ss-server", "shadowsocks-libev")
    far, near = free_port(), free_port()
    common = ["-s", "127.0.0.1", "-p", str(far), "-k", "testpw", "-m", "aes-256-gcm", "-u"]
    argv = [client, *common, "-b", "127.0.0.1", "-l", str(near)]
    with (
        running([server, *common], log=tmp / "server-log", ready=accepts(("127.0.0.1", far))),
        running(argv, log=tmp / "local-log", ready=accepts(("127.0.0.1", near))),
    ):
        yield {"ss-local": f"127.0.0.1:{near}"}


@contextlib.contextmanager
def v2ray(tmp: Path) -> Iterator[Places]:
    program = find("v2ray", "v2ray")
    plain, login = free_port(), free_port()

    def inbound(port: int, **settings: Any) -> dict[str, Any]:
        settings |= {"udp": True, "ip": "127.0.0.1"}
        where = {"listen": "127.0.0.1", "port": port}
        return {**where, "protocol": "socks", "settings": settings}

    config = {
        "log": {"loglevel": "warning"},
        "inbounds": [
            inbound(plain, auth="noauth"),
            inbound(login, auth="password", accounts=[{"user": "alice", "pass": "secret"}]),
        ],
        "outbounds": [{"protocol": "freedom", "settings": {}}],
        # close one side as soon as the other is; by default it waits some seconds
        "policy": {"levels": {"0": {"uplinkOnly": 0, "downlinkOnly": 0}}},
    }
    (tmp / "v2ray.json").write_text(json.dumps(config))
    argv = [program, "-config", tmp / "v2ray.json"]
    ready = accepts(("127.0.0.1", plain), ("127.0.0.1", login))
    with running(argv, log=tmp / "log", ready=ready, seconds=20):
        yield {
            "v2ray": f"127.0.0.1:{plain}",
            "v2ray with login": f"alice:secret@127.0.0.1:{login}",
        }


@contextlib.contextmanager
def tor(tmp: Path) -> Iterator[Places]:
    """A Tor client without a network: good for all that it answers without a circuit."""
    only_in_namespace()  # elsewhere it would go and look for the network
    program = find("tor", "tor")
    extended, plain, http = free_port(), free_port(), free_port()
    data = tmp / "tor"
    data.mkdir(mode=0o700)
    path = str(data / "s.sock")
    config = tmp / "torrc"
    config.write_text(f"""\
DataDirectory {data}
SocksPort 127.0.0.1:{extended} ExtendedErrors
SocksPort 127.0.0.1:{plain}
SocksPort unix:{path} WorldWritable
HTTPTunnelPort 127.0.0.1:{http}
CookieAuthentication 0
SocksTimeout 2
""")
    argv = [program, "-f", config, "--defaults-torrc", "/dev/null"]
    ready = accepts(("127.0.0.1", extended), ("127.0.0.1", plain), ("127.0.0.1", http), path)
    with running(argv, log=tmp / "log", ready=ready, seconds=20):
        yield {
            "tor": f"127.0.0.1:{extended}",
            "tor without ExtendedErrors": f"127.0.0.1:{plain}",
            "tor on a Unix socket": f"localhost{path}",
            "tor HTTPTunnelPort": f"127.0.0.1:{http}",
        }


@contextlib.contextmanager
def privoxy(tmp: Path, *forwards: str) -> Iterator[Places]:
    """An HTTP proxy; `forwards` are its lines that say which SOCKS server to go through."""
    program = find("privoxy", "privoxy")
    port = free_port()
    config = tmp / "privoxy.conf"
    # its error pages are made from Debian's templates, else each is a 500
    own = [f"listen-address 127.0.0.1:{port}", "toggle 0", "templdir /etc/privoxy/templates"]
    config.write_text("".join(f"{line}\n" for line in (*own, *forwards)))
    argv = [program, "--no-daemon", config]
    with running(argv, log=tmp / "log", ready=accepts(("127.0.0.1", port))):
        yield {"privoxy": f"127.0.0.1:{port}"}


@contextlib.contextmanager
def socksy_serve(tmp: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """Our own `socksy serve`; yields its address and its log, which has a line per request."""
    log = tmp / "serve-log"
    argv = [sys.executable, "-m", "socksy", "serve", "--port", "0", "--verbose", *options]

    def address() -> str | None:
        found = re.search(r"^socksy: serving .* on (\S+)$", log.read_text(), re.MULTILINE)
        return found[1] if found else None

    with running(argv, log=log, ready=lambda: address() is not None):
        place = address()
        assert place is not None
        yield place, log


PROCESSES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Places]]] = {
    "danted": danted,
    "danted with login": danted_with_login,
    "microsocks": microsocks,
    "ssh": ssh,
    "plink": plink,
    "ss-local": ss_local,
    "v2ray": v2ray,
    "tor": tor,
    "privoxy": privoxy,
}
