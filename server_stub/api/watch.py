"""The Watch service: one stream carries any number of watches."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Final

from ...protos import rpcs
from ...protos.errors import Refused
from ...protos.etcdserverpb import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from ..member import Member
from ..mvcc.watch_stream import DuplicateWatchId, EmptyWatchRange, WatchBatch
from .call import Call, Method

NO_WATCH_ID: Final = -1
"""What a watch is answered under that could not be created."""
MAX_UNREAD_REPLIES: Final = 128
"""Replies to requests that a client may leave unread before its requests are not read either."""
MAX_REQUESTS_A_TURN: Final = 128
"""Requests that are read from a client before others have their turn."""
GRPC_OVERHEAD_BYTES: Final = 512 * 1024
_PROGRESS_JITTER: Final = 0.1


class Watch:
    """Telling clients of changes."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        return (Method(rpcs.WATCH_WATCH, self.Watch),)

    async def Watch(
        self, requests: AsyncIterator[WatchRequest], call: Call
    ) -> AsyncIterator[WatchResponse]:
        """Create and cancel watches as the client asks, and yield what they see.

        Ends only with the client: one that has no more requests still gets its events.
        """
        stream = _Stream(self._member)
        reader = asyncio.create_task(stream.read(requests))
        reader.add_done_callback(lambda _: stream.wake())
        try:
            while True:
                for reply in stream.replies():
                    yield reply
                if reader.done():
                    reader.result()
                await stream.woken()
        finally:
            reader.cancel()
            stream.close()


class _Stream:
    """The watches of one stream, and what is to be said about them.

    Answers to requests go before events: a watch is told that it exists before it is told
    anything else. The events of a cancelled watch are dropped.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._news = asyncio.Event()
        self._was_read = asyncio.Event()
        self._answers: deque[WatchResponse] = deque()
        self._watches = member.store.watch_stream(self.wake)
        self._progress_asked = 0
        """Requests for progress that are not answered yet."""
        self._fragmented: set[int] = set()
        self._quiet: dict[int, bool] = {}
        """Watches that want progress notices: whether they had no event since the last tick."""
        self._ticker: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Say that there is something to tell."""
        self._news.set()

    async def woken(self) -> None:
        """Wait for something to tell."""
        await self._news.wait()

    def close(self) -> None:
        """End all watches."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._watches.close()

    # What the client says

    async def read(self, requests: AsyncIterator[WatchRequest]) -> None:
        """Carry out requests; a client that does not read its answers is not read either."""
        taken = 0
        async for request in requests:
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._progress_told()
                    self._create(request.create_request)
                case "cancel_request":
                    await self._progress_told()
                    self._cancel(request.cancel_request)
                case "progress_request":
                    self._progress_asked += 1
                    self.wake()
            taken += 1
            if taken % MAX_REQUESTS_A_TURN == 0:
                await asyncio.sleep(0)
            while len(self._answers) + self._progress_asked >= MAX_UNREAD_REPLIES:
                self._was_read.clear()
                await self._was_read.wait()

    async def _progress_told(self) -> None:
        """Wait until who asked for progress is answered, before the watches are other ones.

        A watch that is created now may have a past to be told, and then there is no progress.
        """
        while self._progress_asked:
            self._was_read.clear()
            await self._was_read.wait()

    def _create(self, request: WatchCreateRequest) -> None:
        reply = WatchResponse(created=True)
        self._member.fill_header(reply.header)
        try:
            reply.watch_id = self._watches.watch(
                request.key or b"\0",
                request.range_end,
                watch_id=request.watch_id,
                start_revision=request.start_revision,
                filters=frozenset(request.filters),
                prev_kv=request.prev_kv,
            )
        except (EmptyWatchRange, DuplicateWatchId, Refused) as error:
            reply.watch_id = NO_WATCH_ID
            reply.canceled = True
            reply.cancel_reason = str(error)
        else:
            self._note_wishes(reply.watch_id, request)
        self._answer(reply)

    def _note_wishes(self, watch_id: int, request: WatchCreateRequest) -> None:
        if request.fragment:
            self._fragmented.add(watch_id)
        if request.progress_notify:
            self._quiet[watch_id] = True
            if self._ticker is None:
                self._set_ticker()
        if 0 < request.start_revision <= self._member.store.revision:
            self._member.nudge_watchers()

    def _cancel(self, request: WatchCancelRequest) -> None:
        """Cancel a watch; one that is not there is not answered."""
        if self._watches.cancel(request.watch_id):
            self._forget(request.watch_id)
            reply = WatchResponse(watch_id=request.watch_id, canceled=True)
            self._member.fill_header(reply.header)
            self._answer(reply)

    def _answer(self, reply: WatchResponse) -> None:
        self._answers.append(reply)
        self.wake()

    def _forget(self, watch_id: int) -> None:
        self._fragmented.discard(watch_id)
        self._quiet.pop(watch_id, None)

    # What it is told

    def replies(self) -> Iterator[WatchResponse]:
        """Yield what there is to tell by now."""
        self._news.clear()
        while self._answers:
            self._was_read.set()
            yield self._answers.popleft()
        for batch in self._batches():
            yield from self._told(batch)

    def _batches(self) -> list[WatchBatch]:
        """Take what the watches have to say, and behind it the answers to who asked for progress.

        They share one look at the watches, of which there may be very many.
        """
        asked, self._progress_asked = self._progress_asked, 0
        can_be_told = asked > 0 and self._watches.request_progress()
        if asked:
            self._was_read.set()
        batches = self._watches.take()
        return batches + batches[-1:] * (asked - 1) if can_be_told else batches

    def _told(self, batch: WatchBatch) -> Iterator[WatchResponse]:
        watch_id = batch.watch_id
        reply = WatchResponse(watch_id=watch_id, events=batch.events)
        self._member.fill_header(reply.header)
        reply.header.revision = batch.revision
        if batch.compact_revision:
            reply.canceled = True
            reply.compact_revision = batch.compact_revision
            self._forget(watch_id)
        if batch.events and watch_id in self._quiet:
            self._quiet[watch_id] = False
        limit_bytes = self._member.settings.max_request_bytes + GRPC_OVERHEAD_BYTES
        if watch_id in self._fragmented:
            return fragments(reply, limit_bytes)
        return iter((reply,))

    # Progress notices

    def _set_ticker(self) -> None:
        interval = self._member.settings.watch_progress_notify_interval_seconds
        jitter = random.uniform(0, _PROGRESS_JITTER) * interval
        self._ticker = asyncio.get_running_loop().call_later(interval + jitter, self._tick)

    def _tick(self) -> None:
        """Give a notice to each watch that has been quiet since the last tick."""
        for watch_id, is_quiet in self._quiet.items():
            if is_quiet:
                self._watches.request_progress(watch_id)
            self._quiet[watch_id] = True
        self._set_ticker()


def fragments(whole: WatchResponse, limit_bytes: int) -> Iterator[WatchResponse]:
    """Yield `whole` in parts under `limit_bytes`, each with at least one event.

    All but the last are marked as fragments.
    """
    if whole.ByteSize() < limit_bytes or len(whole.events) < 2:
        yield whole
        return
    envelope = WatchResponse()
    envelope.CopyFrom(whole)
    envelope.ClearField("events")
    envelope.fragment = True
    part = _new_part(envelope)
    size_bytes = part.ByteSize()
    for event in whole.events:
        event_bytes = event.ByteSize() + _LENGTH_AND_TAG_BYTES
        if part.events and size_bytes + event_bytes >= limit_bytes:
            yield part
            part = _new_part(envelope)
            size_bytes = part.ByteSize()
        part.events.append(event)
        size_bytes += event_bytes
    part.fragment = False
    yield part


_LENGTH_AND_TAG_BYTES: Final = 6


def _new_part(envelope: WatchResponse) -> WatchResponse:
    part = WatchResponse()
    part.CopyFrom(envelope)
    return part
