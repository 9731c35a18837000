"""The invariants of Raft, held against every step of every member.

The names of the rules are those of the paper where it has one; section 4.2 of the design notes
lists them. Each check is cheap: it looks at what the step may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import Role
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.replica import Applied

from .configs import Configs
from .durable import Chain, Durable
from .ledger import Ledger
from .violation import Violation, demand

if TYPE_CHECKING:
    from .member import Member

_CAMPAIGNING = (Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER)


@dataclass(slots=True)
class Seen:
    """A member as it was after its last step."""

    term: int = 0
    role: Role = Role.FOLLOWER
    commit: int = 0
    applied: int = 0
    led_term: int = 0
    last: int = 0
    """Index of the last entry, while it leads."""
    checks: int = 0


class Rules:
    """Everything that must hold, and what is needed to tell."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.configs = Configs()
        self.durable: dict[int, Durable] = {}
        self.leaders: dict[int, int] = {}
        """By term."""
        self.installs = 0
        """Snapshots that were installed."""
        self._chain = Chain()
        self._seen: dict[int, Seen] = {}
        self._votes: dict[tuple[int, int], int] = {}
        """By voter and term."""
        self._matches: dict[int, int] = {}
        self._matches_of: tuple[int, int] = (0, 0)

    def joined(self, member_id: int) -> None:
        """A disk was formatted."""
        self.durable[member_id] = Durable(self._chain)

    def started(self, member: Member) -> None:
        """A member has booted: it must have everything that it ever vouched for."""
        parts, durable = member.parts, self.durable[member.id]
        log = parts.raft.log
        start = log.first_index - 1
        durable.compare(parts.contents, (start, log.term(start) or 0), member.name)
        self._seen[member.id] = Seen(
            term=parts.raft.term, commit=parts.raft.commit_index, applied=parts.applier.index
        )
        for entry in log.slice(log.first_index, parts.raft.commit_index + 1):
            self.ledger.commit(entry, parts.raft.term, member.name)
        self.configs.check(member, parts.applier.index)
        changes = self._unapplied_changes(member)
        demand(
            len(changes) < 2 or parts.raft.commit_index >= changes[-2],
            "a change behind another proves the other committed",
            f"{member.name} starts with changes {changes}, commit {parts.raft.commit_index}",
        )

    # After every step

    def check(self, member: Member) -> None:
        """Hold a member against the rules, after a step of it."""
        raft = member.raft
        seen, role, term = self._seen[member.id], raft.role, raft.term
        if term != seen.term:
            demand(term > seen.term, "term is monotone", f"{member.name}: {seen.term} -> {term}")
            seen.term = term
        if role is not seen.role:
            seen.role = role
            learner = raft.is_learner and role in _CAMPAIGNING
            demand(not learner, "learners never campaign", f"{member.name} is {role.value}")
            if role in _CAMPAIGNING:
                self._check_campaign(member)
        if role is Role.LEADER:
            if seen.led_term != term:
                seen.led_term, seen.last = term, 0
                self._elected(member)
            self._check_progress(member)
            if raft.log.last_index != seen.last:
                seen.last = raft.log.last_index
                self._check_changes(member)
        commit = raft.commit_index
        if commit != seen.commit:
            self._committed(member, seen.commit, commit)
            seen.commit = commit
        seen.checks += 1
        if seen.checks % 8 == 0:
            self.check_inside(member)

    def check_inside(self, member: Member) -> None:
        """Have the core check itself."""
        try:
            member.raft.check()
        except AssertionError as error:
            raise Violation("the core's own check", f"{member.name}: {error}") from error

    def _check_campaign(self, member: Member) -> None:
        """Whoever campaigns is at most one change of the membership behind."""
        raft = member.raft
        changes = self._unapplied_changes(member)
        demand(
            len(changes) <= 1 and not any(index <= raft.commit_index for index in changes),
            "nobody campaigns with a committed change not applied",
            f"{member.name}, commit {raft.commit_index}, has not applied changes {changes}",
        )

    def _elected(self, member: Member) -> None:
        """Election safety and leader completeness."""
        raft, log = member.raft, member.raft.log
        leader = self.leaders.setdefault(raft.term, member.id)
        demand(
            leader == member.id,
            "election safety",
            f"{member.name} leads term {raft.term}, as m{leader} did",
        )
        state = raft.config_state()
        for voters in (state.voters, state.voters_outgoing):
            voted = {v for v in voters if self._votes.get((v, raft.term)) == member.id}
            if member.id in voters and self._has_voted_for_itself(member):
                voted.add(member.id)
            demand(
                not voters or 2 * len(voted) > len(voters),
                "elected by a quorum",
                f"{member.name} leads term {raft.term}: of voters {list(voters)} only {voted}"
                " have voted for it",
            )
        for index in range(log.first_index, self.ledger.last_committed + 1):
            fact = self.ledger.facts.get(index)
            if fact is not None and fact.committed_in < raft.term:
                demand(
                    log.term(index) == fact.term,
                    "leader completeness",
                    f"{member.name} leads term {raft.term} without entry {index} of term"
                    f" {fact.term}; it has {log.term(index)}",
                )

    def _has_voted_for_itself(self, member: Member) -> bool:
        durable = self.durable[member.id]
        return (durable.term, durable.vote) == (member.raft.term, member.id)

    def _check_changes(self, member: Member) -> None:
        """A leader has at most one change of the membership that it has not applied."""
        changes = self._unapplied_changes(member)
        demand(
            len(changes) <= 1,
            "one change at a time",
            f"{member.name} leads term {member.raft.term} with changes {changes} not applied",
        )

    def _unapplied_changes(self, member: Member) -> list[int]:
        raft, log = member.raft, member.raft.log
        if raft.applied_index >= log.last_index or raft.applied_index + 1 < log.first_index:
            return []
        entries = log.slice(raft.applied_index + 1, log.last_index + 1)
        return [entry.Index for entry in entries if entry.Type != raftpb.EntryNormal]

    def _check_progress(self, member: Member) -> None:
        """What a leader believes of others must be true, and never become less."""
        raft = member.raft
        if self._matches_of != (member.id, raft.term):
            self._matches_of = (member.id, raft.term)
            self._matches = {}
        for peer, progress in raft.progress.items():
            match, known = progress.match, self._matches.get(peer, 0)
            demand(
                match < progress.next,
                "match < next",
                f"{member.name} of m{peer}: {match} and {progress.next}",
            )
            if match == known:
                continue
            demand(
                match > known, "match is monotone", f"{member.name} of m{peer}: {known}->{match}"
            )
            self._matches[peer] = match
            if self.durable[peer].term == raft.term:  # a later leader may have replaced it
                demand(
                    self.durable[peer].holds(match, self._term_of(member, match)),
                    "match is durable",
                    f"{member.name} believes that m{peer} has saved entry {match}",
                )
        if raft.transferee:
            progress = raft.progress.get(raft.transferee)
            demand(
                progress is not None and not progress.is_learner,
                "learners never lead",
                f"{member.name} transfers to m{raft.transferee}",
            )

    def _term_of(self, member: Member, index: int) -> int | None:
        """The term of an entry of a member, also of a compacted one."""
        term, fact = member.raft.log.term(index), self.ledger.facts.get(index)
        return fact.term if term is None and fact is not None else term

    def _committed(self, member: Member, old: int, new: int) -> None:
        """State-machine safety; and what a leader commits is on the disks of a quorum."""
        raft, log = member.raft, member.raft.log
        demand(new > old, "commit is monotone", f"{member.name}: {old} -> {new}")
        demand(new <= log.last_index, "commit <= last", f"{member.name}: {new}")
        for entry in log.slice(max(old + 1, log.first_index), new + 1):
            self.ledger.commit(entry, raft.term, member.name)
        if raft.role is Role.LEADER:
            demand(
                log.term(new) == raft.term,
                "commits by counting in its own term only",
                f"{member.name} in term {raft.term} commits entry {new} of term {log.term(new)}",
            )
            self._check_quorum_has(member, new, log.term(new))

    def _check_quorum_has(self, member: Member, index: int, term: int | None) -> None:
        state = member.raft.config_state()
        for voters in (state.voters, state.voters_outgoing):
            have = [v for v in voters if v in self.durable and self.durable[v].holds(index, term)]
            demand(
                not voters or 2 * len(have) > len(voters),
                "a quorum has what is committed",
                f"{member.name} commits entry {index} of term {term}: of voters {list(voters)}"
                f" only {have} have saved it",
            )

    # Before every message

    def sends(self, member: Member, message: Message) -> None:
        """What is said must be true after a power cut, too."""
        kind, durable = message.type, self.durable[member.id]
        if kind == raftpb.MsgAppResp:
            if not message.reject:
                self._acknowledges(member, message)
        elif kind == raftpb.MsgVoteResp:
            if not message.reject:
                self._votes_for(member, message, message.to)
        elif kind == raftpb.MsgVote:
            self._votes_for(member, message, member.id)
        elif kind in (raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap):
            demand(
                durable.term >= message.term,
                "leads what it has saved",
                f"{member.name} leads term {message.term}, saved is {durable.term}",
            )

    def _acknowledges(self, member: Member, message: Message) -> None:
        raft, durable = member.raft, self.durable[member.id]
        index = message.index
        term = durable.terms.get(index)
        if message.term == raft.term:
            term = self._term_of(member, index)
        saved = index == 0 or durable.holds(index, term) or index <= durable.start[0]
        demand(
            saved and durable.term >= message.term,
            "acknowledged after it is saved",
            f"{member.name} acknowledges entry {index} in term {message.term};"
            f" saved: entry {durable.last}, term {durable.term}",
        )

    def _votes_for(self, member: Member, message: Message, candidate: int) -> None:
        durable, term = self.durable[member.id], message.term
        known = self._votes.setdefault((member.id, term), candidate)
        demand(
            known == candidate,
            "one vote a term",
            f"{member.name} votes for m{candidate} in term {term}, after m{known}",
        )
        demand(
            durable.term > term or (durable.term, durable.vote) == (term, candidate),
            "votes after it is saved",
            f"{member.name} votes for m{candidate} in term {term};"
            f" saved: m{durable.vote} in {durable.term}",
        )

    # What a member does with its disk and its state

    def saved(
        self, member: Member, state: raftpb.HardState | None, entries: Iterable[raftpb.Entry]
    ) -> None:
        """A save has returned."""
        self.durable[member.id].save(state, entries, member.name)

    def installed(self, member: Member, state: raftpb.HardState, snapshot: raftpb.Snapshot) -> None:
        """A snapshot has taken the place of the log, and is about to be the state."""
        metadata, durable = snapshot.metadata, self.durable[member.id]
        self.installs += 1
        self._check_snapshot(member, snapshot)
        durable.install(metadata.index, metadata.term)
        durable.save(state, (), member.name)

    def marked(self, member: Member, snapshot: raftpb.Snapshot) -> None:
        """The backend stands for the log from now on."""
        self._check_snapshot(member, snapshot)

    def _check_snapshot(self, member: Member, snapshot: raftpb.Snapshot) -> None:
        metadata = snapshot.metadata
        fact = self.ledger.facts.get(metadata.index)
        demand(
            fact is not None and fact.term == metadata.term,
            "snapshots are of what is committed",
            f"{member.name} has one of entry {metadata.index}, term {metadata.term}; {fact}",
        )

    def applied(self, member: Member, applied: Applied) -> None:
        """An entry was applied."""
        entry, seen = applied.entry, self._seen[member.id]
        index = entry.Index
        demand(index > seen.applied, "applied once", f"{member.name} applies {index} again")
        seen.applied = index
        durable = self.durable[member.id]
        demand(
            durable.holds(index, entry.Term),
            "applied after it is saved",
            f"{member.name} applies entry {index} of term {entry.Term}; saved: {durable.last}",
        )
        fact = self.ledger.facts.get(index)
        demand(fact is not None and fact.term == entry.Term, "applied is committed", f"{index}")
        revision = member.parts.store.revision
        self.ledger.applied(applied, revision, member.name, member.world.clock.now)
        if applied.change is not None:
            self.configs.applied(member, index)
            if member.id in member.parts.membership.removed:
                member.after(member.world.random.random(), member.stop)

    def revokes(self, member: Member, lease_id: int) -> None:
        """A leader is about to end a lease for its age."""
        world = member.world
        granted, ttl = self.ledger.granted_at.get(lease_id, (0.0, 0))
        demand(
            (world.clock.now - granted) * world.fastest_clock >= ttl,
            "no lease ends early",
            f"{member.name} revokes {lease_id:x} {world.clock.now - granted:.2f} s after its grant",
        )
