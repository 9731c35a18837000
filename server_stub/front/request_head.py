"""What the headers of an HTTP/2 request say, gRPC or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ...protos.errors import Code, Refusal
from . import grpc_wire

Header = tuple[bytes, bytes]

_PSEUDO: Final = frozenset({b":method", b":path", b":scheme", b":authority"})
_REQUIRED: Final = frozenset({b":method", b":path", b":scheme"})
_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_OF_THE_PROTOCOL: Final = frozenset(
    {b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
)
_GRPC: Final = re.compile(r"application/grpc(\+.*)?", re.IGNORECASE)
"""A subtype names the encoding of messages; as with grpc-go, it is protobuf's whatever it says."""
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_IN_VALUE: Final = re.compile(rb"[\x00\r\n]")


class Malformed(Exception):
    """Headers that are no HTTP/2 request (RFC 9113, 8.1.1): the stream is reset."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of one request, read once and shared by all requests that repeat it."""

    method: str
    path: str
    content_type: str
    is_grpc: bool
    encoding: str
    timeout_seconds: float | None
    metadata: Mapping[str, str | bytes]
    refusal: Refusal | None
    """Why no gRPC call may begin, whatever it calls."""


def parse(headers: Iterable[Header], *, oversized: bool = False) -> RequestHead:
    """Read a request's headers; ``oversized``: they are more than allowed. Raises Malformed."""
    fields = _fields(headers)
    refusal: Refusal | None = None
    timeout: float | None = None
    metadata: dict[str, str | bytes] = {}
    try:
        if b"grpc-timeout" in fields:
            timeout = grpc_wire.timeout_seconds(_text(fields[b"grpc-timeout"]))
        metadata = _metadata(fields)
    except ValueError as error:
        refusal = Refusal(Code.INTERNAL, str(error))
    content_type = _text(fields.get(b"content-type", b""))
    encoding = _text(fields.get(b"grpc-encoding", b"")) or "identity"
    if encoding not in grpc_wire.ENCODINGS:
        text = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
        refusal = Refusal(Code.UNIMPLEMENTED, text)
    if oversized:
        refusal = Refusal(Code.RESOURCE_EXHAUSTED, "grpc: too many request headers")
    return RequestHead(
        method=_text(fields[b":method"]),
        path=_text(fields[b":path"]),
        content_type=content_type,
        is_grpc=_GRPC.fullmatch(content_type.partition(";")[0].strip()) is not None,
        encoding=encoding,
        timeout_seconds=timeout,
        metadata=MappingProxyType(metadata),
        refusal=refusal,
    )


def _fields(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """Hold headers against the rules; the first of each name counts, as etcd reads metadata."""
    fields: dict[bytes, bytes] = {}
    regular = False
    for name, value in headers:
        if name.startswith(b":"):
            if regular or name not in _PSEUDO or name in fields:
                raise Malformed(f"pseudo-header {name!r} is unknown, repeated or late")
        else:
            regular = True
            if _NAME.fullmatch(name) is None or name in _OF_THE_CONNECTION:
                raise Malformed(f"header {name!r} is not allowed in a request")
        if _BAD_IN_VALUE.search(value) is not None:
            raise Malformed(f"header {name!r} has a line break or NUL in its value")
        fields.setdefault(name, value)
    if not fields.keys() >= _REQUIRED or not fields[b":path"]:
        raise Malformed("a pseudo-header is missing")
    if fields.get(b"te", b"trailers") != b"trailers":
        raise Malformed("te is something else than trailers")
    return fields


def _metadata(fields: Mapping[bytes, bytes]) -> dict[str, str | bytes]:
    """The client's own part of the headers. Raises ValueError on a bad ``-bin`` value."""
    metadata: dict[str, str | bytes] = {}
    for name, value in fields.items():
        if name in _PSEUDO or name in _OF_THE_PROTOCOL:
            continue
        key = name.decode("ascii")
        if key.endswith("-bin"):
            try:
                metadata[key] = grpc_wire.decode_binary(value)
            except ValueError as error:
                raise ValueError(f"malformed binary metadata in header {key!r}: {error}") from error
        else:
            metadata[key] = _text(value)
    return metadata


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
