"""What members ask of each other beside consensus, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..protos.errors import UNKNOWN_METHOD, Refused

Answerer = Callable[[int, bytes], Awaitable[bytes]]
"""Answers one kind of question: (id of the member that asks, its request) -> the reply."""


class Answers:
    """The kinds of questions that a member answers; whoever knows the answer adds its kind."""

    def __init__(self) -> None:
        self._answerers: dict[str, Answerer] = {}

    def add(self, kind: str, answerer: Answerer) -> None:
        """Have questions of a kind answered from now on."""
        self._answerers[kind] = answerer

    async def answer(self, sender: int, kind: str, payload: bytes) -> bytes:
        """Answer a question; raises ``Refused``, which travels back to the member that asks."""
        answerer = self._answerers.get(kind)
        if answerer is None:
            raise Refused(UNKNOWN_METHOD)
        return await answerer(sender, payload)
