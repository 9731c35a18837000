"""How much a client may ask for without using what it gets."""

from __future__ import annotations

from typing import Final

_PING_STRIKES: Final = 2
_IDLE_PING_SECONDS: Final = 2 * 60 * 60


class Patience:
    """A bucket of tokens: a frame that is cheap to send and useless costs one, or what it takes.

    Cancelled calls, pings, settings, empty frames and the like are all fine, now and then. A
    call that ran to its end pays a token back, so a busy client is forgiven more than an idle
    one. Meets rapid reset (CVE-2023-44487) and the floods of CVE-2019-9511 to 9518.
    """

    __slots__ = ("_burst", "_completed", "_per_second", "_tokens", "_updated")

    def __init__(self, now: float, burst: int = 10_000, per_second: float = 500.0) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = float(burst)
        self._updated = now
        self._completed = 0

    def spend(self, now: float, completed: int, tokens: int = 1) -> bool:
        """Pay for one such frame; False when there is nothing left to pay with.

        ``completed`` counts the connection's calls that ran to their end, since its beginning.
        """
        refill = (now - self._updated) * self._per_second + (completed - self._completed)
        self._updated, self._completed = now, completed
        self._tokens = min(self._burst, self._tokens + refill) - tokens
        return self._tokens >= 0


class PingPolicy:
    """Holds a client's keep-alive pings to the agreed rate, exactly as grpc-go's server does.

    Pings may come ``min_seconds`` apart, or two hours apart without a call in flight unless
    ``permit_without_stream``; one ping after headers or data were written is always free.
    """

    __slots__ = ("_last", "_min_seconds", "_permit_without_stream", "_strikes")

    def __init__(self, min_seconds: float, permit_without_stream: bool) -> None:
        self._min_seconds = min_seconds
        self._permit_without_stream = permit_without_stream
        self._last = float("-inf")
        self._strikes = 0

    def allows(self, now: float, streams: int, wrote: bool) -> bool:
        """Judge a ping; False: it was one too many.

        ``wrote``: headers or data were written since the last ping.
        """
        last, self._last = self._last, now
        if wrote:
            self._strikes = 0
            return True
        idle = streams == 0 and not self._permit_without_stream
        if now - last < (_IDLE_PING_SECONDS if idle else self._min_seconds):
            self._strikes += 1
        return self._strikes <= _PING_STRIKES
