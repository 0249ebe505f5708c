"""The Python programs that a patched process starts: they are patched by their environment.

`socksy run` puts two variables there: PYTHONPATH begins with the folder `socksy/startup`, whose
`sitecustomize` patches each Python that starts, and SOCKSY_RUN says how. Whatever would keep a
Python from that is found out before it runs: here, and by `socksy run` for the first one.
"""

from __future__ import annotations

import errno
import json
import os
import sys

from ..errors import DirectTrafficError
from . import wrap_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from . import Patch

VARIABLE = "SOCKSY_RUN"
_MAX_SHEBANG = 4096
# Options of Python that ignore PYTHONPATH (-I, -E) or sitecustomize (-I, -S).
_UNPATCHABLE = frozenset("IES")


def environment(
    settings: Mapping[str, Any], startup: str, before: Mapping[str, str]
) -> dict[str, str]:
    """The environment in which Python programs are patched.

    Args:
        settings: keyword arguments of `wrap_module`, as JSON has them. A proxy's credentials are in
            it: what a process has in its environment, other users cannot read.
        startup: the folder of our `sitecustomize`.
    """
    path = [startup, *filter(None, [before.get("PYTHONPATH")])]
    told = json.dumps(dict(settings), separators=(",", ":"))
    return {**before, "PYTHONPATH": os.pathsep.join(path), VARIABLE: told}


def patch_as_told(startup: str) -> Patch:
    """Patch this process as its environment says, and watch over the children that it starts."""
    told = os.environ.get(VARIABLE)
    if told is None:
        raise RuntimeError(f"its environment has no {VARIABLE}")
    settings = json.loads(told)
    patch = wrap_module(**settings)
    if settings.get("guard"):
        sys.addaudithook(_Watch(startup))
    return patch


class _Watch:
    """An audit hook that refuses to start a Python which would not be patched."""

    def __init__(self, startup: str) -> None:
        self._startup = startup

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        # subprocess: executable, args, cwd, env; the others end with path, args, env
        if event == "subprocess.Popen":
            path, argv, _, env = arguments
        elif event in ("os.exec", "os.posix_spawn", "os.spawn"):
            path, argv, env = arguments[-3:]
        else:
            return
        if isinstance(argv, (str, bytes)):  # on Windows
            argv = [argv]
        command = [os.fsdecode(word) for word in argv] or [""]
        if path is not None:
            command[0] = os.fsdecode(path)
        reason = self._reason(command, os.environ if env is None else env)
        if reason is not None:
            raise DirectTrafficError(
                errno.EPERM,
                f"{command[0]} would not be patched: {reason}",
                hint="Run with --no-guard to let Python programs go that cannot be patched",
            )

    def _reason(self, command: list[str], env: Mapping[Any, Any]) -> str | None:
        python = interpreter(command)
        if python is None:
            return None
        for option in python[1:]:
            if not option.startswith("--") and _UNPATCHABLE.intersection(_letters(option)):
                return f"it is run with {option}"
        known = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
        if VARIABLE not in known:
            return f"its environment has no {VARIABLE}"
        if self._startup not in known.get("PYTHONPATH", "").split(os.pathsep):
            return "its PYTHONPATH is another one"
        return None


# -- what is a Python program?


def interpreter(command: Sequence[str]) -> list[str] | None:
    """The Python that runs a command, and the options it is given; None for other programs."""
    words = _without_env(command)
    if not words:
        return None
    program = find(words[0])
    if program is None:
        return None
    if _is_python(program):
        return [program, *_options(words[1:])]
    words = _without_env(_shebang(program))
    if words and _is_python(words[0]):
        return [find(words[0]) or words[0], *_options(words[1:])]
    return None


def find(program: str) -> str | None:
    """A program as a shell finds it; None if there is none."""
    if os.path.dirname(program):
        return program if os.path.isfile(program) else None
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _is_python(program: str) -> bool:
    name = os.path.basename(program).removesuffix(".exe")
    return name.rstrip("0123456789.tdw") in ("python", "pypy")


def _without_env(words: Sequence[str]) -> list[str]:
    """Without ``/usr/bin/env``, its -S, and the variables that it sets."""
    rest = list(words)
    if rest and os.path.basename(rest[0]) == "env":
        del rest[0]
        while rest and (rest[0] in ("-S", "--") or "=" in rest[0]):
            del rest[0]
    return rest


def _shebang(program: str) -> list[str]:
    """The words of a script's first line, or of the second where pip hides a long path there."""
    try:
        with open(program, "rb") as file:
            head = file.read(_MAX_SHEBANG)
    except OSError:
        return []
    if not head.startswith(b"#!"):
        return []
    first, _, rest = head[2:].decode("utf-8", "replace").partition("\n")
    words = first.split()
    if rest.startswith("'''exec' "):
        import shlex

        words = shlex.split(rest.partition("\n")[0])[1:2]
    return words


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
        letters = _letters(argument)
        if letters:
            yield f"-{letters}"
        rest = argument[1 + len(letters) :]
        if rest[:1] in ("c", "m"):
            return
        if rest:
            yield f"-{rest}"
        if len(rest) == 1:
            yield next(arguments, "")


def _letters(option: str) -> str:
    """The single-letter options of a word: what stands before -c, -m, -W or -X begins."""
    for place, letter in enumerate(option[1:], 1):
        if letter in "cmWX":
            return option[1:place]
    return option[1:]
