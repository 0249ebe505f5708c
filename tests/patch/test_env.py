"""What `env` makes of its arguments, as GNU's does it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from socksy.patch.env import run_by_env

BEFORE = {"A": "1", "B": "2", "PATH": os.defpath}
SHOW = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))"

CASES = [
    ["X=1", "Y=a=b"],
    ["X=", "A=3"],
    ["-i"],
    ["-"],
    ["-", "X=1"],
    ["-i", "X=1"],
    ["-u", "A"],
    ["-uA", "-u", "B"],
    ["-iuA"],
    ["-vuA"],
    ["-u", "NONE"],
    ["--unset=A"],
    ["--unset", "A"],
    ["--uns=A"],
    ["--ignore-environment", "X=1"],
    ["--ignore-e"],
    ["-C", "/"],
    ["-C/"],
    ["--chdir=/usr"],
    ["--chdir", "usr", "-C", "/"],
    ["-u", "A", "--", "X=1"],
    ["--default-signal=PIPE", "--ignore-signal", "X=1"],
    ["-S", "X=1 Y='2 3'"],
    ["-S -u A X=1"],
    ["-vS-i X=1"],
    ["--split-string=-u A X=${B}${NONE}", "Y=2"],
    ["-S", "-u A", "-u", "B"],
    ["-S", 'X="a b" # Y=2'],
]


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_as_the_real_one(arguments):
    command = [sys.executable, "-ISc", SHOW]
    rest, env, cwd = run_by_env(["/usr/bin/env", *arguments, *command], BEFORE, "/usr")
    real = subprocess.run(
        [shutil.which("env"), *arguments, *command],
        env=BEFORE,
        cwd="/usr",
        stdout=subprocess.PIPE,
        text=True,
    )

    assert real.returncode == 0
    assert rest == command
    shown, folder = json.loads(real.stdout)
    shown.pop("LC_CTYPE", None)  # which Python puts there
    assert shown == env
    assert folder == os.path.normpath(cwd)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["-u"],
        ["--unset"],
        ["--nonsense", "python"],
        ["-x", "python"],
        ["--ignore-", "python"],
        ["--null=1", "python"],
        ["-S", "'python"],
        ["A=1"],
        [],
    ],
    ids=" ".join,
)
def test_nothing_is_run(arguments):
    assert run_by_env(["env", *arguments], BEFORE, None)[0] == []
    if arguments not in (["A=1"], []):
        real = subprocess.run(["env", *arguments], capture_output=True, text=True)
        assert real.returncode == (125 if arguments[0] not in ("--help", "--version") else 0)


def test_other_commands_are_left_as_they_are():
    assert run_by_env(["python", "-i"], BEFORE, "/x") == (["python", "-i"], BEFORE, "/x")
    assert run_by_env([], BEFORE, None) == ([], BEFORE, None)


def test_one_env_may_run_another():
    rest, env, _ = run_by_env(["env", "-i", "X=1", "/bin/env", "Y=2", "python"], BEFORE, None)

    assert (rest, env) == (["python"], {"X": "1", "Y": "2"})


def test_argv0_does_not_matter():
    """Only newer ones know this option."""
    assert run_by_env(["env", "-a", "x", "--argv0=y", "python"], BEFORE, None)[0] == ["python"]
