"""Pictures of a campaign: policies as rows, time to the right, the same axes for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.failover import faults
from benchmarks.failover.campaign import Campaign
from benchmarks.failover.faults import Fault
from benchmarks.failover.figures import Figures, figures
from benchmarks.failover.measures import WATCH_SILENCE, calls_of, span_of
from benchmarks.failover.panels import (
    FAILED,
    FAULT,
    INK,
    OTHERS,
    PALE,
    STRUCK,
    Box,
    rect,
    strip,
    svg,
    text,
    time_axis,
)
from benchmarks.failover.run import Outcome
from benchmarks.failover.settings import ALL, POLICIES, Setting
from benchmarks.failover.tables import milliseconds

STRIP: Final = 58.0
CAPTION: Final = 15.0
LEFT, RIGHT = 44.0, 6.0
TELLING: Final = (faults.KILL_LEADER, faults.HANG, faults.PARTITION, faults.ROLLING_RESTART)
"""The faults of the comparison picture."""
HEADINGS: Final = {
    "kill-leader": "the leader is killed",
    "hang": "a follower hangs",
    "partition": "a follower is cut off",
    "rolling-restart": "all are restarted in turn",
}
MODELS: Final = {
    "pinned_multi": "clientv3, etcd 3.1",
    "pinned_single": "clientv3, etcd 3.3",
    "round_robin": "clientv3, etcd 3.4 on",
    "health_aware": "the fourth generation",
    "exactly_once": "health_aware, writes repeated",
}


def sums_of(outcome: Outcome) -> Figures:
    return figures(calls_of(outcome), span_of(outcome), outcome.seconds)


def in_words(outcome: Outcome) -> str:
    """Say in a few words how a run went."""
    if not outcome.recording.calls:
        silence = WATCH_SILENCE.of(outcome)
        return "" if silence is None else f"no event for {silence:.1f} s at most"
    sums = sums_of(outcome)
    failed = f"{sums.failed} failed" if sums.failed else "none failed"
    share = f" ({100 * sums.failed / sums.calls:.1f} %)" if sums.failed else ""
    slow = f", {sums.slow} slow" if sums.slow else ""
    return f"{failed}{share}{slow}, longest gap {milliseconds(sums.longest_gap_ms)}"


def headline(outcomes: Mapping[str, Outcome]) -> str:
    """Say what a fault did to whom, those alike together."""
    alike: dict[str, list[str]] = {}
    for setting in ALL:
        if outcome := outcomes.get(setting.name):
            alike.setdefault(_fate(outcome), []).append(setting.name)
    said = "; ".join(f"{', '.join(names)}: {fate}" for fate, names in alike.items())
    return f"{said}." if said else ""


def _fate(outcome: Outcome) -> str:
    if not outcome.recording.calls:
        silence = WATCH_SILENCE.of(outcome) or 0.0
        return "events keep coming" if silence < 1.0 else f"no event for {silence:.0f} s"
    sums = sums_of(outcome)
    if not sums.failed:
        return "no call fails"
    share = 100 * sums.failed / sums.calls
    return f"{share:.0f} % fail" if share >= 1 else "less than 1 % fail"


def timelines(title: str, outcomes: Mapping[str, Outcome], width: float = 580.0) -> str:
    """Draw one fault: a strip for every policy."""
    shown = [setting.name for setting in ALL if setting.name in outcomes]
    seconds = max(outcomes[name].seconds for name in shown)
    strip_height = STRIP if outcomes[shown[0]].recording.calls else STRIP / 2
    parts, y, box = [], 0.0, None
    for name in shown:
        outcome = outcomes[name]
        y += CAPTION
        parts.append(text(LEFT, y - 4, name, 11.5, font_weight="600"))
        parts.append(
            text(width - RIGHT, y - 4, in_words(outcome), 10.5, fill=PALE, text_anchor="end")
        )
        box = Box(LEFT, y, width - LEFT - RIGHT, strip_height, seconds)
        parts.append(strip(outcome, box))
        y += strip_height + 4
    assert box is not None
    parts.append(time_axis(box))
    return svg(width, y + 14, parts, title)


def legend(x: float, y: float, size: float = 11.0) -> str:
    """Say what the colours mean, in one line."""
    entries = (
        (STRUCK, "answered by the struck member"),
        (OTHERS[0], "by another"),
        (OTHERS[1], "by the third"),
        (FAILED, "failed"),
        (FAULT, "the fault lasts"),
    )
    parts = []
    for colour, words in entries:
        parts.append(rect(x, y - size * 0.75, size * 0.8, size * 0.8, colour))
        parts.append(text(x + size * 1.2, y, words, size, fill=INK))
        x += size * 3.2 + len(words) * size * 0.56
    return "".join(parts)


def comparison(campaign: Campaign, settings: Sequence[Setting] = POLICIES) -> str | None:
    """Draw the policies under the most telling faults; None: nothing of it was played."""
    columns = [(fault, campaign.typical(fault)) for fault in TELLING]
    columns = [(fault, outcomes) for fault, outcomes in columns if outcomes]
    if not columns:
        return None
    rows = [setting for setting in settings if all(setting.name in each for _, each in columns)]
    column, gap, left, top = 236.0, 14.0, 174.0, 84.0
    height, caption = 78.0, 17.0
    parts = [
        text(
            16,
            26,
            "What a client sees when a member fails, policy by policy",
            18,
            font_weight="700",
        ),
        legend(16, 48),
    ]
    for at, (fault, outcomes) in enumerate(columns):
        x = left + at * (column + gap)
        seconds = max(each.seconds for each in outcomes.values())
        parts.append(
            text(x, top - 8, HEADINGS.get(fault.name, fault.title), 13.5, font_weight="600")
        )
        y, box = top, None
        for setting in rows:
            outcome = outcomes[setting.name]
            box = Box(x, y + caption, column, height, seconds)
            parts.append(text(x, y + 12, _short(outcome), 11, fill=_mood(outcome)))
            parts.append(strip(outcome, box, labels=at == 0))
            y += caption + height + 8
        if box is not None:
            parts.append(time_axis(box))
    for at, setting in enumerate(rows):
        y = top + at * (caption + height + 8) + caption + height / 2
        parts.append(text(16, y, setting.name, 13.5, font_weight="700"))
        parts.append(text(16, y + 15, MODELS[setting.name], 10.5, fill=PALE))
    width = left + len(columns) * (column + gap) + 4
    total = top + len(rows) * (caption + height + 8) + 50
    for at, words in enumerate(_footnote(campaign)):
        parts.append(text(16, total - 24 + 14 * at, words, 10.5, fill=PALE))
    return svg(width, total, [rect(0, 0, width, total, "#ffffff"), *parts], "Failover compared")


def _short(outcome: Outcome) -> str:
    sums = sums_of(outcome)
    if not sums.failed:
        return "none failed" + (f", {sums.slow} slow" if sums.slow else "")
    share = 100 * sums.failed / sums.calls
    return (f"{share:.0f} % failed" if share >= 1 else f"{sums.failed} failed") + (
        f", {sums.slow} slow" if sums.slow else ""
    )


def _mood(outcome: Outcome) -> str:
    sums = sums_of(outcome)
    return FAILED if sums.failed > sums.calls / 100 else INK


def _footnote(campaign: Campaign) -> tuple[str, str]:
    date, cpu = campaign.facts.get("date", ""), campaign.facts.get("cpu", "")
    return (
        "Each dot is a put or a read at the time it was due, by how long it took (log scale); "
        f"one of each every {campaign.every_ms:g} ms, deadline 3 s, slow: over 250 ms.",
        f"Three members of {campaign.server}, all policies at the same time; {cpu}, {date}.",
    )


def drawn(campaign: Campaign, fault: Fault) -> str | None:
    """Draw a fault's typical repeat; None: there is none."""
    outcomes = campaign.typical(fault)
    return timelines(fault.title, outcomes) if outcomes else None
