"""A bare grpc.aio server that answers empty calls: what grpcio leaves a Python server to spend.

``python -m benchmarks.throughput.echo`` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio


async def empty(request: bytes, context: object) -> bytes:
    return b""


async def main() -> None:
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "benchmarks.Echo", {"Empty": grpc.unary_unary_rpc_method_handler(empty)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(grace=0)


if __name__ == "__main__":
    asyncio.run(main())
