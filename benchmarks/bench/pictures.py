"""The pictures of docs/performance.md, as SVG. Only here is matplotlib needed."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from .goals.reads import UNIFORM
from .peers import own

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .series import Series

OURS, OTHERS = "#c0392b", "#7f8c8d"
LINES = ("#c0392b", "#e08e79", "#2c3e50", "#7f98b2", "#95a5a6")


def draw_all(
    directory: Path,
    rounds: Mapping[str, Sequence[float]],
    by_processes: Series,
    by_entries: Series,
) -> list[Path]:
    """Write all pictures into a directory; return their files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [
        save(_draw_latency(rounds), directory / "latency.svg"),
        save(_draw_puts(by_processes), directory / "puts.svg"),
        save(_draw_costs(by_entries), directory / "cost.svg"),
    ]


def latencies(rounds: Mapping[str, Sequence[float]]) -> list[tuple[str, float]]:
    """Return (peer, µs per get), the slowest first."""
    prefix = f"{UNIFORM}: "
    found = [(key.removeprefix(prefix), median(values)) for key, values in rounds.items()
             if key.startswith(prefix)]  # fmt: skip
    return sorted(found, key=lambda pair: -pair[1])


def _draw_latency(rounds: Mapping[str, Sequence[float]]) -> Any:
    rows = latencies(rounds)
    figure, axes = new_figure(1, height=0.4 * len(rows) + 1.2)
    (axis,) = axes
    colors = [OURS if name.startswith(own.KEY) else OTHERS for name, _ in rows]
    bars = axis.barh([name for name, _ in rows], [value for _, value in rows], color=colors)
    axis.bar_label(bars, labels=[f"{value:.3g}" for _, value in rows], padding=3)
    axis.set_xscale("log")
    axis.set_xlabel("µs per get of W, Python clients, bytes out (logarithmic)")
    axis.margins(x=0.15)
    return figure


def _draw_puts(series: Series) -> Any:
    figure, axes = new_figure(1, height=4)
    (axis,) = axes
    for (name, line), color in zip(series.items(), LINES, strict=True):
        axis.plot(list(line), list(line.values()), marker="o", color=color, label=name)
    _set_logarithmic(axis, list(next(iter(series.values()))))
    axis.set_xlabel("processes that put at once, 16,000 entries")
    axis.set_ylabel("acknowledged puts per second")
    axis.legend(frameon=False, fontsize=8)
    return figure


def _draw_costs(series: Series) -> Any:
    figure, axes = new_figure(len(series), height=2.8)
    for axis, (name, line) in zip(axes, series.items(), strict=True):
        axis.plot(list(line), list(line.values()), marker="o", color=OURS)
        _set_logarithmic(axis, list(line))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("entries", fontsize=8)
        # From zero, or over the same decades: a flat line must look flat.
        low, high = min(line.values()), max(line.values())
        axis.set_ylim(low / 10, high * 10)
    return figure


def _set_logarithmic(axis: Any, ticks: list[int]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=7)
    axis.minorticks_off()
    axis.grid(visible=True, color="#dddddd")


def new_figure(count: int, *, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with so many plots beside one another, and these. `height` is in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    figure = Figure(figsize=(max(7.0, 2.8 * count), height), layout="constrained")
    return figure, [figure.add_subplot(1, count, number + 1) for number in range(count)]


def save(figure: Any, path: Path, *, transparent: bool = False) -> Path:
    """Write a figure as SVG; return its file."""
    # No date and fixed ids: the same figures give the same file.
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "autoloadd", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None}, transparent=transparent)
    return path
