"""What is a Python program, and which one would not be patched."""

import os
import subprocess
import sys

import pytest

import socksy
from socksy.patch import children


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder on PATH with a program for each kind of first line."""
    lines = {
        "python3": "#!/bin/sh",
        "python3.11": "ELF",
        "env-script": "#!/usr/bin/env python3",
        "flagged": "#! /opt/python3 -Es",
        "env-flagged": "#!/usr/bin/env -S X=1 python3 -I",
        "long-path": "#!/bin/sh\n'''exec' \"/a b/python3\" \"$0\" \"$@\"\n' '''",
        "shell": "#!/bin/sh",
        "binary": "ELF",
        "python-config": "#!/bin/sh",
        "empty": "",
    }
    for name, text in lines.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "not-executable").write_text("#!/usr/bin/env python3")
    (tmp_path / "python2").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python3", ["{}/python3"]),
        ("python3 app.py -I", ["{}/python3"]),
        ("{}/python3.11 -I app.py", ["{}/python3.11", "-I"]),
        ("python3 -u -B -X dev -Wd -W error -c 1 -I", "{}/python3 -u -B -X dev -Wd -W error"),
        ("python3 -Sum app -I", ["{}/python3", "-Su"]),
        ("python3 -BIc 1", ["{}/python3", "-BI"]),
        (
            "python3 --check-hash-based-pycs always -E x",
            "{}/python3 --check-hash-based-pycs always -E",
        ),
        ("python3 - -I", ["{}/python3"]),
        ("python3 -- -I", ["{}/python3"]),
        ("env A=1 python3 -I", ["{}/python3", "-I"]),
        ("env-script -I", ["{}/python3"]),
        ("flagged x", ["/opt/python3", "-Es"]),
        ("env-flagged", ["{}/python3", "-I"]),
        ("long-path", ["/a b/python3"]),
        ("shell", None),
        ("binary", None),
        ("python-config", None),
        ("python2", None),
        ("empty", None),
        ("not-executable", None),
        ("missing", None),
        ("env", None),
        ("", None),
    ],
)
def test_the_interpreter_of_a_command(scripts, command, expected):
    if isinstance(expected, str):
        expected = expected.split(" ")
    found = children.interpreter([word.format(scripts) for word in command.split()])
    assert found == (expected and [word.format(scripts) for word in expected])


def test_the_environment_keeps_what_was_there():
    settings = {"proxy": ["socks5h://127.0.0.1:1"], "guard": True}
    env = children.environment(settings, "/startup", {"PYTHONPATH": "/mine", "A": "1"})

    assert env["PYTHONPATH"] == os.pathsep.join(["/startup", "/mine"])
    assert env["A"] == "1"
    assert children.environment(settings, "/startup", {})["PYTHONPATH"] == "/startup"


PATCHED = {"PYTHONPATH": "/startup", children.VARIABLE: "{}"}


@pytest.mark.parametrize(
    ("command", "env", "reason"),
    [
        ([sys.executable, "-c", "1"], PATCHED, None),
        ([sys.executable, "-X", "dev", "x.py", "-I"], PATCHED, None),
        (["ls", "-I"], {}, None),
        ([sys.executable, "-I"], PATCHED, "-I"),
        ([sys.executable, "-BE"], PATCHED, "-BE"),
        ([sys.executable, "-S"], PATCHED, "-S"),
        ([sys.executable], {"PYTHONPATH": "/startup"}, children.VARIABLE),
        ([sys.executable], {**PATCHED, "PYTHONPATH": "/other"}, "PYTHONPATH"),
        ([os.fsencode(sys.executable)], {b"PYTHONPATH": b"/startup"}, children.VARIABLE),
    ],
)
@pytest.mark.parametrize(
    "event", ["subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "a string"]
)
def test_a_python_that_would_not_be_patched_is_not_started(command, env, reason, event):
    watch = children._Watch("/startup")
    arguments = {
        "subprocess.Popen": (None, command, None, env),
        "os.exec": (command[0], command, env),
        "os.posix_spawn": (command[0], command, env),
        "os.spawn": (0, command[0], command, env),
        "a string": (None, os.fsdecode(command[0]), None, env),
    }[event]
    if event == "a string":
        event = "subprocess.Popen"
        if len(command) > 1 and reason:
            return
    if reason is None:
        watch(event, arguments)
    else:
        with pytest.raises(socksy.DirectTrafficError, match="would not be patched") as caught:
            watch(event, arguments)
        assert reason in str(caught.value)


def test_other_events_are_none_of_its_business():
    children._Watch("/startup")("open", ("file", "r", 0))


def test_the_environment_of_this_process_counts_where_none_is_given(monkeypatch):
    monkeypatch.delenv(children.VARIABLE, raising=False)
    with pytest.raises(socksy.DirectTrafficError):
        children._Watch("/startup")("subprocess.Popen", (None, [sys.executable], None, None))


@pytest.mark.parametrize("guard", [True, False])
def test_patching_as_told(monkeypatch, guard):
    told = children.environment({"proxy": ["socks5h://127.0.0.1:1"], "guard": guard}, "/s", {})
    monkeypatch.setenv(children.VARIABLE, told[children.VARIABLE])
    watched = []

    def watch(startup):  # an audit hook stays, so this is one that does nothing
        watched.append(startup)
        return lambda event, arguments: None

    monkeypatch.setattr(children, "_Watch", watch)
    with children.patch_as_told("/s"):
        assert socksy.is_wrapped()
    assert watched == ["/s"] * guard


def test_patching_without_being_told_how_is_an_error(monkeypatch):
    monkeypatch.delenv(children.VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match=children.VARIABLE):
        children.patch_as_told("/startup")


def test_the_startup_file_is_read_by_old_pythons_too():
    """To tell them that they cannot be patched: no syntax that is newer than Python 3.0."""
    path = os.path.join(os.path.dirname(socksy.__file__), "startup", "sitecustomize.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    compile(text, path, "exec")
    assert 'f"' not in text
    assert "->" not in text


def test_a_python_that_cannot_be_patched_does_not_run(tmp_path):
    """Here: because the environment does not say how."""
    env = children.environment({}, os.path.join(os.path.dirname(socksy.__file__), "startup"), {})
    del env[children.VARIABLE]
    ran = subprocess.run(
        [sys.executable, "-c", "print('ran')"], env=env, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "cannot be patched, and does not run" in ran.stderr
