"""Questions between members: answers, refusals, deadlines, loss."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from etcd_pinwheel.protos.errors import LEASE_NOT_FOUND, NOT_LEADER, Code, Refusal, Refused
from etcd_pinwheel.server_stub.peers import PeerLimits, PeerUnreachable

from .conftest import A, B, C

SECONDS = 20


async def test_answers_find_their_questions(pair: Any) -> None:
    a, b = pair
    questions = [b"%d" % number for number in range(100)]
    answers = await asyncio.gather(
        *(a.peers.ask(B, "reverse", each, SECONDS) for each in questions)
    )
    assert answers == [each[::-1] for each in questions]
    assert b.receiver.questions == [(A, "reverse", each) for each in questions]
    assert await b.peers.ask(A, "größer", bytes(900_000), SECONDS) == bytes(900_000)


async def test_answers_come_in_any_order(pair: Any) -> None:
    a, b = pair
    go_on = asyncio.Event()

    async def answer(_: str, payload: bytes) -> bytes:
        if payload == b"slow":
            await go_on.wait()
        return payload

    b.receiver.answering = answer
    slow = asyncio.create_task(a.peers.ask(B, "kind", b"slow", SECONDS))
    await b.receiver.until(lambda: b.receiver.questions)
    assert await a.peers.ask(B, "kind", b"fast", SECONDS) == b"fast"
    go_on.set()
    assert await slow == b"slow"


@pytest.mark.parametrize(
    "refusal",
    [LEASE_NOT_FOUND, NOT_LEADER, Refusal(Code.ABORTED, "etwas anderes", Code.UNKNOWN)],
    ids=lambda refusal: refusal.text,
)
async def test_refusals_travel(pair: Any, refusal: Refusal) -> None:
    a, b = pair

    async def refuse(*_: Any) -> bytes:
        raise Refused(refusal)

    b.receiver.answering = refuse
    with pytest.raises(Refused) as caught:
        await a.peers.ask(B, "kind", b"", SECONDS)
    assert caught.value.refusal == refusal


async def test_a_failure_of_the_other_side_is_a_refusal(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair

    async def fail(*_: Any) -> bytes:
        raise LookupError("secret")

    b.receiver.answering = fail
    with pytest.raises(Refused, match="failed to answer: kind") as caught:
        await a.peers.ask(B, "kind", b"", SECONDS)
    assert caught.value.refusal.code == Code.INTERNAL
    assert "secret" in caplog.text
    b.receiver.answering = None
    assert await a.peers.ask(B, "kind", b"ab", SECONDS) == b"ba"


async def test_time_runs_out_and_the_other_side_stops(pair: Any) -> None:
    a, b = pair
    stopped = asyncio.Event()

    async def wait(*_: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return b""

    b.receiver.answering = wait
    with pytest.raises(PeerUnreachable, match=r"no answer within 0\.05 s"):
        await a.peers.ask(B, "kind", b"", 0.05)
    await asyncio.wait_for(stopped.wait(), SECONDS)
    stopped.clear()
    asking = asyncio.create_task(a.peers.ask(B, "kind", b"", SECONDS))
    await b.receiver.until(lambda: len(b.receiver.questions) == 2)
    asking.cancel()
    await asyncio.wait_for(stopped.wait(), SECONDS)
    b.receiver.answering = None
    assert await a.peers.ask(B, "kind", b"ab", SECONDS) == b"ba"


async def test_a_lost_connection_ends_the_wait_on_both_sides(pair: Any) -> None:
    a, b = pair
    stopped = asyncio.Event()

    async def wait(*_: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return b""

    b.receiver.answering = wait
    asking = asyncio.create_task(a.peers.ask(B, "kind", b"", SECONDS))
    await b.receiver.until(lambda: b.receiver.questions)
    a.peers._outgoing[B][1].link.connection.abort("cut")
    with pytest.raises(PeerUnreachable, match="the connection was lost: cut"):
        await asking
    await asyncio.wait_for(stopped.wait(), SECONDS)


async def test_closing_ends_the_wait(pair: Any) -> None:
    a, b = pair
    b.receiver.answering = lambda *_: asyncio.Event().wait()
    asking = asyncio.create_task(a.peers.ask(B, "kind", b"", SECONDS))
    await b.receiver.until(lambda: b.receiver.questions)
    await b.peers.close()
    with pytest.raises(PeerUnreachable):
        await asking


async def test_nobody_to_ask(make: Any) -> None:
    a, b = await make(A), await make(B)
    for absent in (B, C):
        with pytest.raises(PeerUnreachable, match=f"not connected to member {absent:x}"):
            await a.peers.ask(absent, "kind", b"", SECONDS)
    a.know(b)
    await a.connected(B)
    with pytest.raises(ValueError, match="a question of 1048577 bytes"):
        await a.peers.ask(B, "kind", bytes((1 << 20) + 1), SECONDS)


async def test_too_many_questions_end_the_connection(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await make(A), await make(B, limits=PeerLimits(max_questions=4))
    a.know(b)
    await a.connected(B)
    b.receiver.answering = lambda *_: asyncio.Event().wait()
    asks = [a.peers.ask(B, "kind", b"", SECONDS) for _ in range(5)]
    failed = await asyncio.gather(*asks, return_exceptions=True)
    assert all(isinstance(each, PeerUnreachable) for each in failed)
    assert "it sent more than 4 questions at a time" in caplog.text
