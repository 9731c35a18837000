"""The watch machine, told what happened by hand: one test for each rule, no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.client.errors import (
    ClientClosed,
    Compacted,
    HistoryLost,
    NotEtcd,
    PermissionDenied,
    Unauthenticated,
    WatchCanceled,
    WatchInterrupted,
)
from etcd_pinwheel.client.stream import HangUp, Open, Phase, ReadRevision, Send, Wake, WakeAt
from etcd_pinwheel.client.watch_machine import CREATE_PATIENCE_SECONDS, WatchMachine
from etcd_pinwheel.client.watcher import Taken, Watcher, WatcherState
from etcd_pinwheel.protos.etcdserverpb import ResponseHeader, WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.mvccpb import Event, KeyValue

CLUSTER = 7


def event(revision: int, key: bytes = b"k") -> Event:
    return Event(kv=KeyValue(key=key, mod_revision=revision, create_revision=revision))


def response(watch_id: int = 0, revision: int = 0, *revisions: int, **more: Any) -> WatchResponse:
    cluster_id = more.pop("cluster_id", CLUSTER)
    return WatchResponse(
        header=ResponseHeader(revision=revision, cluster_id=cluster_id),
        watch_id=watch_id,
        events=[event(r) for r in revisions],
        **more,
    )


class Script:
    """Plays the pump: keeps the clock, and what the machine wanted."""

    def __init__(self) -> None:
        self.machine = WatchMachine(Random(1), linger_seconds=5.0)
        self.now = 100.0
        self.sent: list[Any] = []
        self.seen: list[Any] = []
        self.alarm: float | None = None

    def do(self, actions: Sequence[Any]) -> list[Any]:
        for action in actions:
            match action:
                case Send(message):
                    self.sent.append(message)
                case WakeAt(time):
                    self.alarm = time
                case _:
                    pass
        self.seen += actions
        return list(actions)

    def watch(self, *, open_now: bool = True, **options: Any) -> Watcher:
        limits = {"buffer_events": 1000, "max_outage_seconds": None}
        limits = {name: options.pop(name, usual) for name, usual in limits.items()}
        watcher = Watcher(WatchCreateRequest(key=b"k", fragment=True, **options), **limits)
        actions = self.do(self.machine.add(watcher, self.now))
        if open_now and Open() in actions:
            self.do(self.machine.opened(self.now))
        return watcher

    def created(self, watch_id: int = 0, revision: int = 10, **more: Any) -> None:
        self.hear(response(watch_id, revision, created=True, **more))

    def hear(self, message: WatchResponse) -> list[Any]:
        return self.do(self.machine.received(message, self.now))

    def lose(self, error: Exception | None = None) -> None:
        self.do(self.machine.broke(error, self.now))

    def reopen(self) -> None:
        """Let the pause pass, and give the machine its stream."""
        assert self.alarm is not None
        self.now = self.alarm
        actions = self.do(self.machine.woken(self.now))
        assert Open() in actions
        self.do(self.machine.opened(self.now))

    def taken(self, watcher: Watcher) -> list[int]:
        revisions = []
        while True:
            taken, actions = self.machine.take(watcher, self.now)
            self.do(actions)
            if taken is None:
                return revisions
            revisions.append(taken.revision if taken.events else -taken.revision)

    def creations(self) -> list[int]:
        """The start revisions of all creations so far, and forget them."""
        starts = [
            m.create_request.start_revision for m in self.sent if m.HasField("create_request")
        ]
        self.sent.clear()
        return starts

    def cancellations(self) -> list[int]:
        ids = [m.cancel_request.watch_id for m in self.sent if m.HasField("cancel_request")]
        self.sent.clear()
        return ids


@pytest.fixture
def script() -> Script:
    return Script()


# Creation


def test_creations_are_serialised_so_that_each_gets_its_own_id(script: Script) -> None:
    """microsoft/etcd3#30, #33: concurrent creations took each other's ids."""
    first, second = script.watch(), script.watch()
    assert script.creations() == [0]
    script.created(watch_id=5)
    assert script.creations() == [0]
    script.created(watch_id=3)
    assert (first.watch_id, second.watch_id) == (5, 3)


def test_start_now_is_pinned_by_the_created_header(script: Script) -> None:
    """Nothing between the creation and the first event is lost if the stream breaks there."""
    watcher = script.watch()
    script.created(revision=10)
    assert watcher.next_revision == 11
    script.creations()
    script.lose()
    script.reopen()
    assert script.creations() == [11]


def test_a_creation_refused_ends_only_its_own_watch(script: Script) -> None:
    """#1227: created and canceled at once; the reason may be the text of a whole gRPC status."""
    denied, other = script.watch(), script.watch()
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    script.hear(response(-1, 10, created=True, canceled=True, cancel_reason=reason))
    assert denied.state is WatcherState.ENDED
    assert isinstance(denied.error, PermissionDenied)
    assert denied.error.text == "etcdserver: permission denied"
    script.created(watch_id=0)
    assert other.state is WatcherState.LIVE
    script.do(script.machine.close(ClientClosed("closed")))
    assert isinstance(other.error, ClientClosed), "not the other one's refusal, as in clientv3"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
            Unauthenticated,
        ),
        ("etcdserver: mvcc: required revision has been compacted", Compacted),
        ("mvcc: watcher range is empty", WatchCanceled),
        ("", WatchCanceled),
    ],
)
def test_reasons_become_typed_errors(script: Script, reason: str, kind: type[Exception]) -> None:
    watcher = script.watch()
    script.hear(response(-1, 10, created=True, canceled=True, cancel_reason=reason))
    assert type(watcher.error) is kind


def test_a_watch_ended_during_its_creation_is_cancelled_when_that_is_answered(
    script: Script,
) -> None:
    watcher = script.watch()
    script.do(script.machine.remove(watcher, script.now))
    assert script.cancellations() == []
    script.created(watch_id=4)
    assert script.cancellations() == [4]
    assert watcher.error is None


def test_an_unanswered_creation_gives_up_on_the_stream(script: Script) -> None:
    watcher = script.watch()
    assert script.alarm == script.now + CREATE_PATIENCE_SECONDS
    script.now = script.alarm
    assert HangUp(unanswered=True) in script.do(script.machine.woken(script.now))
    script.creations()
    script.reopen()
    assert script.creations() == [0]
    script.created()
    assert watcher.state is WatcherState.LIVE


# Resumption


def test_a_catching_up_watch_resumes_after_its_last_event_not_after_the_header(
    script: Script,
) -> None:
    """The trap of header.revision + 1: the header is the server's revision, not the batch's."""
    watcher = script.watch(start_revision=2)
    script.created(revision=5000)
    script.hear(response(0, 5000, 2, 3, 4))
    script.creations()
    script.lose()
    script.reopen()
    assert script.creations() == [5]
    assert script.taken(watcher) == [2, 3, 4]


def test_fragments_advance_only_by_whole_revisions(script: Script) -> None:
    """#729: one revision may carry several events, and a response may stop inside one."""
    watcher = script.watch(start_revision=2)
    script.created(revision=9)
    script.hear(response(0, 9, 2, 3, 3, fragment=True))
    assert script.taken(watcher) == [2], "3 may have more to come"
    script.lose()
    script.creations()
    script.reopen()
    assert script.creations() == [3]
    script.created(watch_id=1, revision=9)
    script.hear(response(1, 9, 3, 3, fragment=True))
    script.hear(response(1, 9, 3, 4))
    taken = script.machine.take(watcher, script.now)[0]
    assert taken is not None
    assert (taken.revision, len(taken.events)) == (3, 3)
    assert script.taken(watcher) == [4]


def test_a_clean_end_of_the_stream_is_resumed_too(script: Script) -> None:
    """microsoft/etcd3#31, #72; aetcd: a graceful end left the watcher silently dead."""
    watcher = script.watch()
    script.created()
    script.creations()
    script.lose(None)
    script.reopen()
    assert script.creations() == [11]
    assert watcher.state is WatcherState.CREATING


def test_the_place_never_moves_back(script: Script) -> None:
    """etcd#20221: progress below a future start revision moved it back, and old events came."""
    watcher = script.watch(start_revision=100)
    script.created(revision=10)
    script.hear(response(0, 20))
    script.creations()
    script.lose()
    script.reopen()
    assert script.creations() == [100]
    script.created(revision=20)
    script.hear(response(0, 20, 19, 20))
    assert script.taken(watcher) == [-20], "progress was news, the old events were not"


def test_automatic_progress_moves_the_place(script: Script) -> None:
    script.watch(progress_notify=True)
    script.created(revision=10)
    script.hear(response(0, 40))
    script.creations()
    script.lose()
    script.reopen()
    assert script.creations() == [41]


def test_manual_progress_is_news_but_no_place_to_resume_from(script: Script) -> None:
    """etcd#15220: before 3.4.25 and 3.5.8 the answer may overtake events."""
    asked, other = script.watch(), script.watch()
    script.created(0, 10)
    script.created(1, 10)
    script.do(script.machine.ask_progress(asked, script.now))
    script.hear(response(-1, 40))
    script.hear(response(0, 40, 39))
    assert script.taken(asked) == [-40, 39]
    assert script.taken(other) == []
    assert asked.next_revision == 40


def test_a_progress_request_survives_a_reconnection(script: Script) -> None:
    asked = script.watch()
    script.do(script.machine.ask_progress(asked, script.now))
    script.sent.clear()
    script.created()
    assert script.sent[-1].HasField("progress_request")
    script.lose()
    script.sent.clear()
    script.reopen()
    script.created(revision=11)
    assert script.sent[-1].HasField("progress_request")


def test_unread_progress_does_not_pile_up(script: Script) -> None:
    watcher = script.watch()
    script.created(revision=10)
    for revision in range(11, 50):
        script.hear(response(0, revision))
    assert script.taken(watcher) == [-49]


# Ends


def test_compaction_is_told_after_what_was_buffered(script: Script) -> None:
    """#134: an endless loop, or a block, where a typed error was wanted."""
    watcher = script.watch(start_revision=2)
    script.created(revision=9)
    script.hear(response(0, 9, 2, 3))
    script.hear(response(0, 0, canceled=True, compact_revision=8))
    assert script.taken(watcher) == [2, 3]
    assert isinstance(watcher.error, Compacted)
    assert watcher.error.compact_revision == 8
    assert watcher.state is WatcherState.ENDED
    assert script.cancellations() == [], "the server knows"


def test_a_wiped_cluster_is_found_out(script: Script) -> None:
    """microsoft/etcd3#114: the remembered revision lay in the future, and the watch was silent."""
    watcher = script.watch()
    script.created(revision=50)
    script.lose()
    script.reopen()
    assert ReadRevision() not in script.seen
    script.created(watch_id=0, revision=3)
    assert ReadRevision() in script.seen
    header = ResponseHeader(revision=4, cluster_id=CLUSTER)
    script.do(script.machine.revision_read(header, script.now))
    assert isinstance(watcher.error, HistoryLost)
    assert (watcher.error.known_revision, watcher.error.revision) == (50, 4)
    assert watcher.error.same_cluster


def test_a_lagging_member_is_not_taken_for_a_wiped_one(script: Script) -> None:
    watcher = script.watch()
    script.created(revision=50)
    script.lose()
    script.reopen()
    script.created(watch_id=0, revision=3)
    script.do(script.machine.revision_read(None, script.now))
    assert script.alarm is not None
    script.now = script.alarm
    script.seen.clear()
    script.do(script.machine.woken(script.now))
    assert ReadRevision() in script.seen, "not answered: asked again"
    script.do(script.machine.revision_read(ResponseHeader(revision=50), script.now))
    assert watcher.state is WatcherState.LIVE
    script.hear(response(0, 51, 51))
    assert script.taken(watcher) == [51]


def test_another_cluster_is_found_out_at_once(script: Script) -> None:
    watcher = script.watch()
    script.created(revision=50)
    script.lose()
    script.reopen()
    script.sent.clear()
    script.created(watch_id=2, revision=80, cluster_id=CLUSTER + 1)
    assert isinstance(watcher.error, HistoryLost)
    assert not watcher.error.same_cluster
    assert script.cancellations() == [2]
    fresh = script.watch()
    script.created(watch_id=3, revision=80, cluster_id=CLUSTER + 1)
    assert fresh.state is WatcherState.LIVE


def test_a_server_that_is_not_etcd_ends_the_watches(script: Script) -> None:
    watcher = script.watch()
    error = NotEtcd("unknown service", code=12)  # type: ignore[arg-type]
    script.lose(error)
    assert watcher.error is error
    assert script.machine.phase is Phase.IDLE
    script.now += 10
    assert Open() not in script.do(script.machine.woken(script.now))


def test_an_outage_may_be_given_an_end(script: Script) -> None:
    """etcd#8980, #88: a watch that never fails on total loss of connectivity."""
    patient, hasty = script.watch(), script.watch(max_outage_seconds=3.0)
    script.created(0, 10)
    script.created(1, 20)
    script.lose()
    began = script.now
    while hasty.state is not WatcherState.ENDED:
        assert script.alarm is not None
        assert script.alarm <= began + 3.0
        script.now = script.alarm
        script.do(script.machine.woken(script.now))
        script.lose(ConnectionError("refused"))
    assert script.now == began + 3.0
    assert isinstance(hasty.error, WatchInterrupted)
    assert hasty.error.next_revision == 21
    assert patient.state is WatcherState.QUEUED


# Bounds


def test_a_full_watch_is_parked_and_resumed_without_loss(script: Script) -> None:
    """#291: un-iterated queues grow; reading nothing instead would stall the other watches."""
    slow, quick = script.watch(buffer_events=4), script.watch()
    script.created(0, 10)
    script.created(1, 10)
    script.sent.clear()
    script.hear(response(0, 20, 11, 12, 12, 13, 14))
    assert slow.state is WatcherState.PARKED
    assert script.cancellations() == [0]
    script.hear(response(0, 21, 15))
    assert script.cancellations() == [], "one cancellation is enough"
    script.hear(response(1, 21, 15))
    assert script.taken(quick) == [15]
    script.hear(response(0, 0, canceled=True))
    taken, actions = script.machine.take(slow, script.now)
    script.do(actions)
    assert isinstance(taken, Taken)
    assert taken.revision == 11
    assert script.creations() == [], "more than half is still there"
    taken, actions = script.machine.take(slow, script.now)
    script.do(actions)
    assert taken is not None
    assert len(taken.events) == 2
    assert script.creations() == [15], "what was left out after it was full comes again"


def test_a_watch_that_is_full_in_mid_revision_gets_that_one_again(script: Script) -> None:
    slow = script.watch(buffer_events=2)
    script.created(0, 10)
    script.creations()
    script.hear(response(0, 20, 11, 12, 13, 13, fragment=True))
    assert slow.state is WatcherState.PARKED
    assert script.taken(slow) == [11, 12]
    assert script.creations() == [13]


def test_parked_watches_alone_need_no_stream(script: Script) -> None:
    slow = script.watch(buffer_events=1)
    script.created(0, 10)
    script.hear(response(0, 12, 11, 12))
    script.lose()
    assert script.machine.phase is Phase.IDLE
    script.seen.clear()
    assert script.taken(slow) == [11, 12]
    assert Open() in script.seen


def test_events_for_nobody_are_cancelled_once(script: Script) -> None:
    script.watch()
    script.created(0, 10)
    script.sent.clear()
    script.hear(response(9, 11, 11))
    script.hear(response(9, 12, 12))
    assert script.cancellations() == [9]


# The stream


def test_an_unwanted_stream_lingers_and_goes(script: Script) -> None:
    watcher = script.watch()
    script.created()
    script.do(script.machine.remove(watcher, script.now))
    assert script.cancellations() == [0]
    assert script.alarm == script.now + 5.0
    script.now = script.alarm
    assert HangUp() in script.do(script.machine.woken(script.now))
    assert script.machine.phase is Phase.IDLE
    assert Open() in script.do(
        script.machine.add(Watcher(WatchCreateRequest(), buffer_events=1), 0)
    )


def test_pauses_grow_and_begin_anew_after_a_good_stream(script: Script) -> None:
    """#258, #152: a reconnect loop at full speed. A stream that flaps is no good stream."""
    script.watch()
    pauses = []
    for _ in range(12):
        script.created()
        script.lose()
        assert script.alarm is not None
        pauses.append(script.alarm - script.now)
        script.reopen()
    assert pauses[0] <= 0.02
    assert all(1.0 <= pause <= 2.0 for pause in pauses[8:])
    script.created()
    script.now += 1.5
    script.lose()
    assert script.alarm is not None
    assert script.alarm - script.now <= 0.02


def test_waiters_are_woken_for_every_end(script: Script) -> None:
    watchers = [script.watch() for _ in range(3)]
    script.created(0)
    script.seen.clear()
    script.do(script.machine.close(ClientClosed("closed")))
    woken = {a.whom for a in script.seen if isinstance(a, Wake)}
    assert woken == set(watchers)
    assert script.seen[-2:] == [HangUp(), WakeAt(None)]
