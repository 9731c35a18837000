"""Heads of requests: what they say, and which are none."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.server_stub.front.request_head import Malformed, parse

BASE = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"here"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


def test_a_grpc_request() -> None:
    head = parse(
        [
            *BASE,
            (b"grpc-timeout", b"250m"),
            (b"grpc-encoding", b"gzip"),
            (b"user-agent", b"grpc-go/1"),
            (b"token", b"first"),
            (b"token", b"second"),
            (b"trace-bin", b"AAEC"),
        ]
    )
    assert (head.method, head.path, head.is_grpc, head.encoding) == ("POST", "/a.B/C", True, "gzip")
    assert head.timeout_seconds == 0.25
    assert head.refusal is None
    assert dict(head.metadata) == {
        "user-agent": "grpc-go/1",
        "token": "first",
        "trace-bin": b"\0\1\2",
    }


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc+json", True),
        (b"application/grpc+; charset=utf-8", True),
        (b"application/grpcfoo", False),
        (b"application/grpc-web", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, is_grpc: bool) -> None:
    assert parse([*BASE[:-1], (b"content-type", content_type)]).is_grpc is is_grpc


@pytest.mark.parametrize("encoding", [b"", b"identity"])
def test_messages_that_are_not_compressed(encoding: bytes) -> None:
    head = parse([*BASE, (b"grpc-encoding", encoding)])
    assert (head.encoding, head.refusal) == ("identity", None)


@pytest.mark.parametrize(
    ("field", "code", "text"),
    [
        ((b"grpc-timeout", b"soon"), Code.INTERNAL, "malformed grpc-timeout: 'soon'"),
        ((b"x-bin", b"!"), Code.INTERNAL, "malformed binary metadata in header 'x-bin'"),
        (
            (b"grpc-encoding", b"snappy"),
            Code.UNIMPLEMENTED,
            'grpc: Decompressor is not installed for grpc-encoding "snappy"',
        ),
    ],
)
def test_what_keeps_a_call_from_beginning(field: Any, code: Code, text: str) -> None:
    refusal = parse([*BASE, field]).refusal
    assert refusal is not None
    assert refusal.code == code
    assert refusal.text.startswith(text)


@pytest.mark.parametrize(
    "headers",
    [
        BASE[1:],
        [h for h in BASE if h[0] != b":path"],
        [h for h in BASE if h[0] != b":scheme"],
        [(b":path", b""), *BASE[:2]],
        [*BASE, (b":path", b"/late")],
        [BASE[0], *BASE],
        [(b":unknown", b"x"), *BASE],
        [(b":status", b"200"), *BASE],
        [*BASE, (b"Upper", b"x")],
        [*BASE, (b"", b"x")],
        [*BASE, (b"sp ace", b"x")],
        [*BASE, (b"connection", b"close")],
        [*BASE, (b"transfer-encoding", b"chunked")],
        [*BASE, (b"x", b"a\r\nb")],
        [*BASE, (b"x", b"a\0b")],
        [*BASE[:4], (b"te", b"gzip")],
        [],
    ],
)
def test_malformed(headers: Any) -> None:
    with pytest.raises(Malformed):
        parse(headers)
