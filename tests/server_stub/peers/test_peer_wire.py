"""Messages as bytes: nothing lost, entries serialized once, no other sender believed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.peers.wire import BadMessage, Encoder, decode, decode_from
from etcd_pinwheel.server_stub.raft.messages import Message

uint64 = st.integers(0, 2**64 - 1)
entries = st.lists(
    st.builds(
        raftpb.Entry, Term=uint64, Index=uint64, Type=st.integers(0, 2), Data=st.binary(max_size=50)
    ),
    min_size=1,
    max_size=5,
)
snapshots = st.builds(
    raftpb.Snapshot,
    data=st.binary(max_size=9),
    metadata=st.builds(
        raftpb.SnapshotMetadata,
        index=uint64,
        term=uint64,
        conf_state=st.builds(raftpb.ConfState, voters=st.lists(uint64, max_size=3)),
    ),
)
messages = st.builds(
    Message,
    type=st.sampled_from(sorted(raftpb.MessageType.values())),
    to=uint64,
    sender=uint64,
    term=uint64,
    log_term=uint64,
    index=uint64,
    entries=entries | st.just(()),
    commit=uint64,
    reject=st.booleans(),
    reject_hint=uint64,
    vote=uint64,
    context=st.binary(max_size=20),
    snapshot=st.none() | snapshots,
)


@given(st.lists(messages, min_size=1, max_size=4))
def test_every_field_travels(several: list[Message]) -> None:
    encoder = Encoder()
    for message in several:
        assert decode(b"".join(encoder.encode(message))) == message


def test_the_bytes_are_those_of_etcds_message() -> None:
    entry = raftpb.Entry(Term=3, Index=8, Data=b"x")
    message = Message(
        type=raftpb.MsgApp, to=2, sender=1, term=3, log_term=2, index=7, entries=[entry], commit=6
    )
    read = raftpb.Message.FromString(b"".join(Encoder().encode(message)))
    expected: dict[str, Any] = {"from": 1, "to": 2, "term": 3, "logTerm": 2, "index": 7}
    assert read == raftpb.Message(type=raftpb.MsgApp, commit=6, entries=[entry], **expected)


def test_entries_for_two_members_are_serialized_once() -> None:
    encoder = Encoder()
    shared = [raftpb.Entry(Term=1, Index=i, Data=b"data") for i in range(9)]
    parts = [
        encoder.encode(Message(type=raftpb.MsgApp, to=to, sender=1, entries=shared[:]))
        for to in (2, 3)
    ]
    assert parts[0][1] is parts[1][1]
    assert parts[0][0] != parts[1][0]


def test_other_entries_in_the_same_list_are_not_the_old_ones() -> None:
    encoder = Encoder()
    reused = [raftpb.Entry(Term=1, Index=1, Data=b"old")]
    message = Message(type=raftpb.MsgApp, to=2, sender=1, entries=reused)
    encoder.encode(message)
    reused[0] = raftpb.Entry(Term=2, Index=1, Data=b"new")
    assert decode(b"".join(encoder.encode(message))).entries == reused


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage, match="not a raft message"):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with suppress(BadMessage):
        decode(data)


def test_a_message_in_anothers_name_is_refused() -> None:
    data = b"".join(Encoder().encode(Message(type=raftpb.MsgHeartbeat, to=2, sender=1)))
    assert decode_from(data, sender=1, target=2).sender == 1
    with pytest.raises(BadMessage, match="in the name of member 1"):
        decode_from(data, sender=3, target=2)
    with pytest.raises(BadMessage, match="to member 2"):
        decode_from(data, sender=1, target=3)
