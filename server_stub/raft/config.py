"""What a member of the cluster is told about how to take part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one :class:`.core.Raft`; the defaults are etcd's.

    Raises:
        ValueError: a setting that makes no sense, named.
    """

    id: int
    """This member; never 0."""
    election_ticks: int = 10
    """A follower campaigns after between this and twice this many ticks without a leader."""
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    """Ask whether an election could be won before starting one (thesis 9.6)."""
    check_quorum: bool = True
    """A leader without an active quorum steps down, and members with a leader refuse to vote."""
    step_down_on_removal: bool = True
    """A leader that is removed or demoted stops leading once that is applied."""
    lease_reads: bool = False
    """Answer reads without asking around, trusting clocks not to drift (thesis 6.4.1)."""
    max_message_bytes: int = 1 << 20
    """Payload of the entries in one append, or of proposals handed on together; a single larger
    entry still goes."""
    max_inflight_messages: int = 512
    """Appends under way to one member before its answers are waited for."""
    max_inflight_bytes: int = 64 << 20
    """Payload under way to one member before its answers are waited for."""
    max_uncommitted_bytes: int = 1 << 30
    """Payload of proposals not committed yet, beyond which more are refused."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in (
            "id",
            "heartbeat_ticks",
            "max_inflight_messages",
            "max_inflight_bytes",
            "max_uncommitted_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, is {getattr(self, name)}")
        if self.max_message_bytes < 0:
            raise ValueError(f"max_message_bytes must not be negative: {self.max_message_bytes}")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks ({self.election_ticks}) must exceed "
                f"heartbeat_ticks ({self.heartbeat_ticks})"
            )
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads needs check_quorum")
