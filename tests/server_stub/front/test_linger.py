"""Ending a connection whose peer may be gone already."""

from __future__ import annotations

import asyncio
import socket
import struct

from etcd_pinwheel.server_stub.front.linger import linger

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def test_a_peer_that_reset_before_the_loop_could_notice_is_no_error() -> None:
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(None)

    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    listener.close()
    accepted.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Protocol, accepted)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    peer.close()
    timer = linger(transport, 60.0)
    async with asyncio.timeout(20):
        await lost
    timer.cancel()
