"""Asking a cluster about itself, without an id in it."""

from __future__ import annotations

from contextlib import closing
from socket import create_server
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.cluster import ClusterMember
from etcd_pinwheel.server_stub.peers import (
    ClusterInfo,
    PeerLimits,
    PeerUnreachable,
    fetch_cluster,
)

from .conftest import CLUSTER, A, B


async def test_the_members_are_told(make: Any) -> None:
    a = await make(A)
    info = await fetch_cluster([a.url], None, 20)
    assert info == a.receiver.cluster_info()
    assert info.cluster_id == CLUSTER
    assert [each.id for each in info.members] == [A, B]


async def test_urls_are_tried_one_after_the_other(make: Any) -> None:
    a = await make(A)
    with closing(create_server(("127.0.0.1", 0))) as silent:
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}"
        urls = ["http://127.0.0.1:1", "not a url", quiet, a.url]
        info = await fetch_cluster(urls, None, 20, PeerLimits(connect_seconds=0.3))
    assert info.cluster_id == CLUSTER


async def test_nobody_answers() -> None:
    with closing(create_server(("127.0.0.1", 0))) as silent:
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PeerUnreachable) as caught:
            await fetch_cluster(["http://127.0.0.1:1", "ftp://x", quiet], None, 0.3)
    assert "http://127.0.0.1:1: [Errno 111]" in str(caught.value)
    assert "ftp://x: not the URL of a member" in str(caught.value)
    assert "no answer within 0.3 s" in str(caught.value)
    with pytest.raises(PeerUnreachable, match="no URL"):
        await fetch_cluster([], None, 1)


uint64 = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        ClusterInfo,
        uint64,
        st.lists(
            st.builds(
                ClusterMember,
                uint64,
                st.lists(st.text(max_size=5), max_size=2).map(tuple),
                st.text(max_size=5),
                st.lists(st.text(max_size=5), max_size=2).map(tuple),
                st.booleans(),
            ),
            max_size=3,
        ).map(tuple),
    )
)
def test_descriptions_travel(info: ClusterInfo) -> None:
    assert ClusterInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"clusterID":1,"members":[{}]}', b"\xff"])
def test_what_is_no_description(data: bytes) -> None:
    with pytest.raises(ValueError):
        ClusterInfo.from_json(data)
