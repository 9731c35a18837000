"""Tables, goals and pages: what a benchmark leaves behind."""

from __future__ import annotations

import pytest

from benchmarks.report import Goal, Table, goals_table, markers, page_section, replace_measured

BEGIN, END = markers()


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    table = Table("Speed", ("", "calls"), [("put", "1,000"), ("get", "2,000")], "A second.")
    assert table.markdown().splitlines() == [
        "**Speed**",
        "",
        "|  | calls |",
        "| --- | ---: |",
        "| put | 1,000 |",
        "| get | 2,000 |",
        "",
        "A second.",
    ]


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("cost", 1.15, at_most=1.15), "met"),
        (Goal("cost", 1.16, at_most=1.15), "missed"),
        (Goal("speed", 0.35, at_least=0.35), "met"),
        (Goal("speed", 0.34, at_least=0.35), "missed"),
        (Goal("speed", None, at_least=0.35), "not measured"),
        (Goal("like theirs", 1.0, at_least=0.9, at_most=1.1), "met"),
        (Goal("like theirs", 0.89, at_least=0.9, at_most=1.1), "missed"),
        (Goal("like theirs", 1.11, at_least=0.9, at_most=1.1), "missed"),
    ],
)
def test_a_goal_is_met_up_to_its_limit_and_never_unmeasured(goal: Goal, verdict: str) -> None:
    assert goal.verdict == verdict
    assert goal.met is (verdict == "met")


def test_goals_show_limit_and_verdict() -> None:
    goals = [
        Goal("cost", 1.2, at_most=1.15),
        Goal("speed", None, at_least=0.35),
        Goal("like theirs", 1.0, at_least=0.9, at_most=1.1),
    ]
    assert list(goals_table(goals).rows) == [
        ("cost", "1.20", "<= 1.15", "missed"),
        ("speed", "-", ">= 0.35", "not measured"),
        ("like theirs", "1.00", "0.9 to 1.1", "met"),
    ]


def test_a_page_keeps_everything_but_the_numbers() -> None:
    page = f"# Speed\n\nProse.\n\n{BEGIN}\nold\n{END}\n\nMore prose.\n"
    section = page_section({"date": "today"}, [Table("T", ("",), [("row",)])])
    once = replace_measured(page, section)
    assert once.startswith("# Speed\n\nProse.\n")
    assert once.endswith(f"{END}\n\nMore prose.\n")
    assert "date: today" in once
    assert "old" not in once
    assert replace_measured(once, section) == once


def test_a_page_without_a_place_for_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place"):
        replace_measured(f"# Speed\n{BEGIN}\n", "numbers")
