"""RangeStream, which 3.5 does not have: its chunks together are what etcd's Range answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lockstep.alphabet import ends, flags, message, used_keys
from lockstep.comparison import deltas
from lockstep.pair import EVERYTHING, Disagreement, Pair
from lockstep.remote import Outcome
from lockstep.servers import SUBJECT

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

pytestmark = pytest.mark.skipif(SUBJECT is not None, reason="etcd 3.5 has no RangeStream")


def merged(outcome: Outcome) -> Outcome:
    """Put the chunks of a stream together."""
    if outcome.status != "OK":
        return Outcome(outcome.status)
    whole = pb.RangeResponse()
    for chunk in outcome.replies:
        whole.MergeFrom(chunk.range_response)
    return Outcome("OK", (whole,))


def assert_same(pair: Pair, request: pb.RangeRequest) -> None:
    etcd = pair.etcd.call(rpcs.KV_RANGE, request)
    ours = merged(pair.ours.call(rpcs.KV_RANGE_STREAM, request))
    assert etcd.status == ours.status
    if etcd.status == "OK":
        left = list(pair.excuses.unexplained("Range", deltas(etcd.reply, ours.reply), request))
        if left:
            raise Disagreement(f"RangeStream {request}", left)


requests = message(
    {"key": used_keys},
    {
        "range_end": ends,
        "limit": st.integers(-1, 30),
        "revision": st.integers(-1, 60),
        "keys_only": flags,
        "count_only": flags,
        "serializable": flags,
    },
)


def test_random_ranges(pair: Pair) -> None:
    for number in range(40):
        key = bytes([97 + number % 3, 97 + number % 11])
        pair.call(rpcs.KV_PUT, key=key, value=b"v" * number)

    @settings(max_examples=80, print_blob=True)
    @given(fields=requests)
    def check(fields: dict[str, Any]) -> None:
        revision = fields.get("revision", 0)
        start = pair.base_revision - 5 if revision > 0 else 0
        assert_same(pair, pb.RangeRequest(**{**fields, "revision": start + revision}))

    check()


@pytest.mark.parametrize("limit", [0, 1, 10, 11, 39])
def test_large_values_in_chunks(living_pair: Callable[[], Pair], limit: int) -> None:
    pair = living_pair()
    pair.start_afresh()
    for number in range(40):
        pair.call(rpcs.KV_PUT, key=b"k%02d" % number, value=b"x" * 200_000)
    assert_same(pair, pb.RangeRequest(limit=limit, **EVERYTHING))
