"""Draw the pictures of the documentation from what the benchmarks measured.

    python -m bench creations parts life waits bulk --json docs/plots/benchmarks.json
    python docs/plots/draw.py

The same data gives the same bytes, with the same matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

HERE = Path(__file__).parent
OURS, OTHERS, BEST = "#3b6fd4", "#b0b6c0", "#2a9d6f"
STATUSES = {"queued": "#e8edf7", "preparing": "#cfdcf3", "processing": "#b3c8ec", "done": "#bfe5d3"}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "aifaceswap",
    "svg.fonttype": "none",  # text stays text: small, searchable, and the same everywhere
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
}

Tables = dict[str, list[list[Any]]]


def read(path: Path) -> Tables:
    """The rows of each table, by the first words of its title."""
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    return {table["title"]: table["rows"] for table in tables}


def rows(tables: Tables, title: str) -> list[list[Any]]:
    """The rows of the table whose title begins like this."""
    return next(found for name, found in tables.items() if name.startswith(title))


def life(tables: Tables) -> Figure:
    """A swap's life, and the requests of `run()` on its way."""
    looks = rows(tables, "One swap of")
    seconds = [look[0] for look in looks]
    progress = [look[3] for look in looks]
    figure, axes = _axes(3.6)
    begins = {status: seconds[_first(looks, status)] for status in STATUSES}
    ends = [*list(begins.values())[1:], seconds[-1] + 3]
    for (status, begin), end in zip(begins.items(), ends, strict=True):
        axes.axvspan(begin, end, color=STATUSES[status], linewidth=0)
        axes.text((begin + end) / 2, 103, status, fontsize=8, ha="center", va="bottom")
    axes.plot(seconds, progress, color=OURS, marker="o", markersize=5, linewidth=1.5)
    axes.annotate("POST", (seconds[0], progress[0]), (1.2, 14), fontsize=9)
    axes.annotate(f"{len(looks) - 1} looks, ever rarer", (12.5, 33), fontsize=9)
    axes.set(xlim=(0, ends[-1]), ylim=(0, 100), xlabel="seconds", ylabel="progress, %")
    axes.set_title("One swap of 30 s, as run() sees it", pad=22)
    return figure


def _first(looks: list[list[Any]], status: str) -> int:
    return next(number for number, look in enumerate(looks) if look[2] == status)


def call(tables: Tables) -> Figure:
    """Where the CPU time of a call goes, and what it costs beside other clients."""
    figure, (parts, peers) = plt.subplots(
        2, 1, figsize=(7, 4.2), height_ratios=[1, 2.4], layout="constrained"
    )
    colors = [OURS, "#7fa3e6", "#b9cdf3", OTHERS]
    left, measured = 0.0, rows(tables, "Parts of one")
    for (name, share, _), color in zip(measured, colors, strict=True):
        label = f"{name}: {share:.0%}"
        parts.barh([""], [share], left=left, color=color, label=label, height=0.5)
        left += share
    parts.set(xlim=(0, 1), xticks=[], yticks=[], title="CPU time of one create()")
    parts.spines[["left", "bottom"]].set_visible(False)
    parts.legend(ncols=2, fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.1))
    clients = rows(tables, "CPU per `await create()`, one at a time")[::-1]
    _bars(peers, [client[0] for client in clients], [client[1] for client in clients])
    peers.set_title("The same call with other clients, raw aiohttp = 1")
    return figure


def _bars(axes: Axes, names: list[str], values: list[float]) -> None:
    colors = [OURS if name == "aifaceswap" else OTHERS for name in names]
    bars = axes.barh(names, values, color=colors, height=0.6)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
    axes.set(xticks=[], xlim=(0, max(values) * 1.12))
    axes.spines["bottom"].set_visible(False)


def polls(tables: Tables) -> Figure:
    """Requests that waits cost, shared and alone."""
    counted = rows(tables, "Requests for waits")
    waits = [row[0] for row in counted]
    figure, axes = _axes(3.6)
    for column, name, color in ((3, "each polled every 2 s", OTHERS), (1, "aifaceswap", OURS)):
        values = [row[column] for row in counted]
        axes.plot(waits, values, color=color, marker="o", linewidth=2)
        for wait, value in zip(waits, values, strict=True):
            offset = (0, 8) if column == 3 else (0, -16)
            axes.annotate(
                f"{value:,}", (wait, value), offset, textcoords="offset points", ha="center"
            )
        axes.annotate(
            name, (waits[-1], values[-1]), (10, -3), textcoords="offset points", color="black"
        )
    axes.set(xscale="log", yscale="log", ylim=(4, 40_000), xlim=(0.8, 9_000))
    axes.set(xlabel="swaps of 30 s that are waited for at once", title="Requests until all ended")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xticks(waits)
    return figure


def bulk(tables: Tables) -> Figure:
    """Finished swaps a minute, within the service's limits."""
    measured = rows(tables, "Finished swaps a minute")
    figure, axes = _axes(3.6)
    series = (
        ("each polled every 2 s", OTHERS, [float(row[8]) for row in measured]),
        ("aifaceswap", OURS, [float(row[2]) for row in measured]),
        ("the best that list polls can do", BEST, [float(row[1]) for row in measured]),
    )
    for number, (name, color, values) in enumerate(series):
        places = [place + (number - 1) * 0.27 for place in range(len(measured))]
        bars = axes.bar(places, values, width=0.25, color=color, label=name)
        axes.bar_label(bars, [f"{value:g}" for value in values], fontsize=9, padding=2)
    axes.set_xticks(range(len(measured)), [f"swaps of {row[0]}" for row in measured])
    axes.set(title="Finished swaps a minute: 60 requests a minute, 10 slots")
    axes.legend(frameon=False)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7, height), layout="constrained")
    return figure, axes


PICTURES = {"life": life, "call": call, "polls": polls, "bulk": bulk}


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE / "benchmarks.json")
    parser.add_argument("--into", type=Path, default=HERE)
    arguments = parser.parse_args()
    tables = read(arguments.data)
    for name, draw in PICTURES.items():
        with mpl.rc_context(STYLE):
            figure = draw(tables)
            # Without the date: the same data gives the same bytes.
            figure.savefig(arguments.into / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
