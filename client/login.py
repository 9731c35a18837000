"""How a client comes by its token: one Authenticate for all who wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..protos import errors as table
from ..protos.errors import Code
from ..protos.etcdserverpb import AuthenticateResponse
from ..protos.rpc import Rpc
from ..protos.rpcs import AUTH_AUTHENTICATE, MAINTENANCE_STATUS
from .credentials import Credentials, Fetch, Token
from .errors import CallError, NotEtcd, NotSent, Refused, Unauthenticated
from .flow import AwaitChange, Flow

if TYPE_CHECKING:
    from .call import Call

NEED_NO_TOKEN: Final[frozenset[Rpc[Any, Any]]] = frozenset({AUTH_AUTHENTICATE, MAINTENANCE_STATUS})
"""RPCs that do not wait for a token: the one that gets it, and the one that is asked of members of
a cluster that is too ill to hand any out."""

_FINAL: Final = (Unauthenticated, NotEtcd)
"""Ends of an Authenticate that every other would come to as well."""


class NoToken(Exception):
    """No token was to be had in time. Never leaves the client."""

    def __init__(self, trouble: CallError | None) -> None:
        super().__init__()
        self.trouble = trouble
        """What became of this call's own Authenticate; None: it waited for another's."""

    def not_sent(self, rpc: Rpc[Any, Any], attempts: int, elapsed_seconds: float) -> NotSent:
        """Tell of a call that it was not sent, or refused for its token; either way not done."""
        trouble = self.trouble
        if trouble is None:
            text, code = "nothing was sent: no token came in time", Code.DEADLINE_EXCEEDED
        else:
            text, code = f"nothing was sent: no token: {trouble.text}", trouble.code
        return NotSent(
            text,
            code=code,
            rpc=rpc.path,
            endpoint=trouble.endpoint if trouble else None,
            attempts=attempts,
            elapsed_seconds=elapsed_seconds,
            reasons=trouble.reasons if trouble else None,
        )


def obtain(
    call: Call, credentials: Credentials, deadline: float, clock: Callable[[], float]
) -> Flow[Token]:
    """Have a token, by asking for it or by waiting for somebody who does.

    Raises Unauthenticated when name or password are wrong, Refused, and NoToken.
    """
    connections = call.connections
    joined = 0
    while True:
        connections.check_open()  # before any lock: in a forked child its holder may not exist
        seen = connections.version
        left = deadline - clock()
        if left <= 0 and credentials.token is None:
            raise NoToken(None)
        answer = credentials.ask(joined)
        if isinstance(answer, Token):
            return answer
        if isinstance(answer, CallError):
            raise _another(answer)
        if isinstance(answer, Fetch):
            return (yield from _fetch(call, credentials, left))
        joined = joined or answer.flight
        yield AwaitChange(seen, None if left == math.inf else left)


def _fetch(call: Call, credentials: Credentials, left_seconds: float) -> Flow[Token]:
    """Authenticate, for all who wait; whatever becomes of it, they are told."""
    try:
        reply: AuthenticateResponse = yield from call(
            AUTH_AUTHENTICATE, credentials.request, left_seconds
        )
        return credentials.landed(reply.token)
    except CallError as error:
        if error.text == table.AUTH_NOT_ENABLED.text:
            return credentials.landed("")
        if isinstance(error, _FINAL):
            credentials.refused(error)
        else:
            credentials.gave_up()
        if isinstance(error, Refused):
            raise
        raise NoToken(error) from error
    except BaseException:
        credentials.gave_up()
        raise
    finally:
        call.connections.announce()


def _another(error: CallError) -> CallError:
    """Copy an error that several calls raise: each needs a traceback of its own."""
    return type(error)(
        error.text,
        code=error.code,
        rpc=error.rpc,
        endpoint=error.endpoint,
        attempts=error.attempts,
        elapsed_seconds=error.elapsed_seconds,
        reasons=error.reasons,
    )
