"""Snapshots in the world of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import closing

import grpc

from ..protos.etcdserverpb import SnapshotRequest
from ..protos.rpcs import MAINTENANCE_SNAPSHOT
from .blocking import wait_seconds
from .blocking_streams import BlockingStreams
from .channels import call_failed
from .flow import CallFailed
from .interrupts import interruptible
from .partial_file import PartialFile
from .snapshot import (
    Snapshot,
    SnapshotProgress,
    SnapshotReceiver,
    SnapshotSearch,
    SnapshotTrip,
)


def save(
    streams: BlockingStreams,
    path: str | os.PathLike[str],
    *,
    endpoint: str | None = None,
    progress: SnapshotProgress | None = None,
    timeout: float | None = None,
) -> Snapshot:
    """Save a member's snapshot; see Maintenance.snapshot."""
    receiver = SnapshotReceiver()
    with (
        PartialFile(path) as part,
        closing(chunks(streams, receiver, endpoint, timeout)) as blobs,
    ):
        for blob in blobs:
            part.write(blob)
            if progress is not None:
                progress(receiver.received_bytes, receiver.remaining_bytes)
        snapshot = receiver.finish()
        part.commit()
    return snapshot


def verified_chunks(
    streams: BlockingStreams, endpoint: str | None, timeout: float | None
) -> Generator[bytes, None, None]:
    """Yield a snapshot's bytes; raise at their end if they are not right."""
    receiver = SnapshotReceiver()
    yield from chunks(streams, receiver, endpoint, timeout)
    receiver.finish()


def chunks(
    streams: BlockingStreams,
    receiver: SnapshotReceiver,
    endpoint: str | None,
    timeout: float | None,
) -> Generator[bytes, None, None]:
    """Yield a snapshot's bytes, from whichever endpoint has begun to send them."""
    streams.begin()
    search = SnapshotSearch(streams.call, endpoint, timeout)
    while True:
        trip = SnapshotTrip(streams.call)
        link = streams.run(search.place(trip))
        failed: CallFailed | None = None
        patience = threading.Timer(wait_seconds(search.begin_seconds), trip.give_up)
        patience.daemon = True
        try:
            trip.board(link, trip.move_if_closed, picked=search.picks)
            ask = link.callable(MAINTENANCE_SNAPSHOT)
            trip.stream = interruptible(
                ask, SnapshotRequest(), timeout=search.left_seconds, metadata=trip.metadata()
            )
            patience.start()
            while (response := interruptible(next, trip.stream, None)) is not None:
                patience.cancel()
                trip.answered()
                yield receiver.receive(response)
        except grpc.RpcError as error:
            failed = trip.own_failure or call_failed(error)
        except ValueError:  # grpc's word for a channel that was closed meanwhile
            failed = trip.closed_failure
        except CallFailed as error:
            failed = error
        finally:
            patience.cancel()
            interruptible(trip.cancel)
            ended = trip.leave(failed)
        if ended is None:
            return
        streams.run(search.judge(ended, receiver.received_bytes))
