"""Measure everything, print a table, save JSON:

    python -m benchmarks [--full] [--json FILE] [--plots DIRECTORY] [ROW ...]

A ROW selects those whose name begins so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

from . import rows
from .measure import pin, raise_descriptor_limit, server


class Line(NamedTuple):
    """One row of the table.

    Attributes:
        value: the number, as the issue defines it.
        least, aim: what it should be; more is better if the aim is above the least.
        others: the same number of the peers.
    """

    name: str
    value: float
    least: float | None
    aim: float | None
    others: dict[str, float]

    @property
    def verdict(self) -> str:
        """How it stands."""
        if self.least is None or self.aim is None:
            return ""
        for limit, text in ((self.aim, "aim"), (self.least, "at least")):
            if (self.value >= limit) if self.aim > self.least else (self.value <= limit):
                return text
        return "MISSED"


def measure(quick: bool, wanted: list[str]) -> tuple[list[Line], dict[str, Any]]:
    """All rows whose name begins with one of those wanted (none: all), and the raw numbers."""
    lines: list[Line] = []
    raw: dict[str, Any] = {}
    with server() as (port, relay):
        for section in rows.SECTIONS:
            if wanted and not any(section.name.startswith(name) for name in wanted):
                continue
            print(f"... {section.name}", file=sys.stderr)
            for name, numbers in section.run(port, relay, quick):
                value, others = numbers["value"], numbers.get("others", {})
                least, aim = section.targets.get(name) or section.targets.get("", (None, None))
                lines.append(Line(name, value, least, aim, others))
                raw[name] = numbers
    return lines, raw


def table(lines: list[Line]) -> str:
    """The lines as Markdown."""
    peers = ("PySocks", "python-socks")
    text = ["| measure | at least | aim | socksy | PySocks | python-socks | |"]
    text.append("|---|---|---|---|---|---|---|")
    for line in lines:
        cells = [line.name, line.least, line.aim, line.value]
        cells += [line.others.get(peer) for peer in peers]
        cells.append(line.verdict)
        text.append("| " + " | ".join("" if cell is None else f"{cell}" for cell in cells) + " |")
    return "\n".join(text)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--full", action="store_true", help="more rounds (minutes)")
    parser.add_argument("--json", type=Path, help="where to save all numbers")
    parser.add_argument("--plots", type=Path, help="a directory for SVG files")
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    pin()
    raise_descriptor_limit()
    lines, raw = measure(not options.full, options.rows)
    print(table(lines))
    machine = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if options.json is not None:
        report = {"machine": machine, "rows": raw, "table": [line._asdict() for line in lines]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plots is not None:
        from .plots import draw

        draw(raw, machine, options.plots)


if __name__ == "__main__":
    main()
