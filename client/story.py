"""What has happened to a call that did not succeed at once, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..protos.errors import LEASE_NOT_FOUND, Code
from ..protos.rpc import Rpc
from ..protos.rpcs import LEASE_LEASE_REVOKE
from . import events
from .credentials import Rejections
from .error_handler import Cause, Kind, Trouble, error_class
from .errors import CallError, NotSent
from .links import Link


@dataclass(slots=True)
class Story:
    """What has happened to a call since its first failure."""

    rpc: Rpc[Any, Any]
    kind: Kind
    started: float
    deadline: float
    attempts: int = 0
    tried: list[str] = field(default_factory=list)
    last: Trouble | None = None
    last_endpoint: str | None = None
    doubts: list[Trouble] = field(default_factory=list)
    """The troubles after which the call may have been carried out."""
    repeat: bool = False
    """Whether its caller wants it repeated, though it may have been carried out."""
    is_repeated_write: bool = False
    """Whether it is repeated although it may have been carried out, and changes something."""
    rejections: Rejections = field(default_factory=Rejections)
    """Of tokens, in a row."""

    def add(self, link: Link, trouble: Trouble) -> None:
        self.attempts += 1
        self.tried.append(link.url)
        self.last, self.last_endpoint = trouble, link.url
        if trouble.may_have_been_applied:
            self.doubts.append(trouble)

    def goes_to(self, link: Link) -> None:
        """Report that the next attempt is made elsewhere, if it is."""
        left, to = self.last_endpoint, link.url
        if left is not None and left != to and self.last is not None:
            events.call_moved(self.rpc.path, left, to, self.last.cause.name.lower())

    def error(self, now: float, reasons: dict[str, str]) -> CallError:
        """Tell how it ended, so that NotSent is raised only if nothing was ever sent.

        Nor does a write that is repeated end with a refusal, after which nothing has changed, if
        an earlier attempt may have changed something; but that a lease to revoke is not there is
        true whoever has revoked it.
        """
        trouble = self.last
        if trouble is None or trouble.cause is Cause.NOT_SENT or self._hides(trouble):
            trouble = self.doubts[-1] if self.doubts else trouble
        if trouble is None or trouble.cause is Cause.NOT_SENT:
            made: type[CallError] = NotSent
            text, code = "nothing was sent: no endpoint could be reached", Code.UNAVAILABLE
        else:
            made, text, code = error_class(trouble), trouble.text, trouble.code
            reasons = {}
            if self.is_repeated_write and self.last is not None and trouble is not self.last:
                text = f"{text}; later: {self.last.text}"
        return made(
            text,
            code=code,
            rpc=self.rpc.path,
            endpoint=self.last_endpoint,
            attempts=self.attempts,
            elapsed_seconds=now - self.started,
            reasons=reasons,
        )

    def _hides(self, last: Trouble) -> bool:
        """Tell whether the last trouble, by itself, would say that nothing has changed."""
        is_gone = self.rpc is LEASE_LEASE_REVOKE and last.text == LEASE_NOT_FOUND.text
        return self.is_repeated_write and not is_gone
