"""How a connection is ended so that the peer learns why."""

from __future__ import annotations

import asyncio


def linger(transport: asyncio.Transport, seconds: float) -> asyncio.TimerHandle:
    """Half-close after what is written, and abort when the peer has not closed in time.

    A socket closed with unread input resets the connection, which may overtake what was written
    last; so the protocol must go on taking, and dropping, what comes. TLS cannot half-close.
    """
    if transport.can_write_eof():
        transport.resume_reading()
        try:
            transport.write_eof()
        except OSError:  # the peer was faster, and asyncio has not noticed yet
            transport.abort()
    else:
        transport.close()
    return asyncio.get_running_loop().call_later(seconds, transport.abort)
