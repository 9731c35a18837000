"""Made-up runs of the failover benchmark, for tests of what is concluded from runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.failover.record import Call, Recording
from benchmarks.failover.run import Outcome


def put(
    number: int, due: float, seconds: float = 0.002, error: str = "", member: str = "m1"
) -> Call:
    return Call("put", number, due, due + seconds, error, member)


def get(
    number: int, due: float, seconds: float = 0.002, error: str = "", member: str = "m1"
) -> Call:
    return Call("get", number, due, due + seconds, error, member)


def outcome(
    calls: Sequence[Call] = (),
    *,
    fault: str = "hang",
    setting: str = "round_robin",
    repeat: int = 0,
    struck: float = 2.0,
    undone: float = 8.0,
    seconds: float = 10.0,
    led_after: float | None = None,
    **recorded: Any,
) -> Outcome:
    """A run in which m1 of three members was struck."""
    return Outcome(
        fault=fault,
        setting=setting,
        repeat=repeat,
        struck=struck,
        undone=undone,
        victim="m1",
        members=("m1", "m2", "m3"),
        recording=Recording(calls=calls, **recorded),
        led_after=led_after,
        seconds=seconds,
    )


def steady(count: int, bad: int = 0) -> list[Call]:
    """So many puts from 2 s to 8 s, of which the first fail."""
    step = 6.0 / count
    return [
        put(number, 2.0 + number * step, error="TimedOut" if number < bad else "", member="m2")
        for number in range(count)
    ]
