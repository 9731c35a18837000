"""The alarms that are raised in the cluster, kept in the backend."""

from __future__ import annotations

from ...protos.etcdserverpb import CORRUPT, NONE, NOSPACE, AlarmMember, AlarmRequest, AlarmResponse
from ..mvcc.backend import Backend, Bucket

Alarm = int
"""A number of the enum ``AlarmType``."""
_NAMES: dict[Alarm, str] = {NOSPACE: "NOSPACE", CORRUPT: "CORRUPT"}


def name_of(alarm: Alarm) -> str:
    """Return the name of a kind of alarm, or its number if it has none."""
    return _NAMES.get(alarm, str(alarm))


class Alarms:
    """Which member raised which alarm; a mirror in memory of the bucket that keeps them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._raised: dict[tuple[Alarm, int], AlarmMember] = {}
        self.active: frozenset[Alarm] = frozenset()
        """The kinds of alarm that any member has raised."""
        self.reload()

    def reload(self) -> None:
        """Take over what the backend has, at the start and after a snapshot was installed."""
        self._raised.clear()
        for record, _ in self._backend.range(Bucket.ALARM, b"", None):
            alarm = AlarmMember.FromString(record)
            self._raised[alarm.alarm, alarm.memberID] = alarm
        self._update()

    def raised(self, alarm: Alarm = NONE) -> list[AlarmMember]:
        """Return the alarms of one kind; of every kind for NONE."""
        return [raised for (kind, _), raised in self._raised.items() if alarm in (NONE, kind)]

    def apply(self, request: AlarmRequest) -> AlarmResponse:
        """Get, raise or clear an alarm; the reply names the alarms concerned."""
        if request.action == AlarmRequest.GET:
            return AlarmResponse(alarms=self.raised(request.alarm))
        if request.action == AlarmRequest.ACTIVATE:
            concerned = self._raise(request.alarm, request.memberID)
        else:
            concerned = self._clear(request.alarm, request.memberID)
        return AlarmResponse(alarms=[concerned] if concerned else [])

    def _raise(self, alarm: Alarm, member_id: int) -> AlarmMember | None:
        if alarm == NONE:
            return None
        raised = self._raised.get((alarm, member_id))
        if raised is None:
            raised = AlarmMember(memberID=member_id, alarm=alarm)  # type: ignore[arg-type]
            self._raised[alarm, member_id] = raised
            self._backend.put(Bucket.ALARM, raised.SerializeToString(), b"")
            self._update()
        return raised

    def _clear(self, alarm: Alarm, member_id: int) -> AlarmMember | None:
        cleared = self._raised.pop((alarm, member_id), None)
        if cleared is not None:
            self._backend.delete(Bucket.ALARM, cleared.SerializeToString())
            self._update()
        return cleared

    def _update(self) -> None:
        self.active = frozenset(alarm for alarm, _ in self._raised)
