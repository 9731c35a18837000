"""Two replies side by side: what must differ is masked, and the rest is compared field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from etcd_pinwheel.protos import etcdserverpb as pb

ABSENT = "absent"
"""How a field that is not set reads in a :class:`Delta`."""

SIZES = {
    # How big and how far along a member is: its own business, but never nothing.
    ("StatusResponse", "dbSize"),
    ("StatusResponse", "dbSizeInUse"),
    ("StatusResponse", "raftIndex"),
    ("StatusResponse", "raftAppliedIndex"),
}
UNORDERED = {
    # Of these etcd iterates over a map, so their order is random.
    ("LeaseTimeToLiveResponse", "keys"),
    ("StatusResponse", "errors"),
}
LEASE_IDS = {("LeaseGrantResponse", "ID"), ("LeaseStatus", "ID")}
CHOSEN_BY_SERVER = 2**40
"""The ids of leases that the tests choose are smaller than those that a server does."""
REMAINING = ("LeaseTimeToLiveResponse", "TTL")
REMAINING_TOLERANCE_SECONDS = 5


@dataclass(frozen=True)
class Delta:
    """One place where the two disagree; indices of repeated fields are left out of ``path``."""

    path: str
    etcd: str
    ours: str

    def __str__(self) -> str:
        return f"{self.path}: etcd {self.etcd}, ours {self.ours}"


def plain(message: Message) -> dict[str, Any]:
    """Turn a message into dicts, lists and values of Python; unset fields are left out."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if (message.DESCRIPTOR.name, field.name) in SIZES:
            found[field.name] = "some"
        elif (message.DESCRIPTOR.name, field.name) in LEASE_IDS and value > CHOSEN_BY_SERVER:
            found[field.name] = "chosen"
        elif field.message_type is None:
            found[field.name] = _values(message, field.name) if field.is_repeated else value
        elif field.is_repeated:
            found[field.name] = [plain(each) for each in value]
        else:
            found[field.name] = plain(value)
    return found


def _values(message: Message, name: str) -> list[Any]:
    values = list(getattr(message, name))
    return sorted(values) if (message.DESCRIPTOR.name, name) in UNORDERED else values


def deltas(etcd: Message, ours: Message) -> list[Delta]:
    """Compare two replies."""
    if type(etcd) is not type(ours):
        return [Delta("type", type(etcd).__name__, type(ours).__name__)]
    left, right = plain(etcd), plain(ours)
    if isinstance(etcd, pb.LeaseTimeToLiveResponse):
        _forgive_passing_time(left, right)
    return list(between(left, right))


def _forgive_passing_time(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Let what is left of a lease differ by the little time between the two answers."""
    field = REMAINING[1]
    ours, theirs = right.get(field, 0), left.get(field, 0)
    if min(ours, theirs) >= 0 and abs(ours - theirs) <= REMAINING_TOLERANCE_SECONDS:
        right[field] = left[field] = theirs


def between(left: Any, right: Any, path: str = "") -> Iterator[Delta]:
    """Walk two structures of dicts and lists side by side."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted(left.keys() | right.keys()):
            inner = f"{path}.{name}" if path else name
            yield from between(left.get(name, ABSENT), right.get(name, ABSENT), inner)
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            yield Delta(f"{path}.length", str(len(left)), str(len(right)))
        for one, other in zip(left, right, strict=False):
            yield from between(one, other, f"{path}[]")
    elif left != right:
        yield Delta(path, str(left), str(right))
