"""Leases as the log grants and revokes them: the lessor, its records in the backend, the keys."""

from __future__ import annotations

from ...protos import leasepb
from ...protos.etcdserverpb import (
    LeaseCheckpointRequest,
    LeaseCheckpointResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
)
from ..lease.lessor import Lease, Lessor
from ..mvcc.backend import Backend, Bucket
from ..mvcc.store import Store


def recover_leases(backend: Backend, lessor: Lessor) -> None:
    """Give the lessor the leases of the backend; needed before the store attaches keys to them."""
    records = backend.range(Bucket.LEASE, b"", None)
    lessor.recover(leasepb.Lease.FromString(record) for _, record in records)


class Leases:
    """The requests that change leases."""

    def __init__(self, backend: Backend, store: Store, lessor: Lessor) -> None:
        self._backend = backend
        self._store = store
        self._lessor = lessor

    def grant(self, request: LeaseGrantRequest, now: float) -> LeaseGrantResponse:
        """Create a lease. Raises ``Refused`` (LEASE_EXISTS, LEASE_TTL_TOO_LARGE)."""
        lease = self._lessor.grant(request.ID, request.TTL, now)
        self._save(lease)
        return LeaseGrantResponse(ID=lease.id, TTL=lease.ttl_seconds)

    def revoke(self, request: LeaseRevokeRequest, now: float) -> LeaseRevokeResponse:
        """Delete a lease and its keys, all keys as one revision. Raises ``Refused``."""
        lease = self._lessor.lease(request.ID)
        with self._store.write() as txn:
            for key in sorted(lease.keys):
                txn.delete_range(key, b"")
        self._lessor.remove(lease.id)
        self._backend.delete(Bucket.LEASE, _record_key(lease.id))
        return LeaseRevokeResponse()

    def checkpoint(self, request: LeaseCheckpointRequest, now: float) -> LeaseCheckpointResponse:
        """Note how much is left of some leases; those gone meanwhile are passed over."""
        for checkpoint in request.checkpoints:
            lease = self._lessor.checkpoint(checkpoint.ID, checkpoint.remaining_TTL, now)
            if lease is not None:
                self._save(lease)
        return LeaseCheckpointResponse()

    def _save(self, lease: Lease) -> None:
        record = lease.to_record().SerializeToString()
        self._backend.put(Bucket.LEASE, _record_key(lease.id), record)


def _record_key(lease_id: int) -> bytes:
    return lease_id.to_bytes(8, "big", signed=True)
