"""What is a Python program."""

import pytest

from socksy.patch import programs


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
        "long-path-flagged": "#!/bin/sh\n'''exec' /a/python3 -I \"$0\" \"$@\"\n' '''",
        "long-path-bare": "#!/bin/sh\n'''exec' /a/python3 -I\n",
        "long-path-broken": "#!/bin/sh\n'''exec' \"/a/python3 -I\n",
        "of-a-script": "#!{}/flagged -x",
        "of-itself": "#!{}/of-itself",
        "of-nobody": "#!/nowhere/shell",
        "two-flags": "#!/opt/python3 -u -I",
        "env-two-flags": "#!/usr/bin/env python3 -I",
        "bad-shebang": "#!",
        "shell": "#!/bin/sh",
        "binary": "ELF",
        "python-config": "#!/bin/sh",
        "empty": "",
    }
    for name, text in lines.items():
        (tmp_path / name).write_text(text.replace("{}", str(tmp_path)))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "snake").symlink_to("python3.11")
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
        ("long-path-flagged -E", ["/a/python3", "-I"]),
        ("long-path-bare", ["/a/python3", "-I"]),
        ("long-path-broken", None),
        ("of-a-script", ["/opt/python3", "-Es"]),
        ("of-itself", None),
        ("of-nobody", None),
        ("two-flags", ["/opt/python3", "-u -I"]),
        ("env-two-flags", None),
        ("bad-shebang", None),
        ("{}/snake -I", ["{}/snake", "-I"]),
        ("env -i PATH={} python3 -I", ["{}/python3", "-I"]),
        ("env env -u X python3", ["{}/python3"]),
        ("env --help", None),
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
    found = programs.interpreter([word.format(scripts) for word in command.split()])
    assert (found and found.command) == (expected and [w.format(scripts) for w in expected])


def test_the_environment_and_the_folder_are_those_that_it_will_have(scripts):
    (scripts / "below").mkdir()
    (scripts / "below" / "python3").symlink_to("../python3")
    found = programs.interpreter(
        ["env", "-u", "A", "-C", "below", "B=2", "./python3", "-u"],
        {"A": "1", "C": "3"},
        str(scripts),
    )

    assert found.command == [f"{scripts}/below/./python3", "-u"]
    assert found.env == {"B": "2", "C": "3"}
    assert found.cwd == f"{scripts}/below"


def test_a_path_from_here_is_made_one_from_anywhere(scripts, monkeypatch):
    monkeypatch.chdir(scripts)

    assert programs.interpreter(["./python3"]).command == [f"{scripts}/./python3"]
    monkeypatch.setenv("PATH", "")
    assert programs.interpreter(["python3"]).command == [f"{scripts}/./python3"]
