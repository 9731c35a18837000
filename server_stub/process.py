"""The server as a process: from settings to serving, from a signal to a clean end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

from .config import Settings
from .joining import JoinRefused
from .logs import configure
from .member import CannotListen, MemberRemoved
from .raft.core import LogLost
from .server import GRACE_SECONDS, Server, StartError
from .standalone import NotAMember
from .storage.backend import BackendError
from .storage.data_dir import DataDirError
from .storage.wal import WalCorrupt, WalFailed
from .tls import TlsError
from .version import SERVER_VERSION

log = logging.getLogger(__name__)

FORCED_EXIT_CODE: Final = 1

_OF_THE_DISK: Final = (DataDirError, WalCorrupt, WalFailed, BackendError, LogLost)
_OF_THE_CLUSTER: Final = (JoinRefused, MemberRemoved, NotAMember)
_EXPECTED: Final = (StartError, CannotListen, TlsError, *_OF_THE_DISK, *_OF_THE_CLUSTER)
"""What a disk, a port or an operator can do to us: said in one line, without a traceback."""


def run(settings: Settings) -> bool:
    """Run the server until it is told to stop; False when it cannot start or go on."""
    try:
        configure(settings.log_level, settings.log_format, settings.log_outputs)
    except OSError as error:
        print(f"cannot write logs to {error.filename}: {error.strerror}", file=sys.stderr)
        return False
    try:
        asyncio.run(serve(settings))
    except _EXPECTED as error:
        log.critical("%s", error)
        return False
    except Exception:
        log.critical("stopped by a defect", exc_info=True)
        return False
    return True


async def serve(settings: Settings) -> None:
    """Run a server until SIGTERM or SIGINT, or until its member was removed from the cluster.

    Returns when everything is closed. Raises what ``Server.start`` and a failing disk raise.
    """
    stop = _stop_on_signals()
    for notice in settings.notices:
        log.warning("%s", notice)
    log.info(
        "starting an etcd server",
        extra={
            "etcd-version": SERVER_VERSION,
            "member": settings.name,
            "data-dir": settings.data_dir,
        },
    )
    server = Server(settings)
    if await _unless(stop, server.start()):
        gc.freeze()  # a large index lives as long as we do: spare the collector the walk over it
        urls = [url.text for url in settings.listen_client_urls]
        log.info("ready to serve client requests", extra={"urls": urls})
        grace_seconds = 0.0
        try:
            await _unless(stop, server.failed())
            grace_seconds = GRACE_SECONDS
        finally:
            await server.stop(grace_seconds)
    log.info("stopped")


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Carry out `work`, and call it off at a signal; return whether it came to its end.

    Raises what it raises.
    """
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    if working.cancelled():
        return False
    working.result()
    return True


def _stop_on_signals() -> asyncio.Event:
    """Set the event at the first SIGTERM or SIGINT; the second ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("second signal: stopping at once", extra={"signal": number.name})
            os._exit(FORCED_EXIT_CODE)
        log.info("stopping", extra={"signal": number.name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop
