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
from importlib.machinery import PathFinder
from importlib.util import find_spec

from ..errors import DirectTrafficError
from . import wrap_module
from .programs import interpreter, single_letters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec
    from typing import Any

    from . import Patch
    from .programs import Interpreter

VARIABLE = "SOCKSY_RUN"
_IDNA = "idna"  # our only dependency, and its folder in the settings
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
    found = find_spec(_IDNA)
    if found is not None and found.origin is not None:
        settings = {**settings, _IDNA: os.path.dirname(os.path.dirname(found.origin))}
    told = json.dumps(dict(settings), separators=(",", ":"))
    return {**before, "PYTHONPATH": os.pathsep.join(path), VARIABLE: told}


def patch_as_told(startup: str) -> Patch:
    """Patch this process as its environment says, and watch over the children that it starts."""
    told = os.environ.get(VARIABLE)
    if told is None:
        raise RuntimeError(f"its environment has no {VARIABLE}")
    settings = json.loads(told)
    folder = settings.pop(_IDNA, None)
    if folder is not None:
        sys.meta_path.append(_Spare(folder))
    patch = wrap_module(**settings)
    if settings.get("guard"):
        _Watch(startup).begin()
    return patch


class _Spare:
    """Finds our `idna`, for a Python in whose environment there is none: the last that is asked."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of nothing else, and not of what is in that package: it knows where it is itself."""
        return PathFinder.find_spec(name, [self._folder]) if name == _IDNA else None


def why_unpatched(python: Interpreter, startup: str) -> str | None:
    """What keeps a Python from being patched; None if nothing does."""
    for option in python.command[1:]:
        if not option.startswith("--") and _UNPATCHABLE.intersection(single_letters(option)):
            return f"it is run with {option}"
    if VARIABLE not in python.env:
        return f"its environment has no {VARIABLE}"
    path = python.env.get("PYTHONPATH", "").split(os.pathsep)
    if startup not in path:
        return "its PYTHONPATH is another one"
    for entry in path[: path.index(startup)]:
        other = _sitecustomize_in(os.path.join(python.cwd or os.curdir, entry))
        if other is not None:
            return f"{other} comes before ours"
    return None


def _sitecustomize_in(folder: str) -> str | None:
    """The module, package or what else the import system finds in a folder, or a zip file."""
    for hook in sys.path_hooks:  # not by PathFinder, which remembers what was not there
        try:
            spec = hook(folder).find_spec("sitecustomize")
        except ImportError:  # it is not for that kind of folder
            continue
        return None if spec is None else spec.origin  # None, too, of a folder that is no package
    return None


class _Watch:
    """Refuses to start a Python that would not be patched."""

    def __init__(self, startup: str) -> None:
        self._startup = startup
        # os.putenv and os.unsetenv change what children inherit, and os.environ does not hear of it
        self._inherited = {name: os.environ.get(name) for name in ("PYTHONPATH", VARIABLE)}

    def begin(self) -> None:
        """For good: an audit hook cannot be taken out again."""
        sys.addaudithook(self)
        try:
            import _posixsubprocess
        except ImportError:  # Windows
            return
        # With this one multiprocessing starts Python, and no hook is told.
        _posixsubprocess.fork_exec = self.before(_posixsubprocess.fork_exec)

    def before(self, fork_exec: Callable[..., int]) -> Callable[..., int]:
        """The function of `_posixsubprocess`, watched over."""

        def watched(
            argv: Any, files: Any, close: Any, keep: Any, cwd: Any, env: Any, *rest: Any
        ) -> int:
            pairs = None
            if env is not None:
                parted = (os.fsencode(pair).partition(b"=") for pair in env)
                pairs = {name: value for name, _, value in parted}
            for file in files:  # subprocess tries each folder of PATH
                if os.path.isfile(os.path.join(os.fsencode(cwd or b""), os.fsencode(file))):
                    self._check(file, argv, cwd, pairs)
                    break
            return fork_exec(argv, files, close, keep, cwd, env, *rest)

        return watched

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event == "subprocess.Popen":
            self._check(*arguments)
        elif event in ("os.exec", "os.posix_spawn", "os.spawn"):
            file, argv, env = arguments[-3:]
            self._check(_as_path(file), argv, None, env)
        elif event in ("os.putenv", "os.unsetenv"):
            name, *value = map(os.fsdecode, arguments)
            if name in self._inherited:
                self._inherited[name] = value[0] if value else None

    def _check(self, file: Any, argv: Any, cwd: Any, env: Mapping[Any, Any] | None) -> None:
        if isinstance(argv, (str, bytes)):  # on Windows
            argv = [argv]
        command = [os.fsdecode(word) for word in argv] or [""]
        if file is not None:
            command[0] = os.fsdecode(file)
        python = interpreter(command, self._environment(env), cwd and os.fsdecode(cwd))
        reason = None if python is None else why_unpatched(python, self._startup)
        if reason is not None:
            raise DirectTrafficError(
                errno.EPERM,
                f"{command[0]} would not be patched: {reason}",
                hint="Run with --no-guard to let Python programs go that cannot be patched",
            )

    def _environment(self, env: Mapping[Any, Any] | None) -> dict[str, str]:
        given = {**os.environ, **self._inherited} if env is None else env
        return {
            os.fsdecode(name): os.fsdecode(value)
            for name, value in given.items()
            if value is not None
        }


def _as_path(file: Any) -> str:
    """What exec is given: a descriptor, or a path, which has no folder if it is of this one."""
    if isinstance(file, int):
        return f"/proc/self/fd/{file}"
    path = os.fsdecode(file)
    return os.path.join(os.curdir, path) if os.path.isfile(path) else path
