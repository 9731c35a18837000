"""A leader's looks after its learners: when to look, and carrying out what was decided."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ..protos.errors import Refused
from .apply.membership import Membership
from .config import Settings
from .learners import LOOK_SECONDS, Care, Demotion, Policy, Promotion, Standing
from .reconfiguration import Reconfiguration

log = logging.getLogger(__name__)

_ANOTHER_TRY_SECONDS: Final = 1.0


class Known(Protocol):
    """What the leader knows of one member."""

    @property
    def match(self) -> int: ...


class Log(Protocol):
    """The leader's log."""

    @property
    def last_index(self) -> int: ...


class Core(Protocol):
    """What these duties need to see of consensus."""

    @property
    def leader(self) -> int: ...
    @property
    def progress(self) -> Mapping[int, Known]: ...
    @property
    def log(self) -> Log: ...
    def hears(self, member: int) -> bool: ...


def policy_of(settings: Settings) -> Policy:
    """What the flags ask for."""
    return Policy(
        auto_promote=settings.learner_auto_promote,
        max_lag=settings.learner_promote_max_lag,
        healthy_seconds=settings.learner_promote_healthy_seconds,
        standby_seconds=settings.standby_failover_seconds,
    )


class LearnerDuties:
    """Promotes learners and replaces dead voters while this member leads, if it was told to."""

    def __init__(
        self,
        own_id: int,
        core: Core,
        membership: Membership,
        reconfiguration: Reconfiguration,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._own_id = own_id
        self._core = core
        self._membership = membership
        self._reconfiguration = reconfiguration
        self._clock = clock
        self._policy = policy_of(settings)
        self._care = Care(self._policy, settings.election_timeout_ms / 1000)

    async def run(self) -> None:
        """Look after the learners for ever; returns at once if there is nothing to be done."""
        while not self._policy.is_idle:
            await asyncio.sleep(LOOK_SECONDS)
            step = self.look()
            if step is not None:
                await self._carry_out(step)

    def look(self) -> Promotion | Demotion | None:
        """Take in how the members are; return what is to be done now, if anything."""
        if self._core.leader != self._own_id:
            self._care.forget()
            return None
        learners = {each.id for each in self._membership.cluster.members if each.is_learner}
        standings = [
            Standing(member, member in learners, known.match, self._core.hears(member))
            for member, known in self._core.progress.items()
        ]
        return self._care.look(self._own_id, standings, self._core.log.last_index, self._clock())

    async def _carry_out(self, step: Promotion | Demotion) -> None:
        told = {"member": f"{step.id:x}", "reason": step.why}
        try:
            if isinstance(step, Promotion):
                await self._reconfiguration.promote_as_leader(step.id)
            else:
                await self._reconfiguration.demote_as_leader(step.id)
        except Refused as refused:
            log.warning("could not %s", step.verb, extra={**told, "refused": str(refused)})
            self._care.refused(step.id, self._clock())
            await asyncio.sleep(_ANOTHER_TRY_SECONDS)
        else:
            log.warning("%sd by itself", step.verb, extra=told)
