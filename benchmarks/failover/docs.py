"""Brings docs/failover.md up to date, with its picture and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.failover import numbers, pictures, tables
from benchmarks.failover.campaign import Campaign
from benchmarks.failover.claims import Finding
from benchmarks.failover.page import write_html
from benchmarks.failover.reasons import explanations
from benchmarks.report import Table

OURS, ETCD, NUMBERS = "", "etcd", "numbers"
"""The places on the page, by what was measured."""


def write_docs(campaign: Campaign, found: Sequence[Finding], folder: Path | None = None) -> Path:
    """Put what was measured in its place, and leave what was not; return the page's path."""
    folder = folder or report.ROOT / "docs"
    path = folder / "failover.md"
    text = path.read_text()
    if campaign.faults:
        place = ETCD if campaign.server == "etcd" else OURS
        name = f"failover-{place}" if place else "failover"
        write_html(campaign, found, folder / f"{name}.html")
        shown = [f"[The same as a page, with the timelines of the runs]({name}.html)."]
        picture = pictures.comparison(campaign)
        if picture is not None:
            (folder / f"{name}.svg").write_text(picture + "\n")
            shown.insert(0, f"![The policies under the most telling faults]({name}.svg)")
        section = "\n\n".join([*shown, claims_section(campaign, found)])
        text = report.replace_measured(text, section, place)
    if campaign.numbers:
        text = report.replace_measured(text, numbers_section(campaign), NUMBERS)
    path.write_text(text)
    return path


def claims_section(campaign: Campaign, found: Sequence[Finding]) -> str:
    laid_out: list[Table] = [tables.claims_table(found), tables.calls_table(*campaign.parts)]
    laid_out.append(tables.rest_table(*campaign.parts))
    if (missing := tables.missing_table(campaign.results)).rows:
        laid_out.append(missing)
    times = "once" if campaign.repeats == 1 else f"{campaign.repeats} times"
    facts = {"server": campaign.server, "each run": times, **campaign.facts}
    first, *others = report.page_section(facts, laid_out[:1]), *reasons(found)
    rest = [table.markdown() for table in laid_out[1:]]
    return "\n\n".join([first, *others, *rest])


def reasons(found: Sequence[Finding]) -> list[str]:
    """Explain what was expected and not seen."""
    explained: dict[str, list[str]] = {}
    for finding, reason in explanations(found):
        assert finding.expectation is not None
        what = (
            f"claim {finding.claim.number}, `{finding.setting.name}`, {finding.row.where}, "
            f"{finding.row.measure.name}: expected {finding.expectation.words}, seen {finding.seen}"
        )
        explained.setdefault(reason, []).append(what)
    if not explained:
        return ["Everything that was expected was seen."]
    lines = [f"- {'; '.join(whats)}. {reason}" for reason, whats in explained.items()]
    return ["**What was expected and not seen, and why**", "\n".join(lines)]


def numbers_section(campaign: Campaign) -> str:
    facts = {"each run": f"{campaign.repeats} times", **campaign.facts}
    laid_out = [
        numbers.table(campaign.results, campaign.riders),
        report.goals_table(numbers.goals(campaign.results)),
    ]
    return report.page_section(facts, laid_out)
