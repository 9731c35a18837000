"""What the flags grant the clients of the front."""

from __future__ import annotations

import pytest

from etcd_pinwheel.server_stub.config import parse
from etcd_pinwheel.server_stub.server import limits_of


def pings_with(*flags: str) -> tuple[float, float]:
    limits = limits_of(parse(list(flags), {}))
    return limits.keepalive_interval_seconds, limits.keepalive_timeout_seconds


def test_pings_are_as_the_flags_say() -> None:
    assert pings_with("--grpc-keepalive-interval=10s", "--grpc-keepalive-timeout=2s") == (10, 2)


@pytest.mark.parametrize("flag", ["interval", "timeout"])
def test_without_one_of_them_grpcs_own_stay_in_force(flag: str) -> None:
    """As in etcd, which hands both to grpc or neither."""
    assert pings_with(f"--grpc-keepalive-{flag}=0s") == (7200, 20)


def test_a_message_may_be_larger_than_a_request_by_grpcs_overhead() -> None:
    assert limits_of(parse(["--max-request-bytes=1000"], {})).max_message_bytes == 1000 + 512 * 1024
