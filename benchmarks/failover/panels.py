"""One client's run as a strip of SVG: each call a dot in the colour of the member that answered.

Written by hand, because a page of sixty strips has to stay small: dots are points of a path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.failover.measures import calls_of
from benchmarks.failover.run import Outcome

STRUCK: Final = "#d97706"
OTHERS: Final = ("#2563eb", "#0d9488", "#7c3aed")
FAILED: Final = "#dc2626"
FAULT: Final = "#fee2e2"
GROUND: Final = "#f8fafc"
INK, PALE, LINE = "#0f172a", "#64748b", "#e2e8f0"
LEAST_MS: Final = 1.0
MOST_MS: Final = 3500.0
BAND: Final = 9.0
"""Height of the band for failed calls, on top."""
TICKS: Final = ((10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"))
LONG_SECONDS: Final = 16.0
_GRAIN: Final = 2
"""Parts of a pixel that dots are placed on."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a strip is, and how much time it shows."""

    x: float
    y: float
    width: float
    height: float
    seconds: float

    def across(self, at: float) -> float:
        return self.width * min(max(at, 0.0), self.seconds) / self.seconds

    def up(self, milliseconds: float) -> float:
        """The height of a latency, from the top of the box."""
        share = math.log(max(milliseconds, LEAST_MS) / LEAST_MS) / math.log(MOST_MS / LEAST_MS)
        room = self.height - BAND - 4
        return self.height - 2 - min(share, 1.0) * room


def text(x: float, y: float, words: str, size: float, **style: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}"{attributes}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}"'
        f' stroke-width=".7"{dashed}/>'
    )


def colours(outcome: Outcome) -> dict[str, str]:
    """Give the struck member its colour, and the others theirs."""
    others = [member for member in outcome.members if member != outcome.victim]
    return {outcome.victim: STRUCK, **dict(zip(others, OTHERS, strict=False))}


def strip(outcome: Outcome, box: Box, *, labels: bool = True) -> str:
    """Draw a run; ``labels``: write the latencies beside it."""
    parts = [
        f'<g transform="translate({box.x:g} {box.y:g})">',
        rect(0, 0, box.width, box.height, GROUND),
    ]
    since, until = box.across(outcome.struck), box.across(outcome.undone)
    parts.append(rect(since, 0, max(until - since, 1.0), box.height, FAULT))
    if outcome.recording.calls:
        parts += _calls(outcome, box, labels=labels)
    else:
        parts += _events(outcome, box)
    parts.append("</g>")
    return "".join(parts)


def _calls(outcome: Outcome, box: Box, *, labels: bool) -> Iterable[str]:
    for value, name in TICKS:
        height = box.up(value)
        yield line(0, height, box.width, height, LINE)
        if labels:
            yield text(-5, height + 3, name, 8.5, fill=PALE, text_anchor="end")
    yield line(0, BAND + 1, box.width, BAND + 1, "#cbd5e1")
    if labels:
        yield text(-5, BAND - 0.5, "failed", 8.5, fill=FAILED, text_anchor="end")
    calls = calls_of(outcome)
    for member, colour in colours(outcome).items():
        dots = [
            (box.across(call.due), box.up(call.seconds * 1000))
            for call in calls
            if not call.error and call.member == member
        ]
        yield points(dots, colour)
    failed = sorted({round(box.across(call.due) * _GRAIN) for call in calls if call.error})
    if failed:
        path = "".join(f"M{each} 2V{BAND * _GRAIN:g}" for each in failed)
        yield (
            f'<path transform="scale({1 / _GRAIN:g})" d="{path}" stroke="{FAILED}"'
            f' stroke-width="{_GRAIN * 1.1:g}" fill="none"/>'
        )


def _events(outcome: Outcome, box: Box) -> Iterable[str]:
    moments = sorted({round(box.across(each.at) * _GRAIN) for each in outcome.recording.watched})
    top, bottom = 4 * _GRAIN, round((box.height - 4) * _GRAIN)
    path = "".join(f"M{each} {top}V{bottom}" for each in moments)
    yield (
        f'<path transform="scale({1 / _GRAIN:g})" d="{path}" stroke="{OTHERS[0]}"'
        f' stroke-width="{_GRAIN * 0.8:g}" fill="none"/>'
    )


def points(dots: Sequence[tuple[float, float]], colour: str) -> str:
    """Draw dots, all in one path of relative moves; those that fall together are drawn once."""
    placed = sorted({(round(x * _GRAIN), round(y * _GRAIN)) for x, y in dots})
    if not placed:
        return ""
    path, x, y = [], 0, 0
    for next_x, next_y in placed:
        path.append(f"m{next_x - x} {next_y - y}h0")
        x, y = next_x, next_y
    return (
        f'<path transform="scale({1 / _GRAIN:g})" d="{"".join(path)}" stroke="{colour}"'
        f' stroke-width="{_GRAIN * 2.1:g}" stroke-linecap="round" stroke-opacity=".75"'
        ' fill="none"/>'
    )


def time_axis(box: Box) -> str:
    """Write the seconds under a strip."""
    every = 2.0 if box.seconds <= LONG_SECONDS else 5.0
    parts = []
    at = 0.0
    while at <= box.seconds + 1e-9:
        x = box.x + box.across(at)
        parts.append(line(x, box.y + box.height, x, box.y + box.height + 3, "#94a3b8"))
        unit = " s" if at == 0 else ""
        height = box.y + box.height + 12
        parts.append(text(x, height, f"{at:g}{unit}", 8.5, fill=PALE, text_anchor="middle"))
        at += every
    return "".join(parts)


def svg(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """Put a picture together; it stands alone, and scales."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" role="img" font-family="system-ui, -apple-system, Segoe UI, Roboto,'
        f' Helvetica, Arial, sans-serif" fill="{INK}"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )
