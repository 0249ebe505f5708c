"""The demo's output: tables for a terminal of 100 columns, with colour where that is wanted."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from ..cli import printable, stdout, write
from .fields import SAID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from .fields import Field

_BYTES_A_LINE = 8
_MOST_LINES = 6  # of one field
_WIDTHS = (15, 2, 3 * _BYTES_A_LINE - 1, 14)
_GAP = "  "
_BOLD, _DIM, _SAID, _HEARD = "1", "2", "36", "33"


class Screen:
    """Where the demo writes to.

    What is not printable is shown escaped: some of it comes from the proxy.

    Args:
        out: by default stdout.

    Raises (each method, too):
        OutputError: it takes nothing, or nothing more.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = stdout() if out is None else out
        self._colour = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._width = min(100, shutil.get_terminal_size((100, 24)).columns)

    def line(self, text: str = "") -> None:
        """A line of plain text."""
        self._write(printable(text))

    def title(self, text: str) -> None:
        """The heading of a section."""
        self.line()
        self._write(self._paint(printable(text), _BOLD))

    def fact(self, name: str, text: str) -> None:
        """Something that turned out, under its name."""
        heading = self._paint(f"{name:<{_WIDTHS[0]}}", _DIM)
        self._write(f"{_GAP}{heading}{_GAP}{printable(text)}")

    def table(self, fields: Iterable[Field]) -> None:
        """A handshake, a row for each field."""
        fields = list(fields)
        if not fields:
            return
        self._row("message", "", "bytes", "field", "meaning", _DIM)
        before = ""
        for field in fields:
            message = "" if field.message == before else field.message
            before = field.message
            colour = _SAID if field.direction == SAID else _HEARD
            first, *rest = _hex_lines(field)
            self._row(message, field.direction, first, field.name, field.meaning, colour)
            for line in rest:
                self._row("", "", line, "", "", colour)

    def _row(self, message: str, way: str, data: str, name: str, meaning: str, colour: str) -> None:
        texts = message, way, data, printable(name)
        cells = [f"{text:<{width}}" for text, width in zip(texts, _WIDTHS, strict=True)]
        cells[0] = self._paint(cells[0], _DIM)
        cells[1:3] = [self._paint(_GAP.join(cells[1:3]), colour)]
        left = self._width - sum(_WIDTHS) - len(_GAP) * 5
        meaning = printable(meaning)
        if len(meaning) > left:
            meaning = meaning[: max(0, left - 3)] + "..."
        self._write((_GAP + _GAP.join((*cells, meaning))).rstrip())

    def _write(self, line: str) -> None:
        write(self._out, f"{line}\n")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _hex_lines(field: Field) -> list[str]:
    """The bytes of a field in hex, on several lines if they are many."""
    if not field.data:
        return ["(none)"]
    shown = ["**"] * len(field.data) if field.secret else field.data.hex(" ").split()
    lines = [
        " ".join(shown[start : start + _BYTES_A_LINE])
        for start in range(0, len(shown), _BYTES_A_LINE)
    ]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [f"... {len(field.data)} bytes in all"]
    return lines
