"""`socksy run`: torsocks for Python, without LD_PRELOAD.

The program is not loaded into this process, but takes its place: signals and exit codes are its
own, and it does not see a difference. What patches it comes in by the environment (see
`socksy.patch.children`). Before that, the same Python is asked whether this worked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .bypass import Bypass
from .errors import InvalidArgumentError, InvalidProxyError
from .patch import children, programs
from .proxy import Proxy, as_route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .patch.programs import Interpreter

TOR = "socks5h://127.0.0.1:9050"

_STARTUP = Path(__file__).parent / "startup"
_PROOF = "socksy: this Python is patched"
_PROBE = (
    f"import sys; getattr(sys.modules.get('socksy'), 'is_wrapped', bool)() and print({_PROOF!r})"
)
# Whose variables, as in http_proxy or HTTPS_PROXY, name proxies; TRUST_PROXY is another matter.
_SOCKS = ("socks", "socks4", "socks4a", "socks5", "socks5h")
_SCHEMES = ("all", "http", "https", "ftp", "ftps", "ws", "wss", "rsync", "grpc", "pip", *_SOCKS)
# With these Python runs nothing; there is nothing to be patched then.
_RUNS_NOTHING = frozenset("hV?")
_RUN_NOTHING = ("--version", "--help")  # and --help-env, --help-xoptions, --help-all


def command(
    module: Sequence[str] | None, code: Sequence[str] | None, program: Sequence[str]
) -> list[str]:
    """The command line for a module, for code, or for a program with its arguments.

    Raises:
        InvalidArgumentError: there is none, or it is no Python program.
    """
    for option, words in (("-m", module), ("-c", code)):
        if words is not None:
            if not words:
                raise InvalidArgumentError(f"{option} needs an argument")
            return [sys.executable, option, *words, *program]
    words = list(program[1:] if program[:1] == ["--"] else program)
    if not words:
        raise InvalidArgumentError("there is nothing to run")
    if programs.interpreter(words) is not None:
        return words
    path = Path(words[0])
    if path.suffix in (".py", ".pyw", ".pyz") and path.is_file():
        return [sys.executable, *words]
    if (path / "__main__.py").is_file():
        return [sys.executable, *words]
    found = programs.find(words[0])
    if found is None:
        raise InvalidArgumentError(f"{words[0]}: no such program")
    message = f"{words[0]} is not written in Python: only that can be patched"
    if programs.shebang(found):  # one of pyenv's, say
        message += f" ({found} is a script that may run one: name that, or use -m)"
    raise InvalidArgumentError(message)


def environment(
    proxies: Sequence[str],
    bypass: Sequence[str] | None = None,
    *,
    guard: bool = True,
    remote_bind: bool = False,
) -> dict[str, str]:
    """The environment in which a program runs patched.

    As with curl, a proxy that is given takes the place of all that the environment names: these
    variables are gone. The program would only connect to those proxies through this one.

    Args:
        proxies: URLs, the nearest first; none for what the environment names.
        bypass: rules; None for the default ones.
        guard, remote_bind: as for `wrap_module`.

    Raises:
        InvalidProxyError, InvalidArgumentError: one is wrong, or there is no proxy.
    """
    if proxies:
        as_route(list(proxies))
    else:
        found = Proxy.from_environ()
        if found is None:
            raise InvalidProxyError("there is no proxy: give --proxy or --tor, or set all_proxy")
        proxies = [found.to_url(with_credentials=True)]
    settings: dict[str, Any] = {
        "proxy": list(proxies),
        "guard": guard,
        "remote_bind": remote_bind,
    }
    if bypass is not None:
        settings["bypass"] = list(Bypass(bypass).rules)
    rest = {name: value for name, value in os.environ.items() if not _names_a_proxy(name)}
    return children.environment(settings, str(_STARTUP), rest)


def _names_a_proxy(variable: str) -> bool:
    scheme, _, rest = variable.lower().rpartition("_")
    return rest == "proxy" and scheme in _SCHEMES


def execute(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Become this program. Returns only if that fails, with an exit code."""
    python = programs.interpreter(words, env)
    assert python is not None
    if not any(map(_runs_nothing, python.command[1:])):
        _probe(python)
    sys.stdout.flush()
    path = programs.find(words[0])
    assert path is not None
    try:
        os.execve(path, list(words), dict(env))
    except OSError as exc:
        raise InvalidArgumentError(f"{words[0]} cannot be run: {exc.strerror}") from None


def _runs_nothing(option: str) -> bool:
    if option.startswith("--"):
        return option.startswith(_RUN_NOTHING)
    return bool(_RUNS_NOTHING & set(option))


def _probe(python: Interpreter) -> None:
    """Ask the interpreter, where and as it will run, whether it is patched."""
    what = " ".join(python.command)
    try:
        asked = subprocess.run(
            [*python.command, "-c", _PROBE],
            env=python.env,
            cwd=python.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except OSError as exc:
        raise InvalidArgumentError(f"{what} cannot be run: {exc.strerror}") from None
    if _PROOF not in asked.stdout:
        reason = (
            asked.stderr.strip().rpartition("\n")[2]
            or children.why_unpatched(python, str(_STARTUP))
            or "it takes no notice of its environment"
        )
        raise InvalidArgumentError(f"{what} cannot be patched, and is not run: {reason}")
