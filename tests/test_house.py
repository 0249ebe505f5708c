"""The architecture: imports point downwards, the lower floors do no I/O, importing stays cheap."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "socksy"
FLOORS = [
    ["errors", "hosts", "proxy", "bypass", "defaults", "types"],
    ["protocol"],
    ["sockets", "aio", "names"],
    ["patch", "tor", "adapters", "testing"],
    [
        "cli",
        "run",
        "startup",
        "demo",
        "__main__",
        "pysocks",
        "",
    ],  # "" is the package itself, which re-exports
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: all that floors 0 and 1 may import besides each other, and built-in functions they may not call
WITHOUT_IO = {
    *("__future__", "binascii", "collections.abc", "contextvars", "enum", "errno", "idna"),
    *("ipaddress", "operator", "types", "typing", "urllib.parse"),
    *("os.environ", "socket.AF_INET6", "socket.inet_ntop", "socket.inet_pton"),
}
IO = {"__import__", "eval", "exec", "input", "open", "print"}
MODULES = [path for path in sorted(HOUSE.rglob("*.py")) if path != HOUSE / "__init__.py"]


def imports(path, text=None):
    """The absolute names that a file imports, anywhere in it."""
    here = ["socksy", *path.relative_to(HOUSE).parent.parts]
    for node in ast.walk(ast.parse(text or path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) + 1 - node.level], node.module or ""]).strip(".")
            base = base if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def means_of_io(path, text=None):
    """What a file imports, or calls, that can do input or output."""
    for name in imports(path, text):
        if not name.startswith("socksy.") and not {name, name.rpartition(".")[0]} & WITHOUT_IO:
            yield name
    for node in ast.walk(ast.parse(text or path.read_text())):
        if isinstance(node, ast.Name) and node.id in IO:
            yield node.id


def room_of(name):
    """The room of an imported name of ours: what follows "socksy"."""
    room = name.split(".")[1] if "." in name else ""
    return room if (HOUSE / room).is_dir() or (HOUSE / f"{room}.py").exists() else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
class TestHouse:
    def test_imports_point_downwards_and_floor_3_rooms_do_not_know_each_other(self, path):
        room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        for name in imports(path):
            if name.split(".")[0] == "socksy" and room_of(name) != room:
                assert FLOOR_OF[room_of(name)] <= FLOOR_OF[room], f"{path} imports {name}"
                assert (FLOOR_OF[room_of(name)], FLOOR_OF[room]) != (3, 3), f"{path}: {name}"

    def test_every_room_has_a_floor(self, path):
        assert path.relative_to(HOUSE).parts[0].removesuffix(".py") in FLOOR_OF

    def test_values_and_protocols_have_no_means_of_io(self, path):
        if FLOOR_OF[path.relative_to(HOUSE).parts[0].removesuffix(".py")] < 2:
            assert list(means_of_io(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import socket",
        "import _socket",
        "from socket import socket, AF_INET6",
        "import socketserver, subprocess",
        "import http.client",
        "def late(): from os import read",
        "import importlib; importlib.import_module('socket')",
        "__import__('socket')",
        "open('file')",
    ],
)
def test_means_of_io_are_found(text):
    assert list(means_of_io(HOUSE / "hosts.py", text))


def test_every_trap_has_a_test():
    """Of the list of real-world traps, which the tests name by its numbers."""
    marks = re.compile(r"@pytest\.mark\.trap\(([\d, ]+)\)")
    found = {
        int(number)
        for path in Path(__file__).parent.rglob("test_*.py")
        for mark in marks.findall(path.read_text("utf-8"))
        for number in mark.split(",")
    }
    assert found >= {*range(1, 42)}


def test_floors_0_and_1_import_hardly_more_than_socket_does():
    """Not even typing or re: what is rarely needed is imported where it is."""
    script = f"""
import contextvars, socket, sys, types
before = set(sys.modules)
package = sys.modules["socksy"] = types.ModuleType("socksy")  # without its __init__
package.__path__ = [{str(HOUSE)!r}]
import socksy.bypass, socksy.defaults, socksy.errors, socksy.hosts, socksy.proxy, socksy.protocol
import socksy.protocol.datagram
print(*sorted(n for n in set(sys.modules) - before if n.split(".")[0] != "socksy"))
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["__future__"]


@pytest.mark.parametrize(
    "path", sorted(HOUSE.rglob("__init__.py")), ids=lambda path: path.parent.name
)
def test_what_a_package_lists_is_there(path):
    """Else a star import of it fails; ruff sees this of modules, but not of packages."""
    package = importlib.import_module(".".join(path.parent.relative_to(HOUSE.parent).parts))

    assert [name for name in getattr(package, "__all__", []) if not hasattr(package, name)] == []
