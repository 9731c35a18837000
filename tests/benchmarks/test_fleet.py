"""The simulated fleet: that it is the same each time, and shows what each policy is known for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fleet import client as simulation
from benchmarks.fleet.pictures import compact, draw_added, draw_connections, draw_picks
from benchmarks.fleet.run import FAULTS, Fault, Fleet, Outcome, Run
from benchmarks.fleet.tables import callers_table, members_table
from benchmarks.fleet.world import ROUND_TRIP_SECONDS, Clock, Member
from etcd_pinwheel.client.generations import BUILT_IN

SMALL = Fleet(clients=300, seed=7)
RESTART, FROM_CLIENTS, FROM_PEERS = FAULTS
_played: dict[tuple[str, str], Outcome] = {}


def outcome(policy: str, fault: object) -> Outcome:
    """The run of a policy under a fault; each is played once."""
    chosen = next(each for each in FAULTS if each is fault)
    key = policy, chosen.name
    if key not in _played:
        _played[key] = Run(policy, chosen, SMALL).play()
    return _played[key]


def struck_picks(found: Outcome) -> list[int]:
    """Picks of the struck member, by second, from well after the fault until it is undone."""
    return found.picks[0][int(found.struck_at) + 10 : int(found.undone_at)]


# The world


def test_the_clock_keeps_order() -> None:
    clock, seen = Clock(), list[tuple[str, float]]()
    clock.at(2.0, lambda: seen.append(("late", clock.now)))
    clock.at(1.0, lambda: clock.at(1.0, lambda: seen.append(("then", clock.now))))
    clock.at(1.0, lambda: seen.append(("first", clock.now)))
    clock.run(1.5)
    assert seen == [("first", 1.0), ("then", 1.0)]
    assert clock.now == 1.5
    clock.run(3.0)
    assert seen[2:] == [("late", 2.0)]


def test_a_member_serves_one_after_the_other() -> None:
    member = Member("m")
    answers = [member.seconds_to_answer(5.0, 0.01) for _ in range(3)]
    assert answers == pytest.approx([ROUND_TRIP_SECONDS + 0.01 * n for n in (1, 2, 3)])
    assert member.seconds_to_answer(6.0, 0.01) == pytest.approx(ROUND_TRIP_SECONDS + 0.01)


# The runs


@pytest.mark.parametrize("policy", list(BUILT_IN))
def test_a_run_is_the_same_each_time(policy: str) -> None:
    again = Run(policy, RESTART, SMALL).play()
    assert again == outcome(policy, RESTART)
    other = Run(policy, RESTART, Fleet(clients=300, seed=8)).play()
    assert other.picks != again.picks


@pytest.mark.parametrize("policy", list(BUILT_IN))
def test_every_call_ends(policy: str) -> None:
    """With the faults undone, and all of them done long ago, nobody waits for ever."""
    run = Run(policy, FROM_CLIENTS, SMALL)
    found = run.play()
    assert found.calls > 0.9 * SMALL.clients * SMALL.calls_per_second * (run.seconds - 12)
    settled = run.clock.now - 5.0
    for client in run.clients:
        waiting = [*client._waiting, *(c for line in client._lines.values() for c in line.calls)]
        assert all(call.started > settled for call in waiting)


@pytest.mark.parametrize(
    ("policy", "each"), [("pinned_multi", 5), ("pinned_single", 1), ("round_robin", 5)]
)
def test_connections_are_those_of_the_generation(policy: str, each: int) -> None:
    assert outcome(policy, RESTART).connections_before == each * SMALL.clients


def test_health_aware_keeps_one_connection_for_each_endpoint() -> None:
    assert outcome("health_aware", RESTART).connections_before == 5 * SMALL.clients


@pytest.mark.parametrize("policy", ["pinned_multi", "pinned_single"])
def test_pins_do_not_come_back_to_a_member_that_was_restarted(policy: str) -> None:
    found = outcome(policy, RESTART)
    assert found.seconds_until_even is None
    assert sum(found.picks[0][int(found.undone_at) + 5 :]) == 0


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
def test_the_load_is_even_again_after_a_restart(policy: str) -> None:
    even = outcome(policy, RESTART).seconds_until_even
    assert even is not None
    assert even <= 12


def test_round_robin_goes_on_calling_a_member_without_a_quorum() -> None:
    """The known weakness: a share of all calls goes where they cannot be served."""
    found = outcome("round_robin", FROM_PEERS)
    assert min(struck_picks(found)) > 0.5 * SMALL.even_picks
    assert found.failed > 0.03 * found.calls


@pytest.mark.parametrize("fault", [FROM_CLIENTS, FROM_PEERS], ids=lambda fault: fault.name)
def test_health_aware_clients_find_out_each_with_a_call_or_two(fault: object) -> None:
    """Clients that seldom call learn late, but none loses much."""
    found = outcome("health_aware", fault)
    lost = sum(found.picks[0][int(found.struck_at) + 1 : int(found.undone_at)])
    assert lost < 1.5 * SMALL.clients
    assert struck_picks(found)[-1] < 0.25 * SMALL.even_picks
    assert found.failed < 0.4 * outcome("round_robin", fault).failed


def test_probes_are_no_load() -> None:
    """With more of them, 10,000 clients kept five members down by probes alone that timed out."""
    found = outcome("health_aware", RESTART)
    assert found.probes_before < 0.2 * SMALL.clients
    assert max(max(each) for each in found.probes[1:]) < 0.2 * SMALL.clients


@pytest.mark.slow
@pytest.mark.parametrize("fault", [RESTART, FROM_PEERS], ids=lambda fault: fault.name)
def test_a_crowd_does_not_drown_a_member_that_is_back_in_questions(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of ten thousand clients, of members that take ten times as long."""
    monkeypatch.setattr(simulation, "SERVICE_SECONDS", 10 * simulation.SERVICE_SECONDS)
    monkeypatch.setattr(simulation, "HANDSHAKE_SECONDS", 10 * simulation.HANDSHAKE_SECONDS)
    found = Run("health_aware", fault, Fleet(clients=1000, seed=7)).play()
    assert found.seconds_until_even is not None
    assert found.seconds_until_even <= 15
    assert found.most_probes_once_back < 0.5 * found.fleet.clients


def test_an_overload_ends_when_its_cause_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as 20,000 clients of members that have room for 60 % more than their calls: probes
    and second attempts kept them down after the storm of connections at the start."""
    monkeypatch.setattr(simulation, "SERVICE_SECONDS", 40 * simulation.SERVICE_SECONDS)
    monkeypatch.setattr(simulation, "HANDSHAKE_SECONDS", 40 * simulation.HANDSHAKE_SECONDS)
    found = Run("health_aware", RESTART, Fleet(clients=500, seed=7)).play()
    assert found.failed < 0.4 * found.calls, "85 % without a bound"
    assert sum(found.retries[-10:]) < 0.02 * 10 * 5 * found.fleet.even_picks
    asked = sum(sum(each[-10:]) for each in found.probes)
    assert asked < 0.7 * 10 * 5 * found.fleet.even_picks


def test_tables_have_a_row_for_each_run() -> None:
    outcomes = [outcome(policy, RESTART) for policy in BUILT_IN]
    assert [len(table(outcomes).rows) for table in (callers_table, members_table)] == [
        len(BUILT_IN)
    ] * 2


@pytest.mark.slow
def test_pictures_are_drawn(tmp_path: Path) -> None:
    outcomes = [outcome(policy, RESTART) for policy in BUILT_IN]
    for number, draw in enumerate((draw_picks, draw_connections, draw_added)):
        path = tmp_path / f"{number}.svg"
        draw(path, outcomes)
        drawn = path.read_text()
        assert drawn.count('<g id="axes_') == len(BUILT_IN)
        assert len(drawn) < 150_000


def test_paths_are_written_in_short() -> None:
    long = '<path id="m1.25" d="M 1.234567 2.98\nL 3.04 -4.5\nz\n" style="a: 1.234"/>'
    assert compact(long) == '<path id="m1.25" d="M 1.2 3 L 3 -4.5 z " style="a: 1.234"/>'
