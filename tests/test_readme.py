"""Every example of the README runs, against a proxy, a web server and a TLS server on loopback."""

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from .support import serving

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
PAGE = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"

#: what an example of this content prints
PRINTS = {
    "s.getpeername()": "('example.com', {http})",
    "HTTPConnection": "200",
    "tls.version()": "TLSv1.3",
    "asyncio.run": "b'HTTP/1.0 200 OK\\r\\n'",
    "require_auth": "socks5h://***:***@127.0.0.1",
    'example.com", {closed}': "the proxy said no: 5 connection refused",
    "SocksServer(": "user name or password",
}


def serve_page(connection):
    connection.recv(4096)
    connection.sendall(PAGE)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server's context for example.com, and the file that makes it trusted."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return context, path


@pytest.mark.parametrize("example", EXAMPLES, ids=[text.split("\n")[2][:40] for text in EXAMPLES])
def test_example(example, socks_server_factory, tls, tmp_path):
    """As it stands, but for the addresses."""
    server = socks_server_factory(names={"example.com": "127.0.0.1"})

    def serve_tls(connection):
        with tls[0].wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    with serving(serve_page) as web, serving(serve_tls) as secure:
        places = {"http": web[1], "closed": 1}
        code = example.replace("127.0.0.1:1080", f"127.0.0.1:{server.port}")
        for port, real in ((80, web[1]), (443, secure[1]), (81, 1)):
            code = code.replace(f'"example.com", {port}', f'"example.com", {real}')
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={**os.environ, "SSL_CERT_FILE": str(tls[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert (done.returncode, done.stderr) == (0, "")
    for content, printed in PRINTS.items():
        if content.format(**places) in code:
            assert printed.format(**places) in done.stdout


def test_there_are_examples():
    """The pattern still finds them, and each promise of PRINTS belongs to one."""
    assert len(EXAMPLES) >= 8
    for content in PRINTS:
        assert any(content.format(closed=81) in example for example in EXAMPLES), content


def test_the_two_commands_exist():
    """`make demo` and `make test`, as the README says."""
    makefile = (README.parent / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in README.read_text("utf-8")
        assert re.search(rf"^{command}:", makefile, re.M)
