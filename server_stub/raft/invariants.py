"""What holds of one member after every step: asserted by tests and by the simulator."""

from __future__ import annotations

from typing import Final

from ...protos import raftpb
from .messages import NOBODY
from .node import Node, Role

_HELD: Final = (raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgVote)
"""What may wait for a save."""


def check(node: Node, saved_state: tuple[int, int]) -> None:
    """Assert all of it; ``saved_state``: term and vote that are durable.

    Raises:
        AssertionError: what is broken, and where.
    """
    try:
        node.log.check()
        _check_state(node, saved_state)
        _check_configuration(node)
        if node.role is Role.LEADER:
            _check_leader(node, saved_state)
        else:
            assert not node.progress, "only a leader knows of others' progress"
            assert not node.pending_reads, "only a leader answers reads"
            assert not node.waiting_reads, "only a leader answers reads"
            assert node.transferee == NOBODY, "only a leader can hand over the lead"
    except AssertionError as broken:
        raise AssertionError(
            f"member {node.id:x}, {node.role.value} in term {node.term}: {broken}"
        ) from broken


def _check_state(node: Node, saved_state: tuple[int, int]) -> None:
    saved_term, saved_vote = saved_state
    assert node.term >= saved_term, f"the term fell behind the saved {saved_term}"
    if node.term == saved_term and saved_vote != NOBODY:
        assert node.vote == saved_vote, f"voted for {saved_vote:x} and {node.vote:x}"
    assert node.log.last_term <= node.term, f"the log ends in term {node.log.last_term}"
    assert node.election_timeout >= node.config.election_ticks, "election timeout too short"
    for message in node.held:
        assert message.type in _HELD, f"message of type {message.type} is held back"
    if node.role is Role.CANDIDATE:
        assert node.vote == node.id, f"a candidate voted for {node.vote:x}"
        if node.votes.get(node.id):
            assert saved_state == (node.term, node.id), "counted its vote before saving it"
    if node.role in (Role.CANDIDATE, Role.PRE_CANDIDATE):
        assert node.leader == NOBODY, f"campaigns although {node.leader:x} leads"


def _check_configuration(node: Node) -> None:
    configuration = node.configuration
    assert configuration.violation() is None, f"configuration: {configuration.violation()}"
    assert node.members == configuration.members(), "members differ from the configuration's"


def _check_leader(node: Node, saved_state: tuple[int, int]) -> None:
    assert node.leader == node.id, f"leads, and follows {node.leader:x}"
    assert saved_state[0] == node.term, f"leads in a term that is not saved ({saved_state[0]} is)"
    assert set(node.progress) == node.members, f"progress of {sorted(node.progress)}"
    for member, progress in node.progress.items():
        try:
            progress.check(node.log.last_index)
        except AssertionError as broken:
            raise AssertionError(f"progress of {member:x}: {broken}") from broken
        learns = member in node.configuration.learners
        assert progress.is_learner == learns, f"{member:x}: learner differs"
    own = node.progress.get(node.id)
    if own is not None:
        assert own.match <= node.log.saved, f"acknowledged {own.match} itself before saving it"
    if node.transferee != NOBODY:
        assert node.transferee in node.configuration.voters, f"hands over to {node.transferee:x}"
