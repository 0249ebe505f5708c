"""The handshake's cost as an SVG file, and UDP's throughput if it has been measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

_COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#d93025")


def draw(raw: dict[str, Any], machine: dict[str, Any], directory: Path) -> None:
    """Write what there is to draw into the directory."""
    plt.switch_backend("svg")
    # text as text, and no random names: the same numbers make the same small file
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "socksy"})
    directory.mkdir(parents=True, exist_ok=True)
    caption = f"CPython {machine['python']}, {machine['cores']} cores, {machine['date']}"
    handshakes = {
        name.removeprefix("handshake "): numbers["microseconds"]
        for name, numbers in raw.items()
        if name.startswith("handshake ")
    }
    if handshakes:
        _bars(
            handshakes,
            "CPU time of a handshake, from socket() to close()",
            f"microseconds (medians, quartiles); {caption}",
            directory / "handshake.svg",
        )
    udp = {name: numbers["per second"] for name, numbers in raw.items() if name.startswith("UDP")}
    if udp:
        _bars(
            udp,
            "UDP through a relay",
            f"datagrams per second of CPU time; {caption}",
            directory / "udp.svg",
        )


def _bars(
    groups: dict[str, dict[str, dict[str, float]]], title: str, unit: str, path: Path
) -> None:
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(groups) + 1.6))
    for number, name in enumerate(names):
        rows = [group[name] for group in groups.values()]
        axes.barh(
            [place + (number - (len(names) - 1) / 2) * width for place in range(len(groups))],
            [row["median"] for row in rows],
            width * 0.9,
            xerr=[
                [row["median"] - row["q1"] for row in rows],
                [row["q3"] - row["median"] for row in rows],
            ],
            error_kw={"linewidth": 0.8},
            label=name,
            color=_COLOURS[number % len(_COLOURS)],
        )
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
