"""Asking a cluster who is in it, without being in it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from .connection import Connection, FrameQueue
from .dialing import DialFailed, dial
from .frames import BadFrame, Kind, framed
from .greeting import Channel, Hello
from .limits import PeerLimits
from .receiver import ClusterInfo, PeerUnreachable
from .station import Station


async def fetch_cluster(
    urls: Sequence[str],
    tls: ssl.SSLContext | None,
    timeout_seconds: float,
    limits: PeerLimits | None = None,
) -> ClusterInfo:
    """Ask the members at ``urls``, one after the other, until one describes its cluster.

    Raises ``PeerUnreachable`` with every URL's reason when none does within the time.
    """
    limits = limits or PeerLimits()
    failures = []
    try:
        async with asyncio.timeout(timeout_seconds):
            for url in urls:
                try:
                    return await _fetch(url, tls, limits)
                except TimeoutError:
                    failures.append(f"{url}: no answer in time")
                except DialFailed as error:
                    failures.append(str(error))
                except (OSError, BadFrame, ValueError) as error:
                    failures.append(f"{url}: {error}")
    except TimeoutError:
        failures.append(f"no answer within {timeout_seconds:g} s")
    raise PeerUnreachable("cannot ask for the cluster: " + ("; ".join(failures) or "no URL"))


async def _fetch(url: str, tls: ssl.SSLContext | None, limits: PeerLimits) -> ClusterInfo:
    hello = Hello(Channel.INQUIRY, 0, 0, 0)
    connection, _, _ = await dial([url], hello, tls=tls, limits=limits)
    try:
        frames = FrameQueue(connection, limits.chunk_bytes)
        kind, payload = await frames.next(limits.connect_seconds)
        if kind != Kind.CLUSTER:
            raise BadFrame(f"a frame of kind {kind} instead of a cluster")
        return ClusterInfo.from_json(payload)
    finally:
        connection.close()
        await connection.wait_closed()


def answer_inquiry(station: Station, connection: Connection) -> None:
    """Describe the cluster to whoever has called, and end."""
    connection.write(framed(Kind.CLUSTER, station.receiver.cluster_info().to_json()))
    connection.close()
