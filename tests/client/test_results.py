"""Answers that are drafted, and are the frozen values of their classes all the same."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from etcd_pinwheel.client.results import Header, KeyValue, PutResult
from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import mvccpb

KV = mvccpb.KeyValue(key=b"k", value=b"v", create_revision=2, mod_revision=5, version=3, lease=77)
HEADER = pb.ResponseHeader(cluster_id=1, member_id=2, revision=5, raft_term=4)


def drafted() -> list[Any]:
    return [KeyValue.of(KV), PutResult.of(pb.PutResponse(header=HEADER, prev_kv=KV))]


def constructed() -> list[Any]:
    kv = KeyValue(b"k", b"v", create_revision=2, mod_revision=5, version=3, lease=77)
    return [kv, PutResult(5, HEADER, kv)]


def test_they_are_as_if_they_had_been_constructed() -> None:
    for made, expected in zip(drafted(), constructed(), strict=True):
        assert type(made) is type(expected)
        assert made == expected
        assert hash(made) == hash(expected)
        assert repr(made) == repr(expected)
    assert drafted()[1].header == Header(1, 2, 5, 4)


@pytest.mark.parametrize("made", drafted(), ids=lambda made: type(made).__name__)
def test_they_are_frozen(made: Any) -> None:
    for name in type(made).__dataclass_fields__:
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 0)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)
    with pytest.raises((AttributeError, TypeError)):
        made.another = 0


def test_they_are_copied_changed_and_pickled() -> None:
    (kv, _) = drafted()
    assert pickle.loads(pickle.dumps(kv)) == copy.deepcopy(kv) == kv
    assert replace(kv, version=9).version == 9


def test_nothing_before_is_none() -> None:
    assert PutResult.of(pb.PutResponse(header=HEADER)) == PutResult(5, HEADER, None)
