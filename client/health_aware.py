"""What ``health_aware`` does about errors, and at which pace."""

from __future__ import annotations

from typing import Final

from .backoff import Backoff
from .error_handler import TOKEN_REFUSALS, Cause, ErrorTable, Verdict

FIRST_ATTEMPT_SHARE: Final = 0.4
"""How much of a call's time a first attempt gets, if the call may be repeated and there is somebody
else. The second gets all the rest, so that what just takes long is not cut off twice. A write's
gets half of it: it may have been passed on to a leader that is gone."""

_RETURN, _RETRY, _ELSEWHERE = Verdict.RETURN, Verdict.RETRY, Verdict.RETRY_ELSEWHERE
_FAIL_OVER, _REFRESH = Verdict.FAIL_OVER, Verdict.REFRESH_TOKEN

HEALTH_AWARE_TABLE: Final = ErrorTable(
    {
        #                (repeatable, the others)
        Cause.NOT_SENT: (_FAIL_OVER, _FAIL_OVER),
        Cause.BROKEN: (_FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN),
        Cause.NO_ANSWER: (_RETURN, _RETURN),
        Cause.CUT_SHORT: (_RETRY, _RETURN),
        Cause.GAVE_UP: (_RETRY, _RETURN),
        # Refused before they were proposed: writes too may go elsewhere
        Cause.NO_LEADER: (_FAIL_OVER, _FAIL_OVER),
        Cause.LEARNER: (_ELSEWHERE, _ELSEWHERE),
        Cause.TOO_BUSY: (_RETRY, _RETRY),
        Cause.REFUSED: (_RETURN, _RETURN),
        Cause.FOREIGN: (_ELSEWHERE, _RETURN),
    },
    exceptions=dict.fromkeys(TOKEN_REFUSALS, (_REFRESH, _REFRESH)),
)
"""All that certainly was not carried out goes elsewhere, writes included; of what may have been,
only what may be repeated (rule 1 of error_handler.py)."""


class FailoverPace:
    """Each endpoint once, at once; then pauses that grow, with jitter."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff

    def seconds_before_retry(self, failures: int, endpoints: int) -> float:
        round_ = failures - endpoints + 1
        return self._backoff.seconds(round_) if round_ > 0 else 0.0
