"""Flow control: a slow side holds back the other, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
MAX_FRAME = SettingsFrame.MAX_FRAME_SIZE


def received(client: Any, stream_id: int) -> int:
    frames = [f for f in client.seen if isinstance(f, DataFrame) and f.stream_id == stream_id]
    return sum(len(frame.data) for frame in frames)


async def open_snapshot(client: Any, stream_id: int) -> None:
    client.send(
        client.headers(stream_id, path=rpcs.MAINTENANCE_SNAPSHOT.path),
        client.message(stream_id, pb.SnapshotRequest()),
    )
    await client.quiet()


@pytest.mark.parametrize("window", [0, 1, 100, 25_000, 65_535])
async def test_replies_stop_at_the_stream_window(serve: Any, raw: Any, window: int) -> None:
    """The producer is not resumed before its last reply has left."""
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: window})
    await open_snapshot(client, 1)
    assert received(client, 1) == window
    reply = len(pb.SnapshotResponse(blob=b"b" * 10_000, remaining_bytes=1).SerializeToString()) + 5
    assert served.services.pulled == window // reply + 1
    client.send(WindowUpdateFrame(1, window_increment=10_000))
    await client.quiet()
    assert received(client, 1) == min(window + 10_000, 65_535)


async def test_replies_stop_at_the_connection_window(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: 2**31 - 1})
    await open_snapshot(client, 1)
    assert received(client, 1) == 65_535
    assert served.services.pulled < 10
    client.send(WindowUpdateFrame(0, window_increment=5))
    while received(client, 1) < 65_540:
        await client.until(DataFrame)
    assert served.services.pulled < 10


async def test_streams_take_turns_on_a_narrow_connection(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: 2**31 - 1})
    await open_snapshot(client, 1)
    await open_snapshot(client, 3)
    before = received(client, 1)
    client.send(WindowUpdateFrame(0, window_increment=400_000))
    while received(client, 1) + received(client, 3) < 65_535 + 400_000:
        await client.until(DataFrame)
    assert abs(received(client, 3) - (received(client, 1) - before)) < 50_000


async def test_settings_change_the_windows_of_open_streams(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: 1000})
    await open_snapshot(client, 1)
    client.send(SettingsFrame(0, {INITIAL_WINDOW: 10}))
    client.send(WindowUpdateFrame(1, window_increment=980))
    await client.quiet()
    assert received(client, 1) == 1000
    client.send(SettingsFrame(0, {INITIAL_WINDOW: 510}))
    while received(client, 1) < 1490:
        await client.until(DataFrame)
    assert received(client, 1) == 1490


async def test_frames_are_no_larger_than_the_client_takes(serve: Any, raw: Any) -> None:
    served = await serve()
    for max_frame, largest in ((16_384, 16_384), (20_000, 20_000)):
        client = await raw(served, {INITIAL_WINDOW: 60_000, MAX_FRAME: max_frame})
        put = pb.PutRequest(key=b"k", value=bytes(50_000))
        data = client.message(1, put).data
        client.send(client.headers(1))
        for at in range(0, len(data), 16_384):
            client.send(DataFrame(1, data[at : at + 16_384]))
        client.send(DataFrame(1, b"", flags=["END_STREAM"]))
        await client.trailers(1)
        sizes = [len(f.data) for f in client.seen if isinstance(f, DataFrame)]
        assert max(sizes) == largest


async def test_a_client_that_does_not_read_stops_its_producer(serve: Any, raw: Any) -> None:
    """With windows without end, the transport's buffer is what holds the producer back."""
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: 2**31 - 1})
    client.writer.transport.pause_reading()
    client.send(WindowUpdateFrame(0, window_increment=2**30))
    client.send(
        client.headers(1, path=rpcs.MAINTENANCE_SNAPSHOT.path),
        client.message(1, pb.SnapshotRequest()),
    )
    other = await raw(served)
    pulled = -1
    while pulled != served.services.pulled:  # until no more is pulled between two round trips
        pulled = served.services.pulled
        for _ in range(20):
            await other.round_trip()
    assert 0 < pulled < 5000
    client.writer.transport.resume_reading()
    while served.services.pulled <= pulled + 100:
        await client.until(DataFrame)


async def test_a_client_that_does_not_read_is_not_read_from(serve: Any, raw: Any) -> None:
    """Its replies pile up to a bound, then the kernel stops what it sends."""
    served = await serve()
    client = await raw(served, {INITIAL_WINDOW: 2**31 - 1})
    client.writer.transport.pause_reading()
    client.send(WindowUpdateFrame(0, 2**30))
    calls = 1500
    for number in range(calls):
        client.send(*client.put(2 * number + 1, value=bytes(16_000)))
    other = await raw(served)
    taken = -1
    while taken != len(served.services.requests):  # until it is served no further
        taken = len(served.services.requests)
        await other.quiet()
    assert 0 < taken < calls
    assert client.writer.transport.get_write_buffer_size() > 1_000_000
    client.writer.transport.resume_reading()
    assert (await client.trailers(2 * calls - 1))["grpc-status"] == "0"


async def test_requests_wait_with_the_client_until_they_are_taken(serve: Any, raw: Any) -> None:
    """The stream's window is given back only as the method takes its requests."""
    served = await serve()
    client = await raw(served)
    request = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
    filler = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=bytes(15_000)))
    client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
    client.send(client.message(1, request, end=False))
    for _ in range(16):
        client.send(client.message(1, filler, end=False))
    await client.quiet()
    assert not updates(client, 1)
    served.services.go_on.set()
    await client.until(WindowUpdateFrame, 1)
    assert updates(client, 1) > 200_000
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert (await client.trailers(1))["grpc-status"] == "0"


def updates(client: Any, stream_id: int) -> int:
    frames = [f for f in client.seen if isinstance(f, WindowUpdateFrame)]
    return sum(f.window_increment for f in frames if f.stream_id == stream_id)


async def test_more_than_the_window_resets_the_stream(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served)
    client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
    request = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
    client.send(client.message(1, request, end=False))
    for _ in range(20):
        client.send(client.message(1, bytes(15_000), end=False))
    assert (await client.until(RstStreamFrame, 1)).error_code == 3
    await served.services.until(lambda: served.services.cancelled == 1)
    client.send(*client.put(3))
    assert (await client.trailers(3))["grpc-status"] == "0"


async def test_the_connection_window_is_kept_open(serve: Any, raw: Any) -> None:
    """Large requests, many times the connection's window, on one connection."""
    served = await serve(max_message_bytes=2_000_000)
    client = await raw(served)
    value = bytes(1_000_000)
    data = client.message(1, pb.PutRequest(key=b"!refuse", value=b"x" * len(value))).data
    for stream_id in range(1, 31, 2):
        client.send(client.headers(stream_id))
        window = 256 * 1024
        for at in range(0, len(data), 16_384):
            chunk = data[at : at + 16_384]
            while window < len(chunk):
                window += (await client.until(WindowUpdateFrame, stream_id)).window_increment
            window -= len(chunk)
            client.send(DataFrame(stream_id, chunk))
        client.send(DataFrame(stream_id, b"", flags=["END_STREAM"]))
        assert (await client.trailers(stream_id))["grpc-status"] == "5"
    assert updates(client, 0) >= 15_000_000
