"""The package as a whole: its names, its imports, its metadata."""

import importlib.metadata
import pydoc
import subprocess
import sys
import textwrap
import typing

import pytest

import socksy
import socksy.testing


def loaded_by(code):
    """The modules that this code loads beyond what `import socket` does."""
    script = f"""
    import socket, sys
    before = set(sys.modules)
    {code}
    print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_every_public_name_exists_and_says_what_it_is():
    """`__all__` is sorted, complete and documented."""
    for name in socksy.__all__:
        assert getattr(socksy, name).__doc__, name
    errors = {
        name
        for name, value in vars(socksy).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert errors <= set(socksy.__all__)


def test_the_version_is_that_of_the_metadata():
    """It is written down once."""
    assert socksy.__version__ == importlib.metadata.version("socksy")


def test_the_core_depends_on_idna_alone():
    """Everything else is an extra."""
    required = [
        line for line in importlib.metadata.requires("socksy") or [] if "extra ==" not in line
    ]
    assert [line.split(">")[0] for line in required] == ["idna"]


def test_the_import_is_light():
    """Nothing beyond what the socket module loads, but contextvars and our own."""
    others = {name for name in loaded_by("import socksy") if not name.startswith("socksy")}
    assert others <= {"__future__", "contextvars", "_contextvars"}


def test_an_ascii_name_loads_no_codec_and_nothing_heavy(socks_server):
    """A whole connect, refused at its end, imports no asyncio, ssl, idna or encoding."""
    code = f"""
    import socksy
    for timeout in (None, 5):
        try:
            socksy.create_connection(("a.test", 9), timeout, proxy={socks_server.url()!r})
        except socksy.ProxyReplyError:
            pass
        else:
            raise AssertionError
    """
    loaded = loaded_by(textwrap.dedent(code).strip().replace("\n", "\n    "))
    others = {name for name in loaded if not name.startswith("socksy")}
    assert others <= {"__future__", "contextvars", "_contextvars"}


def test_dir_tells_the_names_that_load_late_too():
    assert set(socksy.__all__) <= set(dir(socksy))


@pytest.mark.parametrize(
    "expression",
    ["aio.connect", "testing.SocksServer", "testing.faults.answer_with", "pysocks.socksocket"],
)
def test_modules_of_ours_need_no_import_of_their_own(expression):
    assert "socksy" in loaded_by(f"import socksy; assert callable(socksy.{expression})")
    assert expression.split(".")[0] in dir(socksy)


def test_a_module_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"socksy.*nothing"):
        _ = socksy.nothing
    with pytest.raises(AttributeError, match=r"socksy\.testing.*nothing"):
        _ = socksy.testing.nothing


def test_types_of_arguments_are_there_when_a_program_runs():
    """Where annotations are evaluated, as dataclasses and validators do."""

    def fetch(host: socksy.Host, proxy: socksy.ProxyLike | None = None): ...

    hints = typing.get_type_hints(fetch)
    assert set(typing.get_args(hints["proxy"])) > {str, socksy.Proxy}
    assert bytes in typing.get_args(hints["host"])


def test_help_knows_the_names_of_testing():
    text = pydoc.render_doc(socksy.testing, renderer=pydoc.plaintext)
    assert all(name in text for name in socksy.testing.__all__)
    assert "class SocksServer" in text


def test_a_class_that_is_no_socket_is_told_of_at_once():
    """As eventlet puts in its place."""
    program = "import socket; socket.socket = type('GreenSocket', (), {}); import socksy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "eventlet" in done.stderr
