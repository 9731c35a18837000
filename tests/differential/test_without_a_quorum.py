"""A member of three whose two fellows are dead, asked for everything that a leader matters to."""

from __future__ import annotations

import pytest
from lockstep.comparison import Delta
from lockstep.differences import Excuses
from lockstep.orphan import CALLS, PAGES, STREAMS, answers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("asked", [*CALLS, *PAGES, *STREAMS])
def test_an_orphan_answers_as_etcds_does(asked: str) -> None:
    etcd, ours = answers()[asked]
    if etcd != ours:
        found = [Delta(f"{asked}, of a member without a quorum", etcd, ours)]
        assert not list(Excuses().unexplained("behaviour", found))
