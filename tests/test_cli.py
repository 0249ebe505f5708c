"""The command line: exit codes, and `socksy serve` as a process of its own."""

import errno
import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

import socksy
from socksy import cli

from .support import BANNER, echo, read_exactly, serving

PROGRAM = [sys.executable, "-X", "dev", "-W", "error", "-m", "socksy"]
READY = "socksy: serving SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT on "


@pytest.fixture
def echo_server():
    with serving(echo) as address:
        yield address


class Served:
    """`socksy serve` as it runs; afterwards its `code` and `errors`."""

    def __init__(self, process, where):
        self.process = process
        self.where = where
        self.code = None
        self.errors = ""

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, self.errors = self.process.communicate(timeout=10)
        self.code = self.process.returncode


@contextmanager
def served(*arguments, stdin=None, before=()):
    command = [*before, *PROGRAM, "serve", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            if stdin is not None:
                process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
            line = process.stdout.readline()
            assert line.startswith(READY), (line, process.stderr.read())
            yield Served(process, line[len(READY) :].strip())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_serve_stops_cleanly(number, echo_server):
    with served("--port", "0") as server:
        proxy = f"socks5h://{server.where}"
        with socksy.create_connection(echo_server, 5, proxy=proxy) as sock:
            assert read_exactly(sock, len(BANNER)) == BANNER
            server.stop(number)
            assert sock.recv(1) == b""
    assert (server.code, server.errors) == (0, "")


def test_serve_looks_names_up(echo_server):
    with served("--port", "0") as server:
        proxy = f"socks5h://{server.where}"
        address = "localhost", echo_server[1]
        socksy.create_connection(address, 5, proxy=proxy).close()


def test_serve_with_a_name_for_one_port(echo_server):
    place = "{}:{}".format(*echo_server)
    with served("--port", "0", "--name", f"www.test:443={place}") as server:
        proxy = f"socks5h://{server.where}"
        socksy.create_connection(("www.test", 443), 5, proxy=proxy).close()
        with pytest.raises(socksy.HostUnreachableError):
            socksy.create_connection(("www.test", 80), 5, proxy=proxy)


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.1:{}"])
def test_serve_with_names_of_its_own(place, echo_server):
    port = echo_server[1]
    with served("--port", "0", "--name", f"www.test={place.format(port)}") as server:
        address = "www.test", 80 if "{" in place else port
        proxy = f"socks4a://{server.where}"
        socksy.create_connection(address, 5, proxy=proxy).close()


def test_serve_with_users(echo_server):
    with served("--port", "0", "--user", "alice:se:cret", "--user", "bob:") as server:
        for login in ("alice:se%3Acret", "bob:"):
            proxy = f"socks5h://{login}@{server.where}"
            socksy.create_connection(echo_server, 5, proxy=proxy).close()
        with pytest.raises(socksy.ProxyAuthenticationError):
            socksy.create_connection(echo_server, 5, proxy=f"socks5h://{server.where}")


def test_serve_with_users_from_a_file(tmp_path, echo_server):
    path = tmp_path / "users"
    path.write_text("alice:secret\n\nbob:other\n")
    with served("--port", "0", "--users-file", str(path)) as server:
        proxy = f"socks5h://bob:other@{server.where}"
        socksy.create_connection(echo_server, 5, proxy=proxy).close()


def test_serve_with_users_from_stdin(echo_server):
    with served("--port", "0", "--users-file", "-", stdin="alice:secret\n") as server:
        proxy = f"socks5h://alice:secret@{server.where}"
        socksy.create_connection(echo_server, 5, proxy=proxy).close()


def test_serve_on_a_unix_socket(tmp_path, echo_server):
    path = str(tmp_path / "proxy")
    with served("--unix", path) as server:
        assert server.where == path
        proxy = f"socks5h://localhost{path}"
        socksy.create_connection(echo_server, 5, proxy=proxy).close()


def test_serve_on_ipv6(echo_server):
    with served("--host", "::1", "--port", "0") as server:
        assert server.where.startswith("[::1]:")
        socksy.create_connection(echo_server, 5, proxy=f"socks5h://{server.where}").close()


def test_verbose_tells_of_requests_but_not_of_credentials(echo_server):
    with served("--port", "0", "--verbose", "--user", "alice:secret") as server:
        proxy = f"socks5h://alice:secret@{server.where}"
        socksy.create_connection(echo_server, 5, proxy=proxy).close()
        server.stop()
    assert f"SOCKS5 CONNECT 127.0.0.1:{echo_server[1]} -> succeeded" in server.errors
    assert "alice" not in server.errors
    assert "secret" not in server.errors


def test_an_open_proxy_is_warned_of():
    with served("--host", "0.0.0.0", "--port", "0") as server:
        server.stop()
    assert "warning: without --user, everybody who can reach 0.0.0.0 can use" in server.errors


def test_a_proxy_with_users_is_not_warned_of():
    with served("--host", "0.0.0.0", "--port", "0", "--user", "alice:secret") as server:
        server.stop()
    assert server.errors == ""


@pytest.mark.parametrize("closed", ["from the beginning", "later"])
def test_verbose_serves_on_when_nobody_reads_what_it_tells(closed, echo_server):
    before = ("sh", "-c", 'exec "$@" 2>&-', "sh") if closed == "from the beginning" else ()
    with served("--port", "0", "--verbose", before=before) as server:
        server.process.stderr.close()
        server.process.stderr = None
        for _ in range(2):
            proxy = f"socks5h://{server.where}"
            with socksy.create_connection(echo_server, 5, proxy=proxy) as sock:
                assert read_exactly(sock, len(BANNER)) == BANNER
        server.stop()
    assert server.code == 0


def test_serve_remembers_nothing(echo_server):
    """It may run for years, and refuse anybody."""
    arguments = cli._parser().parse_args(["serve", "--user", "alice:secret"])
    with cli._server("127.0.0.1", 0, arguments, {"alice": "secret"}) as server:
        socksy.create_connection(echo_server, 5, proxy=server.url()).close()
        with pytest.raises(socksy.ProxyAuthenticationError):
            socksy.create_connection(echo_server, 5, proxy=server.url(password="wrong"))
        server.wait_until_idle()
        assert (server.requests, server.errors) == ([], [])


# -- where output goes

OUTPUTS = [["demo"], ["serve", "--port", "0"], ["--help"], ["--version"]]


def run(redirected, arguments):
    """The program with its files as a shell opens them; exit code and stderr."""
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=10)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_a_full_disk_is_a_failed_job(arguments):
    reason = f"socksy: cannot write to stdout: {os.strerror(errno.ENOSPC)}\n"
    assert run(">/dev/full", arguments) == (1, reason)


@pytest.mark.parametrize("arguments", OUTPUTS[:2], ids=" ".join)
def test_no_stdout_at_all_is_a_failed_job(arguments):
    reason = f"socksy: cannot write to stdout: {os.strerror(errno.EBADF)}\n"
    assert run(">&-", arguments) == (1, reason)


@pytest.mark.parametrize("arguments", OUTPUTS[:2], ids=" ".join)
def test_a_reader_that_has_gone_wants_no_reason(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=10
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_reader_may_go_in_the_middle():
    """As in `socksy demo | head -1`."""
    with subprocess.Popen(
        [*PROGRAM, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr.read() == ""
    assert demo.returncode == 141


# -- in this process


def test_a_port_in_use_is_a_failed_job(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
    assert capsys.readouterr().err.startswith(f"socksy: cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["serve", "--port", "many"],
        ["serve", "--port", "65536"],
        ["serve", "--port", "-1"],
        ["serve", "--host", ""],
        ["serve", "--unix", ""],
        ["serve", "--name", "www.test"],
        ["serve", "--name", "www.test=www.example"],
        ["serve", "--name", "a b=127.0.0.1"],
        ["serve", "--name", "=127.0.0.1"],
        ["serve", "--name", "a=[::1"],
        ["serve", "--name", "a=[::1]80"],
        ["serve", "--name", "a="],
        ["serve", "--name", "www.test:http=127.0.0.1"],
        ["serve", "--name", "www.test=127.0.0.1:http"],
        ["serve", "--name", "www.test=127.0.0.1:70000"],
        ["serve", "--unix", "socket", "--port", "1080"],
        ["serve", "--unix", "socket", "--host", "::1"],
        ["serve", "--user", "alice"],
        ["serve", "--user", ":secret"],
        ["demo", "--proxy", "127.0.0.1:1080"],
        ["demo", "--target", "http://example.com/"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "ftp://example.com/"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "http://example.com:port/"],
        ["demo", "--proxy", "socks5h://a..b:1"],
        ["demo", "--proxy", f"socks5h://{'a' * 64}.test:1"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "http://127.0.0.1/p\xe4"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "http://127.0.0.1/?p q"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "http://127.0.0.1:0/"],
        ["demo", "--proxy", "socks5h://127.0.0.1", "--target", "http://a b/"],
        ["demo", "--timeout", "0"],
        ["demo", "--timeout", "-1"],
        ["demo", "--timeout", "inf"],
        ["demo", "--timeout", "nan"],
        ["demo", "--timeout", "1e10"],
        ["demo", "--timeout", "long"],
    ],
    ids=" ".join,
)
def test_bad_usage(arguments, capsys):
    """One line says what is wrong, below argparse's lines of usage if it is argparse's."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *usage, reason = err.splitlines()
    assert reason.startswith("socksy")
    assert not usage or usage[0].startswith("usage: socksy")


def test_a_wrong_timeout_is_told_in_words(capsys):
    cli.main(["demo", "--timeout", "1e10"])
    assert "'1e10' is no number of seconds above 0 and up to 1000000" in capsys.readouterr().err


def test_a_wrong_user_is_not_repeated(capsys):
    assert cli.main(["serve", "--user", "secret-without-colon"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_an_empty_users_file_does_not_make_an_open_proxy(tmp_path):
    path = tmp_path / "users"
    path.write_text("\n")
    assert cli.main(["serve", "--users-file", str(path)]) == 2


def test_a_users_file_that_is_not_utf_8(tmp_path, capsys):
    path = tmp_path / "users"
    path.write_bytes(b"alice:\xff\n")
    assert cli.main(["serve", "--users-file", str(path)]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_users_file_that_is_not_there(tmp_path, capsys):
    assert cli.main(["serve", "--users-file", str(tmp_path / "none")]) == 1
    assert "cannot read the users" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (io.TextIOWrapper(io.BytesIO(b"")), "no users"),
        (io.TextIOWrapper(io.BytesIO(b"alice:\xff\n")), "not UTF-8"),
        (None, "stdin is closed"),
    ],
    ids=["empty", "not UTF-8", "closed"],
)
def test_no_users_from_stdin(stdin, reason, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["serve", "--users-file", "-"]) == 2
    assert reason in capsys.readouterr().err


def test_users_are_lines_of_the_file_to_the_last_character(tmp_path):
    path = tmp_path / "users"
    path.write_bytes("alice: a b \r\nbob:\u2028:\n".encode())
    arguments = cli._parser().parse_args(["serve", "--users-file", str(path)])
    assert cli._users(arguments) == {"alice": " a b ", "bob": "\u2028:"}


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["demo", "--help"]])
def test_help(arguments, capsys):
    assert cli.main(arguments) == 0
    assert "usage: socksy" in capsys.readouterr().out


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"socksy {socksy.__version__}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("www.test=127.0.0.1", ("www.test", "127.0.0.1")),
        ("www.test=127.0.0.1:80", ("www.test", ("127.0.0.1", 80))),
        ("www.test=::1", ("www.test", "::1")),
        ("www.test=[::1]", ("www.test", "::1")),
        ("www.test=[::1]:80", ("www.test", ("::1", 80))),
        ("www.test:443=127.0.0.1:80", ("www.test:443", ("127.0.0.1", 80))),
        ("[2001:db8::1]:443=::1", ("[2001:db8::1]:443", "::1")),
    ],
)
def test_names_and_where_they_are(text, expected):
    assert cli._name(text) == expected
