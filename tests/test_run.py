"""`socksy run`: a program, and the programs that it starts, through a proxy."""

import os
import signal
import subprocess
import sys
import textwrap
import venv

import pytest

import socksy
from socksy import cli, run
from socksy.patch import children

from .support import serve_web, serving

FETCH = """
import urllib.request
print(urllib.request.urlopen("http://secret.test/", timeout=10).read().decode(), flush=True)
"""


@pytest.fixture
def proxy(socks_server_factory):
    """A proxy with a login that alone knows secret.test, a web server."""
    with serving(serve_web) as web:
        yield socks_server_factory(names={"secret.test": web}, users={"alice": "s3cret"})


@pytest.fixture
def url(proxy):
    """With the login."""
    return f"socks5h://alice:s3cret@127.0.0.1:{proxy.address[1]}"


def socksy_run(*arguments, **options):
    """What became of `socksy run ...`; what it prints must not show the password."""
    ran = subprocess.run(
        [sys.executable, "-m", "socksy", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )
    assert "s3cret" not in ran.stderr
    return ran


@pytest.mark.parametrize("way", ["python", "file.py", "-m", "-c", "script", "folder"])
def test_every_kind_of_program(proxy, url, tmp_path, way):
    """Each reaches what only the proxy can resolve."""
    (tmp_path / "file.py").write_text(FETCH)
    (tmp_path / "__main__.py").write_text(FETCH)
    (tmp_path / "script").write_text(f"#!{sys.executable}\n{FETCH}")
    (tmp_path / "script").chmod(0o755)
    command = {
        "python": [sys.executable, "file.py"],
        "file.py": ["file.py"],
        "-m": ["-m", "file", "--proxy", "argument"],
        "-c": ["-c", FETCH, "-m"],
        "script": ["--", "./script"],
        "folder": ["."],
    }[way]
    ran = socksy_run("--proxy", url, *command, cwd=tmp_path)

    assert (ran.stdout, ran.returncode) == ("ok\n", 0), ran.stderr
    assert [request.host for request in proxy.requests] == ["secret.test"]


def test_the_programs_that_it_starts(proxy, url):
    """By subprocess, by multiprocessing, and by exec."""
    program = f"""
    import multiprocessing, os, subprocess, sys
    fetch = {FETCH!r}
    if __name__ == "__main__":
        subprocess.run([sys.executable, "-c", fetch], check=True)
        process = multiprocessing.get_context("spawn").Process(target=exec, args=(fetch,))
        process.start()
        process.join()
        os.execv(sys.executable, [sys.executable, "-c", fetch])
    """
    ran = socksy_run("--proxy", url, "-c", textwrap.dedent(program))

    assert (ran.stdout, ran.returncode) == ("ok\nok\nok\n", 0), ran.stderr
    assert len(proxy.requests) == 3


@pytest.mark.parametrize("option", ["-V", "-VV", "-h", "--version", "--help"])
def test_options_with_which_python_runs_nothing(url, option):
    ran = socksy_run("--proxy", url, sys.executable, option)

    assert ran.returncode == 0, ran.stderr
    assert "Python" in ran.stdout or "python" in ran.stdout


@pytest.mark.parametrize("given", [True, False])
def test_other_proxies_in_the_environment_are_not_the_programs_business(proxy, url, given):
    """It would connect to them through this one, or want a library for SOCKS of its own."""
    program = f"""
import os
print(*sorted(name for name in os.environ if name.lower().endswith("_proxy")), flush=True)
{FETCH}"""
    variables = {
        "all_proxy": url if not given else "socks5://127.0.0.1:1",
        "ALL_PROXY": "socks5h://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "127.0.0.1:1",
        "Socks5_Proxy": "127.0.0.1:1",
        "no_proxy": "example.org",
        "TRUST_PROXY": "1",
        "BEHIND_A_HTTP_PROXY": "yes",
    }
    arguments = ["--proxy", url] if given else []
    ran = socksy_run(*arguments, "-c", program, env={**os.environ, **variables})

    left = "BEHIND_A_HTTP_PROXY TRUST_PROXY no_proxy"
    assert (ran.stdout, ran.returncode) == (f"{left}\nok\n", 0), ran.stderr
    assert [request.host for request in proxy.requests] == ["secret.test"]


def test_arguments_and_the_exit_code_are_the_programs_own(url):
    ran = socksy_run(
        "--proxy", url, "-c", "import sys; print(sys.argv); sys.exit(7)", "-x", "--proxy"
    )

    assert (ran.stdout, ran.returncode) == ("['-c', '-x', '--proxy']\n", 7)


def test_signals_reach_the_program(url):
    """It has taken the place of socksy: there is nobody in between."""
    program = "import time; print('here', flush=True); time.sleep(30)"
    command = [sys.executable, "-m", "socksy", "run", "--proxy", url, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            assert b"s3cret" not in file.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_the_guard_is_on_unless_it_is_told_otherwise(url):
    program = """
    import _socket, subprocess, sys
    try:
        _socket.socket().connect(("127.0.0.1", 9))
    except OSError as exc:
        print(type(exc).__name__)
    try:
        print(subprocess.run([sys.executable, "-I", "-c", ""]).returncode)
    except OSError as exc:
        print(type(exc).__name__)
    """
    for option, expected in (
        ("--guard", "DirectTrafficError\nDirectTrafficError\n"),
        ("--no-guard", "ConnectionRefusedError\n0\n"),
    ):
        ran = socksy_run("--proxy", url, "--bypass", "", option, "-c", textwrap.dedent(program))
        assert ran.stdout == expected, ran.stderr


def test_a_python_that_has_no_idna_finds_ours(socks_server_factory, tmp_path):
    """And nothing else of what is installed here."""
    venv.create(tmp_path / "venv")
    program = """
    import socket, sys, urllib.request
    for name in ("pytest", "socksy_no_such_module"):
        try:
            __import__(name)
        except ImportError as exc:
            print(exc.name)
    assert "idna" not in sys.modules
    print(socket.gethostbyname("b\u00fccher.test").partition(".")[0])
    print(urllib.request.urlopen("http://127.0.0.2/", timeout=10).read().decode())
    print(socket.create_connection(("b\u00fccher.test", 80), 10).recv(2))
    """
    with serving(serve_web) as web, serving(lambda connection: connection.sendall(b"hi")) as other:
        proxy = socks_server_factory(names={"127.0.0.2:80": web, "xn--bcher-kva.test": other})
        python = str(tmp_path / "venv" / "bin" / "python")
        ran = socksy_run(
            "--proxy", proxy.url(), "--bypass", "", python, "-c", textwrap.dedent(program)
        )

    expected = "pytest\nsocksy_no_such_module\n240\nok\nb'hi'\n"
    assert (ran.stdout, ran.returncode) == (expected, 0), ran.stderr


def test_another_sitecustomize_is_still_found(url, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import socksy; print(socksy.is_wrapped())")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = socksy_run("--proxy", url, "-c", "import sitecustomize; print('then')", env=env)

    assert ran.stdout.splitlines()[-2:] == ["True", "then"], ran.stderr


@pytest.mark.parametrize("option", ["-I", "-S", "-E", "-IS"])
def test_a_python_that_cannot_be_patched_is_not_run(url, option):
    ran = socksy_run("--proxy", url, sys.executable, option, "-c", "print('ran')")

    assert (ran.stdout, ran.returncode) == ("", 2)
    assert "cannot be patched, and is not run" in ran.stderr


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["env", "PYTHONPATH=/tmp", sys.executable], "PYTHONPATH is another"),
        (["env", "-i", sys.executable], "has no SOCKSY_RUN"),
        (["env", "-u", "SOCKSY_RUN", sys.executable], "has no SOCKSY_RUN"),
        (["./script"], "PYTHONPATH is another"),
        (["./piped"], "it is run with -I"),
        (["env", "PYTHONPATH=other:{startup}", sys.executable], "comes before ours"),
        (["env", "-C", "other", "PYTHONPATH=:{startup}", sys.executable], "comes before ours"),
    ],
)
def test_what_takes_the_patch_away_is_not_run(url, tmp_path, command, reason):
    """Although Python itself would take it."""
    (tmp_path / "script").write_text(f"#!/usr/bin/env -S PYTHONPATH=lib {sys.executable}\n{FETCH}")
    hidden = f"#!/bin/sh\n'''exec' {sys.executable} -I \"$0\" \"$@\"\n' '''\n{FETCH}"
    (tmp_path / "piped").write_text(hidden)
    (tmp_path / "app.py").write_text(FETCH)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("")
    for name in ("script", "piped"):
        (tmp_path / name).chmod(0o755)
    words = [word.replace("{startup}", str(run._STARTUP)) for word in command]
    ran = socksy_run("--proxy", url, *words, "app.py", cwd=tmp_path)

    assert (ran.stdout, ran.returncode) == ("", 2)
    assert "cannot be patched, and is not run" in ran.stderr
    assert reason in ran.stderr


def test_env_in_front_is_no_matter_if_it_leaves_the_patch_alone(proxy, url, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "fetch.py").write_text(FETCH)
    path = f"PYTHONPATH={tmp_path}/lib:{run._STARTUP}"
    ran = socksy_run("--proxy", url, "env", "-u", "X", path, sys.executable, "-m", "fetch")

    assert (ran.stdout, ran.returncode) == ("ok\n", 0), ran.stderr


def test_children_that_would_not_be_patched_are_not_started(proxy, url, tmp_path):
    """Whatever starts them."""
    program = """
import multiprocessing, os, subprocess, sys

def attempt(start):
    try:
        start()
    except PermissionError as exc:
        print(type(exc).__name__, flush=True)

def spawn(method):
    process = multiprocessing.get_context(method).Process(target=print, args=("away",))
    process.start()
    process.join()

if __name__ == "__main__":
    code = [sys.executable, "-c", "print('away')"]
    attempt(lambda: subprocess.run(["env", "-i", *code]))
    attempt(lambda: subprocess.run(["./tool"], cwd="below"))
    attempt(lambda: subprocess.run(["tool"], env={**os.environ, "PATH": "below"}))
    os.unsetenv("PYTHONPATH")
    attempt(lambda: subprocess.run(code))
    attempt(lambda: spawn("spawn"))
    attempt(lambda: spawn("forkserver"))
"""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "tool").write_text(f"#!{sys.executable} -I\nprint('away')")
    (tmp_path / "below" / "tool").chmod(0o755)
    (tmp_path / "app.py").write_text(program)
    ran = socksy_run("--proxy", url, "app.py", cwd=tmp_path)

    assert (ran.stdout, ran.returncode) == ("DirectTrafficError\n" * 6, 0), ran.stderr


def test_a_python_that_runs_nothing_need_not_be_patched(url):
    assert socksy_run("--proxy", url, sys.executable, "-IV").stdout.startswith("Python 3")


# -- the command line


@pytest.fixture
def executed(monkeypatch):
    """What would have been run: (words, settings)."""
    import json

    found = []

    def note(words, env):
        settings = json.loads(env[children.VARIABLE])
        assert os.path.isfile(os.path.join(settings.pop("idna"), "idna", "__init__.py"))
        found.append((words, settings))
        return 0

    monkeypatch.setattr(run, "execute", note)
    return found


TOLD = {"proxy": [run.TOR], "guard": True, "remote_bind": False}


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--tor"], TOLD),
        (["--proxy", "socks4://h"], {"proxy": ["socks4://h"], "guard": True, "remote_bind": False}),
        (
            ["--proxy", "socks5://a", "--proxy", "http://b", "--no-guard"],
            {"proxy": ["socks5://a", "http://b"], "guard": False, "remote_bind": False},
        ),
        (
            ["--tor", "--bypass", "a.test,10.0.0.0/8 b"],
            {
                "proxy": [run.TOR],
                "guard": True,
                "remote_bind": False,
                "bypass": ["a.test", "10.0.0.0/8", "b"],
            },
        ),
        (
            ["--tor", "--remote-bind"],
            {"proxy": [run.TOR], "guard": True, "remote_bind": True},
        ),
        (
            ["--tor", "--bypass", ""],
            {"proxy": [run.TOR], "guard": True, "remote_bind": False, "bypass": []},
        ),
        ([], {"proxy": ["socks5h://u:p@env.test:1080"], "guard": True, "remote_bind": False}),
    ],
)
def test_options(executed, monkeypatch, options, settings):
    monkeypatch.setenv("all_proxy", "socks5h://u:p@env.test")
    assert cli.main(["run", *options, "-c", "1"]) == 0

    assert executed == [([sys.executable, "-c", "1"], settings)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tor"], "nothing to run"),
        (["--tor", "--"], "nothing to run"),
        (["--tor", "-m"], "-m needs an argument"),
        (["--tor", "no-such-program"], "no such program"),
        (["--tor", "sh", "-c", "true"], "not written in Python"),
        (["--tor", "--proxy", "socks5h://h", "-c", "1"], "--tor is a proxy of its own"),
        (["--proxy", "nonsense", "-c", "1"], "a proxy URL starts with its scheme"),
        (["--proxy", "ftp://alice:s3cret@h", "-c", "1"], "unknown proxy scheme"),
        (["--tor", "--bypass", "10.0.0.0/99", "-c", "1"], "is no network"),
        (["-c", "1"], "there is no proxy"),
        (["--unknown", "x"], "unrecognized arguments"),
    ],
)
def test_bad_usage(executed, monkeypatch, capsys, arguments, said):
    for name in ("all_proxy", "socks_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert cli.main(["run", *arguments]) == 2

    assert executed == []
    err = capsys.readouterr().err
    assert said in err
    assert "s3cret" not in err


def test_a_shell_script_in_the_place_of_a_program(tmp_path, capsys):
    """As pyenv's are: what it would run is not known before."""
    script = tmp_path / "pytest"
    script.write_text("#!/bin/sh\nexec python -m pytest\n")
    script.chmod(0o755)
    assert cli.main(["run", "--tor", str(script)]) == 2

    assert "is a script that may run one: name that, or use -m" in capsys.readouterr().err


def test_a_program_that_cannot_be_executed(tmp_path, monkeypatch, capsys):
    (tmp_path / "script").write_text(f"#!{sys.executable}\n")
    env = run.environment([run.TOR])
    with pytest.raises(socksy.InvalidArgumentError, match="cannot be run: Permission denied"):
        run.execute([str(tmp_path / "script")], env)


def test_becoming_the_program(monkeypatch):
    """After the same interpreter has proved, with the same options, that it is patched."""
    became = []
    monkeypatch.setattr(run.os, "execve", lambda *arguments: became.append(arguments))
    env = run.environment([run.TOR])
    run.execute([sys.executable, "-u", "x.py"], env)
    run.execute([sys.executable, "-IV"], env)

    assert became == [
        (sys.executable, [sys.executable, "-u", "x.py"], env),
        (sys.executable, [sys.executable, "-IV"], env),
    ]
    with pytest.raises(socksy.InvalidArgumentError, match="it is run with -S"):
        run.execute([sys.executable, "-S", "x.py"], env)
    assert len(became) == 2


def test_an_interpreter_that_cannot_be_asked(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/nowhere/python3\n")
    script.chmod(0o755)
    with pytest.raises(
        socksy.InvalidArgumentError, match="/nowhere/python3 cannot be run: No such"
    ):
        run.execute([str(script)], run.environment([run.TOR]))


def test_a_python_for_which_there_is_no_excuse(tmp_path, monkeypatch):
    silent = tmp_path / "python3"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    with pytest.raises(socksy.InvalidArgumentError, match="takes no notice"):
        run.execute([str(silent), "x.py"], run.environment([run.TOR]))


def test_scripts_and_folders_run_with_this_python(tmp_path):
    (tmp_path / "a.py").write_text("")
    (tmp_path / "__main__.py").write_text("")
    for program in (tmp_path / "a.py", tmp_path):
        assert run.command(None, None, [str(program), "-x"]) == [sys.executable, str(program), "-x"]


def test_a_command_that_is_python_stays_as_it_is():
    words = [sys.executable, "-u", "x.py", "-m", "y"]
    assert run.command(None, None, words) == run.command(None, None, ["--", *words]) == words
