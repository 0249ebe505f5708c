"""The command line: ``socksy``, and ``python -m socksy``.

Exit codes: 0; 1 for a job that failed, with the reason on stderr; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import contextmanager

from . import __version__
from .errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .testing import SocksServer

FAILED, BAD_USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exc:  # argparse has said what it had to say
        return BAD_USAGE if exc.code else 0
    try:
        code: int = arguments.run(arguments)
    except InvalidArgumentError as exc:
        return complain(str(exc), BAD_USAGE)
    except KeyboardInterrupt:
        return FAILED
    return code


def complain(text: str, code: int = FAILED) -> int:
    """Say on stderr what is wrong; the exit code for it."""
    print(f"socksy: {text}", file=sys.stderr, flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="socksy",
        description="Sockets that go through a SOCKS proxy, and nowhere else.",
        epilog="Exit codes: 0, 1 for a job that failed, 2 for bad usage.",
    )
    parser.add_argument("--version", action="version", version=f"socksy {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands.add_parser("demo", help="see each protocol at work, byte by byte"))
    _add_serve(commands.add_parser("serve", help="run a proxy"))
    _add_run(commands.add_parser("run", help="run a Python program through a proxy, unmodified"))
    return parser


# -- demo


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fetch a page from a web server on this machine through SOCKS4, 4a, 5, 5 with login, HTTP "
        "CONNECT and a chain of two proxies, and show what was said to the proxies."
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        action="append",
        help="go through this proxy instead of the demo's own; given twice, through a chain",
    )
    parser.add_argument(
        "--target",
        metavar="URL",
        help="with --proxy: fetch this http:// page instead of one from this machine",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=10.0, help="default: 10"
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from . import demo

    if arguments.target is not None and arguments.proxy is None:
        return complain("--target needs --proxy", BAD_USAGE)
    if arguments.proxy is None:
        return demo.tour(arguments.timeout)
    return demo.through(arguments.proxy, arguments.target, arguments.timeout)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


# -- run


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.usage = "socksy run [options] (COMMAND | FILE.py | -m MODULE | -c CODE) [argument ...]"
    parser.description = (
        "Run a Python program, and the Python programs that it starts, patched: they connect and "
        "look names up through a proxy, without being changed. What cannot be patched is not run."
    )
    way = parser.add_argument_group("which way")
    way.add_argument(
        "--proxy",
        metavar="URL",
        action="append",
        help="of the proxy; repeatable, for a chain (default: what the environment names)",
    )
    way.add_argument("--tor", action="store_true", help="the proxy is Tor on this machine")
    way.add_argument(
        "--bypass",
        metavar="RULES",
        help="what is reached directly: names, addresses and networks, with commas between them; "
        "'' for nothing (default: loopback)",
    )
    way.add_argument(
        "--guard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse what would go around the proxy all the same (default: yes)",
    )
    way.add_argument(
        "--remote-bind",
        action="store_true",
        help="listen at the proxy, for protocols whose server connects back, as active FTP",
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module, as python -m")
    what.add_argument("-c", dest="code", nargs=argparse.REMAINDER, help="code, as python -c")
    what.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="a program")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from . import run

    proxies = arguments.proxy or []
    if arguments.tor:
        if proxies:
            return complain("--tor is a proxy of its own: leave --proxy away", BAD_USAGE)
        proxies = [run.TOR]
    command = run.command(arguments.module, arguments.code, arguments.command)
    bypass = None if arguments.bypass is None else arguments.bypass.replace(",", " ").split()
    env = run.environment(proxies, bypass, guard=arguments.guard, remote_bind=arguments.remote_bind)
    return run.execute(command, env)


# -- serve


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a proxy for SOCKS4, SOCKS4a, SOCKS5 (CONNECT, BIND, UDP ASSOCIATE) and HTTP CONNECT, "
        "all on one port, until SIGINT or SIGTERM. The first line on stdout says where it listens."
    )
    where = parser.add_argument_group("where to listen")
    where.add_argument("--host", help="address (default: 127.0.0.1)")
    where.add_argument("--port", type=int, help="0 for any free one (default: 1080)")
    where.add_argument("--unix", metavar="PATH", help="a Unix socket instead")
    who = parser.add_argument_group("who may use it", "With any user, every client must log in.")
    who.add_argument(
        "--user",
        metavar="NAME:PASSWORD",
        action="append",
        default=[],
        help="repeatable; on most systems everybody can read it in the list of processes",
    )
    who.add_argument(
        "--users-file", metavar="FILE", help="lines of NAME:PASSWORD instead; - for stdin"
    )
    parser.add_argument(
        "--name",
        metavar="NAME=ADDRESS[:PORT]",
        action="append",
        default=[],
        help="a name the proxy knows by itself, and where it is; repeatable",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="a line on stderr for each request; no credentials"
    )
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from .testing import SocksServer

    if arguments.unix is not None and (arguments.host, arguments.port) != (None, None):
        return complain("--unix takes the place of --host and --port", BAD_USAGE)
    host = "127.0.0.1" if arguments.host is None else arguments.host
    port = 1080 if arguments.port is None else arguments.port
    if not 0 <= port < 65536:
        return complain("a port is a number from 0 to 65535", BAD_USAGE)
    try:
        users = _users(arguments)
    except OSError as exc:
        return complain(f"cannot read the users: {exc}")
    server = SocksServer(
        host,
        port,
        path=arguments.unix,
        users=users,
        names=dict(map(_name, arguments.name)),
        real_lookups=True,
        log=_log if arguments.verbose else None,
    )
    try:
        server.start()
    except OSError as exc:
        where = arguments.unix or f"{host}:{port}"
        return complain(f"cannot listen on {where}: {exc.strerror or exc}")
    try:
        with _signals() as told:
            _announce(server, open_to_all=users is None)
            told.wait()
    finally:
        server.stop()
    return 0


def _announce(server: SocksServer, open_to_all: bool) -> None:
    from ipaddress import ip_address

    where = server.address
    if not isinstance(where, str):
        host, port = where
        if open_to_all and not ip_address(host.partition("%")[0]).is_loopback:
            complain(
                f"warning: without --user, everybody who can reach {host} can use this proxy, "
                "and get at this machine's own services through it"
            )
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"socksy: serving SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT on {where}", flush=True)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of what they do otherwise."""
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: told.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _users(arguments: argparse.Namespace) -> dict[str, str] | None:
    """All users, or None if there are none.

    Raises:
        InvalidArgumentError: one is not NAME:PASSWORD; the text does not repeat it.
        OSError: the file cannot be read.
    """
    lines = list(arguments.user)
    if arguments.users_file == "-":
        lines += sys.stdin.read().splitlines()
    elif arguments.users_file is not None:
        try:
            with open(arguments.users_file, encoding="utf-8") as file:
                lines += file.read().splitlines()
        except UnicodeDecodeError:
            raise InvalidArgumentError("the users file is not UTF-8") from None
    users = {}
    for line in filter(None, lines):
        name, colon, password = line.partition(":")
        if not colon or not name:
            raise InvalidArgumentError("a user is given as NAME:PASSWORD")
        users[name] = password
    if arguments.users_file is not None and not users:
        # an empty file must not make an open proxy
        raise InvalidArgumentError("there are no users in the file")
    return users or None


def _name(text: str) -> tuple[str, str | tuple[str, int]]:
    from .hosts import clean_host, pack_ip, parse_port

    name, equals, place = text.partition("=")
    address, port = place, ""
    if place.startswith("["):
        address, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") == 1:
        address, _, port = place.partition(":")
    if not equals or pack_ip(address) is None or (port and not parse_port(port)):
        raise InvalidArgumentError(f"a name is given as NAME=ADDRESS[:PORT], not {text!r}")
    return clean_host(name), (address, int(port)) if port else address
