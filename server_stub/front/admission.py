"""Which HTTP/2 requests begin a gRPC call, and how the others are answered."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ...protos.errors import Code, Refusal
from . import grpc_wire
from .header_blocks import encode
from .outbox import Outbox
from .request_head import Header, RequestHead
from .stream import Stream

CONTENT_TYPE: Final[Header] = (b"content-type", b"application/grpc")


def status_fields(refusal: Refusal) -> tuple[Header, Header]:
    """The trailers that carry a refusal."""
    return (
        (b"grpc-status", b"%d" % refusal.wire_code),
        (b"grpc-message", grpc_wire.percent_encode(refusal.text)),
    )


def trailers_only(refusal: Refusal, status: int = 200, *more: Header) -> bytes:
    """The block of a response that is nothing but a refusal."""
    head = (b":status", b"%d" % status)
    return encode((head, CONTENT_TYPE, *status_fields(refusal), *more))


def rejection(head: RequestHead, services: Collection[str]) -> bytes:
    """The answer to a request that begins no call, as grpc-go's server gives it."""
    if not head.is_grpc:
        text = f'invalid gRPC request content-type "{head.content_type}"'
        return trailers_only(Refusal(Code.INVALID_ARGUMENT, text), 415)
    if head.method != "POST":
        text = f'Received a HEADERS frame with :method "{head.method}" which should be POST'
        return trailers_only(Refusal(Code.INTERNAL, text), 405)
    if head.refusal is not None:
        accepted = (b"grpc-accept-encoding", ",".join(grpc_wire.ENCODINGS).encode())
        return trailers_only(head.refusal, 200, accepted)
    return trailers_only(Refusal(Code.UNIMPLEMENTED, _unknown(head.path, services)))


def _unknown(path: str, services: Collection[str]) -> str:
    service, slash, method = path.removeprefix("/").rpartition("/")
    if not slash:
        return f'malformed method name: "{path}"'
    if service in services:
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}"


class Rejected(Stream):
    """A stream that is answered as soon as it opens; all that the client sends is dropped."""

    __slots__ = ("_block", "_outbox")

    def __init__(self, stream_id: int, outbox: Outbox, block: bytes) -> None:
        super().__init__(stream_id)
        self._outbox = outbox
        self._block = block

    def on_open(self) -> None:
        self._outbox.send_headers(self, self._block, end=True)
