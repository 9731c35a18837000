"""A first start: who founds, who joins, and who must not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub import joining as module
from etcd_pinwheel.server_stub.boot import Booted, boot
from etcd_pinwheel.server_stub.cluster import Cluster, ClusterMember
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.joining import (
    FirstStart,
    JoinRefused,
    confirm_founding,
    find_cluster,
    first_start,
)
from etcd_pinwheel.server_stub.peers.receiver import ClusterInfo, PeerUnreachable
from etcd_pinwheel.server_stub.storage.data_dir import DataDir
from etcd_pinwheel.server_stub.storage.wal import Wal

A, B, C = "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"
THREE = (("a", (A,)), ("b", (B,)), ("c", (C,)))


def settings(name: str = "a", url: str = A, **fields: Any) -> Settings:
    fields.setdefault("initial_cluster", THREE)
    return Settings(name=name, initial_advertise_peer_urls=(url,), **fields)


class Others:
    """What is answered at which peer URL."""

    def __init__(self, **answers: ClusterInfo) -> None:
        self.answers = {{"a": A, "b": B, "c": C}[name]: info for name, info in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, urls: Sequence[str], seconds: float) -> ClusterInfo:
        assert seconds > 0
        self.asked += urls
        if urls[0] not in self.answers:
            raise PeerUnreachable(urls[0])
        return self.answers[urls[0]]


def info(cluster: Cluster, *started: str) -> ClusterInfo:
    """What a member says of its cluster: these of its members have told their client URLs."""
    members = [
        replace(each, client_urls=("http://client:1",)) if each.name in started else each
        for each in cluster.members
    ]
    return ClusterInfo(cluster.id, tuple(members))


async def refusal(settings: Settings, others: Others) -> str:
    with pytest.raises(JoinRefused) as caught:
        await first_start(settings, others)
    return str(caught.value)


FOUNDED = Cluster.initial(settings())


# Founding


async def test_alone() -> None:
    """Nobody is asked; the cluster is this member."""
    others = Others()
    start = await first_start(Settings(), others)
    assert start == FirstStart(0x8E9E05C52164694D, Cluster.initial(Settings()), is_founding=True)
    assert others.asked == []


async def test_every_founder_makes_the_same_cluster() -> None:
    starts = [
        await first_start(settings(name, urls[0]), Others(**{other: info(FOUNDED, other)}))
        for (name, urls), other in zip(THREE, "bca", strict=True)
    ]
    assert [start.cluster for start in starts] == [FOUNDED] * 3
    assert {start.own_id for start in starts} == {each.id for each in FOUNDED.members}


async def test_a_founder_asks_the_others() -> None:
    others = Others()
    await first_start(settings(), others)
    assert sorted(others.asked) == [B, C]


async def test_a_founder_that_ran_before_is_refused() -> None:
    """One that forgot what it promised; one member that remembers is enough."""
    for others in (
        Others(b=info(FOUNDED, "a", "b")),
        Others(b=info(FOUNDED), c=info(FOUNDED, "a")),
    ):
        text = await refusal(settings(), others)
        own = FOUNDED.named("a")
        assert own is not None
        assert text.startswith(f"member {own.id:x} has already been bootstrapped")
        assert "--data-dir" in text


async def test_a_founder_that_was_removed_is_refused() -> None:
    own = FOUNDED.named("a")
    assert own is not None
    text = await refusal(settings(), Others(c=info(FOUNDED.without_member(own.id))))
    assert "the member has been permanently removed from the cluster" in text


async def test_one_that_knows_nobody_yet_says_nothing() -> None:
    nobody = ClusterInfo(FOUNDED.id, ())
    assert (await first_start(settings(), Others(b=nobody))).is_founding
    assert "could not retrieve" in await refusal(joining(), Others(a=nobody))
    assert (await first_start(joining(), Others(a=nobody, b=info(GROWN)))).own_id == 77


async def test_a_founder_among_members_of_another_cluster_is_refused() -> None:
    other = Cluster.initial(settings(initial_cluster_token="other"))
    text = await refusal(settings(), Others(c=info(other)))
    assert "cluster ID mismatch" in text
    assert f"{other.id:x}" in text
    assert f"{FOUNDED.id:x}" in text
    assert "--initial-cluster-state=existing" in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"name": "d"},
            'couldn\'t find local name "d" in the initial cluster configuration'
            " (--name, --initial-cluster)",
        ),
        (
            {"url": "http://127.0.0.1:9"},
            "--initial-cluster has a=http://127.0.0.1:1 but missing from"
            " --initial-advertise-peer-urls=http://127.0.0.1:9",
        ),
        (
            {"initial_advertise_peer_urls": (A, "http://127.0.0.1:9")},
            "--initial-advertise-peer-urls has http://127.0.0.1:9 but missing from"
            " --initial-cluster=a=http://127.0.0.1:1",
        ),
        (
            {"initial_cluster": (("a", (A,)), ("b", (A,)))},
            "--initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 has duplicate url",
        ),
    ],
)
async def test_flags_that_contradict_each_other(wrong: dict[str, Any], text: str) -> None:
    urls = wrong.pop("initial_advertise_peer_urls", None)
    told = settings(**wrong)
    if urls:
        told = replace(told, initial_advertise_peer_urls=urls)
    others = Others(b=info(FOUNDED))
    assert await refusal(told, others) == text
    assert others.asked == []


async def test_an_address_may_be_written_in_two_ways() -> None:
    told = settings(url="http://localhost:1", initial_cluster=(("a", ("http://127.0.0.1:1",)),))
    assert (await first_start(told, Others())).is_founding
    assert "missing" in await refusal(
        replace(told, name="a", initial_cluster=(("a", (B,)),)), Others()
    )


async def test_a_founder_is_confirmed_by_as_many_as_can_elect_it() -> None:
    own = FOUNDED.named("a")
    assert own is not None
    asked: list[str] = []

    async def second_answers_late(urls: Sequence[str], seconds: float) -> ClusterInfo:
        asked.extend(urls)
        if urls[0] == B and asked.count(B) > 3:
            return info(FOUNDED, "b")
        raise PeerUnreachable(urls[0])

    await confirm_founding(FOUNDED, own.id, second_answers_late)
    assert asked.count(B) == 4
    assert C in asked
    alone = Cluster.initial(Settings())
    await confirm_founding(alone, alone.members[0].id, Others())


async def test_a_founder_that_ran_before_is_not_confirmed() -> None:
    own = FOUNDED.named("a")
    assert own is not None
    with pytest.raises(JoinRefused, match="has already been bootstrapped"):
        await confirm_founding(FOUNDED, own.id, Others(c=info(FOUNDED, "a", "c")))


# Joining


def joining(**fields: Any) -> Settings:
    return settings("c", C, initial_cluster_state="existing", **fields)


ADDED = ClusterMember(77, (C,), is_learner=True)
TWO = Cluster.initial(settings(initial_cluster=THREE[:2]))
GROWN = TWO.with_member(ADDED)


async def test_a_joining_member_takes_the_id_it_was_given() -> None:
    start = await first_start(joining(), Others(a=info(GROWN, "a", "b")))
    assert start == FirstStart(77, Cluster(GROWN.id, info(GROWN, "a", "b").members), False)


async def test_an_answer_from_before_it_was_added_is_no_obstacle() -> None:
    start = await first_start(joining(), Others(a=info(TWO), b=info(GROWN)))
    assert start.own_id == 77


async def test_nobody_to_join() -> None:
    assert (await refusal(joining(), Others())).startswith(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information"
    )
    alone = joining(initial_cluster=(("c", (C,)),))
    assert "cannot fetch cluster info" in await refusal(alone, Others())


async def test_a_joining_member_that_was_not_added() -> None:
    text = await refusal(joining(), Others(a=info(TWO), b=info(TWO)))
    assert "member count is unequal" in text
    assert "names 3, the cluster has 2" in text
    assert A in text


async def test_a_joining_member_that_was_added_under_another_url() -> None:
    elsewhere = TWO.with_member(ClusterMember(77, ("http://127.0.0.1:9",)))
    text = await refusal(joining(), Others(a=info(elsewhere)))
    assert "no match for existing member 4d (http://127.0.0.1:9)" in text


async def test_a_joining_member_that_ran_before_is_refused() -> None:
    ran = GROWN.with_member(replace(ADDED, name="c", client_urls=("http://client:1",)))
    text = await refusal(joining(), Others(a=info(ran)))
    assert text.startswith("member 4d has already been bootstrapped")


async def test_a_joining_member_needs_its_name_among_the_others() -> None:
    assert "couldn't find local name" in await refusal(replace(joining(), name="x"), Others())


async def test_members_are_matched_by_address_not_by_spelling() -> None:
    spelled = (("a", ("http://localhost:1",)), *THREE[1:])
    start = await first_start(joining(initial_cluster=spelled), Others(b=info(GROWN)))
    assert start.own_id == 77


async def test_a_cluster_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a member that was restarted before it had heard of anybody; it asks until it knows."""
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    others = Others(a=info(Cluster.initial(settings(initial_cluster_token="x"))))

    async def answers_late(urls: Sequence[str], seconds: float) -> ClusterInfo:
        if len(others.asked) > 6:
            others.answers[B] = info(GROWN)
        return await others(urls, seconds)

    found = await find_cluster(joining(), GROWN.id, answers_late)
    assert found.member(77) == ADDED
    with pytest.raises(JoinRefused, match="give --initial-cluster again"):
        await find_cluster(joining(initial_cluster=()), GROWN.id, Others())


def restarted(directory: DataDir, first: FirstStart | None = None) -> Booted:
    """Boot as a member does, and end before it takes part."""
    booted = boot(
        settings(data_dir=directory.path),
        directory,
        first,
        clock=lambda: 0.0,
        random=lambda _: 0,
        on_compaction=lambda _: None,
    )
    booted.backend.close()
    booted.wal.close()
    return booted


def test_a_founder_that_took_part_is_no_longer_in_doubt(tmp_path: Path) -> None:
    """Whatever a power cut leaves on the disk: what the log says is stronger than the mark."""
    own = settings(data_dir=tmp_path)
    cluster = Cluster.initial(own)
    with closing(DataDir.open(tmp_path)) as directory:
        restarted(directory, FirstStart(cluster.members[0].id, cluster, is_founding=True))
        restarted(directory)
        assert directory.is_unconfirmed
        wal, contents = Wal.open(directory.wal_path)
        wal.save(raftpb.HardState(term=2, vote=1, commit=contents.hard_state.commit))
        wal.close()
        restarted(directory)
        assert not directory.is_unconfirmed
