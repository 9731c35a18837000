"""Three members in this process, that talk over loopback; their services need no socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.server_stub.config.values import Url
from etcd_pinwheel.server_stub.local import ReservedPorts

from .served import PATIENCE_SECONDS, Served, until

NAMES = ("a", "b", "c")
FAST = {"election_timeout_ms": 500, "heartbeat_interval_ms": 50}


class Trio:
    """A cluster of three; ``async with`` founds it and stops what is left of it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._ports = ReservedPorts(len(NAMES))
        self.peer_urls = {
            name: f"http://127.0.0.1:{port}"
            for name, port in zip(NAMES, self._ports.numbers, strict=True)
        }
        self.members = {
            name: Served(directory / name, **{**self._settings(name), **settings}) for name in NAMES
        }
        self.up: set[str] = set()

    def _settings(self, name: str) -> dict[str, Any]:
        url = self.peer_urls[name]
        return {
            **FAST,
            "name": name,
            "advertise_client_urls": (f"http://{name}:2379",),
            "initial_advertise_peer_urls": (url,),
            "listen_peer_urls": (Url("http", "127.0.0.1", int(url.rpartition(":")[2]), url),),
            "initial_cluster": tuple((each, (at,)) for each, at in self.peer_urls.items()),
        }

    def __getitem__(self, name: str) -> Served:
        return self.members[name]

    async def __aenter__(self) -> Self:
        await self.start(*NAMES)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(*self.up)

    async def start(self, *names: str) -> None:
        """Start members; returns when all of them serve."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with asyncio.TaskGroup() as starting:
                for name in names:
                    starting.create_task(self.members[name].start())
        self.up |= set(names)

    async def stop(self, *names: str) -> None:
        """Stop members in good order."""
        self.up -= set(names)
        await asyncio.gather(*(self.members[name].stop() for name in names))

    async def crash(self, name: str) -> None:
        """Have a member stop as a failing disk makes it stop: without a word to anybody."""
        self.members[name].member.consensus.fail(OSError("the disk is gone"))
        await self.stop(name)

    @property
    def leader(self) -> str:
        """Who leads, in the eyes of itself; "" for nobody or for two."""
        leading = [name for name in sorted(self.up) if self[name].member.is_leader]
        return leading[0] if len(leading) == 1 else ""

    async def led(self) -> str:
        """Wait until somebody leads, and everybody knows that; return who."""

        def agreed() -> bool:
            if not self.leader:
                return False
            leader_id = self[self.leader].member.id
            return all(self[name].member.leader_id == leader_id for name in self.up)

        await until(agreed)
        return self.leader

    async def alike(self) -> None:
        """Wait until every member that is up has applied the same, and see that it is the same."""

        def level() -> bool:
            members = [self[name].member for name in self.up]
            indexes = {member.applier.index for member in members}
            return len(indexes) == 1 and indexes == {member.core.commit_index for member in members}

        await until(level)
        hashes = {
            name: (await self[name](rpcs.MAINTENANCE_HASH_KV)).hash for name in sorted(self.up)
        }
        assert len(set(hashes.values())) == 1, hashes
