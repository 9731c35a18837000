"""The numbers to beat: what other clients show on the same four faults, beside ours.

One put every 10 ms with a 3 s deadline for 16 s, the fault at 5 s and not undone, against the real
etcd. Peers live in environments of their own (``benchmarks/peers.py``) and ride along.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import peers
from benchmarks.failover.faults import NUMBERS, Fault
from benchmarks.failover.figures import audit
from benchmarks.failover.run import Results, Rider, riders_of
from benchmarks.failover.settings import EXACTLY_ONCE, HEALTH_AWARE, ROUND_ROBIN, Setting
from benchmarks.failover.tables import milliseconds, sums_of
from benchmarks.peers import Peer, PeerUnavailable
from benchmarks.report import Goal, Table

EVERY_MS: Final = 10.0
GO: Final = {
    "kill-follower-16s": (0, "20 ms"),
    "kill-leader-16s": (124, "1.33 s"),
    "hang-16s": (344, "22 ms"),
    "partition-16s": (345, "23 ms"),
}
"""Go's clientv3 3.4 on another day and machine of two cores: failed puts, longest gap."""
GO_PUTS: Final = 1500
"""How many it made, about: less than ours, so that shares are compared."""
NOISE: Final = 0.1
"""How far, of it, the model's share of failed puts may be from Go's."""
PEERS: Final = (
    peers.PYTHON_ETCD3_MASTER,
    peers.ETCD3AIO,
    peers.ETCD_CLIENT_PY,
    peers.AETCD,
)
STRANGERS_MODULE: Final = "benchmarks.failover.peer_load"


OURS: Final = (ROUND_ROBIN, HEALTH_AWARE, EXACTLY_ONCE)
"""Whom to compare: the model of Go's client, and what shall be better."""


def our_riders(settings: Sequence[Setting]) -> list[Rider]:
    """Return those of us who take part."""
    return riders_of([setting for setting in settings if setting in OURS])


def peer_riders(tell: Callable[[str], object] = print) -> list[Rider]:
    """Make the peers' environments; one that cannot be had rides along as a row that says so."""
    return [_rider(peer, tell) for peer in PEERS]


def _rider(peer: Peer, tell: Callable[[str], object]) -> Rider:
    try:
        python = str(peers.interpreter(peer))
    except PeerUnavailable as error:
        tell(f"without {error}")
        return Rider(peer.name, ROUND_ROBIN, unavailable=str(error))
    return Rider(peer.name, ROUND_ROBIN, (python, "-m", STRANGERS_MODULE, peer.distribution))


def _cell(results: Results, fault: Fault, name: str) -> str:
    outcomes = results.of(fault.name, name)
    if not outcomes:
        return "-"
    sums = [sums_of(outcome, "put") for outcome in outcomes]
    failed = [each.failed for each in sums]
    spread = f" ({min(failed)} - {max(failed)})" if min(failed) != max(failed) else ""
    gap = milliseconds(statistics.median(each.longest_gap_ms for each in sums))
    twice = sum(audit(outcome.recording).twice for outcome in outcomes)
    more = f", {twice} applied twice" if twice else ""
    return f"{statistics.median(failed):.0f}{spread} / {gap}{more}"


def table(results: Results, riders: Sequence[Rider]) -> Table:
    """Failed puts and the longest gap, by client and fault."""
    of_go = (GO[fault.name] for fault in NUMBERS)
    told = (f"{failed} of {GO_PUTS:,} / {gap}" for failed, gap in of_go)
    rows = [["Go clientv3 3.4 (for comparison)", *told]]
    for rider in riders:
        if rider.unavailable:
            rows.append([rider.name, rider.unavailable, *[""] * (len(NUMBERS) - 1)])
        else:
            rows.append([rider.name, *(_cell(results, fault, rider.name) for fault in NUMBERS)])
    return Table(
        "Beside other clients: failed puts / longest time without one",
        ("client", *(fault.title for fault in NUMBERS)),
        rows,
        "About 1,600 puts each, the fault at 5 s of 16; median of the repeats, and the spread of "
        "the failures in brackets. Clients that stay with one member, or know only one, began with "
        "the one that is struck. Go had its machine for itself; here all these clients and three "
        "members share two cores, which makes gaps of up to 150 ms for anybody. "
        f"Releases: {', '.join(peer.requirements[0] for peer in PEERS)}.",
    )


def goals(results: Results) -> list[Goal]:
    """What our policies should show here; round_robin what Go does, where no election has a say."""
    return [
        _goal(results, "round_robin", "kill-follower-16s", 1),
        _like_go(results, "hang-16s"),
        _like_go(results, "partition-16s"),
        _goal(results, "health_aware", "kill-follower-16s", 0),
        _goal(results, "health_aware", "hang-16s", 15),
        _goal(results, "health_aware", "partition-16s", 15),
        _goal(results, "exactly_once", "kill-leader-16s", 0),
    ]


def _goal(results: Results, setting: str, fault: str, most: int) -> Goal:
    failed = [sums_of(outcome, "put").failed for outcome in results.of(fault, setting)]
    measured = statistics.median(failed) if failed else None
    return Goal(f"{setting}, {_title(fault)}: failed puts", measured, at_most=most)


def _like_go(results: Results, fault: str) -> Goal:
    sums = [sums_of(outcome, "put") for outcome in results.of(fault, "round_robin")]
    shares = [each.failed / each.calls for each in sums if each.calls]
    failed, _ = GO[fault]
    measured = statistics.median(shares) / (failed / GO_PUTS) if shares else None
    text = f"round_robin, {_title(fault)}: share of failed puts : Go's"
    return Goal(text, measured, at_least=1 - NOISE, at_most=1 + NOISE)


def _title(fault: str) -> str:
    return next(each.title for each in NUMBERS if each.name == fault)
