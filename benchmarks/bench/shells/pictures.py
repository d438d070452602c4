"""The picture of docs/shells.md: what users wait for, before and after."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.pictures import OTHERS, OURS, new_figure, save
from bench.table import short

from .suite import COMPARISONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BAR = 0.38
_TICKS = (1, 10, 100, 1_000)
_GREY = "#808890"
"""For all text: it can be read on white and on black, and so can the bars."""


def draw_shells(directory: Path, rounds: Mapping[str, Sequence[float]]) -> Path:
    """Write shells.svg into a directory; return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    return save(_draw(rounds), directory / "shells.svg", transparent=True)


def _draw(rounds: Mapping[str, Sequence[float]]) -> Any:
    drawn = [each for each in COMPARISONS if each.before in rounds and each.after in rounds][::-1]
    figure, (axis,) = new_figure(1, height=0.5 * len(drawn) + 1.2)
    for shift, color, label, keys in (
        (_BAR / 2, OTHERS, "before", [each.before for each in drawn]),
        (-_BAR / 2, OURS, "with autoloadd", [each.after for each in drawn]),
    ):
        values = [median(rounds[key]) for key in keys]
        places = [number + shift for number in range(len(drawn))]
        bars = axis.barh(places, values, _BAR, color=color, label=label)
        axis.bar_label(bars, [f"{short(value)} ms" for value in values], padding=3, color=_GREY)
    axis.set_yticks(range(len(drawn)), [each.what for each in drawn])
    axis.set_xscale("log")
    axis.set_xlim(1, 4 * max(median(rounds[each.before]) for each in drawn))
    axis.set_xticks(_TICKS, [f"{tick:,}" for tick in _TICKS])
    axis.minorticks_off()
    axis.set_xlabel("ms that a user waits (logarithmic)", color=_GREY)
    axis.margins(y=0.02)
    axis.legend(
        frameon=False, labelcolor=_GREY, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2
    )
    axis.tick_params(colors=_GREY)
    for edge, spine in axis.spines.items():
        spine.set_visible(edge in ("left", "bottom"))
        spine.set_color(_GREY)
    return figure
