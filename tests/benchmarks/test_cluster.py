"""The cluster benchmark: what its tables take from which samples, and one small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.cluster import __main__ as cluster
from benchmarks.cluster.run import GROWTH, GROWTH_WATCHERS, Plan, fanout_row, growth_row
from benchmarks.cluster.samples import Sample, Samples
from benchmarks.cluster.sides import ETCD, OURS
from benchmarks.cluster.tables import CROWD_PUTS, goals, tables

PLAN = Plan(rounds=1, seconds=0.1, fanout_puts=1, sizes=(1_000,))


def sample(side: str, row: str, number: int = 0, **values: float) -> Sample:
    return Sample(side, row, number, values)


def test_growth_is_told_of_speed_cost_memory_and_fan_out() -> None:
    put, watched = (growth_row(1_000, row) for row in (CROWD_PUTS.row, fanout_row(GROWTH_WATCHERS)))
    ours = {"rate": 500, "p50_ms": 2, "p99_ms": 9, "leader_us": 50, "follower_us": 20}
    memory = {"leader_mb": 70, "follower_mb": 60}
    made = {
        table.title: table
        for table in tables(
            Samples(
                [
                    sample(OURS, put, **ours, **memory),
                    sample(ETCD, put, **{**ours, "rate": 1000}, **memory),
                    sample(OURS, watched, all_ms=8.0),
                ]
            ),
            PLAN,
        )
    }
    speed = made["Calls with more keys"].rows[0]
    assert list(speed) == [put, "1,000", "2.00", "9.0", "500", "2.00", "9.0", "0.50"]
    assert list(made["What a call costs whom with more keys"].rows[0])[3:] == ["50", "20"]
    assert list(made["Memory"].rows[0]) == ["1,000 keys", "70", "60", "70", "60"]
    assert list(made["Watch fan-out"].rows[-1]) == [watched, "-", "8.00", "-"]
    for table in made.values():
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_a_ratio_is_taken_within_a_round() -> None:
    rates = [(OURS, 0, 50), (ETCD, 0, 100), (OURS, 1, 900), (ETCD, 2, 1)]
    costs = {"leader_us": 50, "follower_us": 30}
    samples = Samples(
        sample(side, CROWD_PUTS.row, number, rate=rate, **costs) for side, number, rate in rates
    )
    puts, gets, follower = goals(samples)
    assert (puts.measured, puts.verdict) == (0.5, "met")
    assert gets.verdict == "not measured"
    assert (follower.measured, follower.verdict) == (0.6, "missed")


@pytest.mark.process
@pytest.mark.slow
def test_a_tiny_run_measures_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    code = cluster.main(["--quick", "--rounds", "1", "--seconds", "0.05", "--sizes", "1000"])
    (written,) = tmp_path.glob("cluster-*.json")
    samples = json.loads(written.read_text())["samples"]
    assert code == 0, [each["error"] for each in samples if each["error"]]
    grown = [each["row"] for each in samples if each["row"].startswith("1,000 keys")]
    assert len(grown) == 2 * (len(GROWTH) + 1)
