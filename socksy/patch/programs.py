"""What is a Python program: which interpreter a command ends up with, and how that is started.

By its name, or the name of the file that it is a link to; in the first line of a script, and of the
script that runs that; behind ``env``. What hides in shell scripts, or behind ``nice`` and the like,
is not seen.
"""

from __future__ import annotations

import os

from .env import run_by_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MAX_SHEBANG = 4096
_MOST_NESTED = 6  # a script, and as many that run one another as Linux lets them


class Interpreter:
    """A Python that is about to run.

    Attributes:
        command: its file, and the options that it is given.
        env: its environment.
        cwd: the folder in which it starts; None for this one.
    """

    __slots__ = ("command", "cwd", "env")

    def __init__(self, command: list[str], env: dict[str, str], cwd: str | None) -> None:
        self.command = command
        self.env = env
        self.cwd = cwd


def interpreter(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None
) -> Interpreter | None:
    """The Python that runs a command; None for other programs.

    Args:
        env, cwd: where the command is run; by default as this process.
    """
    words, known = list(command), dict(os.environ if env is None else env)
    for depth in range(_MOST_NESTED):
        words, known, cwd = run_by_env(words, known, cwd)
        if not words:
            break
        program = find(words[0], known, cwd)
        if program is None:
            if not depth or not _is_pythons_name(words[0]):
                break
            program = words[0]  # who runs the script is told that this one is missing
        if _is_python(program):
            return Interpreter([_absolute(program), *_options(words[1:])], known, cwd)
        runner = shebang(program)
        words = [*runner, program, *words[1:]] if runner else []
    return None


def find(program: str, env: Mapping[str, str] | None = None, cwd: str | None = None) -> str | None:
    """A program as a shell finds it, by the PATH of this environment; None if there is none."""
    here = cwd or ""
    if os.path.dirname(program):
        path = os.path.join(here, program)
        return path if os.path.isfile(path) else None
    folders = (os.environ if env is None else env).get("PATH", os.defpath)
    for folder in folders.split(os.pathsep):
        path = os.path.join(here, folder or os.curdir, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _absolute(program: str) -> str:
    return os.path.join(os.getcwd(), program) if os.path.dirname(program) else program


def _is_python(program: str) -> bool:
    return _is_pythons_name(program) or _is_pythons_name(os.path.realpath(program))


def _is_pythons_name(program: str) -> bool:
    name = os.path.basename(program).removesuffix(".exe")
    return name.rstrip("0123456789.tdw") in ("python", "pypy")


def shebang(program: str) -> list[str]:
    """The command in a script's first line, or in the second where pip hides a long path there."""
    try:
        with open(program, "rb") as file:
            head = file.read(_MAX_SHEBANG)
    except OSError:
        return []
    if not head.startswith(b"#!"):
        return []
    first, _, rest = head[2:].decode("utf-8", "surrogateescape").partition("\n")
    if rest.startswith("'''exec' "):
        import shlex

        try:
            words = shlex.split(rest.partition("\n")[0])[1:]
        except ValueError:  # a quote that does not end
            return []
        return words[: words.index("$0")] if "$0" in words else words
    return first.strip().split(None, 1)  # the rest is one argument


def _options(arguments: Sequence[str]) -> list[str]:
    """The interpreter's own options, up to the program."""
    return list(_each_option(iter(arguments)))


def _each_option(arguments: Iterator[str]) -> Iterator[str]:
    for argument in arguments:
        if len(argument) < 2 or argument == "--" or not argument.startswith("-"):
            return
        if argument.startswith("--"):
            yield argument
            if argument == "--check-hash-based-pycs":
                yield next(arguments, "")
            continue
        letters = single_letters(argument)
        if letters:
            yield f"-{letters}"
        rest = argument[1 + len(letters) :]
        if rest[:1] in ("c", "m"):
            return
        if rest:
            yield f"-{rest}"
        if len(rest) == 1:
            yield next(arguments, "")


def single_letters(option: str) -> str:
    """The single-letter options of a word: what stands before -c, -m, -W or -X begins."""
    for place, letter in enumerate(option[1:], 1):
        if letter in "cmWX":
            return option[1:place]
    return option[1:]
