"""Changes of the membership, by etcdctl, on clusters of etcd's processes and of ours."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from lockstep.etcdctl import COMMAND_SECONDS, ENVIRONMENT, ETCDCTL
from lockstep.servers import ETCD

from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

HEALTHY_SECONDS = 5.5
"""After so long a connection members count on each other."""
ANOTHER_ID_SECONDS = 1.1
"""The time that goes into an id is in seconds."""
NOWHERE, ELSEWHERE = "http://127.0.0.1:1", "http://127.0.0.1:2"
CODE = re.compile(r"rpc error: code = \w+ desc = [^\"\\]*")
LEARNER_CODE = "code = {} desc = etcdserver: rpc not supported for learner"
OLD_CODE, NEW_CODE = LEARNER_CODE.format("Unavailable"), LEARNER_CODE.format("FailedPrecondition")
"""Before 3.6 and since: a known difference."""
ANY_ID = re.compile(r" *\b[0-9a-f]{14,16}\b")

Words = Callable[["Side"], list[str]]


class Side:
    """One of the two clusters, and etcdctl for it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.gone: list[AnyMember] = []

    def run(self, *words: str, at: int = 0) -> str:
        """Run etcdctl at a member; return what it said, and the refusal's code."""
        command = [ETCDCTL, "--endpoints", self.cluster[at].endpoint, *words]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=ENVIRONMENT,
            check=False,
        )
        errors = ended.stderr.replace(OLD_CODE, NEW_CODE)
        lines = [line for line in errors.splitlines() if not line.startswith('{"level"')]
        said = [f"exit {ended.returncode}", *ended.stdout.splitlines(), *lines]
        codes = set(CODE.findall(errors)) if ended.returncode else ()  # else it was tried again
        return "\n".join([*said, *sorted(codes)])

    def id_of(self, url: str) -> str:
        """The id of the member with this peer URL, in hex."""
        return self._rows()[url][0]

    def _rows(self) -> dict[str, list[str]]:
        """``member list``, by peer URL."""
        rows = (line.split(", ") for line in self.run("member", "list").splitlines()[1:])
        return {row[3]: row for row in rows}

    def masked(self, said: str) -> str:
        """What was said, with names in the place of ids and URLs; sorted, for ids differ."""
        for member in [*self.cluster, *self.gone]:
            for url, word in ((member.peer_url, "PEER"), (member.endpoint, "CLIENT")):
                said = said.replace(url, f"{word}-{member.name}")
        said = ANY_ID.sub("ID", said)
        said = re.sub(r'ETCD_INITIAL_CLUSTER="(.*)"', _sorted_members, said)
        return "\n".join(sorted(said.splitlines()))


def _sorted_members(found: re.Match[str]) -> str:
    return "CLUSTER " + " ".join(sorted(found[1].split(",")))


class Sides:
    """Both clusters; whatever is asked of both must be answered alike."""

    def __init__(self, etcd: LocalCluster, ours: LocalCluster) -> None:
        self.etcd, self.ours = Side(etcd), Side(ours)

    def __call__(self, *words: str, at: int = 0) -> str:
        return self.each(lambda _side: list(words), at=at)

    def each(self, words: Words, *, at: int = 0) -> str:
        """Run etcdctl with words that depend on the side; return what both said."""
        asked = [(side, words(side)) for side in (self.etcd, self.ours)]
        etcd, ours = (side.masked(side.run(*told, at=at)) for side, told in asked)
        assert ours == etcd, f"etcdctl {' '.join(asked[1][1])} at member {at}"
        return etcd

    def on_each(self, act: Callable[[Side], object]) -> None:
        for side in (self.etcd, self.ours):
            act(side)

    def until_alike(self, *words: str, has: str) -> None:
        """Wait for what takes a while, and then hold the answers to be alike."""
        deadline = time.monotonic() + COMMAND_SECONDS
        for side in (self.etcd, self.ours):
            while has not in side.masked(side.run(*words)):
                assert time.monotonic() < deadline, f"no {has} in {side.run(*words)}"
                time.sleep(0.1)
        self(*words)


@pytest.fixture
def three() -> Iterator[Sides]:
    with (
        LocalCluster(size=3, binary=ETCD) as etcd,
        LocalCluster(size=3, processes=True) as ours,
    ):
        yield Sides(etcd, ours)


@pytest.fixture
def one() -> Iterator[Sides]:
    with (
        LocalCluster(size=1, binary=ETCD) as etcd,
        LocalCluster(size=1, processes=True) as ours,
    ):
        yield Sides(etcd, ours)


def own(position: int) -> Callable[[Side], str]:
    """The id of a member by its position."""
    return lambda side: side.id_of(side.cluster[position].peer_url)


@pytest.mark.slow
def test_three_members(three: Sides) -> None:
    """A learner comes, is promoted, a voter goes; and all that is refused on the way."""
    add = ("member", "add", "d", f"--peer-urls={NOWHERE}")
    time.sleep(HEALTHY_SECONDS)
    three.each(lambda side: ["member", "update", own(0)(side), "--peer-urls", peer(side, 1)])
    assert "code = NotFound" in three("member", "remove", "abc")
    assert "code = NotFound" in three("member", "promote", "abc")
    assert "code = NotFound" in three("member", "update", "abc", f"--peer-urls={NOWHERE}")
    three.each(lambda side: ["member", "promote", own(1)(side)])
    assert "added to cluster" in three(*add, "--learner")
    three("member", "list")
    assert "too many learner" in three(
        "member", "add", "e", "--learner", f"--peer-urls={ELSEWHERE}"
    )
    time.sleep(ANOTHER_ID_SECONDS)
    assert "already exists" in three("member", "add", "e", "--learner", f"--peer-urls={NOWHERE}")
    for at in range(3):
        answer = three.each(lambda side: ["member", "promote", side.id_of(NOWHERE)], at=at)
        assert "in sync with leader" in answer
    assert "unstarted" in three("member", "list", at=2)
    three.each(lambda side: ["member", "remove", side.id_of(NOWHERE)])
    three.each(lambda side: ["member", "update", own(2)(side), "--peer-urls", peer(side, 2)])
    three.on_each(lambda side: side.cluster.add_learner())
    for words in (("get", "k"), ("put", "k", "v"), ("member", "list"), ("lease", "grant", "9")):
        assert "not supported for learner" in three(*words, at=3)
    three("get", "k", "--consistency=s", at=3)
    three.each(lambda side: ["member", "promote", own(3)(side)], at=1)
    three("member", "list", at=1)
    three.each(lambda side: ["member", "remove", own(0)(side)], at=1)
    three.on_each(forget_first)
    three.until_alike("member", "list", has="m4")
    assert three("put", "k", "v") == "OK\nexit 0"


def peer(side: Side, position: int) -> str:
    return side.cluster[position].peer_url


def forget_first(side: Side) -> None:
    """Wait until a member that was removed has stopped by itself."""
    member = side.cluster.members.pop(0)
    assert member.wait() == 0
    side.gone.append(member)
    member.close()


@pytest.mark.slow
def test_one_of_three_is_down(three: Sides) -> None:
    """What would cost the quorum is refused; the dead one may go."""
    time.sleep(HEALTHY_SECONDS)
    three.on_each(lambda side: side.cluster[2].kill())
    three.on_each(lambda side: side.cluster.wait_for_leader(other_than=side.cluster[2]))
    time.sleep(1.0)  # for the connections to be known as lost
    add = ("member", "add", "d", f"--peer-urls={NOWHERE}")
    assert "unhealthy cluster" in three(*add)
    assert "unhealthy cluster" in three(*add, "--learner")
    assert "unhealthy cluster" in three.each(lambda side: ["member", "remove", own(1)(side)])
    assert "unhealthy cluster" in three.each(lambda side: ["member", "remove", own(0)(side)])
    assert "removed from" in three.each(lambda side: ["member", "remove", own(2)(side)])
    three("member", "list")
    assert "removed from" in three.each(lambda side: ["member", "remove", own(1)(side)])
    three("member", "list")


def test_one_member(one: Sides) -> None:
    """It cannot go, but another may come at once; a third may not before that one is there."""
    last = one.each(lambda side: ["member", "remove", own(0)(side)])
    assert "code = Unknown" in last, "a quirk of etcd's"
    assert "not enough started members" in last
    assert "in sync" not in one.each(lambda side: ["member", "promote", own(0)(side)])
    one("member", "add", "b", "--learner", f"--peer-urls={NOWHERE}")
    assert "in sync" in one.each(lambda side: ["member", "promote", side.id_of(NOWHERE)])
    one.each(lambda side: ["member", "remove", side.id_of(NOWHERE)])
    one.each(lambda side: ["member", "update", own(0)(side), f"--peer-urls={ELSEWHERE}"])
    one("member", "list")
    time.sleep(ANOTHER_ID_SECONDS)
    added = one("member", "add", "b", f"--peer-urls={NOWHERE}")
    assert "added to cluster" in added
    third = one("member", "add", "c", "--peer-urls=http://127.0.0.1:3", "--command-timeout=3s")
    assert "not enough started members" in third
