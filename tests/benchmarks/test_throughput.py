"""The throughput benchmark: its statistics, its tables, its order of play, and one small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.throughput import __main__ as throughput
from benchmarks.throughput import overhead, tables
from benchmarks.throughput.contenders import TASKS, THREADS, WIRE
from benchmarks.throughput.run import CLIENTS, SERVERS, Plan
from benchmarks.throughput.servers import ECHO, ETCD, OURS
from benchmarks.throughput.turn import Cell, Turn, Turns
from benchmarks.throughput.wire import Trailers, frame
from benchmarks.throughput.worker import KEYS, VALUE, keys_from
from etcd_pinwheel.client.generations import BUILT_IN

PLAN = Plan(rounds=2, seconds=0.1, warm_up_seconds=0.0, callers=(1, 128))


def turn(cell: Cell, number: int, *, cpu_us: float, calls: int = 1000, failed: int = 0) -> Turn:
    return Turn(
        cell=cell,
        round=number,
        calls=calls,
        failed=failed,
        seconds=1.0,
        cpu_seconds=calls * cpu_us / 1e6,
        server_cpu_seconds=calls * 20e-6,
    )


A = Cell(CLIENTS, ETCD, "a", "put", 1)
B = Cell(CLIENTS, ETCD, "b", "put", 1)


def test_a_turn_tells_its_costs_for_each_call() -> None:
    one = turn(A, 0, cpu_us=50.0)
    assert one.cpu_us == pytest.approx(50.0)
    assert one.server_cpu_us == pytest.approx(20.0)
    assert one.calls_per_second == 1000


def test_ratios_are_taken_within_a_round() -> None:
    """The machine slows down threefold in the second round: medians would say 200 : 100."""
    costs = [(A, 0, 100), (B, 0, 110), (A, 1, 300), (B, 1, 330), (A, 2, 100)]
    turns = Turns(turn(cell, number, cpu_us=cpu_us) for cell, number, cpu_us in costs)
    assert turns.ratio(B, A, tables.cpu) == pytest.approx(1.1)
    assert turns.median(A, tables.cpu) == pytest.approx(100)


def test_turns_with_failed_calls_or_none_do_not_count() -> None:
    turns = Turns([turn(A, 0, cpu_us=100, failed=1), turn(B, 0, cpu_us=100)])
    assert turns.median(A, tables.cpu) is None
    assert turns.ratio(B, A, tables.cpu) is None
    assert not turn(A, 0, cpu_us=1.0, calls=0).valid


def test_every_round_has_the_same_turns_and_another_order() -> None:
    first, second = list(PLAN.cells(0)), list(PLAN.cells(1))
    assert len(set(first)) == len(first) == PLAN.turns / PLAN.rounds
    assert set(first) == set(second)
    assert first[0].contender == THREADS.floor.name
    assert second[0].contender == THREADS.ours.name


def test_clients_are_judged_overall_and_by_the_worst_row() -> None:
    floor, ours = THREADS.floor.name, THREADS.ours.name
    turns = []
    for operation, callers in PLAN.rows:
        worst = (operation, callers) == ("get", 128)
        turns.append(turn(Cell(CLIENTS, ETCD, floor, operation, callers), 0, cpu_us=100))
        cost = 120 if worst else 105
        turns.append(turn(Cell(CLIENTS, ETCD, ours, operation, callers), 0, cpu_us=cost))
    overall, worst_row, *others = tables.goals(Turns(turns), PLAN)
    assert overall.measured == pytest.approx((1.05**3 * 1.2) ** 0.25)
    assert overall.verdict == "met"
    assert worst_row.measured == pytest.approx(1.2)
    assert worst_row.verdict == "missed"
    assert {goal.verdict for goal in others} == {"not measured"}


def test_servers_are_compared_under_the_light_load() -> None:
    rates = {(ETCD, "put"): 1000, (OURS, "put"): 400, (ECHO, "echo"): 300}
    turns = [
        turn(Cell(SERVERS, server, WIRE.name, operation, 128), 0, cpu_us=5, calls=rate)
        for (server, operation), rate in rates.items()
    ]
    by_text = {goal.text: goal for goal in tables.server_goals(Turns(turns), PLAN)}
    puts, gets, echo = by_text.values()
    assert (puts.measured, puts.met) == (0.4, True)
    assert gets.verdict == "not measured"
    assert echo.measured == pytest.approx(400 / 300)


def test_tables_show_a_dash_for_what_was_not_measured() -> None:
    floor = Cell(CLIENTS, ETCD, TASKS.floor.name, "put", 1)
    table = tables.clients_table(Turns([turn(floor, 0, cpu_us=54)]), ETCD, TASKS, PLAN)
    assert table.rows[0][:5] == ["put, 1 caller", "54", "1,000", "-", "-"]
    assert all(len(row) == len(table.header) for row in table.rows)
    servers = tables.servers_table(Turns([]), PLAN)
    assert all(len(row) == len(servers.header) for row in servers.rows)


def test_callers_start_at_keys_of_their_own() -> None:
    starts = [next(keys_from(caller, 128)) for caller in range(128)]
    assert len(set(starts)) == 128
    assert set(starts) <= set(KEYS)


def test_the_light_load_forgets_header_blocks_when_the_table_moves() -> None:
    trailers = Trailers()
    # Literal with incremental indexing: "grpc-status: 0", then the same by index.
    taught = b"\x40\x0bgrpc-status\x010"
    assert trailers.read(taught) == {b"grpc-status": b"0"}
    assert trailers.known == {}
    assert trailers.read(b"\xbe") == {b"grpc-status": b"0"}
    assert trailers.known == {b"\xbe": {b"grpc-status": b"0"}}
    assert trailers.read(b"\x40\x0bgrpc-status\x0214") == {b"grpc-status": b"14"}
    assert trailers.read(b"\xbe") == {b"grpc-status": b"14"}


def test_frames_have_a_length_of_24_bits() -> None:
    assert frame(0, 1, 3, b"x" * 0x010203)[:9] == b"\x01\x02\x03\x00\x01\x00\x00\x00\x03"


@pytest.mark.process
@pytest.mark.slow
def test_a_tiny_run_measures_every_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ours and the floors alone: a test installs nothing."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    code = throughput.main(["--quick", "--seconds", "0.05", "--callers", "2", "--no-peers"])
    (written,) = tmp_path.glob("throughput-*.json")
    numbers = json.loads(written.read_text())
    assert numbers["left out"] == {}
    assert sum("a pick" in goal["text"] for goal in numbers["goals"]) == len(BUILT_IN)
    assert code == 0
    assert all(turn["calls"] > 0 and not turn["failed"] for turn in numbers["turns"])


async def test_our_overhead_is_measured_on_calls_that_work() -> None:
    assert overhead.Face().put("k", "v").revision == 123_456
    found = overhead.Face().get("k")
    assert found is not None
    assert found.value == VALUE
    awaited = await overhead.AioFace().get("k")
    assert awaited == found
    picks = overhead.picks_us(rounds=1)
    assert set(picks) == set(BUILT_IN)
    assert min(picks.values()) > 0
    (goal, *_) = overhead.picks_goals({"round_robin": 3.5})
    assert goal.verdict == "missed"
    table = overhead.overhead_table([("put", 1.0, 5.25)])
    assert table.rows == [("put", "1.0", "5.2", "4.2")]
