"""When a change of the membership may be proposed: etcd's rules as tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcd_pinwheel.protos.errors import (
    LEARNER_NOT_READY,
    NOT_ENOUGH_STARTED,
    UNHEALTHY,
    Refusal,
    Refused,
)
from etcd_pinwheel.server_stub.admission import (
    View,
    check_addition,
    check_promotion,
    check_readiness,
    check_removal,
    quorum,
)
from etcd_pinwheel.server_stub.cluster import ClusterMember

NOW = 100.0


def view(members: str) -> View:
    """A cluster as letters, seen from the first of its members.

    ``H`` is healthy, ``Y`` connected for too short a time, ``D`` down, ``U`` never started (and so
    down); ``l`` is a learner that is up.
    """
    since: dict[int, float] = {}
    made = []
    for position, letter in enumerate(members):
        own_id = position + 1
        name = "" if letter == "U" else f"m{own_id}"
        made.append(ClusterMember(own_id, (), name, is_learner=letter == "l"))
        if letter in "Hl":
            since[own_id] = NOW - 5.0
        elif letter == "Y":
            since[own_id] = NOW - 4.9
    since.pop(1, None)  # nobody is connected to itself
    return View(1, made, since.get, NOW)


def outcome(check: Callable[[], None]) -> Refusal | None:
    try:
        check()
    except Refused as refused:
        return refused.refusal
    return None


@pytest.mark.parametrize(
    ("members", "voter", "learner"),
    [
        ("H", None, None),  # alone: nobody to be connected to
        ("HH", None, None),
        ("HY", UNHEALTHY, UNHEALTHY),
        ("HD", UNHEALTHY, UNHEALTHY),
        ("HU", NOT_ENOUGH_STARTED, UNHEALTHY),
        ("HHH", None, None),
        ("HHY", UNHEALTHY, UNHEALTHY),  # the newcomer counts as down: 2 of 4
        ("HHD", UNHEALTHY, UNHEALTHY),
        ("HHU", NOT_ENOUGH_STARTED, UNHEALTHY),
        ("HHHD", None, None),  # 3 of 5
        ("HHDD", UNHEALTHY, UNHEALTHY),
        ("HHHHD", None, None),  # 4 of 6
        ("HHHDD", UNHEALTHY, UNHEALTHY),
        ("HHHHU", None, None),
        ("HHHUU", NOT_ENOUGH_STARTED, UNHEALTHY),
        ("Hl", None, None),  # learners do not count
        ("HHl", None, None),
    ],
)
def test_adding(members: str, voter: Refusal | None, learner: Refusal | None) -> None:
    seen = view(members)
    assert outcome(lambda: check_addition(seen, is_learner=False)) is voter
    assert outcome(lambda: check_addition(seen, is_learner=True)) is learner


@pytest.mark.parametrize(
    ("members", "removed", "expected"),
    [
        ("H", 1, NOT_ENOUGH_STARTED),  # the last one
        ("HH", 2, None),
        ("HH", 1, None),
        ("HD", 2, None),  # one that is down is no loss
        ("HD", 1, UNHEALTHY),
        ("HU", 2, None),
        ("HU", 1, NOT_ENOUGH_STARTED),
        ("HHH", 3, None),
        ("HHH", 1, None),
        ("HHD", 3, None),
        ("HHD", 2, UNHEALTHY),  # seen from etcd 3.5.1
        ("HHD", 1, UNHEALTHY),  # seen from etcd 3.5.1
        ("HHY", 2, UNHEALTHY),
        ("HHY", 3, UNHEALTHY),
        ("HUU", 2, NOT_ENOUGH_STARTED),
        ("HHU", 2, NOT_ENOUGH_STARTED),
        ("HHU", 3, None),
        ("Dl", 2, None),  # a learner may always go
        ("HHDl", 4, None),
        ("HHH", 9, None),  # unknown: refused where it is applied
    ],
)
def test_removing(members: str, removed: int, expected: Refusal | None) -> None:
    assert outcome(lambda: check_removal(view(members), removed)) is expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("Hl", None),
        ("HUl", None),
        ("HUUl", NOT_ENOUGH_STARTED),
        ("HHUl", None),
        ("HDDl", None),  # started once is enough: it is no check of health
    ],
)
def test_promoting(members: str, expected: Refusal | None) -> None:
    assert outcome(lambda: check_promotion(view(members))) is expected


@pytest.mark.parametrize(
    ("learner", "leader", "expected"),
    [
        (0, 10, LEARNER_NOT_READY),
        (8, 10, LEARNER_NOT_READY),
        (9, 10, None),
        (89_999, 100_000, LEARNER_NOT_READY),
        (90_000, 100_000, None),
        (None, 10, None),  # unknown: refused where it is applied
    ],
)
def test_readiness(learner: int | None, leader: int, expected: Refusal | None) -> None:
    assert outcome(lambda: check_readiness(learner, leader)) is expected


def test_quorums() -> None:
    assert [quorum(voters) for voters in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]
