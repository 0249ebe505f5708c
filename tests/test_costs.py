"""What a connect costs, in counts: calls, modules. Never in seconds; those are `make bench`."""

import socket
import subprocess
import sys
import textwrap

import pytest

import socksy
from socksy import SocksSocket

from .support import script, serving

# What a proxy hears (so many bytes) and says.
SOCKS5 = [(3, b"\5\0"), (13, b"\5\0\0\1\0\0\0\0\0\0")]
LOGIN = [(4, b"\5\2"), (12, b"\1\0"), (13, b"\5\0\0\1\0\0\0\0\0\0")]
SOCKS4A = [(16, b"\0\x5a\0\0\0\0\0\0")]
HTTP = [(47, b"HTTP/1.1 200 OK\r\n\r\n")]

NEVER_LOADED = ("asyncio", "ssl", "idna", "encodings.idna", "stringprep", "unicodedata")


def python_calls(function):
    """How many Python functions and generators it enters; a generator counts at each resumption."""
    calls = []

    def count(frame, event, argument):
        # an audit hook, once there, cannot be taken away; another test may have had a guard
        if event == "call" and not frame.f_code.co_filename.endswith("guard.py"):
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(calls) - 1  # the function itself


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize(
    ("scheme", "exchanges", "most"),
    [
        ("socks5h://", SOCKS5, 8),
        ("socks5h://alice:pass@", LOGIN, 8),
        ("socks4a://", SOCKS4A, 8),
        ("http://", HTTP, 8),
    ],
)
def test_python_calls_per_handshake(scheme, exchanges, most, timeout):
    """From the constructor to close(), with the class of the standard library included."""
    with serving(script(*exchanges)) as address:
        proxy = socksy.Proxy.from_url(f"{scheme}127.0.0.1:{address[1]}")

        def handshake():
            sock = SocksSocket(proxy=proxy)
            sock.settimeout(timeout)
            sock.connect(("a.test", 80))
            sock.close()

        handshake()  # what is imported late is now there

        assert python_calls(handshake) <= most


@pytest.mark.parametrize("timeout", [None, 7])
def test_transfers_are_the_base_class_own_c_methods(timeout):
    """Not one Python call when data flow, and the very methods of the base class."""
    with serving(script(*SOCKS5, (4, b"pong" * 3))) as address:
        with SocksSocket(proxy=f"socks5h://127.0.0.1:{address[1]}") as sock:
            sock.settimeout(timeout)
            sock.connect(("a.test", 80))
            buffer = bytearray(4)
            done = []

            def transfer():
                sock.sendall(b"pi")
                sock.send(b"ng")
                done.append(sock.recv(4, socket.MSG_WAITALL))
                sock.recv_into(buffer)

            calls = python_calls(transfer)

            assert calls == 0
            assert done + [buffer] == [b"pong", b"pong"]
            assert sock.gettimeout() == timeout
    for name in ("recv", "recv_into", "recvfrom", "recvmsg", "send", "sendall"):
        assert getattr(SocksSocket, name) is getattr(socket.socket, name)


def loaded_by(code):
    """The modules that a fresh interpreter has after this code, and had not before it."""
    prelude = "import sys; before = set(sys.modules)\n"
    coda = "\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", prelude + textwrap.dedent(code) + coda],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_import_adds_at_most_eleven_modules_to_those_of_socket():
    """All that a connect through a SOCKS5 proxy needs; the rest comes when it is asked for."""
    ours = set(loaded_by("import socksy")) - set(loaded_by("import socket"))

    assert len(ours) <= 11, ours


def test_a_connect_by_url_loads_nothing_more():
    with serving(script(*SOCKS5)) as address:
        loaded = loaded_by(f"""
            import socksy
            before.update(sys.modules)
            with socksy.SocksSocket(proxy="socks5h://127.0.0.1:{address[1]}") as sock:
                sock.settimeout(5)
                sock.connect(("a.test", 80))
        """)

    assert loaded == []


@pytest.mark.parametrize(
    ("scheme", "exchanges"),
    [("socks5h", SOCKS5), ("socks4a", SOCKS4A), ("http", HTTP)],
)
def test_an_ascii_name_never_loads_what_only_others_need(scheme, exchanges):
    """No asyncio, no ssl, no idna, and no codec beyond those the interpreter starts with."""
    with serving(script(*exchanges)) as address:
        loaded = loaded_by(f"""
            import socksy
            sock = socksy.create_connection(
                ("a.test", 80), 5, proxy="{scheme}://localhost:{address[1]}"
            )
            sock.close()
        """)

    assert not [name for name in loaded if name.split(".")[0] in NEVER_LOADED]
    assert not [name for name in loaded if name.startswith("encodings")]


def test_names_that_load_late_are_there_for_everyone():
    """`from socksy import X`, attribute access, and `dir`."""
    code = """
        import socksy
        assert set(socksy.__all__) <= set(dir(socksy))
        for name in socksy.__all__:
            namespace = {}
            exec(f"from socksy import {name}", namespace)
            assert namespace[name] is getattr(socksy, name)
        try:
            socksy.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
        else:
            raise AssertionError
    """
    loaded_by(code)  # fails if the code does
