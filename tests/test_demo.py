"""`socksy demo`: what it shows is what passed, and what fails is told plainly."""

import io
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from socksy import cli, demo
from socksy.demo.fields import HEARD, SAID, Field, fields_of
from socksy.demo.screen import Screen
from socksy.demo.tap import Tap
from socksy.proxy import Proxy
from socksy.testing import SocksServer
from socksy.testing.faults import answer_with, close_before, cut_short, instead_of, stall_at

from .support import read_exactly, unused_port


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() <= before, threading.enumerate()


def bytes_shown(output, direction):
    """The bytes of one direction, put together again from the table."""
    shown, current = "", False
    for line in output.splitlines():
        way, data = line[19:21], line[23:46].strip()
        current = way == direction if way.strip() else current and not line[:21].strip()
        if current and re.fullmatch(r"([0-9a-f]{2} ?)+", data):
            shown += data + " "
    return bytes.fromhex(shown)


# -- the tour


def test_the_tour(capsys):
    assert cli.main(["demo"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.count("200 OK, 53 bytes") == 6
    assert output.count("looked up here   nothing\n") == 6
    assert output.count("CONNECT www.socksy.test:80, a name") == 5
    assert "6 pages in" in output


def test_the_tour_names_the_fields_as_the_standards_do(capsys):
    demo.tour()
    output = capsys.readouterr().out
    names = (
        "VER NMETHODS METHODS METHOD CMD RSV ATYP DST.ADDR DST.PORT REP BND.ADDR BND.PORT "
        "VN CD DSTPORT DSTIP USERID NULL ULEN UNAME PLEN PASSWD STATUS"
    )
    for name in names.split():
        assert f"  {name}  " in output, name


def test_the_tour_shows_no_password(capsys):
    demo.tour()
    output = capsys.readouterr().out
    assert "** ** **" in output
    assert "open sesame" not in output
    assert b"open sesame".hex(" ")[:23] not in output


def test_the_tour_fits_a_terminal_of_100_columns(capsys):
    demo.tour()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


# -- a proxy of the user's


def through(server, scheme="socks5h", **options):
    return cli.main(["demo", "--timeout", "5", "--proxy", server.url(scheme, **options)])


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h", "http"])
def test_through_a_proxy(scheme, capsys):
    with SocksServer(real_lookups=True) as server:
        assert through(server, scheme) == 0
        expected = "localhost" if scheme in ("socks4a", "socks5h", "http") else "127.0.0.1"
        assert server.requests[0].host == expected
    assert "200 OK, 53 bytes" in capsys.readouterr().out


def test_through_a_unix_socket(tmp_path):
    with SocksServer(path=tmp_path / "proxy", real_lookups=True) as server:
        assert through(server) == 0


def test_through_a_chain(capsys):
    with SocksServer() as first, SocksServer(real_lookups=True) as second:
        assert cli.main(["demo", "--proxy", first.url(), "--proxy", second.url("http")]) == 0
        assert first.requests[0].port == second.port
    assert "hop 2: answer" in capsys.readouterr().out


def test_the_bytes_shown_are_those_that_passed(capsys):
    heard = b""

    def proxy():
        nonlocal heard
        client, _ = listener.accept()
        with client:
            heard += read_exactly(client, 3)
            client.sendall(b"\5\0")
            heard += read_exactly(client, 5)
            heard += read_exactly(client, heard[-1] + 2)
            client.sendall(b"\5\x04\x00\x01\x0a\x0b\x0c\x0d\x0e\x0f")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=proxy)
        thread.start()
        url = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
        assert demo.through([url], "http://some.where.test/") == 1
        thread.join()
    output = capsys.readouterr().out
    assert bytes_shown(output, SAID) == heard
    assert bytes_shown(output, HEARD) == bytes.fromhex("0500 05040001 0a0b0c0d 0e0f")


def test_another_page(capsys):
    with (
        SocksServer(real_lookups=True) as server,
        demo.web_server() as port,
    ):
        server_names = SocksServer(names={"www.test": ("127.0.0.1", port)})
        with server_names:
            url = server_names.url()
            assert cli.main(["demo", "--proxy", url, "--target", "http://www.test/a?b"]) == 0
            assert server_names.requests[0].host == "www.test"
        assert server.requests == []
    assert "http://www.test:80/a?b through" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (answer_with(2), "not allowed by ruleset (SOCKS5 reply 02), while waiting for the reply"),
        (close_before("the reply"), "OpenSSH (ssh -D) closes like this"),
        (instead_of("the method choice", b"HTTP/1.0 400\r\n"), "looks like an HTTP proxy"),
        (cut_short("the reply", 1), "1 bytes into its answer"),
    ],
    ids=str,
)
def test_a_failing_proxy(fault, text, capsys):
    with SocksServer(real_lookups=True, faults=fault) as server:
        assert through(server) == 1
        output, errors = capsys.readouterr()
    assert "->  05" in output
    assert text in errors
    assert str(server.proxy()) in errors  # and not that of the tap in between
    assert "Traceback" not in errors


def test_a_wrong_login(capsys):
    with SocksServer(users={"alice": "secret"}) as server:
        assert through(server, password="wrong-password") == 1
    output, errors = capsys.readouterr()
    assert "STATUS" in output
    assert "refused the user name or password" in errors
    assert "wrong-password" not in output + errors


def test_a_proxy_that_is_not_there(capsys):
    port = unused_port()
    assert cli.main(["demo", "--proxy", f"socks5h://127.0.0.1:{port}"]) == 1
    assert "Nothing listens there" in capsys.readouterr().err


def test_a_unix_socket_that_is_not_there(tmp_path, capsys):
    assert cli.main(["demo", "--proxy", f"socks5h://localhost{tmp_path}/none"]) == 1
    assert "cannot connect to the proxy" in capsys.readouterr().err


def test_a_proxy_that_is_silent(capsys):
    with SocksServer(faults=stall_at("the method choice")) as server:
        assert cli.main(["demo", "--timeout", "0.2", "--proxy", server.url()]) == 1
    assert "timed out, while waiting for the method choice" in capsys.readouterr().err


def test_a_page_that_is_not_ours_is_a_failure(capsys):
    with demo.web_server() as port, SocksServer(names={"localhost": "127.0.0.1"}) as server:
        server.faults = answer_with(0)
        assert through(server) == 1
        assert port
    assert capsys.readouterr().err.startswith("socksy: ")


def test_where_the_page_is_hinted_at_when_the_request_is_refused(capsys):
    with SocksServer(faults=answer_with(5)) as server:
        through(server)
    assert "try --target" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault",
    [instead_of("the method choice", b"\x05"), close_before("the reply"), stall_at("the reply")],
    ids=str,
)
def test_but_not_when_something_else_is_the_matter(fault, capsys):
    with SocksServer(faults=fault) as server:
        cli.main(["demo", "--timeout", "0.2", "--proxy", server.url()])
    assert "try --target" not in capsys.readouterr().err


def test_nor_when_a_proxy_of_a_chain_is_dead(capsys):
    with SocksServer() as server:
        second = f"socks5h://127.0.0.1:{unused_port()}"
        assert cli.main(["demo", "--proxy", server.url(), "--proxy", second]) == 1
    assert "try --target" not in capsys.readouterr().err


def test_what_a_proxy_sends_is_no_command_to_the_terminal(capsys):
    answer = b"HTTP/1.1 403 \x1b]0;pwned\x07\x1b[2J\r\nX\x9b\x1b[H: \x1b[2J\r\n\r\n"
    with SocksServer(faults=instead_of("the reply", answer)) as server:
        assert through(server, "http") == 1
    output = "".join(capsys.readouterr())
    assert r"403 \x1b]0;pwned\x07\x1b[2J" in output
    assert {char for char in output if not char.isprintable()} == {"\n"}


def test_a_narrow_terminal_without_unicode():
    """It has no ellipsis, nor the letters of a user name."""
    with SocksServer(users={"jürgen": "secret"}, real_lookups=True) as server:
        done = subprocess.run(
            [sys.executable, "-m", "socksy", "demo", "--proxy", server.url()],
            env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "70"},
            capture_output=True,
            timeout=10,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"j\xfcrgen" in done.stdout


def test_a_page_of_an_international_name(capsys):
    with demo.web_server() as port:
        with SocksServer(names={"bücher.test": ("127.0.0.1", port)}) as server:
            target = "http://bücher.test/"
            assert cli.main(["demo", "--proxy", server.url(), "--target", target]) == 0


# -- the pieces


def fields(scheme, *tape):
    return [(field.direction, field.data, field.name) for field in fields_of([Proxy(scheme)], tape)]


def test_a_recording_that_ends_early():
    assert fields("socks5h", (SAID, b"\5\1\0")) == [
        (SAID, b"\5", "VER"),
        (SAID, b"\1", "NMETHODS"),
        (SAID, b"\0", "METHODS"),
    ]


@pytest.mark.parametrize("length", range(12))
@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
def test_a_recording_cut_anywhere_is_no_trouble(scheme, length):
    said = {
        "socks5h": b"\5\2\0\2\1\1u\1p\5\1\0\3\1x\0\x50",
        "socks4a": b"\4\1\0\x50\0\0\0\1u\0x\0",
        "http": b"CONNECT x:80 HTTP/1.1\r\n\r\n",
    }[scheme]
    heard = {
        "socks5h": b"\5\2\1\0\5\0\0\3\1x\0\x50",
        "socks4a": b"\0\x5a\0\x50\1\2\3\4",
        "http": b"HTTP/1.1 200 OK\r\n\r\n",
    }[scheme]
    tape = [(SAID, said), (HEARD, heard[:length])]
    found = fields(scheme, *tape)
    assert b"".join(data for way, data, _ in found if way == HEARD) in heard[:length] + b"\0"
    fields(scheme, (SAID, said[:length]))


@pytest.mark.parametrize(
    ("heard", "name"),
    [(b"\5\xff", "METHOD"), (b"SSH-2.0-x\r\n", "?"), (b"\5\0\5\7\0\0", "ATYP")],
)
def test_where_an_account_stops(heard, name):
    said = b"\5\1\0\5\1\0\1\1\2\3\4\0\x50"
    found = [
        field for field in fields("socks5h", (SAID, said), (HEARD, heard)) if field[0] == HEARD
    ]
    assert found[-1][2] == name


def test_unknown_numbers_are_shown():
    tape = (
        (SAID, b"\5\1\7\5\x42\0\4" + bytes(15) + b"\1\0\x50"),
        (HEARD, b"\5\0\5\x42\0\1" + bytes(6)),
    )
    meanings = [field.meaning for field in fields_of([Proxy("socks5")], tape)]
    assert {"method 0x07", "unknown", "the target: ::1", "unknown reply 42"} <= set(meanings)


def test_a_user_id_is_shown_and_basic_credentials_are_not():
    (user_id,) = (
        field
        for field in fields_of([Proxy("socks4")], [(SAID, b"\4\1\0\x50\1\2\3\4fred\0")])
        if field.name == "USERID"
    )
    assert user_id.meaning == "fred"
    head = b"CONNECT x:1 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
    (login,) = (
        field for field in fields_of([Proxy("http")], [(SAID, head)]) if field.name == "Proxy-Auth"
    )
    assert (login.secret, login.meaning) == (True, "not shown")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(out, **field):
    Screen(out).table([Field("reply", HEARD, **field)])
    return out.getvalue()


@pytest.mark.parametrize(
    ("out", "no_color", "coloured"),
    [(Terminal, "", True), (Terminal, "1", False), (io.StringIO, "", False)],
)
def test_colour_is_for_terminals_where_it_is_wanted(out, no_color, coloured, monkeypatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    text = drawn(out(), data=b"\0", name="REP", meaning="granted")
    assert ("\x1b[" in text) is coloured


@pytest.mark.parametrize("columns", [1, 40, 64])
def test_a_terminal_too_narrow_for_meanings_has_none(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = drawn(io.StringIO(), data=b"\0", name="REP", meaning="granted, and more than that")
    assert "gr" not in text.splitlines()[1]


def test_long_fields_are_cut():
    text = drawn(io.StringIO(), data=bytes(255), name="BND.ADDR", meaning="x" * 255)
    assert "... 255 bytes in all" in text
    assert max(map(len, text.splitlines())) == 100


def test_a_tap_that_nobody_uses():
    with Tap(Proxy("socks5h"), 5) as tap:
        assert tap.tape == []
