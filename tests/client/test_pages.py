"""Large ranges read page by page, some of them from members that are behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from etcd_pinwheel import FutureRevision
from etcd_pinwheel.client import kv
from etcd_pinwheel.client.flow import CallFailed, Send
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.etcdserverpb import RangeRequest, RangeResponse, ResponseHeader
from etcd_pinwheel.protos.mvccpb import KeyValue

from .scene import A, B, C, Scene

REVISION = 7
KEYS = (b"p/0", b"p/1", b"p/2")
BEHIND = CallFailed(table.FUTURE_REVISION.wire_code, table.FUTURE_REVISION.text)


def page(request: RangeRequest) -> RangeResponse:
    keys = [key for key in KEYS if key >= request.key]
    return RangeResponse(
        header=ResponseHeader(revision=REVISION),
        kvs=[KeyValue(key=key) for key in keys[: request.limit]],
        more=len(keys) > request.limit,
    )


def read(scene: Scene, behind: Sequence[int], **options: Any) -> list[list[bytes]]:
    """Read all pages; those of the calls, counted from 0, that are ``behind`` are refused."""

    def answer(step: Send) -> Any:
        return BEHIND if len(scene.sent) - 1 in behind else page(step.request)

    pages = kv.pages(scene.call, "p/", prefix=True, page_size=1, **options)
    seen, result = [], None
    try:
        while True:
            result = scene.play(pages.send(result), answer)
            seen.append([each.key for each in result])
    except StopIteration:
        return seen


def asked(scene: Scene) -> list[tuple[int, bool]]:
    """As of which revision, and whether of any member."""
    return [(step.request.revision, step.request.serializable) for step in scene.sent]


def test_a_page_whose_member_is_behind_the_first_is_read_with_a_quorum() -> None:
    scene = Scene("round_robin", A, B, C)
    assert read(scene, [1], serializable=True) == [[key] for key in KEYS]
    assert asked(scene) == [(0, True), (REVISION, True), (REVISION, False), (REVISION, True)]


def test_so_is_one_of_a_revision_that_the_first_member_had() -> None:
    scene = Scene("round_robin", A, B, C)
    assert read(scene, [2], serializable=True, revision=5) == [[key] for key in KEYS]
    assert asked(scene) == [(5, True), (5, True), (5, True), (5, False)]


def test_both_readings_of_a_page_share_its_time() -> None:
    scene = Scene("round_robin", A, B, C)
    scene.attempt_seconds = 0.5
    read(scene, [1], serializable=True, timeout=2.0)
    assert [step.timeout_seconds for step in scene.sent] == [2.0, 2.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("behind", "options"),
    [
        ([0], {"serializable": True, "revision": 9}),  # it may exist nowhere
        ([0], {"revision": 9}),
        ([1], {}),
        ([1, 2], {"serializable": True}),
    ],
)
def test_a_revision_that_the_cluster_may_not_have_is_told(
    behind: list[int], options: dict[str, Any]
) -> None:
    scene = Scene("round_robin", A, B, C)
    with pytest.raises(FutureRevision):
        read(scene, behind, **options)
    assert len(scene.sent) == behind[-1] + 1
