"""Which Python programs would not be patched."""

import os
import subprocess
import sys
import zipfile

import idna
import pytest

import socksy
from socksy.patch import children


def test_the_environment_keeps_what_was_there():
    settings = {"proxy": ["socks5h://127.0.0.1:1"], "guard": True}
    env = children.environment(settings, "/startup", {"PYTHONPATH": "/mine", "A": "1"})

    assert env["PYTHONPATH"] == os.pathsep.join(["/startup", "/mine"])
    assert env["A"] == "1"
    assert children.environment(settings, "/startup", {})["PYTHONPATH"] == "/startup"


def test_without_idna_here_none_is_handed_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "idna", None)

    assert children.environment({"guard": True}, "/s", {})[children.VARIABLE] == '{"guard":true}'


PATCHED = {"PYTHONPATH": "/startup", children.VARIABLE: "{}"}
PYTHON = sys.executable
EVENTS = ["subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"]


def refused(watch, event, command, env, cwd=None):
    """Why this program may not be started, of which Python tells audit hooks; None if it may."""
    arguments = {
        "subprocess.Popen": (command[0], command, cwd, env),
        "os.exec": (command[0], command, env),
        "os.posix_spawn": (command[0], command, env),
        "os.spawn": (0, command[0], command, env),
    }[event]
    try:
        watch(event, arguments)
    except socksy.DirectTrafficError as exc:
        return str(exc).partition(" would not be patched: ")[2]
    return None


@pytest.mark.parametrize(
    ("command", "env", "reason"),
    [
        ([PYTHON, "-c", "1"], PATCHED, None),
        ([PYTHON, "-X", "dev", "x.py", "-I"], PATCHED, None),
        (["ls", "-I"], {}, None),
        ([PYTHON, "-I"], PATCHED, "-I"),
        ([PYTHON, "-BE"], PATCHED, "-BE"),
        ([PYTHON, "-S"], PATCHED, "-S"),
        ([PYTHON], {"PYTHONPATH": "/startup"}, children.VARIABLE),
        ([PYTHON], {**PATCHED, "PYTHONPATH": "/other"}, "PYTHONPATH"),
        ([os.fsencode(PYTHON)], {b"PYTHONPATH": b"/startup"}, children.VARIABLE),
        (["env", PYTHON, "-c", "1"], PATCHED, None),
        (["env", "A=1", PYTHON, "-I"], PATCHED, "-I"),
        (["env", "-i", PYTHON], PATCHED, children.VARIABLE),
        (["env", "-u", children.VARIABLE, PYTHON], PATCHED, children.VARIABLE),
        (["env", "PYTHONPATH=/other", PYTHON], PATCHED, "PYTHONPATH"),
    ],
)
@pytest.mark.parametrize("event", EVENTS)
def test_a_python_that_would_not_be_patched_is_not_started(command, env, reason, event):
    said = refused(children._Watch("/startup"), event, command, env)

    assert said is None if reason is None else reason in said


def test_a_command_line_as_on_windows():
    watch = children._Watch("/startup")
    with pytest.raises(socksy.DirectTrafficError):
        watch("subprocess.Popen", (None, PYTHON, None, {}))
    watch("subprocess.Popen", (None, PYTHON, None, PATCHED))


@pytest.fixture
def isolated(tmp_path):
    """A folder with a script that would not be patched, a link to Python, and one to the script."""
    (tmp_path / "tool").write_text(f"#!{PYTHON} -I\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "snake").symlink_to(PYTHON)
    (tmp_path / "link").symlink_to("tool")
    return tmp_path


@pytest.mark.parametrize("command", [["./tool"], ["./link"], ["./snake", "-I"]])
def test_a_program_is_looked_for_where_it_will_start(isolated, command, monkeypatch):
    watch = children._Watch("/startup")

    assert "-I" in refused(watch, "subprocess.Popen", command, PATCHED, str(isolated))
    assert "-I" in refused(watch, "subprocess.Popen", command, PATCHED, os.fsencode(isolated))
    monkeypatch.chdir(isolated)
    for event in EVENTS:
        assert "-I" in refused(watch, event, command, PATCHED)
    # exec does not search
    assert "-I" in refused(watch, "os.exec", [os.path.basename(command[0]), *command[1:]], PATCHED)


def test_a_program_is_looked_for_in_the_path_of_its_environment(isolated):
    watch = children._Watch("/startup")
    env = {**PATCHED, "PATH": f"/nowhere:{isolated}"}

    assert "-I" in refused(watch, "subprocess.Popen", ["tool"], env)
    assert refused(watch, "subprocess.Popen", ["tool"], PATCHED) is None
    assert "-I" in refused(watch, "subprocess.Popen", ["env", f"PATH={isolated}", "tool"], PATCHED)


def test_a_program_given_as_a_descriptor(isolated):
    with open(isolated / "snake", "rb") as file:
        with pytest.raises(socksy.DirectTrafficError, match=children.VARIABLE):
            children._Watch("/startup")("os.exec", (file.fileno(), ["x"], {}))


SITES = {
    "a module": lambda folder: (folder / "sitecustomize.py").write_text(""),
    "bytecode": lambda folder: (folder / "sitecustomize.pyc").write_text(""),
    "a package": lambda folder: package(folder / "sitecustomize").write_text(""),
}


def package(folder):
    folder.mkdir()
    return folder / "__init__.py"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("way", ["absolute", "relative", "empty"])
def test_another_sitecustomize_must_not_come_before_ours(tmp_path, site, way):
    entry, cwd = {
        "absolute": (str(tmp_path / "new"), None),
        "relative": ("new", str(tmp_path)),
        "empty": ("", str(tmp_path / "new")),
    }[way]
    watch = children._Watch("/startup")

    def said(*path):
        env = {**PATCHED, "PYTHONPATH": os.pathsep.join(path)}
        return refused(watch, "subprocess.Popen", [PYTHON], env, cwd)

    assert said(entry, "/startup") is None
    folder = tmp_path / "new"
    folder.mkdir()
    assert said(entry, "/startup") is None
    (folder / "sitecustomize").mkdir()  # a namespace, which gives way to ours
    assert said(entry, "/startup") is None
    (folder / "sitecustomize").rmdir()
    SITES[site](folder)
    assert "sitecustomize" in said(entry, "/startup")
    assert "sitecustomize" in said("/nowhere", entry, "/startup")
    assert said("/startup", entry) is None


def test_a_sitecustomize_in_a_zip_file_counts_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sitecustomize.py", "")
    (tmp_path / "no.zip").write_text("")
    watch = children._Watch("/startup")
    for name, expected in (("a.zip", True), ("no.zip", False)):
        env = {**PATCHED, "PYTHONPATH": f"{tmp_path / name}:/startup"}
        assert bool(refused(watch, "subprocess.Popen", [PYTHON], env)) is expected


def test_other_events_are_none_of_its_business():
    children._Watch("/startup")("open", ("file", "r", 0))


@pytest.fixture
def inherited(monkeypatch):
    """This process is patched as by `socksy run`."""
    for name, value in PATCHED.items():
        monkeypatch.setenv(name, value)
    return children._Watch("/startup")


def test_the_environment_of_this_process_counts_where_none_is_given(inherited):
    assert refused(inherited, "subprocess.Popen", [PYTHON], None) is None


@pytest.mark.parametrize("name", PATCHED)
def test_what_was_changed_behind_os_environ_counts(inherited, name):
    """Of os.putenv and os.unsetenv hears an audit hook, but not os.environ."""
    inherited("os.unsetenv", (os.fsencode(name),))
    inherited("os.putenv", (b"OTHER", b"x"))
    assert refused(inherited, "subprocess.Popen", [PYTHON], None)
    inherited("os.putenv", (os.fsencode(name), os.fsencode(PATCHED[name])))
    assert refused(inherited, "subprocess.Popen", [PYTHON], None) is None


@pytest.mark.parametrize("env", [None, [b"A=1"]])
def test_multiprocessing_is_watched_too(inherited, env):
    """It starts Python by a function that no hook is told of."""
    started = []
    fork_exec = inherited.before(lambda *arguments: started.append(arguments) or 7)
    command = [os.fsencode(PYTHON), b"-c", b"1"]
    rest = (True, (), None, env, -1)
    if env is None:
        assert fork_exec(command, [b"/nowhere/python", command[0]], *rest) == 7
        inherited("os.unsetenv", (b"PYTHONPATH",))
        assert len(started) == 1
    with pytest.raises(socksy.DirectTrafficError):
        fork_exec(command, [b"/nowhere/python", command[0]], *rest)
    assert len(started) == (env is None)
    assert fork_exec(command, [b"/nowhere/python"], *rest) == 7


@pytest.mark.parametrize("guard", [True, False])
def test_patching_as_told(monkeypatch, guard):
    told = children.environment({"proxy": ["socks5h://127.0.0.1:1"], "guard": guard}, "/s", {})
    monkeypatch.setenv(children.VARIABLE, told[children.VARIABLE])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    watched = []

    # an audit hook would stay
    monkeypatch.setattr(children._Watch, "begin", lambda watch: watched.append(watch._startup))
    with children.patch_as_told("/s"):
        assert socksy.is_wrapped()
    assert watched == ["/s"] * guard
    assert sys.meta_path[-1].find_spec("idna").origin == idna.__file__
    assert sys.meta_path[-1].find_spec("pytest") is None


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
