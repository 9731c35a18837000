"""Every operation, on both faces, against both servers."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel import (
    Alarm,
    Compacted,
    FutureRevision,
    InvalidArgument,
    KeyNotFound,
    LeaseNotFound,
    PutResult,
    RangeResult,
    Refused,
    RequestTooLarge,
    Txn,
    TxnResult,
    create_revision,
    delete,
    get,
    lease,
    mod_revision,
    put,
    value,
    version,
)

pytestmark = pytest.mark.process


def test_put_then_get(etcd: Any) -> None:
    put_ = etcd.put("k", "v")
    kv = etcd.get("k")
    assert (kv.key, kv.value, kv.version, kv.lease) == (b"k", b"v", 1, 0)
    assert kv.create_revision == kv.mod_revision == put_.revision == put_.header.revision
    assert put_.prev_kv is None


def test_get_of_a_missing_key_is_none(etcd: Any) -> None:
    assert etcd.get("missing") is None


def test_bytes_go_in_and_come_out_unchanged(etcd: Any) -> None:
    key, content = bytes(range(256)), b"\x00\xff" * 100
    etcd.put(key, content)
    assert etcd.get(key).value == content
    assert etcd.get(bytearray(key)).key == key


def test_put_answers_with_the_previous_value_if_asked(etcd: Any) -> None:
    etcd.put("k", "old")
    assert etcd.put("k", "new", prev_kv=True).prev_kv.value == b"old"


def test_put_keeps_the_value_if_asked(etcd: Any) -> None:
    etcd.put("k", "v")
    etcd.put("k", ignore_value=True)
    assert (etcd.get("k").value, etcd.get("k").version) == (b"v", 2)
    with pytest.raises(KeyNotFound):
        etcd.put("missing", ignore_value=True)
    with pytest.raises(KeyNotFound):
        etcd.put("missing", "v", ignore_lease=True)


def test_put_with_an_unknown_lease_is_refused(etcd: Any) -> None:
    with pytest.raises(LeaseNotFound) as caught:
        etcd.put("k", "v", lease=0x7777)
    error = caught.value
    assert error.text == "etcdserver: requested lease not found"
    assert error.code == 5
    assert error.attempts == 1
    assert error.endpoint is not None
    assert error.rpc == "/etcdserverpb.KV/Put"
    assert 0 < error.elapsed_seconds < 5
    assert error.__cause__ is not None


def test_get_as_of_a_revision(etcd: Any) -> None:
    first = etcd.put("k", "1").revision
    etcd.put("k", "2")
    assert etcd.get("k", revision=first).value == b"1"
    assert etcd.get("k", serializable=True).value == b"2"
    with pytest.raises(FutureRevision):
        etcd.get("k", revision=first + 1_000_000)


@pytest.fixture
def abc(etcd: Any) -> list[bytes]:
    """Keys a1, a2, b1 whose values fall as the keys rise."""
    keys = [b"a1", b"a2", b"b1"]
    for at, key in enumerate(keys):
        etcd.put(key, str(9 - at))
    return keys


def test_ranges(etcd: Any, abc: list[bytes]) -> None:
    def keys(result: RangeResult) -> list[bytes]:
        return [kv.key for kv in result]

    assert keys(etcd.range("a1")) == [b"a1"]
    assert keys(etcd.range("a1", "b")) == [b"a1", b"a2"]
    assert keys(etcd.range("a", prefix=True)) == [b"a1", b"a2"]
    assert keys(etcd.get_prefix("a")) == [b"a1", b"a2"]
    assert keys(etcd.range("a2", from_key=True)) == [b"a2", b"b1"]
    assert keys(etcd.get_prefix("")) == abc
    assert keys(etcd.get_prefix("c")) == []


def test_a_range_result_is_a_collection(etcd: Any, abc: list[bytes]) -> None:
    found = etcd.get_prefix("")
    assert len(found) == found.count == 3
    assert found[0].key == b"a1"
    assert [kv.key for kv in found[1:]] == abc[1:]
    assert found
    assert not etcd.get_prefix("c")
    assert found[1] in found


def test_limit_and_order(etcd: Any, abc: list[bytes]) -> None:
    two = etcd.get_prefix("", limit=2)
    assert (len(two), two.count, two.more) == (2, 3, True)
    by_value = etcd.get_prefix("", sort_by="value")
    assert [kv.key for kv in by_value] == abc[::-1]
    last = etcd.range("", prefix=True, order="descend", limit=1)
    assert last[0].key == b"b1"
    newest = etcd.get_prefix("", sort_by="mod_revision", order="descend")
    assert newest[0].key == b"b1"


def test_keys_only_and_count(etcd: Any, abc: list[bytes]) -> None:
    assert all(kv.value == b"" for kv in etcd.get_prefix("", keys_only=True))
    assert etcd.count("", prefix=True) == 3
    assert etcd.count("a1") == 1
    assert etcd.count("missing") == 0


def test_revision_bounds(etcd: Any, abc: list[bytes]) -> None:
    middle = etcd.get("a2").mod_revision
    etcd.put("a1", "again")
    changed = etcd.range("", prefix=True, min_mod_revision=middle + 1)
    assert {kv.key for kv in changed} == {b"b1", b"a1"}
    made = etcd.range("", prefix=True, max_create_revision=middle)
    assert {kv.key for kv in made} == {b"a1", b"a2"}


def test_delete(etcd: Any, abc: list[bytes]) -> None:
    gone = etcd.delete("a1", prev_kv=True)
    assert gone
    assert (gone.deleted, gone.prev_kvs[0].value) == (1, b"9")
    assert not etcd.delete("a1")
    assert etcd.delete_prefix("a").deleted == 1
    assert etcd.delete("a", "z").deleted == 1
    assert etcd.count("", prefix=True) == 0


def test_pages_are_of_one_revision(etcd: Any) -> None:
    for number in range(7):
        etcd.put(f"p/{number}", "old")
    seen = []
    for page in etcd.pages("p/", prefix=True, page_size=3):
        seen.append([kv.key for kv in page])
        assert all(kv.value == b"old" for kv in page)
        etcd.put("p/6", "new")
        etcd.put("p/7", "new")
    assert seen == [
        [b"p/0", b"p/1", b"p/2"],
        [b"p/3", b"p/4", b"p/5"],
        [b"p/6"],
    ]


def test_pages_of_an_empty_range_are_one_empty_page(etcd: Any) -> None:
    assert [len(page) for page in etcd.pages("nothing/", prefix=True)] == [0]


def test_pages_whose_revision_is_compacted_away_raise(etcd: Any) -> None:
    for number in range(4):
        etcd.put(f"p/{number}", "v")
    pages = etcd.pages("p/", prefix=True, page_size=2)
    next(pages)
    etcd.put("p/0", "newer")
    etcd.compact(etcd.put("p/0", "newest").revision)
    with pytest.raises(Compacted):
        next(pages)


def test_pages_want_a_size(etcd: Any) -> None:
    with pytest.raises(InvalidArgument, match="page_size"):
        next(etcd.pages("p/", prefix=True, page_size=0))


def test_compact(etcd: Any) -> None:
    old = etcd.put("k", "1").revision
    new = etcd.put("k", "2").revision
    assert etcd.compact(new, physical=True).revision >= new
    with pytest.raises(Compacted) as caught:
        etcd.get("k", revision=old)
    assert caught.value.text == "etcdserver: mvcc: required revision has been compacted"
    with pytest.raises(Compacted):
        etcd.compact(old)


def test_txn_takes_one_branch(etcd: Any) -> None:
    create = etcd.txn().when(version("k") == 0).then(put("k", "v")).otherwise(get("k"))
    made = create.commit()
    assert made.succeeded
    assert isinstance(made.responses[0], PutResult)
    found = create.commit()
    assert not found
    assert found.responses[0][0].value == b"v"


def test_txn_compares_all_five_targets(etcd: Any) -> None:
    etcd.put("k", "v")
    kv = etcd.get("k")
    holds = etcd.txn().when(
        value("k") == "v",
        value("k") != b"w",
        version("k") < 2,
        version("k") > 0,
        create_revision("k") == kv.create_revision,
        mod_revision("k") == kv.mod_revision,
        lease("k") == 0,
    )
    assert holds.commit().succeeded
    assert not holds.when(value("k") == "other").commit().succeeded


def test_txn_compares_ranges(etcd: Any) -> None:
    etcd.put("r/1", "x")
    etcd.put("r/2", "x")
    result = etcd.txn().when(value("r/", prefix=True) == "x").commit()
    assert (result.succeeded, result.responses) == (True, ())
    etcd.put("r/2", "y")
    assert not etcd.txn().when(value("r/", prefix=True) == "x").commit().succeeded


def test_txns_nest(etcd: Any) -> None:
    etcd.put("k", "v")
    inner = Txn().when(value("k") == "v").then(delete("k", prev_kv=True), put("n", "1"))
    result = etcd.txn().then(inner, get("n")).commit()
    assert isinstance(result.responses[0], TxnResult)
    assert result.responses[0].succeeded
    assert result.responses[0].responses[0].prev_kvs[0].value == b"v"
    assert result.responses[1][0].value == b"1"


def test_txn_that_puts_a_key_twice_is_refused(etcd: Any) -> None:
    with pytest.raises(Refused) as caught:
        etcd.txn().then(put("k", "1"), put("k", "2")).commit()
    assert caught.value.text == "etcdserver: duplicate key given in txn request"
    assert etcd.get("k") is None


def test_members(etcd: Any) -> None:
    (member,) = etcd.members.list()
    assert member.name == "default"
    assert not member.learner
    assert member.client_urls
    assert etcd.members.list(serializable=True) == (member,)


def test_status(etcd: Any, server: Any) -> None:
    status = etcd.maintenance.status(server.endpoint)
    assert status.leader == status.header.member_id
    assert status.db_size_bytes >= status.db_size_in_use_bytes > 0
    assert status.errors == ()
    assert not status.learner
    assert etcd.maintenance.status().version == status.version
    with pytest.raises(InvalidArgument, match="not among"):
        etcd.maintenance.status("127.0.0.1:1")


def test_hashes(etcd: Any, server: Any) -> None:
    etcd.put("k", "v")
    first = etcd.maintenance.hash_kv()
    assert etcd.maintenance.hash_kv(server.endpoint).hash == first.hash
    etcd.put("k", "w")
    assert etcd.maintenance.hash_kv().hash != first.hash
    assert etcd.maintenance.hash_kv(revision=first.header.revision).hash == first.hash
    assert etcd.maintenance.hash().hash > 0


def test_defragment(etcd: Any, server: Any) -> None:
    etcd.put("k", "v")
    etcd.maintenance.defragment(server.endpoint)
    assert etcd.get("k").value == b"v"


def test_alarms(etcd: Any) -> None:
    assert etcd.maintenance.alarms() == ()
    assert etcd.maintenance.disarm() == ()


def test_an_empty_key_is_refused_with_etcds_words(etcd: Any) -> None:
    with pytest.raises(Refused, match="etcdserver: key is not provided"):
        etcd.get("")


def test_a_request_larger_than_the_server_takes(etcd: Any) -> None:
    with pytest.raises(RequestTooLarge):
        etcd.put("k", b"x" * 3_000_000)
    with pytest.raises(RequestTooLarge):
        etcd.put("k", b"x" * 1_700_000)
    assert etcd.get("k") is None


TLS = {"url": "https://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda etcd: etcd.get(5), "^key: str or bytes"),
        (lambda etcd: etcd.get("\ud800"), "^key: a str that can be encoded"),
        (lambda etcd: etcd.put("k", None), "^value: str or bytes"),
        (lambda etcd: etcd.put("k", "\ud800"), "^value: a str that can be encoded"),
        (lambda etcd: etcd.get("k", revision=2**70), "out of range"),
        (lambda etcd: etcd.get("k", revision="seven"), "int|argument"),
        (lambda etcd: etcd.get("k", timeout=0), "timeout"),
        (lambda etcd: etcd.get("k", timeout=float("nan")), "timeout"),
        (lambda etcd: etcd.range("k", "l", prefix=True), "one of range_end"),
        (lambda etcd: etcd.range("k", "\ud800"), "^range_end: a str that can be encoded"),
        (lambda etcd: etcd.range("k", prefix="no"), "^prefix: True or False"),
        (lambda etcd: next(etcd.pages(5)), "str or bytes"),
        (lambda etcd: next(etcd.pages("k", revision=2**70)), "out of range"),
        (lambda etcd: next(etcd.pages("k", page_size="ten")), "not supported"),
        (lambda etcd: etcd.range("k", sort_by="colour"), "sort_by"),
        (lambda etcd: etcd.range("k", order="up"), "order"),
        (lambda etcd: etcd.put("k", "v", lease="seven"), "lease"),
        (lambda etcd: etcd.put("k", "v", lease=True), "^lease: .*64 bits"),
        (lambda etcd: etcd.leases.revoke(2**63), "^lease: .*64 bits"),
        (lambda etcd: etcd.txn().when(True), "condition"),
        (lambda etcd: etcd.txn().then("put"), "operation"),
        (lambda etcd: put("k", prev_kv="no"), "int"),  # type: ignore[arg-type]
        (lambda etcd: get("k", revision=2**70), "out of range"),
        (lambda etcd: delete("k", prev_kv="no"), "int"),  # type: ignore[arg-type]
        (lambda etcd: value("k") == "\ud800", "^value: a str that can be encoded"),
        (lambda etcd: version("\ud800"), "^key: a str that can be encoded"),
        (lambda etcd: version("k", from_key="no"), "^from_key: True or False"),
        (lambda etcd: etcd.maintenance.status(1), "endpoint is text.* not 1$"),
        (lambda etcd: etcd.maintenance.status("\ud800"), "endpoint is text"),
        (lambda etcd: etcd.maintenance.defragment(None), "endpoint is text.* not None$"),
        (lambda etcd: etcd.maintenance.move_leader(1, endpoint=1), "endpoint is text"),
        (lambda etcd: etcd.maintenance.disarm(1), "^alarm: .* not 1$"),
        (lambda etcd: etcd.maintenance.disarm(Alarm(1, "none")), "AlarmType"),  # type: ignore[arg-type]
        (lambda etcd: etcd.set_endpoints("\ud800"), r"^endpoints\[0\]: an endpoint is text"),
        (lambda etcd: etcd.set_endpoints("unix:///\udcff"), r"^endpoints\[0\]: "),
        (lambda etcd: etcd.set_endpoints({**TLS, "ca": "\ud800"}), r"ca: a path or bytes"),
        (lambda etcd: etcd.set_endpoints({**TLS, "ca": 1}), r"ca: a path or bytes"),
        (
            lambda etcd: etcd.set_endpoints({**TLS, "server_name": "\ud800"}),
            r"^endpoints\[0\]\.server_name: text",
        ),
    ],
)
def test_misuse_is_found_before_anything_is_sent(etcd: Any, call: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"(?i){problem}"):
        call(etcd)
    assert all(view.calls == 0 for view in etcd.endpoints.values())


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda etcd: etcd.leases.keep_alive_once(2**70), "^lease: .*64 bits"),
        (lambda etcd: etcd.leases.keep_alive_once(-(2**63) - 1), "^lease: .*64 bits"),
        (lambda etcd: etcd.leases.keep_alive_once(True), "^lease: .*64 bits"),
        (lambda etcd: etcd.leases.keep_alive_once(LeaseWith("seven")), "^lease: .*64 bits"),
        (lambda etcd: etcd.leases.keep_alive_once(7, timeout="x"), "^timeout: a positive"),
        (lambda etcd: etcd.election("\ud800"), "^name: a str that can be encoded"),
        (lambda etcd: etcd.election("e").campaign("\ud800", ttl=5), "^value: a str that can"),
        (lambda etcd: etcd.election("e").campaign("v", ttl=5, timeout="x"), "^timeout: .* 0 or"),
        (lambda etcd: etcd.lock("\ud800", ttl=5), "^name: a str that can be encoded"),
        (lambda etcd: etcd.lock(5, ttl=5), "^name: str or bytes"),
        (lambda etcd: etcd.lock("l", ttl=5, timeout=-1), "^timeout: .* 0 or more"),
        (lambda etcd: etcd.lock("l", ttl=5, timeout=float("nan")), "^timeout: .* 0 or more"),
        (lambda etcd: etcd.maintenance.snapshot("\ud800"), "^path: "),
        (lambda etcd: etcd.maintenance.snapshot("a\0b"), "^path: "),
        (lambda etcd: etcd.maintenance.snapshot(""), "^path: "),
        (lambda etcd: etcd.maintenance.snapshot(None), "^path: "),
        (lambda etcd: next(etcd.maintenance.snapshot_chunks(endpoint=1)), "endpoint is text"),
        (lambda etcd: next(etcd.maintenance.snapshot_chunks(timeout="x")), "^timeout: a positive"),
    ],
)
def test_misuse_of_what_is_no_single_call_is_found_as_early(
    etcd: Any, call: Any, problem: str
) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        call(etcd)
    assert all(view.calls == view.streams == 0 for view in etcd.endpoints.values())


class LeaseWith:
    """Something like a lease, but for what its id is."""

    def __init__(self, id_: object) -> None:
        self.id = id_
