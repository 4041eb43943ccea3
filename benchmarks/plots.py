"""Draws what the benchmarks kept in benchmarks/results: three pictures for README.

python -m benchmarks.plots        needs matplotlib (scripts/install bench)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.record import RESULTS

BLUE, GREY, RED, PALE = "#1f5fbf", "#8a8f98", "#c0392b", "#d9dde3"
OURS: Final = "the gate"
Axes = Any


def results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """What a benchmark kept. Raises `FileNotFoundError` if it has not been run."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return found


def latency(axes: Axes) -> None:
    """The share of callers that had their answer after so many milliseconds."""
    found = results("latency")
    kinds = ("remembered", "warm", "prefetched", "cold, 800")
    for kind, colour in zip(kinds, (BLUE, "#5b8fd9", "#e0a030", GREY), strict=True):
        times = sorted(found["figures"][kind]["ms"])
        shares = [100 * (index + 1) / len(times) for index in range(len(times))]
        axes.plot(times, shares, label=kind.partition(",")[0], color=colour, linewidth=2)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds until the answer")
    axes.set_ylabel("% of answers")
    axes.set_title(f"One caller, mail hosts {found['round_trip_ms']:.0f} ms away")
    axes.legend(frameon=False, loc="center")


def growth(axes: Axes) -> None:
    """Checks a second by what there is to remember."""
    figures = results("growth")["figures"]
    for kind, colour in (("verdicts", BLUE), ("domains", "#e0a030"), ("sites", GREY)):
        sizes = [size["entries"] for size in figures[kind]]
        rates = [size["per_second"] / 1000 for size in figures[kind]]
        axes.plot(sizes, rates, marker="o", label=kind, color=colour, linewidth=2)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("so many")
    axes.set_ylabel("thousand remembered checks/s, one core")
    axes.set_title("More to remember")
    axes.legend(frameon=False, loc="lower left")


def peers(axes: Axes) -> None:
    """Milliseconds of a repeated question, and people turned away, by verifier."""
    times, said = results("peers")["figures"]["20 ms"], results("accuracy")["figures"]
    names = sorted(times, key=lambda name: -times[name]["repeat"])
    repeats = [times[name]["repeat"] for name in names]
    colours = [BLUE if name == OURS else PALE for name in names]
    bars = axes.barh(names, repeats, color=colours)
    for bar, name, ms in zip(bars, names, repeats, strict=True):
        lost = len(said[name]["lost"])
        text = f"{ms:.2f} ms" if ms < 10 else f"{ms:.0f} ms"
        place = bar.get_y() + bar.get_height() / 2
        axes.text(ms * 1.15, place, text, va="center", fontsize=9)
        axes.text(3000, place, f"{lost} lost", va="center", fontsize=9, color=RED if lost else BLUE)
    axes.set_xscale("log")
    axes.set_xlim(0.02, 9000)
    axes.set_xlabel("milliseconds, the same address asked again, 20 ms a reply")
    axes.set_title("Repeated question; people turned away of 111 addresses")


PICTURES: Final[dict[str, tuple[Callable[[Axes], None], tuple[float, float]]]] = {
    "latency": (latency, (6.4, 3.6)),
    "growth": (growth, (6.4, 3.6)),
    "peers": (peers, (8.4, 3.6)),
}


def main() -> int:
    try:
        import matplotlib
    except ImportError:
        print("benchmarks.plots: needs matplotlib (scripts/install bench)", file=sys.stderr)
        return 2
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, (draw, size) in PICTURES.items():
        figure, axes = pyplot.subplots(figsize=size, layout="constrained")
        axes.spines[["top", "right"]].set_visible(False)
        try:
            draw(axes)
        except FileNotFoundError as missing:
            print(f"benchmarks.plots: no {name}: {missing.filename}", file=sys.stderr)
            return 1
        figure.savefig(RESULTS / f"{name}.png", dpi=150)
        pyplot.close(figure)
        print(RESULTS / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
