"""Raft with learners: elections, replication, reads and membership as one pure state machine.

It neither sends nor saves nor waits: :class:`.core.Raft` takes ticks, messages and proposals, and
hands out what to save, what to send and what to apply; clock and randomness are its driver's.
The design is etcd-io/raft's; "thesis" is Ongaro's dissertation, "paper" the extended Raft paper.

To read: messages, config, log, progress, quorum, confchange; then node (the state and its roles),
reads, replication, election, membership, proposals; last core, which puts them together, and
invariants, which hold after every step.
"""
