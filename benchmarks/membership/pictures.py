"""One picture for all experiments: writes over time, failed ones in red, no leader in grey."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.membership.stage import Record

BLUE, RED, GREY = "#2b6cb0", "#c53030", "#e2e8f0"
_LEAST_MS, _MOST_MS = 0.3, 1500.0
_NEAR_SECONDS = 1.3


def draw(path: Path, title: str, runs: Sequence[tuple[str, Record | None, Record | None]]) -> None:
    """Draw a row for each experiment: with a voter on the left, with a learner on the right."""
    mpl.rcParams["svg.hashsalt"] = "membership"
    figure, axes = plt.subplots(
        len(runs), 2, figsize=(11, 1.45 * len(runs) + 1.0), sharey=True, squeeze=False
    )
    for row, (name, voter, learner) in zip(axes, runs, strict=True):
        for axis, record in zip(row, (voter, learner), strict=True):
            _timeline(axis, record)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0][0].set_title("added as a voter", fontsize=10)
    axes[0][1].set_title("added as a learner", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.text(
        0.5,
        0.005,
        "Each dot is a write at the time it was due, by how long it took (log scale, ms). "
        "Red: it failed. Grey: nobody led.",
        ha="center",
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.02, 1, 0.985))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _timeline(axis: Axes, record: Record | None) -> None:
    axis.set_yscale("log")
    axis.set_ylim(_LEAST_MS, _MOST_MS)
    axis.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1 s"], fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
    axis.minorticks_off()
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if record is None:
        axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="grey")
        return
    for (before, led), (after, _) in pairwise(record.looks):
        if not led:
            axis.axvspan(before, after, color=GREY, lw=0)
    good = [write for write in record.writes if not write.error]
    bad = [write for write in record.writes if write.error]
    for writes, colour in ((good, BLUE), (bad, RED)):
        axis.plot(
            [write.due for write in writes],
            [max((write.ended - write.due) * 1e3, _LEAST_MS) for write in writes],
            ".",
            ms=2.5,
            color=colour,
        )
    for when, what in _joined(record.marks):
        axis.axvline(when, color="black", lw=0.6, ls=":")
        axis.text(when, _LEAST_MS, f" {what}", fontsize=6.5, va="bottom", ha="left")
    if record.refused:
        axis.text(
            0.5,
            0.5,
            f"refused: {record.refused}",
            transform=axis.transAxes,
            ha="center",
            fontsize=8,
        )


def _joined(marks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Make one mark of those that would be written over one another."""
    joined: list[tuple[float, str]] = []
    for when, what in marks:
        if joined and when - joined[-1][0] < _NEAR_SECONDS:
            joined[-1] = joined[-1][0], f"{joined[-1][1]}, {what}"
        else:
            joined.append((when, what))
    return joined
