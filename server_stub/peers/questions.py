"""Questions and answers on a connection, told apart by ids."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from ...protos.errors import Code, Refusal, Refused
from .frames import BadFrame, Kind, framed
from .limits import PeerLimits
from .receiver import PeerUnreachable

log = logging.getLogger(__package__)

_ASK: Final = struct.Struct(">QH")
_ID: Final = struct.Struct(">Q")
_REFUSAL: Final = struct.Struct(">QBB")
_SAME: Final = 255

Answer = Callable[[str, bytes], Awaitable[bytes]]
Send = Callable[[Sequence[bytes]], None]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Asked:
    """The questions of ours that wait for an answer on one connection."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last_id = 0

    async def ask(self, kind: str, payload: bytes, timeout_seconds: float, send: Send) -> bytes:
        """Ask and wait; raises ``Refused`` or ``PeerUnreachable``."""
        self._last_id += 1
        own_id = self._last_id
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[own_id] = answer
        name = kind.encode()
        send(framed(Kind.ASK, _ASK.pack(own_id, len(name)), name, payload))
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError:
            raise PeerUnreachable(f"no answer within {timeout_seconds:g} s") from None
        finally:
            if self._waiting.pop(own_id, None) is not None:
                send(framed(Kind.CANCEL, _ID.pack(own_id)))

    def answered(self, payload: bytes) -> None:
        """Take an ANSWER; one that nobody waits for any more is left."""
        waiting = self._taken(payload)
        if waiting is not None:
            waiting.set_result(payload[_ID.size :])

    def refused(self, payload: bytes) -> None:
        """Take a REFUSAL."""
        waiting = self._taken(payload)
        if waiting is not None:
            waiting.set_exception(Refused(_decode_refusal(payload)))

    def lost(self, reason: str) -> None:
        """Fail all that wait."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_exception(PeerUnreachable(f"the connection was lost: {reason}"))

    def _taken(self, payload: bytes) -> asyncio.Future[bytes] | None:
        if len(payload) < _ID.size:
            raise BadFrame("an answer cut short")
        waiting = self._waiting.get(_ID.unpack_from(payload)[0])
        if waiting is None or waiting.done():
            return None
        del self._waiting[_ID.unpack_from(payload)[0]]
        return waiting


class Answering:
    """The questions of the other side that are being answered on one connection."""

    def __init__(self, answer: Answer, send: Send, spawn: Spawn, limits: PeerLimits) -> None:
        self._answer = answer
        self._send = send
        self._spawn = spawn
        self._limits = limits
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def asked(self, payload: bytes) -> None:
        """Take an ASK and answer it, later."""
        if len(payload) < _ASK.size:
            raise BadFrame("a question cut short")
        question_id, length = _ASK.unpack_from(payload)
        start = _ASK.size + length
        if len(payload) < start or question_id in self._tasks:
            raise BadFrame("a question that cannot be")
        if len(self._tasks) >= self._limits.max_questions:
            raise BadFrame(f"more than {self._limits.max_questions} questions at a time")
        if len(payload) > _ASK.size + self._limits.max_question_bytes:
            raise BadFrame(f"a question of {len(payload)} bytes")
        try:
            kind = payload[_ASK.size : start].decode()
        except UnicodeDecodeError:
            raise BadFrame("a question of no kind") from None
        task = self._spawn(self._reply(question_id, kind, payload[start:]))
        self._tasks[question_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(question_id, None))

    def cancelled(self, payload: bytes) -> None:
        """Take a CANCEL: the answer is not wanted any more."""
        if len(payload) != _ID.size:
            raise BadFrame("a cancellation of a wrong size")
        task = self._tasks.get(_ID.unpack(payload)[0])
        if task is not None:
            task.cancel()

    def lost(self) -> None:
        """Stop answering."""
        for task in self._tasks.values():
            task.cancel()

    async def _reply(self, question_id: int, kind: str, payload: bytes) -> None:
        try:
            answer = await self._answer(kind, payload)
        except Refused as error:
            self._send(_encode_refusal(question_id, error.refusal))
        except Exception:
            log.exception("cannot answer a question of a peer", extra={"kind": kind})
            failed = Refusal(Code.INTERNAL, f"the member asked failed to answer: {kind}")
            self._send(_encode_refusal(question_id, failed))
        else:
            self._send(framed(Kind.ANSWER, _ID.pack(question_id), answer))


def _encode_refusal(question_id: int, refusal: Refusal) -> list[bytes]:
    sent_as = _SAME if refusal.sent_as is None else int(refusal.sent_as)
    head = _REFUSAL.pack(question_id, int(refusal.code), sent_as)
    return framed(Kind.REFUSAL, head, refusal.text.encode())


def _decode_refusal(payload: bytes) -> Refusal:
    try:
        _, code, sent_as = _REFUSAL.unpack_from(payload)
        text = payload[_REFUSAL.size :].decode()
        return Refusal(Code(code), text, None if sent_as == _SAME else Code(sent_as))
    except (struct.error, ValueError):
        raise BadFrame("a refusal that cannot be read") from None
