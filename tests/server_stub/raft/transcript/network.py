"""Members and the mail between them, and what must hold between them at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.confchange import Configuration
from etcd_pinwheel.server_stub.raft.core import Role
from etcd_pinwheel.server_stub.raft.messages import Message

from .member import Member

Picks = Callable[[Message], bool]


class Network:
    """Some members; a message lies in `mail` until it is delivered or dropped."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.mail: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        """(sender, receiver) between whom everything is lost."""
        self.leaders: dict[int, int] = {}
        """Who led in which term."""
        self.decided: dict[int, tuple[int, int, bytes]] = {}
        """Term, type and data of every entry that anybody has applied."""
        self.written: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        """Of every entry ever saved, by index and term: the term before it, its type and data."""
        self.heights: dict[int, tuple[int, int, int]] = {}
        """Term, commit index and applied index of each member when last looked at."""

    def add(self, member: Member) -> None:
        self.members[member.config.id] = member
        member.on_apply = partial(self.check_applied, member)
        for entry in member.disk.entries:
            self.check_written(entry, member.disk.term(entry.Index - 1))
        self.collect()

    def restart(self, member: Member, applied: int | None = None) -> None:
        del self.heights[member.config.id]
        member.restart(applied)
        self.collect(member)

    # What happens

    def collect(self, *members: Member) -> None:
        """Take the mail of these members (none: all) and check what must always hold."""
        for member in members or tuple(self.members.values()):
            for message in member.sent():
                self.check_acknowledged(member, message)
                if (message.sender, message.to) not in self.cut:
                    self.mail.append(message)
            self.check_member(member)

    def begin_save(self, member: Member) -> bool:
        if not member.begin_save():
            return False
        assert member.saving is not None
        for entry in member.saving.entries:
            self.check_written(entry, member.raft.log.term(entry.Index - 1))
        self.collect(member)
        return True

    def end_save(self, member: Member) -> None:
        member.end_save()
        self.collect(member)

    def save(self, member: Member) -> bool:
        """Save once; return whether there was anything to save."""
        if member.saving is None and not self.begin_save(member):
            return False
        self.end_save(member)
        return True

    def apply(self, member: Member, limit: int = 1000) -> int:
        """Apply what is committed; return how many entries."""
        count = member.apply(limit)
        self.collect(member)
        return count

    def deliver(self, picks: Picks, *, keep: bool = False, newest_first: bool = False) -> int:
        """Hand over the mail that is picked, of what lies there now; return how many."""
        picked = self.take(picks)
        if keep:
            self.mail += picked
        for message in reversed(picked) if newest_first else picked:
            if receiver := self.members.get(message.to):
                receiver.raft.step(message)
                self.collect(receiver)
        return len(picked)

    def take(self, picks: Picks) -> list[Message]:
        """Remove the mail that is picked, and return it."""
        picked = [message for message in self.mail if picks(message)]
        self.mail = [message for message in self.mail if not picks(message)]
        return picked

    def settle(self, ids: Iterable[int]) -> None:
        """Save, apply and deliver among these members until nothing moves any more."""
        addressed = set(ids)
        self.collect()
        for _ in range(10_000):
            group = [self.members[member_id] for member_id in sorted(addressed)]
            moved = sum(self.save(member) + self.apply(member) for member in group)
            moved += self.deliver(lambda message: message.to in addressed)
            if not moved:
                return
        raise AssertionError("it never settles")

    # What must hold

    def check_member(self, member: Member) -> None:
        raft = member.raft
        if raft.role is Role.LEADER:
            leader = self.leaders.setdefault(raft.term, raft.id)
            assert leader == raft.id, f"{leader} and {raft.id} both lead in term {raft.term}"
            for peer, progress in raft.progress.items():
                assert 0 <= progress.match < progress.next, f"of {peer}: {progress}"
        height = (raft.term, raft.commit_index, raft.applied_index)
        before = self.heights.get(raft.id, height)
        assert all(now >= then for now, then in zip(height, before, strict=True)), (
            f"{raft.id} fell from {before} to {height} (term, commit, applied)"
        )
        if height != before and raft.role is Role.LEADER and raft.term > before[0]:
            self.check_complete(member)
        self.heights[raft.id] = height
        raft.check()

    def check_acknowledged(self, member: Member, message: Message) -> None:
        """What is acknowledged to a leader is on disk as that leader has it."""
        leader = self.members.get(self.leaders.get(message.term, 0))
        if message.type != raftpb.MsgAppResp or message.reject or leader is None:
            return
        if leader.raft.term == message.term and leader.raft.role is Role.LEADER:
            term = leader.raft.log.term(message.index)
            assert term in (None, member.disk.term(message.index)), (
                f"{member.config.id} acknowledges {message.index}, which it has otherwise on disk"
            )

    def check_complete(self, member: Member) -> None:
        """A new leader has every entry that was ever decided (paper, 5.4)."""
        log = member.raft.log
        for index, (term, _, _) in self.decided.items():
            if index >= log.first_index and term < member.raft.term:
                assert log.term(index) == term, (
                    f"{member.config.id} leads without the entry decided at {index}"
                )

    def check_applied(self, member: Member, entry: raftpb.Entry) -> None:
        """Everybody applies the same entry at an index (paper, 5.4.3)."""
        content = (entry.Term, entry.Type, entry.Data)
        decided = self.decided.setdefault(entry.Index, content)
        assert decided == content, (
            f"{member.config.id} applies {content} at {entry.Index}, others {decided}"
        )
        assert entry.Index <= member.disk.last_index, "applied before it was saved"

    def check_written(self, entry: raftpb.Entry, term_before: int) -> None:
        """Two entries with one index and term are one, and so is all before them (paper, 5.3)."""
        content = (term_before, entry.Type, entry.Data)
        written = self.written.setdefault((entry.Index, entry.Term), content)
        assert written == content, f"two entries {entry.Index} of term {entry.Term}"


def configuration_of(member: Member) -> Configuration:
    return Configuration.from_conf_state(member.raft.config_state())
