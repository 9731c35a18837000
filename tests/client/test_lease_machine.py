"""The keep-alive machine, told what happened by hand: one test for each rule, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.client.errors import ClientClosed
from etcd_pinwheel.client.keep_alive import KeepAliveMachine, Keeper, LossReason
from etcd_pinwheel.client.stream import HangUp, Open, Phase, Send, Wake, WakeAt
from etcd_pinwheel.protos.etcdserverpb import LeaseKeepAliveResponse


class Script:
    """Plays the pump: keeps the clock, and what the machine wanted."""

    def __init__(self) -> None:
        self.machine = KeepAliveMachine(Random(1), linger_seconds=30.0)
        self.now = 100.0
        self.sent: list[tuple[float, int]] = []
        self.alarm: float | None = None
        self.seen: list[Any] = []

    def do(self, actions: Sequence[Any]) -> list[Any]:
        for action in actions:
            match action:
                case Send(message):
                    self.sent.append((self.now, message.ID))
                case WakeAt(time):
                    self.alarm = time
                case _:
                    pass
        self.seen += actions
        return list(actions)

    def keep(self, lease_id: int, ttl_seconds: int) -> Keeper:
        keeper = Keeper.granted(lease_id, ttl_seconds, self.now)
        self.add(keeper)
        return keeper

    def add(self, keeper: Keeper) -> None:
        if Open() in self.do(self.machine.add(keeper, self.now)):
            self.do(self.machine.opened(self.now))

    def answer(self, lease_id: int, ttl_seconds: int) -> None:
        message = LeaseKeepAliveResponse(ID=lease_id, TTL=ttl_seconds)
        self.do(self.machine.received(message, self.now))

    def until(self, end: float, *, opens: bool = True) -> None:
        """Let time pass, alarm by alarm; a stream that is wanted is had at once."""
        while self.alarm is not None and self.alarm <= end:
            assert self.alarm >= self.now, "an alarm in the past would spin"
            self.now, self.alarm = self.alarm, None
            if Open() in self.do(self.machine.woken(self.now)):
                if opens:
                    self.do(self.machine.opened(self.now))
                else:
                    self.do(self.machine.broke(ConnectionError("refused"), self.now))
        self.now = end


@pytest.fixture
def script() -> Script:
    return Script()


def test_a_lease_is_renewed_after_a_third_of_its_time(script: Script) -> None:
    """#1353, #2409: how do I keep a lease alive? By having it."""
    keeper = script.keep(1, 9)
    script.answer(1, 9)
    script.sent.clear()
    script.until(103.0)
    assert script.sent == [(103.0, 1)]
    script.now = 103.5
    script.answer(1, 9)
    assert keeper.deadline == 112.0, "from when it was sent, not from when it was answered"
    script.until(106.0)
    assert script.sent == [(103.0, 1), (106.0, 1)]
    assert keeper.loss is None


def test_all_leases_share_one_stream(script: Script) -> None:
    """aetcd#33: a stream for every refresh."""
    for lease_id in range(1, 101):
        script.keep(lease_id, 10)
        script.answer(lease_id, 10)
    assert script.seen.count(Open()) == 1
    script.sent.clear()
    script.until(104.0)
    assert sorted(lease_id for _, lease_id in script.sent) == list(range(1, 101))


def test_the_server_says_that_it_is_gone(script: Script) -> None:
    keeper, other = script.keep(1, 10), script.keep(2, 10)
    script.seen.clear()
    script.answer(1, 0)
    assert keeper.loss is LossReason.EXPIRED
    assert Wake(keeper) in script.seen
    assert other.loss is None


def test_an_unanswered_renewal_condemns_the_stream_in_time(script: Script) -> None:
    """microsoft/etcd3#110: a half-open connection, found out only after the lease was gone."""
    keeper = script.keep(1, 12)
    script.answer(1, 12)
    script.seen.clear()
    script.sent.clear()
    script.until(111.9)
    assert script.seen.count(HangUp(unanswered=True)) == 3
    times = [time for time, _ in script.sent]
    assert times[0] == 104.0
    assert times[1] == pytest.approx(106.0, abs=0.1)
    assert times[2] == pytest.approx(108.0, abs=0.2)
    assert times[3] == pytest.approx(110.0, abs=0.3)
    assert keeper.loss is None
    script.answer(1, 12)
    assert keeper.deadline == pytest.approx(times[3] + 12)


def test_lost_exactly_at_our_own_deadline(script: Script) -> None:
    """microsoft/etcd3#57: when to declare it lost? When the last answered renewal runs out."""
    keeper = script.keep(1, 12)
    script.answer(1, 12)
    script.until(104.0)
    script.now = 105.0
    script.answer(1, 12)
    script.do(script.machine.broke(ConnectionError("reset"), script.now))
    script.until(115.99, opens=False)
    assert keeper.loss is None
    script.until(116.0, opens=False)
    assert keeper.loss is LossReason.UNANSWERED
    assert isinstance(keeper.cause, ConnectionError)
    assert script.machine.phase is Phase.IDLE
    assert script.alarm is None


def test_the_grant_counts_from_when_it_was_asked_for(script: Script) -> None:
    keeper = Keeper.granted(1, 10, 97.0)
    script.do(script.machine.add(keeper, script.now))
    assert keeper.deadline == 107.0


def test_an_answer_belongs_to_the_oldest_request(script: Script) -> None:
    """Two requests under way and one answer: the deadline counts from the first of them."""
    keeper = script.keep(1, 10)
    script.now = 101.0
    script.add(Keeper(1, None, once=True))
    assert len(script.sent) == 2
    script.now = 101.2
    script.answer(1, 10)
    assert keeper.deadline == 110.0
    script.answer(1, 10)
    assert keeper.deadline == 111.0


def test_answers_of_a_lost_stream_count_for_nothing_on_the_next(script: Script) -> None:
    keeper = script.keep(1, 10)
    script.do(script.machine.broke(None, script.now))
    script.until(101.0)
    renewed_at = script.sent[-1][0]
    script.answer(1, 10)
    assert keeper.deadline == pytest.approx(renewed_at + 10)
    script.answer(1, 10)
    assert keeper.deadline == pytest.approx(renewed_at + 10), "nothing was asked a second time"


def test_a_single_renewal_travels_on_the_shared_stream(script: Script) -> None:
    """aetcd#33, #560: refresh opened a stream per call, and half-closed it."""
    for _ in range(3):
        once = Keeper(5, None, once=True)
        script.add(once)
        script.answer(5, 30)
        assert once.renewed_ttl_seconds == 30
        assert once.loss is None
    assert script.seen.count(Open()) == 1
    gone = Keeper(6, None, once=True)
    script.add(gone)
    script.answer(6, 0)
    assert gone.loss is LossReason.EXPIRED


def test_a_single_renewal_that_was_answered_is_over(script: Script) -> None:
    """Nothing becomes due of it any more: not the patience for its answer, and no renewal."""
    kept = script.keep(1, 9)
    script.answer(1, 9)
    script.add(Keeper(5, None, once=True))
    script.answer(5, 5)
    script.sent.clear()
    script.until(102.9)
    assert script.sent == []
    script.until(103.0)
    assert script.sent == [(103.0, 1)]
    assert kept.loss is None


def test_what_was_sent_stays_sent_when_its_stream_is_gone(script: Script) -> None:
    """Then nobody may be told that nothing was sent: the server may have renewed it."""
    once = Keeper(5, None, once=True)
    script.do(script.machine.add(once, script.now))
    assert once.attempts == 0
    script.do(script.machine.opened(script.now))
    script.do(script.machine.broke(ConnectionError("reset"), script.now))
    assert script.machine.phase is Phase.WAITING
    assert once.attempts == 1
    script.until(101.0)
    assert once.attempts == 2


def test_reopening_renews_everything_at_once(script: Script) -> None:
    for lease_id in (1, 2, 3):
        script.keep(lease_id, 10)
        script.answer(lease_id, 10)
    script.sent.clear()
    script.do(script.machine.broke(ConnectionError("reset"), script.now))
    script.until(100.5)
    assert [lease_id for _, lease_id in script.sent] == [1, 2, 3]


def test_removed_and_closed(script: Script) -> None:
    revoked, kept = script.keep(1, 10), script.keep(2, 10)
    script.do(script.machine.remove(revoked, LossReason.REVOKED, script.now))
    assert revoked.loss is LossReason.REVOKED
    script.do(script.machine.close(ClientClosed("closed")))
    assert kept.loss is LossReason.CLOSED
    assert script.alarm is None


def test_an_idle_stream_lingers_and_goes(script: Script) -> None:
    keeper = script.keep(1, 10)
    script.do(script.machine.remove(keeper, LossReason.REVOKED, script.now))
    script.seen.clear()
    script.until(129.9)
    assert HangUp() not in script.seen
    script.until(130.0)
    assert HangUp() in script.seen


@given(
    seed=st.integers(0, 2**32),
    ttl_seconds=st.integers(2, 30),
    delays=st.lists(st.floats(0, 3), min_size=1, max_size=20),
    cuts=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_never_believed_in_longer_than_the_server_does(
    seed: int, ttl_seconds: int, delays: list[float], cuts: list[bool]
) -> None:
    """Whatever the delays and cuts: our deadline is never later than the server's own expiry."""
    random, script = Random(seed), Script()
    server_expiry = script.now + random.uniform(0, 0.5) + ttl_seconds
    keeper = script.keep(1, ttl_seconds)
    for step in range(60):
        delay, cut = delays[step % len(delays)], cuts[step % len(cuts)]
        requests = len(script.sent)
        script.until(script.now + delay)
        assert keeper.loss is not None or keeper.deadline <= server_expiry
        if keeper.loss is not None:
            break
        if len(script.sent) > requests and not cut:
            arrival = random.uniform(script.sent[-1][0], script.now)
            if arrival <= server_expiry:
                server_expiry = max(server_expiry, arrival + ttl_seconds)
                script.answer(1, ttl_seconds)
    else:
        return
    assert keeper.deadline <= server_expiry
