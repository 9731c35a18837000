"""Who is calling: what a connection between members tells about the member that made it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..peers.greeting import GREETING_BYTES, NotAPeer, may_become_greeting, who_calls_whom

UNKNOWN: Final = 0
"""A caller that does not say who it is, such as etcd's own probes of its connections."""
_HEAD_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 1 << 14
_SERVER_FROM: Final = re.compile(rb"\r\nX-Server-From: ([0-9a-fA-F]+)\r\n", re.IGNORECASE)
_HTTP: Final = re.compile(rb"[A-Z]{3,7} /")
_TCP_TABLE: Final = Path("/proc/net/tcp")


def caller_id(first: bytes) -> int | None:
    """Read the member id of a caller off its first bytes; None: it takes more of them.

    Ours begin with a greeting, etcd's say it in a header of HTTP. ``UNKNOWN`` if they say nothing.
    """
    if len(first) < GREETING_BYTES:
        return None
    if not may_become_greeting(first):
        return _caller_by_http(first)
    try:
        return who_calls_whom(first[:GREETING_BYTES])[0]
    except NotAPeer:
        return UNKNOWN


def _caller_by_http(first: bytes) -> int | None:
    if not _HTTP.match(first):
        return UNKNOWN
    if _HEAD_END not in first:
        return None if len(first) < _MAX_HEAD_BYTES else UNKNOWN
    said = _SERVER_FROM.search(first)
    return int(said[1], 16) if said else UNKNOWN


def owner_of_port(port: int, pids: Iterable[int]) -> int | None:
    """Find which of some processes has a connection from this port; Linux only, else None."""
    try:
        rows = _TCP_TABLE.read_text().splitlines()[1:]
    except OSError:
        return None
    ending = f":{port:04X}"
    inodes = {row.split()[9] for row in rows if row.split()[1].endswith(ending)}
    wanted = {f"socket:[{inode}]" for inode in inodes - {"0"}}
    for pid in pids:
        if wanted & set(_open_files(pid)):
            return pid
    return None


def _open_files(pid: int) -> Iterable[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:  # closed meanwhile
            continue
