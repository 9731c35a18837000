"""The fleet over time: a row for each policy, a column for each fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.fleet.run import Outcome

STRUCK, OTHERS, DIALS, SHADE = "#c53030", "#2b6cb0", "#dd6b20", "#e2e8f0"
EVEN, PROBES, RETRIES = "#2f855a", "#6b46c1", "#dd6b20"

UNDER_GREY = "Grey ground: the fault lasts. "
MEMBERS = "Red: the member that is struck. Blue: the others, from the least to the most. "

NUMBER = re.compile(r"-?\d+\.\d+")
PATH = re.compile(r' d="[^"]*"')


def draw_picks(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw each member's picks a second."""
    _draw(
        path,
        outcomes,
        _picks,
        "Picks a second and member",
        f"{UNDER_GREY}{MEMBERS}Dotted: an even share. Green: from here on the load is even again.",
    )


def draw_connections(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw the connections each member holds, and the attempts to make new ones."""
    _draw(
        path,
        outcomes,
        _connections,
        "Connections held by each member, and attempts to connect",
        f"{UNDER_GREY}{MEMBERS}Orange: attempts to connect to all of them, a second.",
    )


def draw_added(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw what clients send beside the calls that they are asked for."""
    _draw(
        path,
        outcomes,
        _added,
        "What clients send beside first attempts, a second",
        f"{UNDER_GREY}Orange: calls that are tried again. Violet: probes of all members.",
    )


def _draw(
    path: Path,
    outcomes: Sequence[Outcome],
    panel: Callable[[Axes, Outcome], None],
    title: str,
    caption: str,
) -> None:
    mpl.rcParams["svg.hashsalt"] = "fleet"
    mpl.rcParams["svg.fonttype"] = "none"
    policies = list(dict.fromkeys(each.policy for each in outcomes))
    faults = list(dict.fromkeys(each.fault for each in outcomes))
    figure, axes = plt.subplots(
        len(policies),
        len(faults),
        figsize=(3.9 * len(faults) + 0.8, 1.7 * len(policies) + 1.2),
        sharey=True,
        sharex="col",
        squeeze=False,
    )
    for outcome in outcomes:
        axis = axes[policies.index(outcome.policy)][faults.index(outcome.fault)]
        axis.axvspan(outcome.struck_at, outcome.undone_at, color=SHADE, lw=0)
        panel(axis, outcome)
        axis.set_xlim(0, len(outcome.retries))
        axis.tick_params(labelsize=7)
        axis.yaxis.set_major_formatter("{x:,.0f}")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0][0].set_ylim(bottom=0)  # of all, and only now that the top is known
    for row, policy in zip(axes, policies, strict=True):
        row[0].set_ylabel(policy, rotation=0, ha="right", va="center", fontsize=9)
    for axis, fault in zip(axes[0], faults, strict=True):
        axis.set_title(fault, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=8)
    fleet = outcomes[0].fleet
    figure.suptitle(f"{title}: {fleet.clients:,} clients, {fleet.members} members", fontsize=11)
    figure.text(0.5, 0.008, caption, ha="center", fontsize=8)
    figure.tight_layout(rect=(0, 0.025, 1, 0.99))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text(compact(path.read_text()))


def compact(svg: str) -> str:
    """Write paths on one line each, to a tenth of a point: nobody sees more."""

    def shorter(found: re.Match[str]) -> str:
        line = " ".join(found[0].split())
        return NUMBER.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), line)

    return PATH.sub(lambda found: " " + shorter(found), svg)


def _picks(axis: Axes, outcome: Outcome) -> None:
    _members(axis, outcome.picks)
    axis.axhline(outcome.fleet.even_picks, color="black", lw=0.6, ls=":")
    if (seconds := outcome.seconds_until_even) is not None:
        axis.axvline(outcome.undone_at + seconds, color=EVEN, lw=1.2)


def _connections(axis: Axes, outcome: Outcome) -> None:
    dials = [sum(second) for second in zip(*outcome.dials, strict=True)]
    axis.fill_between(range(len(dials)), dials, color=DIALS, lw=0, alpha=0.8)
    _members(axis, outcome.held)


def _added(axis: Axes, outcome: Outcome) -> None:
    probes = [sum(second) for second in zip(*outcome.probes, strict=True)]
    axis.plot(probes, color=PROBES, lw=1.0)
    axis.fill_between(range(len(outcome.retries)), outcome.retries, color=RETRIES, lw=0)


def _members(axis: Axes, members: Sequence[Sequence[int]]) -> None:
    """Draw the struck member, the first, and the range in which all others are."""
    struck, *others = members
    least = [min(second) for second in zip(*others, strict=True)]
    most = [max(second) for second in zip(*others, strict=True)]
    axis.fill_between(range(len(least)), least, most, color=OTHERS, lw=0.7, alpha=0.6)
    axis.plot(struck, color=STRUCK, lw=1.3)
