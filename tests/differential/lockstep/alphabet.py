"""What random programs are made of: a few keys, and every option of every request."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .program import Call, KeepAlive, Operation, Rev, Watch

Fields = st.SearchStrategy[dict[str, Any]]

KEYS = [b"a", b"a\0", b"aa", b"b", b"c", b"\xff", b"\0"]
ENDS = [b"\0", b"a", b"aa", b"b", b"c", b"\xff", b"d"]
VALUES = [b"", b"1", b"2", b"zz", b"\0"]
LEASES = [1, 2, 3, -4]
TTLS = [1000, 2000, 3000, 9_000_000_000, 9_000_000_001]

keys = st.sampled_from(KEYS)
# Mostly keys that exist: a program over too many keys hardly meets itself.
used_keys = st.sampled_from([b"a", b"a", b"b", b"b", b"c", *KEYS, b""])
ends = st.sampled_from([b"\0", b"\0", b"c", b"c", *ENDS])
values = st.sampled_from(VALUES)
leases = st.sampled_from([*LEASES, 7])
revisions = st.one_of(
    st.integers(-2, 12).map(Rev), st.sampled_from([0, -1, -(2**63), 2**63 - 1, 1])
)
flags = st.booleans()


def message(required: dict[str, Any], optional: dict[str, Any]) -> Fields:
    return st.fixed_dictionaries(required, optional=optional)


bounds = st.one_of(st.integers(-1, 8).map(Rev), st.just(0), st.just(-1))

ranges: Fields = message(
    {"key": used_keys},
    {
        "range_end": ends,
        "limit": st.integers(-1, 4),
        "revision": revisions,
        "sort_order": st.integers(0, 2),
        "sort_target": st.integers(0, 4),
        "serializable": flags,
        "keys_only": flags,
        "count_only": flags,
        "min_mod_revision": bounds,
        "max_mod_revision": bounds,
        "min_create_revision": bounds,
        "max_create_revision": bounds,
    },
)
puts: Fields = st.one_of(
    message({"key": used_keys, "value": values}, {}),
    message(
        {"key": used_keys},
        {
            "value": values,
            "lease": leases,
            "prev_kv": flags,
            "ignore_value": flags,
            "ignore_lease": flags,
        },
    ),
)
deletes: Fields = message({"key": used_keys}, {"range_end": ends, "prev_kv": flags})

comparands: Fields = st.one_of(
    st.fixed_dictionaries({"version": st.integers(-1, 4)}),
    st.fixed_dictionaries({"create_revision": revisions}),
    st.fixed_dictionaries({"mod_revision": revisions}),
    st.fixed_dictionaries({"value": values}),
    st.fixed_dictionaries({"lease": leases}),
    st.just({}),
)


def _compare(target: int, result: int, key: bytes, rest: dict[str, Any]) -> dict[str, Any]:
    return {"target": target, "result": result, "key": key, **rest}


_MATCHING = {"version": 0, "create_revision": 1, "mod_revision": 2, "value": 3, "lease": 4}


def _matched(compare: dict[str, Any]) -> dict[str, Any]:
    """Make the target the one whose comparand was given, as a sane client does."""
    named = next((name for name in _MATCHING if name in compare), None)
    return compare if named is None else {**compare, "target": _MATCHING[named]}


_loose = st.builds(
    _compare, st.sampled_from([0, 1, 2, 3, 4, 9]), st.sampled_from([0, 1, 2, 3, 9]), used_keys,
    comparands,
)  # fmt: skip
_ended = st.builds(lambda compare, end: {**compare, "range_end": end}, _loose, ends)
compares: Fields = st.one_of(_loose.map(_matched), _ended.map(_matched), _loose, _ended)

_leaf_ops: Fields = st.one_of(
    st.fixed_dictionaries({"request_range": ranges}),
    st.fixed_dictionaries({"request_put": puts}),
    st.fixed_dictionaries({"request_put": puts}),
    st.fixed_dictionaries({"request_delete_range": deletes}),
)


def _txn_of(ops: Fields) -> Fields:
    return message(
        {"success": st.lists(ops, max_size=4)},
        {"compare": st.lists(compares, max_size=3), "failure": st.lists(ops, max_size=3)},
    )


def _nest(inner: Fields) -> Fields:
    return st.one_of(inner, st.fixed_dictionaries({"request_txn": _txn_of(inner)}))


_ops: Fields = st.recursive(_leaf_ops, _nest, max_leaves=6)
txns: Fields = _txn_of(st.one_of(_ops, _ops, _ops, _ops, st.just({})))

grants: Fields = st.fixed_dictionaries(
    {"ID": st.sampled_from(LEASES), "TTL": st.sampled_from(TTLS)}
)


def call(name: str, fields: Fields) -> st.SearchStrategy[Operation]:
    return st.builds(Call, st.just(name), fields)


kv_operations: st.SearchStrategy[Operation] = st.one_of(
    call("Put", puts),
    call("Put", puts),
    call("Range", ranges),
    call("DeleteRange", deletes),
    call("Txn", txns),
    call("Txn", txns),
)
# Where hashes are compared, compactions are awaited: with no key left, etcd hashes whatever is not
# deleted yet.
compactions = call("Compact", message({"physical": st.just(True)}, {"revision": revisions}))
background_compactions = call("Compact", message({}, {"revision": revisions}))
lease_operations: st.SearchStrategy[Operation] = st.one_of(
    call("LeaseGrant", grants),
    call("LeaseGrant", grants),
    call("LeaseRevoke", st.fixed_dictionaries({"ID": leases})),
    call("LeaseTimeToLive", message({"ID": leases}, {"keys": flags})),
    call("LeaseLeases", st.just({})),
    st.builds(KeepAlive, leases),
)
questions: st.SearchStrategy[Operation] = st.one_of(
    call("HashKV", message({}, {"revision": revisions})),
    call("Status", st.just({})),
    call("MemberList", message({}, {"linearizable": flags})),
    call("Alarm", st.just({})),
)

# None below 0: what that means is a known difference (watch-from-a-negative-revision).
starts = st.one_of(st.integers(-2, 12).map(Rev), st.sampled_from([0, 1, 2**63 - 1]))
creates: Fields = message(
    {"key": used_keys},
    {
        "range_end": ends,
        "start_revision": starts,
        "filters": st.lists(st.integers(0, 2), max_size=2),
        "prev_kv": flags,
        # Not -1: what becomes of it is a known difference (watcher-of-a-refused-id).
        "watch_id": st.sampled_from([0, 0, 1, 2]),
        "fragment": flags,
        "progress_notify": flags,
    },
)
streams = st.integers(0, 1)
cancels: Fields = st.fixed_dictionaries({"watch_id": st.integers(-1, 3)})
watch_operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Watch, streams, st.fixed_dictionaries({"create_request": creates})),
    st.builds(Watch, streams, st.fixed_dictionaries({"create_request": creates})),
    st.builds(Watch, streams, st.fixed_dictionaries({"cancel_request": cancels})),
    st.builds(Watch, streams, st.just({})),
)
