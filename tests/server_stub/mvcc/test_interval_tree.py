"""The interval tree against a list."""

from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.mvcc.interval_tree import IntervalTree

POINTS = st.binary(max_size=1) | st.sampled_from([b"a\0", b"ab", b"\xff\xff"])
STEPS = st.lists(
    st.tuples(st.booleans(), POINTS, st.none() | POINTS, st.integers(0, 2)), max_size=60
)


@given(steps=STEPS, keys=st.lists(POINTS, max_size=10))
def test_it_finds_what_a_list_finds(
    steps: list[tuple[bool, bytes, bytes | None, int]], keys: list[bytes]
) -> None:
    tree: IntervalTree[int] = IntervalTree()
    twin: set[tuple[bytes, bytes | None, int]] = set()
    for adds, start, end, member in steps:
        item = (start, end, member)
        if adds:
            tree.add(*item)
            twin.add(item)
        elif twin:
            gone = min(twin, key=lambda one: (one != item, one[0]))
            tree.remove(*gone)
            twin.remove(gone)
        tree._check()
    for key in keys:
        expected = [m for s, e, m in twin if s <= key and (e is None or key < e)]
        assert sorted(tree.containing(key)) == sorted(expected)


def test_many_intervals_stay_shallow() -> None:
    """Added in key order, which would make a plain tree a list."""
    tree: IntervalTree[int] = IntervalTree()
    for number in range(5_000):
        tree.add(b"%05d" % number, b"%05d~" % number, number)
    assert list(tree.containing(b"02500x")) == [2_500]
    tree._check()
    for number in range(5_000):
        tree.remove(b"%05d" % number, b"%05d~" % number, number)
    assert list(tree.containing(b"02500x")) == []
