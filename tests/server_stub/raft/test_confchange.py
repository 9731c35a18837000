"""Changes of a configuration: scenarios as data, and what holds after any sequence of changes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.confchange import (
    Change,
    ChangeRefused,
    Configuration,
    changed,
    decode_change,
    enter_joint,
    leave_joint,
    simple,
)
from etcd_pinwheel.server_stub.raft.quorum import Vote

SCENARIOS = sorted((Path(__file__).parents[2] / "data/raft/confchange").glob("*.txt"))
TYPES = {
    "+": raftpb.ConfChangeAddNode,
    "~": raftpb.ConfChangeAddLearnerNode,
    "-": raftpb.ConfChangeRemoveNode,
    "!": raftpb.ConfChangeUpdateNode,
}
TRANSITIONS = {
    "implicit": raftpb.ConfChangeTransitionJointImplicit,
    "explicit": raftpb.ConfChangeTransitionJointExplicit,
}


def shown(configuration: Configuration) -> str:
    """Write a configuration as the scenarios do."""

    def ids(members: frozenset[int]) -> str:
        return " ".join(map(str, sorted(members)))

    voters = ids(configuration.voters.incoming.voters)
    if configuration.is_joint:
        voters += f" & {ids(configuration.voters.outgoing.voters)}"
    parts = [voters]
    parts += [f"learners {ids(configuration.learners)}"] * bool(configuration.learners)
    parts += [f"next {ids(configuration.learners_next)}"] * bool(configuration.learners_next)
    parts += ["auto"] * configuration.auto_leave
    return " | ".join(parts)


def changed_by(configuration: Configuration, step: str) -> Configuration:
    """Carry out one step of a scenario."""
    verb, *words = step.split()
    options = [word for word in words if word.isalpha()]
    changes = [Change(TYPES[w[0]], int(w[1:])) for w in words if w not in options]
    singles = [{"type": change.type, "node_id": change.node_id} for change in changes]
    match verb:
        case "simple":
            return simple(configuration, changes)
        case "joint":
            return enter_joint(configuration, changes, auto_leave="auto" in options)
        case "leave":
            return leave_joint(configuration)
        case "v1":
            (single,) = singles
            return changed(configuration, raftpb.ConfChange(**single))
        case "v2":
            (transition,) = [TRANSITIONS[o] for o in options] or [raftpb.ConfChangeTransitionAuto]
            change = raftpb.ConfChangeV2(transition=transition, changes=singles)
            return changed(configuration, change)
    raise ValueError(f"unknown step {step}")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """Each line is a step, then ``=`` and what it leads to or ``!`` and why it is refused."""
    configuration = Configuration()
    wrong = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        step, mark, expected = re.split(r"\s+([=!])\s+", line, maxsplit=1)
        try:
            configuration = changed_by(configuration, step)
            got = ["=", shown(configuration)]
        except ChangeRefused as refused:
            got = ["!", str(refused)]
        if got != [mark, expected]:
            wrong.append(f"{path.name}:{number}: {step} gave {' '.join(got)}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_all_scenarios_are_there() -> None:
    assert [path.stem for path in SCENARIOS] == [
        "joint_autoleave",
        "joint_idempotency",
        "joint_learners_next",
        "joint_safety",
        "simple_idempotency",
        "simple_promote_demote",
        "simple_safety",
        "update",
        "zero",
    ]


MEMBERS = range(1, 6)
STEPS = st.one_of(
    st.just("leave"),
    st.builds(
        lambda verb, changes: f"{verb} {' '.join(changes)}",
        st.sampled_from(["simple", "joint", "joint auto", "v2", "v2 implicit", "v2 explicit"]),
        st.lists(
            st.builds(
                lambda kind, node: f"{kind}{node}", st.sampled_from("+~-!"), st.integers(0, 5)
            ),
            max_size=4,
        ),
    ),
)


def walk(steps: Sequence[str]) -> list[Configuration]:
    """Return every configuration that a sequence of steps passes through, from one voter on."""
    passed = [simple(Configuration(), [Change(raftpb.ConfChangeAddNode, 1)])]
    for step in steps:
        with suppress(ChangeRefused):
            passed.append(changed_by(passed[-1], step))
    return passed


@given(st.lists(STEPS, max_size=20))
def test_any_sequence_of_changes_keeps_the_invariants(steps: list[str]) -> None:
    for configuration in walk(steps):
        voters = configuration.voters
        assert voters.incoming.voters, "somebody votes"
        assert not configuration.learners & voters.ids, "nobody votes and learns"
        assert configuration.learners_next <= voters.outgoing.voters - voters.incoming.voters
        if not configuration.is_joint:
            assert not configuration.learners_next
            assert not configuration.auto_leave
        assert configuration.members() == voters.ids | configuration.learners
        assert 0 not in configuration.members()
        assert configuration.violation() is None


@given(st.lists(STEPS, max_size=20))
def test_quorums_of_consecutive_configurations_overlap(steps: list[str]) -> None:
    """No change lets two disjoint groups, one deciding by the old and one by the new, decide."""
    groups = [set(c) for c in chain.from_iterable(combinations(MEMBERS, n) for n in range(6))]
    passed = walk(steps)
    for before, after in pairwise(passed):
        for group in groups:
            old = before.voters.vote_result({member: member in group for member in MEMBERS})
            new = after.voters.vote_result({member: member not in group for member in MEMBERS})
            assert [old, new] != [Vote.WON, Vote.WON], (before, after, group)


@given(st.lists(STEPS, max_size=20))
def test_every_configuration_survives_being_stored(steps: list[str]) -> None:
    for configuration in walk(steps):
        stored = configuration.to_conf_state().SerializeToString()
        restored = Configuration.from_conf_state(raftpb.ConfState.FromString(stored))
        assert restored == configuration


@given(st.lists(STEPS, max_size=20))
def test_leaving_a_joint_configuration_ends_in_what_was_asked_for(steps: list[str]) -> None:
    for configuration in walk(steps):
        if configuration.is_joint:
            left = leave_joint(configuration)
            assert left.voters.incoming == configuration.voters.incoming
            assert left.learners == configuration.learners | configuration.learners_next


@pytest.mark.parametrize(
    ("state", "violation"),
    [
        (raftpb.ConfState(voters=[1], learners=[1]), "1 is in Learners and Voters"),
        (
            raftpb.ConfState(voters=[1], voters_outgoing=[2], learners=[2]),
            "2 is in Learners and Voters",
        ),
        (
            raftpb.ConfState(voters=[1], learners_next=[2]),
            "2 is in LearnersNext, but not in Voters[1]",
        ),
        (
            raftpb.ConfState(voters=[1, 2], voters_outgoing=[2], learners_next=[2]),
            "2 is in LearnersNext and Voters[0]",
        ),
        (raftpb.ConfState(voters=[1], auto_leave=True), "AutoLeave must be false when not joint"),
        (raftpb.ConfState(learners=[1]), "no voters"),
        (raftpb.ConfState(voters_outgoing=[1]), "no voters"),
        (raftpb.ConfState(voters=[0, 1]), "0 is nobody's id"),
    ],
)
def test_a_stored_configuration_that_cannot_be_is_refused(
    state: raftpb.ConfState, violation: str
) -> None:
    with pytest.raises(ChangeRefused, match=f"^{re.escape(violation)}$"):
        Configuration.from_conf_state(state)


def test_a_member_that_knows_nobody_yet_has_a_configuration() -> None:
    assert Configuration.from_conf_state(raftpb.ConfState()) == Configuration()


def test_a_change_of_an_unknown_kind_is_refused() -> None:
    one = simple(Configuration(), [Change(raftpb.ConfChangeAddNode, 1)])
    with pytest.raises(ChangeRefused, match="unexpected conf type 17"):
        simple(one, [Change(17, 2)])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (raftpb.EntryConfChange, raftpb.ConfChange(node_id=7, context=b"{}", id=3)),
        (raftpb.EntryConfChangeV2, raftpb.ConfChangeV2(changes=[{"type": 1, "node_id": 7}])),
        (raftpb.EntryConfChangeV2, raftpb.ConfChangeV2()),
    ],
)
def test_a_change_is_read_from_its_entry(
    kind: raftpb.EntryType, change: raftpb.ConfChange | raftpb.ConfChangeV2
) -> None:
    assert decode_change(raftpb.Entry(Type=kind, Data=change.SerializeToString())) == change
