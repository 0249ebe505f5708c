"""What the program ``env`` makes of its arguments (GNU's).

It stands in front of Python in the first line of many scripts, and can take away or hide what
patches it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Its options: those of one letter that want an argument, and those that want none.
_WITH = frozenset("uCSa")
_WITHOUT = frozenset("i0v")
# The long ones, and what they are the same as; those about signals do not matter here.
_LONG = {
    "ignore-environment": "i",
    "null": "0",
    "debug": "v",
    "unset": "u",
    "chdir": "C",
    "split-string": "S",
    "argv0": "a",
    "block-signal": "",
    "default-signal": "",
    "ignore-signal": "",
    "list-signal-handling": "",
}


def run_by_env(
    words: Sequence[str], env: Mapping[str, str], cwd: str | None
) -> tuple[list[str], dict[str, str], str | None]:
    """The command that ``env`` runs, its environment, its folder; other commands as they are.

    Args:
        words: a command, of ``env`` or not.
        env, cwd: where that is run.

    Returns:
        No words if nothing is run, as with ``--help`` or a wrong option.
    """
    rest, changed = list(words), dict(env)
    while rest and os.path.basename(rest[0]) == "env":
        try:
            rest, changed, cwd = _run(rest[1:], changed, cwd)
        except (IndexError, ValueError):  # an argument is missing, an option is unknown
            return [], changed, cwd
    return rest, changed, cwd


def _run(
    rest: list[str], env: dict[str, str], cwd: str | None
) -> tuple[list[str], dict[str, str], str | None]:
    before = env.copy()
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word == "-":
            env.clear()
            break
        letters = _letter(word, rest) if word.startswith("--") else word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH:
                value, letters = letters or rest.pop(0), ""
                if letter == "u":
                    env.pop(value, None)
                elif letter == "C":
                    cwd = os.path.join(cwd or "", value)
                elif letter == "S":
                    rest[:0] = _split(value, before)
            elif letter == "i":
                env.clear()
            elif letter not in _WITHOUT:
                raise ValueError(word)
    while rest and "=" in rest[0]:
        name, _, value = rest.pop(0).partition("=")
        env[name] = value
    return rest, env, cwd


def _letter(word: str, rest: list[str]) -> str:
    """A long option as one of one letter, its argument as the next word.

    It may be cut short, as far as it is clear.
    """
    name, equals, value = word[2:].partition("=")
    found = {_LONG[name]} if name in _LONG else {_LONG[o] for o in _LONG if o.startswith(name)}
    (letter,) = found
    if equals and letter in _WITH:
        rest.insert(0, value)
    elif equals and letter:
        raise ValueError(word)
    return letter


def _split(text: str, env: Mapping[str, str]) -> list[str]:
    """The words of -S, near enough to what env makes of them: quotes, backslashes, variables."""
    import re
    import shlex

    return [
        re.sub(r"\$\{(\w+)\}", lambda found: env.get(found[1], ""), word)
        for word in shlex.split(text, comments=True)
    ]
