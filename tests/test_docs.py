"""Every example of the README and of docs/ runs, against a proxy and servers on loopback.

An example runs as it stands, in a process of its own, but for the addresses: ``127.0.0.1:1080`` is
an embedded proxy that knows example.com, with a web server at port 80, another with TLS at 443, and
a UDP echo at 7; port 81 is closed. What a comment ``# prints ...`` announces must be in its output.
"""

import inspect
import re
import ssl
from pathlib import Path

import pytest
import trustme

from socksy import testing
from socksy.testing import plugin

from .support import echoing, run_example, serve_web, serving

ROOT = Path(__file__).parent.parent
#: their libraries are not there in the unit tests: integration/ runs these pages
ADAPTERS = {"httpx.md", "aiohttp.md"}
ELSEWHERE = {*ADAPTERS, "gevent.md"}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ELSEWHERE),
]


def examples(pages):
    """Each block of Python of each page, named after its page and line."""
    for page in pages:
        text = page.read_text("utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
            line = text.count("\n", 0, found.start()) + 1
            yield pytest.param(found[1], id=f"{page.name}:{line}")


EXAMPLES = list(examples(PAGES))


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server's context for example.com, and the file that makes it trusted."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return context, path


def run_behind_a_proxy(example, socks_server_factory, tls, tmp_path):
    """Run an example where it finds all that the text above promises."""

    def serve_tls(connection):
        with tls[0].wrap_socket(connection, server_side=True) as secure:
            serve_web(secure)

    with serving(serve_web) as web, serving(serve_tls) as secure, echoing() as datagrams:
        server = socks_server_factory(
            names={
                "example.com": "127.0.0.1",
                "example.com:80": web,
                "example.com:443": secure,
                "example.com:7": datagrams,
            }
        )
        run_example(example, server.address, tls[1], tmp_path)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, socks_server_factory, tls, tmp_path):
    """It ends well, warns of nothing, and prints what it says."""
    run_behind_a_proxy(example, socks_server_factory, tls, tmp_path)


def test_there_are_examples():
    """The pattern still finds them, and enough of them promise what they print."""
    assert len(EXAMPLES) >= 8
    assert sum("# prints" in example.values[0] for example in EXAMPLES) >= 6


def test_the_page_on_testing_has_all_there_is():
    """Every name, every fault, every fixture."""
    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    made = [
        name
        for name, value in vars(testing.faults).items()
        if inspect.isfunction(value) and value.__module__ == testing.faults.__name__
    ]
    fixtures = re.findall(r"^def (\w+)", inspect.getsource(plugin), re.M)
    wanted = [*testing.__all__, *made, *fixtures]

    assert len(wanted) > 25
    assert [
        name for name in wanted if f"`{name}" not in text and name[0] != "_" and name != "together"
    ] == []


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]

    assert [name for name in pages if f"(docs/{name})" not in text] == []


def test_the_two_commands_exist():
    """`make demo` and `make test`, as the README says."""
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in (ROOT / "README.md").read_text("utf-8")
        assert re.search(rf"^{command}:", makefile, re.M)
