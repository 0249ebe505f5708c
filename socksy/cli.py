"""The command line: ``socksy``, and ``python -m socksy``.

Exit codes: 0; 1 for a job that failed, with the reason on stderr; 2 for bad usage. Who reads no
more (``socksy demo | head``) wants to hear no reason: 141, as if SIGPIPE had ended us.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager

from . import __version__
from .errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from .testing import SocksServer

FAILED, BAD_USAGE = 1, 2
_NOBODY_READS = 128 + 13  # what a shell makes of SIGPIPE
_LONGEST = 1_000_000  # seconds: what waits for more overflows somewhere


class OutputError(Exception):
    """Nothing more can be written to stdout; `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(f"cannot write to stdout: {os.strerror(number)}")
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    try:
        code = _run_command(argv)
        if sys.stdout is not None:  # what argparse has printed
            write(sys.stdout, "")
    except OutputError as exc:
        _close(sys.stdout)
        return _NOBODY_READS if exc.number == errno.EPIPE else complain(str(exc))
    return code


def _run_command(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exc:  # argparse has said what it had to say
        return BAD_USAGE if exc.code else 0
    except OSError as exc:  # or could not say it
        raise OutputError(exc.errno or errno.EIO) from None
    try:
        code: int = arguments.run(arguments)
    except InvalidArgumentError as exc:
        return complain(str(exc), BAD_USAGE)
    except KeyboardInterrupt:
        return FAILED
    return code


# -- what is said


def stdout() -> TextIO:
    """Where results go.

    Raises:
        OutputError: it was closed before we began.
    """
    if sys.stdout is None:
        raise OutputError(errno.EBADF)
    return sys.stdout


def write(out: TextIO, text: str) -> None:
    """Write at once; what the encoding does not have, as an escape sequence.

    Raises:
        OutputError: it is not taken.
    """
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except OSError as exc:
        raise OutputError(exc.errno or errno.EIO) from None


def tell(line: str) -> None:
    """A line on stderr. That nobody reads those is no reason to do anything else than before."""
    try:
        if sys.stderr is not None:
            print(printable(line), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # ValueError: it is closed
        _close(sys.stderr)


def complain(text: str, code: int = FAILED) -> int:
    """Say on stderr what is wrong; the exit code for it."""
    tell(f"socksy: {text}")
    return code


def printable(text: str) -> str:
    """Without what a terminal takes for commands: names and answers are what others have sent."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _close(stream: TextIO | None) -> None:
    """Or Python would try again at its end, and say so."""
    try:
        if stream is not None:
            stream.close()
    except OSError:
        pass


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
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds above 0 and up to {_LONGEST}"
        )
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
        metavar="NAME[:PORT]=ADDRESS[:PORT]",
        action="append",
        default=[],
        help="a name the proxy knows by itself (for one port or all), and where it is; repeatable",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="a line on stderr for each request; no credentials"
    )
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.unix is not None and (arguments.host, arguments.port) != (None, None):
        return complain("--unix takes the place of --host and --port", BAD_USAGE)
    try:
        users = _users(arguments)
    except OSError as exc:
        return complain(f"cannot read the users: {exc}")
    host = "127.0.0.1" if arguments.host is None else arguments.host
    port = 1080 if arguments.port is None else arguments.port
    server = _server(host, port, arguments, users)
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


def _server(
    host: str, port: int, arguments: argparse.Namespace, users: dict[str, str] | None
) -> SocksServer:
    from .testing import SocksServer

    return SocksServer(
        host,
        port,
        path=arguments.unix,
        users=users,
        names=dict(map(_name, arguments.name)),
        real_lookups=True,
        keep=0,  # of what nobody will ask for
        log=tell if arguments.verbose else None,
    )


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
    write(stdout(), f"socksy: serving SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT on {where}\n")


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


def _users(arguments: argparse.Namespace) -> dict[str, str] | None:
    """All users, or None if there are none.

    Raises:
        InvalidArgumentError: one is not NAME:PASSWORD; the text does not repeat it.
        OSError: the file cannot be read.
    """
    lines = list(arguments.user)
    if arguments.users_file is not None:
        lines += _lines(arguments.users_file)
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


def _lines(path: str) -> list[str]:
    if path != "-":
        with open(path, "rb") as file:
            data = file.read()
    elif sys.stdin is not None:
        data = sys.stdin.buffer.read()
    else:
        raise InvalidArgumentError("there are no users: stdin is closed")
    try:
        return [line.removesuffix("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        pass
    raise InvalidArgumentError("the users are not UTF-8")


def _name(text: str) -> tuple[str, str | tuple[str, int]]:
    from .hosts import pack_ip
    from .testing.names import host_and_port

    name, _, place = text.partition("=")
    try:
        host_and_port(name)
        address, port = host_and_port(place)
    except InvalidArgumentError:
        address, port = "", None
    if pack_ip(address) is None:
        raise InvalidArgumentError(f"a name is given as NAME[:PORT]=ADDRESS[:PORT], not {text!r}")
    return name, address if port is None else (address, port)
