"""A campaign as one page of HTML, with everything in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.failover import numbers, pictures
from benchmarks.failover.campaign import Campaign
from benchmarks.failover.claims import Finding, Verdict
from benchmarks.failover.faults import Fault
from benchmarks.failover.panels import svg
from benchmarks.failover.reasons import explanations
from benchmarks.failover.tables import expected_of, rows_of, together
from benchmarks.report import Table

STYLE: Final = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #0f172a;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; }
h2 { font-size: 21px; margin: 44px 0 6px; }
h3 { font-size: 16px; margin: 0 0 2px; }
p { margin: 6px 0; max-width: 860px; }
.facts, .note { color: #64748b; font-size: 13px; }
.legend { position: sticky; top: 0; background: #fffffff0; padding: 6px 0; z-index: 1;
  border-bottom: 1px solid #e2e8f0; }
.legend svg { display: block; }
.faults { display: grid; grid-template-columns: repeat(auto-fit, minmax(540px, 1fr));
  gap: 34px 32px; margin-top: 18px; }
.fault .news { margin: 0; font-size: 14px; }
.fault ul { margin: 4px 0 10px; padding: 0; list-style: none; font-size: 13px; }
.fault li { margin: 1px 0; }
.fault svg, .picture svg { width: 100%; height: auto; display: block; }
.verdict { display: inline-block; border-radius: 9px; padding: 0 8px; font-size: 12px;
  white-space: nowrap; }
.yes { background: #dcfce7; color: #166534; }
.no { background: #fee2e2; color: #991b1b; }
.unknown { background: #e2e8f0; color: #475569; }
table { border-collapse: collapse; font-size: 13px; margin: 12px 0; width: 100%; }
th { text-align: left; border-bottom: 2px solid #cbd5e1; padding: 4px 10px 4px 0; }
td { border-bottom: 1px solid #eef2f7; padding: 3px 10px 3px 0; vertical-align: top; }
tr.claim td { font-weight: 600; padding-top: 14px; border-bottom: 1px solid #cbd5e1; }
.claims td.yes, .claims td.no, .claims td.unknown, .claims td.aside { white-space: nowrap;
  border-left: 3px solid #fff; padding-left: 8px; }
.claims td.aside { color: #64748b; }
small { opacity: .75; }
td.policy { white-space: nowrap; }
.scroll { overflow-x: auto; }
"""
_BADGES: Final = {
    Verdict.SEEN: "yes",
    Verdict.NOT_SEEN: "no",
    Verdict.NOT_MEASURED: "unknown",
}


def page(campaign: Campaign, found: Sequence[Finding]) -> str:
    """Lay a campaign out."""
    body = "".join(
        [
            "<h1>What a client sees when a member fails</h1>",
            f'<p>{escape(_lead(campaign))}</p><p class="facts">{escape(_facts(campaign))}</p>',
            *_claims_in_short(found),
            *_timelines(campaign, found),
            *_numbers(campaign),
            *_claims(found),
            *_reasons(found),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>etcd-pinwheel: failover, policy by policy</title>"
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def write_html(campaign: Campaign, found: Sequence[Finding], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(campaign, found))
    return path


def _lead(campaign: Campaign) -> str:
    return (
        "Every balancing policy goes through the same fault, at the same time, on the same cluster "
        f"of three members of {campaign.server}. Each client makes one put and one read every "
        f"{campaign.every_ms:g} ms, whether or not earlier ones were answered, with a deadline of "
        "3 s, and holds a watch and a lease."
    )


def _facts(campaign: Campaign) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in campaign.facts.items())
    times = "once" if campaign.repeats == 1 else f"{campaign.repeats} times"
    return f"Every run {times}. {facts}."


def badge(verdict: Verdict) -> str:
    kind = _BADGES.get(verdict)
    return f'<span class="verdict {kind}">{verdict.value}</span>' if kind else ""


def _claims_in_short(found: Sequence[Finding]) -> Iterator[str]:
    if not found:
        return
    yield "<h2>The claims, in short</h2><table><tbody>"
    for claim, measured in rows_of(found).items():
        mine = [finding for findings in measured.values() for finding in findings]
        judged = [each for each in mine if each.expectation is not None]
        good = sum(each.verdict is Verdict.SEEN for each in judged)
        yield (
            f"<tr><td>{claim.number}</td><td>{escape(claim.text)}</td>"
            f'<td class="policy">{good} of {len(judged)}</td><td>{badge(together(mine))}</td></tr>'
        )
    yield "</tbody></table>"


def _timelines(campaign: Campaign, found: Sequence[Finding]) -> Iterator[str]:
    if not campaign.faults:
        return
    yield "<h2>Fault by fault</h2>"
    yield (
        '<p class="note">Each dot is a call at the time it was due, by how long it took, in the '
        "colour of the member that answered; the band on top holds the calls that failed. Where "
        "clients only watch, each line is an event when it came. Of several repeats a typical one "
        "is drawn.</p>"
    )
    yield f'<div class="legend">{svg(900, 24, [pictures.legend(0, 16, 12)], "Legend")}</div>'
    yield '<div class="faults">'
    for fault in campaign.faults:
        drawn = pictures.drawn(campaign, fault)
        if drawn is not None:
            about = "".join(_about(fault, found))
            title = escape(fault.title[0].upper() + fault.title[1:])
            news = escape(pictures.headline(campaign.typical(fault)))
            yield (
                f'<section class="fault"><h3>{title}</h3><p class="news">{news}</p>'
                f"{about}{drawn}</section>"
            )
    yield "</div>"


def _about(fault: Fault, found: Sequence[Finding]) -> Iterator[str]:
    """Name the claims that this fault alone decides, with their verdicts."""
    yield "<ul>"
    for claim, measured in rows_of(found).items():
        alone = [mine for row, mine in measured.items() if row.faults == (fault,)]
        verdict = together([finding for mine in alone for finding in mine])
        if verdict is not Verdict.NO_CLAIM:
            yield f"<li>{claim.number}. {escape(claim.text)} {badge(verdict)}</li>"
    yield "</ul>"


def _numbers(campaign: Campaign) -> Iterator[str]:
    if campaign.numbers:
        yield "<h2>Beside other clients</h2>"
        yield _table(numbers.table(campaign.results, campaign.riders))


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><p class="note">{escape(table.note)}</p>'
    )


def _claims(found: Sequence[Finding]) -> Iterator[str]:
    if not found:
        return
    names = list(dict.fromkeys(finding.setting.name for finding in found))
    head = "".join(f"<th>{name}</th>" for name in names)
    yield (
        '<h2>Claim by claim</h2><p class="note">The median of the repeats, and in brackets the '
        "smallest and the largest. Green: as expected; red: not; grey: the claim says nothing of "
        'this policy, which is there for comparison.</p><div class="scroll"><table class="claims">'
        f"<thead><tr><th>scenario: what is measured</th><th>expected</th>{head}</tr></thead><tbody>"
    )
    for claim, measured in rows_of(found).items():
        yield (
            f'<tr class="claim"><td colspan="{len(names) + 2}">{claim.number}. '
            f"{escape(claim.text)}</td></tr>"
        )
        for row, mine in measured.items():
            seen = {each.setting.name: each for each in mine}
            cells = "".join(_cell(seen.get(name)) for name in names)
            what = f"{escape(row.where)}: <b>{escape(row.measure.name)}</b>"
            yield f"<tr><td>{what}</td><td>{escape(expected_of(mine))}</td>{cells}</tr>"
    yield "</tbody></table></div>"


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "<td></td>"
    value, bracket, spread = finding.seen.partition(" (")
    text = escape(value) + (f"<small> ({escape(spread)}</small>" if bracket else "")
    return f'<td class="{_BADGES.get(finding.verdict, "aside")}">{text}</td>'


def _reasons(found: Sequence[Finding]) -> Iterator[str]:
    reasons = list(explanations(found))
    if not reasons:
        return
    yield "<h2>What was expected and not seen, and why</h2><ul>"
    for finding, reason in reasons:
        assert finding.expectation is not None
        yield (
            f"<li><b>Claim {finding.claim.number}, {finding.setting.name}</b>, "
            f"{escape(finding.row.where)}, {escape(finding.row.measure.name)}: expected "
            f"{escape(finding.expectation.words)}, seen {escape(finding.seen)}. "
            f"{escape(reason)}</li>"
        )
    yield "</ul>"
