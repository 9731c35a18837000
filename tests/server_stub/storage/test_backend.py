"""The treaty of a backend, over each implementation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.mvcc.backend import Backend, Bucket
from etcd_pinwheel.server_stub.storage.backend import LmdbBackend
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


@pytest.fixture(params=["memory", "lmdb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Backend]]:
    """Make an empty backend of one kind."""
    made: list[LmdbBackend] = []

    def new() -> Backend:
        if request.param == "memory":
            return MemoryBackend()
        made.append(LmdbBackend(tmp_path / str(len(made)) / "db"))
        return made[-1]

    yield new
    for backend in made:
        backend.close()


def is_last(rows: list[tuple[bytes, bytes]], limit_bytes: int) -> bool:
    """Whether a range bounded in bytes ends with these rows, whatever follows."""
    return 0 < limit_bytes <= sum(len(key) + len(value) for key, value in rows)


KEYS = st.binary(min_size=1, max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([Bucket.KEY, Bucket.META]), KEYS, st.binary()),
        st.tuples(st.just("delete"), st.sampled_from([Bucket.KEY, Bucket.META]), KEYS),
        st.tuples(st.just("commit")),
        st.tuples(st.just("hand_over")),
        st.tuples(st.just("range"), KEYS, st.none() | KEYS, st.integers(0, 4), st.integers(0, 12)),
    ),
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_reads_see_own_writes(make: Callable[[], Backend], steps: list[tuple[object, ...]]) -> None:
    """Whatever is collected, being committed or committed, reads are those of a plain dict."""
    backend = make()
    twin: dict[Bucket, dict[bytes, bytes]] = {bucket: {} for bucket in Bucket}
    for step in steps:
        match step:
            case ("put", Bucket() as bucket, bytes() as key, bytes() as value):
                backend.put(bucket, key, value)
                twin[bucket][key] = value
            case ("delete", Bucket() as bucket, bytes() as key):
                backend.delete(bucket, key)
                twin[bucket].pop(key, None)
            case ("range", bytes() as start, end, int() as limit, int() as limit_bytes):
                assert end is None or isinstance(end, bytes)
                rows = [
                    row
                    for row in sorted(twin[Bucket.KEY].items())
                    if row[0] >= start and (end is None or row[0] < end)
                ]
                found = backend.range(Bucket.KEY, start, end, limit)
                assert found == (rows[:limit] if limit else rows)
                few = backend.range(Bucket.KEY, start, end, limit, limit_bytes)
                assert few == found[: len(few)]
                assert len(few) == len(found) or is_last(few, limit_bytes)
                assert not is_last(few[:-1], limit_bytes)
            case ("commit",):
                backend.commit()
            case ("hand_over",) if isinstance(backend, LmdbBackend):
                backend.hand_over()
        for bucket in (Bucket.KEY, Bucket.META):
            assert all(backend.get(bucket, key) == value for key, value in twin[bucket].items())
    for bucket in Bucket:
        assert backend.range(bucket, b"") == sorted(twin[bucket].items())
    if isinstance(backend, LmdbBackend):
        backend.close()


def test_a_key_that_cannot_be_is_not_there(make: Callable[[], Backend]) -> None:
    backend = make()
    backend.commit()
    for key in (b"", b"k" * 512, b"k" * 5_000):
        assert backend.get(Bucket.AUTH_USERS, key) is None
        backend.delete(Bucket.AUTH_USERS, key)
        backend.commit()


def test_size_grows_and_shrinks(make: Callable[[], Backend]) -> None:
    backend = make()
    before = backend.size_in_use_bytes
    for number in range(200):
        backend.put(Bucket.KEY, b"%04d" % number, b"x" * 1_000)
    backend.commit()
    full = backend.size_in_use_bytes
    assert full >= before + 200_000
    assert backend.size_bytes >= full
    for number in range(200):
        backend.delete(Bucket.KEY, b"%04d" % number)
    backend.commit()
    assert backend.size_in_use_bytes <= before + 2 * 4_096
