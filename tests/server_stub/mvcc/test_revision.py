"""Keys of revisions: their bytes are etcd's, their order is that of revisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.mvcc.revision import Revision, decode, encode, main_of, revision_key

REVISIONS = st.builds(Revision, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))


def test_layout() -> None:
    assert encode(Revision(258, 1)).hex() == "00000000000001025f0000000000000001"
    assert encode(Revision(258, 1), tombstone=True) == encode(Revision(258, 1)) + b"t"


@given(REVISIONS, st.booleans())
def test_decoding_gives_back(revision: Revision, tombstone: bool) -> None:
    key = encode(revision, tombstone)
    assert decode(key) == (revision, tombstone)
    assert main_of(key) == revision.main


@given(REVISIONS, REVISIONS)
def test_byte_order_is_revision_order(one: Revision, other: Revision) -> None:
    assert (encode(one) < encode(other)) == (one < other)
    assert encode(one, tombstone=True) < revision_key(one.main + 1)


@pytest.mark.parametrize(
    "key", [b"", b"x" * 17, encode(Revision(1)) + b"x", encode(Revision(1))[:16]]
)
def test_what_is_no_revision_key_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="not a revision key"):
        decode(key)
