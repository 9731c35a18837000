"""Snapshots in the world of asyncio; files are written by a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio

from ..protos.etcdserverpb import SnapshotRequest
from ..protos.rpcs import MAINTENANCE_SNAPSHOT
from .aio_streams import AsyncStreams
from .channels import call_failed
from .flow import CallFailed
from .partial_file import PartialFile
from .snapshot import (
    Snapshot,
    SnapshotProgress,
    SnapshotReceiver,
    SnapshotSearch,
    SnapshotTrip,
)

WRITE_BYTES: Final = 1 << 20
"""How much is collected for one trip to the thread that writes."""


async def save(
    streams: AsyncStreams,
    path: str | os.PathLike[str],
    *,
    endpoint: str | None = None,
    progress: SnapshotProgress | None = None,
    timeout: float | None = None,  # noqa: ASYNC109
) -> Snapshot:
    """Save a member's snapshot; see AsyncMaintenance.snapshot."""
    receiver = SnapshotReceiver()
    block = bytearray()
    with PartialFile(path) as part:
        async with aclosing(chunks(streams, receiver, endpoint, timeout)) as blobs:
            async for blob in blobs:
                block += blob
                if len(block) >= WRITE_BYTES:
                    await asyncio.to_thread(part.write, bytes(block))
                    block.clear()
                if progress is not None:
                    progress(receiver.received_bytes, receiver.remaining_bytes)
        snapshot = receiver.finish()
        await asyncio.to_thread(part.write, bytes(block))
        await asyncio.to_thread(part.commit)
    return snapshot


async def verified_chunks(
    streams: AsyncStreams,
    endpoint: str | None,
    timeout: float | None,  # noqa: ASYNC109
) -> AsyncGenerator[bytes, None]:
    """Yield a snapshot's bytes; raise at their end if they are not right."""
    receiver = SnapshotReceiver()
    async with aclosing(chunks(streams, receiver, endpoint, timeout)) as blobs:
        async for blob in blobs:
            yield blob
    receiver.finish()


async def chunks(
    streams: AsyncStreams,
    receiver: SnapshotReceiver,
    endpoint: str | None,
    timeout: float | None,  # noqa: ASYNC109
) -> AsyncGenerator[bytes, None]:
    """Yield a snapshot's bytes, from whichever endpoint has begun to send them."""
    streams.begin()
    search = SnapshotSearch(streams.call, endpoint, timeout)
    while True:
        trip = SnapshotTrip(streams.call)
        link = await streams.run(search.place(trip))
        failed: CallFailed | None = None
        loop = asyncio.get_running_loop()
        patience = loop.call_later(search.begin_seconds, trip.give_up)
        try:
            trip.board(link, trip.move_if_closed, picked=search.picks)
            ask = link.callable(MAINTENANCE_SNAPSHOT)
            trip.stream = ask(
                SnapshotRequest(), timeout=search.left_seconds, metadata=trip.metadata()
            )
            async for response in trip.stream:
                patience.cancel()
                trip.answered()
                yield receiver.receive(response)
        except grpc.RpcError as error:
            failed = trip.own_failure or call_failed(error)
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            failed = trip.closed_failure
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failed = trip.own_failure or trip.closed_failure
        except CallFailed as error:
            failed = error
        finally:
            patience.cancel()
            trip.cancel()
            trip.stream = None  # a call that is kept keeps its channel from ending
            ended = trip.leave(failed)
        if ended is None:
            return
        await streams.run(search.judge(ended, receiver.received_bytes))
