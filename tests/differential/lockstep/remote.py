"""One member as a bare gRPC client sees it: outcomes of calls, and what a stream brings."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from etcd_pinwheel.protos.rpc import Rpc

CALL_SECONDS = 20.0
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Outcome:
    """How a call ended: ``OK`` with its replies, or the code and details of a refusal."""

    status: str
    replies: tuple[Any, ...] = ()

    @property
    def reply(self) -> Any:
        """The one reply of a unary call that went well."""
        assert self.status == "OK", self.status
        return self.replies[0]

    @classmethod
    def of_error(cls, error: Any, replies: tuple[Any, ...] = ()) -> Outcome:
        return cls(f"{error.code().name} {error.details()}", replies)


class Stream:
    """A bidirectional stream whose answers collect in ``replies`` as they come."""

    def __init__(self, channel: grpc.Channel, rpc: Rpc[Any, Any]) -> None:
        self.replies: list[Any] = []
        self.ended: str | None = None
        self._changed = threading.Condition()
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        opened = channel.stream_stream(
            rpc.path, rpc.request.SerializeToString, rpc.reply.FromString
        )
        self._call = opened(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        ended = "OK"
        try:
            for reply in self._call:
                with self._changed:
                    self.replies.extend(self.heard(reply))
                    self._changed.notify_all()
        except grpc.RpcError as error:
            ended = Outcome.of_error(error).status
        with self._changed:
            self.ended = ended
            self._changed.notify_all()

    def heard(self, reply: Any) -> list[Any]:
        """Answer what to keep of a reply: the reply. A liar keeps something else."""
        return [reply]

    def send(self, request: Message) -> None:
        self._requests.put(request)

    def half_close(self) -> None:
        """Say that no more requests come; what the server still has to say is read on."""
        self._requests.put(None)

    def wait_for(self, what: Callable[[Stream], bool], timeout_seconds: float) -> bool:
        """Wait until ``what`` holds; False when the time is over or the stream ended first."""
        with self._changed:
            self._changed.wait_for(
                lambda: what(self) or self.ended is not None, timeout=timeout_seconds
            )
            return what(self)

    def close(self) -> None:
        """Cancel the call and wait for its reader."""
        self._requests.put(None)
        self._call.cancel()
        self._reader.join()


class Remote:
    """A channel to one member and the calls over it."""

    def __init__(self, name: str, endpoint: str) -> None:
        self.name = name
        self.endpoint = endpoint
        self.channel = grpc.insecure_channel(endpoint, options=OPTIONS)

    def begin(
        self, rpc: Rpc[Any, Any], request: Message, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Callable[[], Outcome]:
        """Send a call and answer a function that waits for its outcome."""
        kinds = (rpc.path, rpc.request.SerializeToString, rpc.reply.FromString)
        if rpc.server_streaming:
            stream = self.channel.unary_stream(*kinds)
            replies: Any = stream(request, timeout=CALL_SECONDS, metadata=metadata)
            return lambda: _all_of(replies)
        one = self.channel.unary_unary(*kinds)
        future = one.future(request, timeout=CALL_SECONDS, metadata=metadata)
        return lambda: _one_of(future)

    def call(
        self, rpc: Rpc[Any, Any], request: Message, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Outcome:
        return self.begin(rpc, request, metadata)()

    def call_raw(self, path: str, payload: bytes, **options: Any) -> Outcome:
        """Send bytes to a path, as they are."""
        try:
            self.channel.unary_unary(path, None, None)(payload, timeout=CALL_SECONDS, **options)
        except grpc.RpcError as error:
            return Outcome.of_error(error)
        return Outcome("OK")

    def stream(self, rpc: Rpc[Any, Any]) -> Stream:
        return Stream(self.channel, rpc)

    def close(self) -> None:
        self.channel.close()


def _one_of(future: Any) -> Outcome:
    try:
        return Outcome("OK", (future.result(),))
    except grpc.RpcError as error:
        return Outcome.of_error(error)


def _all_of(call: Iterator[Message]) -> Outcome:
    replies: list[Message] = []
    try:
        replies.extend(call)
    except grpc.RpcError as error:
        return Outcome.of_error(error, tuple(replies))
    return Outcome("OK", tuple(replies))
