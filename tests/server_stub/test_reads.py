"""Linearizable reads: whom an answer lets go on, and what becomes of everybody else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcd_pinwheel.protos.errors import TIMEOUT, TIMEOUT_APPLIED_INDEX
from etcd_pinwheel.server_stub.reads import RETRY_SECONDS, ReadQueue

TIMEOUT_SECONDS = 7.0


@pytest.fixture
def queue() -> ReadQueue[str]:
    queue: ReadQueue[str] = ReadQueue(100, timeout_seconds=TIMEOUT_SECONDS)
    queue.led_by(1)
    return queue


def asked(queue: ReadQueue[str], now: float) -> bytes:
    context = queue.ask(now)
    assert context is not None
    return context


def join(queue: ReadQueue[str], *tickets: str, now: float = 0.0) -> None:
    for ticket in tickets:
        queue.join(ticket, now)


def test_all_who_wait_share_a_question(queue: ReadQueue[str]) -> None:
    join(queue, "a", "b", "c")
    queue.answered(asked(queue, 0.0), 5)
    assert queue.applied(4) == []
    assert queue.applied(5) == ["a", "b", "c"]
    assert not queue


def test_who_comes_after_the_question_needs_another(queue: ReadQueue[str]) -> None:
    """The rule that makes stale answers impossible."""
    join(queue, "early")
    first = asked(queue, 0.0)
    join(queue, "late", now=0.1)
    assert queue.ask(0.1) is None, "one question at a time"
    queue.answered(first, 5)
    assert queue.applied(5) == ["early"]
    queue.answered(first, 5)
    assert queue.applied(5) == [], "an answer counts once"
    second = asked(queue, 0.2)
    assert second != first
    queue.answered(second, 6)
    assert queue.applied(6) == ["late"]


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_question_asked_again_has_a_new_id_and_any_may_be_answered(
    queue: ReadQueue[str], answered: int
) -> None:
    join(queue, "a")
    ids = [asked(queue, RETRY_SECONDS * attempt) for attempt in range(3)]
    assert len(set(ids)) == 3
    queue.answered(ids[answered], 5)
    assert queue.applied(5) == ["a"]


def test_the_repeated_question_covers_who_came_since_and_the_first_does_not(
    queue: ReadQueue[str],
) -> None:
    join(queue, "a")
    first = asked(queue, 0.0)
    join(queue, "b", now=0.3)
    second = asked(queue, RETRY_SECONDS)
    join(queue, "c", now=0.6)
    queue.answered(first, 3)
    assert queue.applied(9) == ["a"]
    queue.answered(second, 4)
    assert queue.applied(9) == ["b"]
    assert queue.ask(0.6) is not None, "for c"


def test_the_answer_to_a_later_question_settles_the_earlier_ones(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    first = asked(queue, 0.0)
    join(queue, "b", now=0.3)
    queue.answered(asked(queue, RETRY_SECONDS), 4)
    assert queue.applied(4) == ["a", "b"]
    queue.answered(first, 99)
    join(queue, "c", now=0.6)
    assert queue.applied(99) == []


def test_answers_of_strangers_release_nobody(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    asked(queue, 0.0)
    queue.answered(b"\0" * 8, 5)
    assert queue.applied(5) == []
    assert len(queue) == 1


def test_who_wants_no_more_than_an_answer_waits_for_no_applier(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    queue.join("confirmed", 0.0, applied=False)
    join(queue, "b")
    context = asked(queue, 0.0)
    queue.join("late", 0.1, applied=False)
    assert queue.applied(99) == [], "but for an answer"
    queue.answered(context, 5)
    assert queue.applied(4) == ["confirmed"]
    assert queue.applied(5) == ["a", "b"]
    queue.answered(asked(queue, 0.2), 6)
    assert queue.applied(5) == ["late"]


def test_a_question_is_repeated_only_when_it_is_overdue(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    asked(queue, 0.0)
    assert queue.ask(RETRY_SECONDS - 0.01) is None
    assert not queue.is_overdue(RETRY_SECONDS - 0.01)
    assert queue.retry_in(0.1) == pytest.approx(RETRY_SECONDS - 0.1)
    assert queue.is_overdue(RETRY_SECONDS)
    assert queue.ask(RETRY_SECONDS) is not None


def test_the_first_entry_of_a_term_is_a_reason_to_ask_again(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    assert queue.ask_again(0.0) is None, "nothing was asked yet"
    first = asked(queue, 0.0)
    second = queue.ask_again(0.1)
    assert second not in (None, first)


def test_another_leader_refuses_those_for_whom_the_old_one_was_asked(
    queue: ReadQueue[str],
) -> None:
    join(queue, "a", "b")
    late = asked(queue, 0.0)
    join(queue, "c", now=0.1)
    assert queue.led_by(2) == ["a", "b"]
    queue.answered(late, 5)
    assert queue.applied(5) == [], "c did not hear of an answer to a question before its time"
    queue.answered(asked(queue, 0.2), 6)
    assert queue.applied(6) == ["c"]


def test_a_new_leader_is_asked_at_once(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    asked(queue, 0.0)
    join(queue, "b", now=0.1)
    queue.led_by(2)
    assert queue.ask(0.1) is not None


def test_who_comes_after_all_gave_up_is_asked_for_at_once() -> None:
    queue: ReadQueue[str] = ReadQueue(1, timeout_seconds=RETRY_SECONDS / 2)
    queue.led_by(1)
    join(queue, "a")
    asked(queue, 0.0)
    assert queue.expired(RETRY_SECONDS / 2) == [("a", TIMEOUT)]
    join(queue, "b", now=RETRY_SECONDS / 2)
    assert queue.ask(RETRY_SECONDS / 2) is not None


def test_an_answer_just_before_the_change_counts(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    queue.answered(asked(queue, 0.0), 5)
    assert queue.led_by(2) == []
    assert queue.applied(5) == ["a"]


def test_nobody_is_asked_while_nobody_leads(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    context = asked(queue, 0.0)
    assert queue.led_by(0) == [], "its answer may be on the way"
    join(queue, "b", now=0.1)
    assert queue.ask(5.0) is None
    queue.answered(context, 5)
    assert queue.applied(5) == ["a"]
    assert queue.led_by(1) == [], "b was waiting for a leader, whoever it is"
    assert queue.ask(5.0) is not None


def test_the_same_leader_again_is_a_change_after_a_gap(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    asked(queue, 0.0)
    assert queue.led_by(1) == []
    assert queue.led_by(0) == []
    assert queue.led_by(1) == ["a"]


def test_readers_give_up_each_in_its_time(queue: ReadQueue[str]) -> None:
    join(queue, "a", now=0.0)
    asked(queue, 0.0)
    join(queue, "b", now=1.0)
    join(queue, "c", now=2.0)
    assert queue.expired(TIMEOUT_SECONDS - 0.1) == []
    assert queue.expired(TIMEOUT_SECONDS + 1) == [("a", TIMEOUT), ("b", TIMEOUT)]
    queue.answered(asked(queue, 8.0), 5)
    assert queue.applied(5) == ["c"]


def test_a_reader_that_waits_for_the_applier_gives_up_with_other_words(
    queue: ReadQueue[str],
) -> None:
    join(queue, "a", now=0.0)
    join(queue, "b", now=1.0)
    queue.answered(asked(queue, 1.0), 5)
    assert queue.expired(TIMEOUT_SECONDS) == [("a", TIMEOUT_APPLIED_INDEX)]
    assert queue.applied(5) == ["b"]


def test_everybody_can_be_sent_away(queue: ReadQueue[str]) -> None:
    join(queue, "a")
    queue.answered(asked(queue, 0.0), 5)
    join(queue, "b", "c")
    asked(queue, 0.1)
    assert queue.everybody() == ["a", "b", "c"]
    assert not queue
    assert queue.ask(9.0) is None


def test_ids_go_round(queue: ReadQueue[str]) -> None:
    queue = ReadQueue(2**64 - 1, timeout_seconds=TIMEOUT_SECONDS)
    queue.led_by(1)
    join(queue, "a")
    assert asked(queue, 0.0) == b"\xff" * 8
    assert asked(queue, 1.0) == b"\0" * 8


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["join", "confirm", "ask", "answer", "apply", "lead", "expire", "again", "write"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(STEPS)
def test_no_sequence_of_events_makes_a_stale_read(steps: list[tuple[str, int]]) -> None:
    """Against a cluster that is one number: how much was acknowledged by now.

    A question is noted with a number not below what was acknowledged when it was asked, and may be
    answered at any time later, more than once, in any order, across changes of leader. Those who
    want no more than an answer must see nothing, but it must be to a question after they came.
    """
    queue: ReadQueue[int] = ReadQueue(7, timeout_seconds=TIMEOUT_SECONDS)
    queue.led_by(1)
    now, acknowledged = 0.0, 0
    must_see: list[int] = []
    answers: list[tuple[bytes, int, int]] = []
    """Question, what was acknowledged by then, how many had come by then."""
    left: set[int] = set()

    def leave(readers: list[int]) -> None:
        assert not left & set(readers), "nobody leaves twice"
        left.update(readers)

    for step, number in steps:
        now += 0.1 * number
        match step:
            case "join":
                queue.join(len(must_see), now)
                must_see.append(acknowledged)
            case "confirm":
                queue.join(len(must_see), now, applied=False)
                must_see.append(0)
            case "ask" | "again":
                context = queue.ask(now) if step == "ask" else queue.ask_again(now)
                if context is not None:
                    answers.append((context, acknowledged, len(must_see)))
            case "answer" if answers:
                context, index, came = answers[number % len(answers)]
                queue.answered(context, index)
                ready = queue.applied(0)
                leave(ready)
                assert all(must_see[reader] == 0 and reader < came for reader in ready)
            case "apply":
                ready = queue.applied(number)
                leave(ready)
                assert all(must_see[reader] <= number for reader in ready), "a stale read"
            case "lead":
                leave(queue.led_by(number))
            case "expire":
                leave([reader for reader, _ in queue.expired(now)])
            case "write":
                acknowledged += 1
        assert len(queue) == len(must_see) - len(left)
    leave(queue.everybody())
    assert left == set(range(len(must_see)))
