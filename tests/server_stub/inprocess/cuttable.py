"""Three members in this process and one event loop, whose transport can be cut."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

from etcd_pinwheel.server_stub.config.values import Url
from etcd_pinwheel.server_stub.local import ReservedPorts
from etcd_pinwheel.server_stub.peers.receiver import PeerUnreachable

from .served import Served, until


class CuttableCluster:
    """A cluster of three; ``async with`` starts and stops it."""

    def __init__(self, directory: Path, size: int = 3, **settings: Any) -> None:
        self._ports = ReservedPorts(size + 1)
        *urls, self._learner_url = [f"http://127.0.0.1:{each}" for each in self._ports.numbers]
        names = [f"m{number}" for number in range(size)]
        settings = {
            "heartbeat_interval_ms": 50,
            "election_timeout_ms": 500,
            "strict_reconfig_check": False,  # it would have us wait for five seconds
            **settings,
        }
        self._directory, self._settings = directory, settings
        self.all = [
            self._served(name, url, tuple(zip(names, ((each,) for each in urls), strict=True)))
            for name, url in zip(names, urls, strict=True)
        ]
        self._cut: set[int] = set()

    def _served(self, name: str, url: str, cluster: Any, **settings: Any) -> Served:
        port = int(url.rpartition(":")[2])
        return Served(
            self._directory / name,
            name=name,
            listen_peer_urls=(Url("http", "127.0.0.1", port, url),),
            initial_advertise_peer_urls=(url,),
            initial_cluster=cluster,
            **{**self._settings, **settings},
        )

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(self._start(served) for served in self.all))
        return self

    async def _start(self, served: Served) -> None:
        await served.start()
        self._make_cuttable(served)

    async def __aexit__(self, *raised: Any) -> None:
        for served in self.all:
            self.heal(served)
        await asyncio.gather(*(served.stop() for served in self.all))

    def _make_cuttable(self, served: Served) -> None:
        member = served.member
        step, send, ask = member.consensus.step, member.peers.send, member.peers.ask

        def cut_step(message: Any) -> None:
            if not self._is_cut(member.id, message.sender):
                step(message)

        def cut_send(messages: Any) -> None:
            send([each for each in messages if not self._is_cut(member.id, each.to)])

        async def cut_ask(peer_id: int, *question: Any) -> bytes:
            if self._is_cut(member.id, peer_id):
                raise PeerUnreachable
            return await ask(peer_id, *question)

        member.consensus.step = cut_step  # type: ignore[method-assign]
        member.peers.send = cut_send  # type: ignore[method-assign]
        member.lease_duties._ask = cut_ask

    def _is_cut(self, *ends: int) -> bool:
        return not self._cut.isdisjoint(ends)

    def isolate(self, served: Served) -> None:
        """Let nothing through between a member and the others."""
        self._cut.add(served.member.id)

    def heal(self, served: Served) -> None:
        """Let everything through again."""
        self._cut.discard(served.member.id)

    # Who leads

    @property
    def leader(self) -> Served:
        """Who leads of those that are not isolated."""
        return next(served for served in self.connected() if served.member.is_leader)

    @property
    def followers(self) -> list[Served]:
        return [served for served in self.connected() if not served.member.is_leader]

    def connected(self) -> list[Served]:
        return [served for served in self.all if served.member.id not in self._cut]

    async def settled(self) -> Served:
        """Wait until those that are not isolated have one leader, in office, and know it."""

        def is_settled() -> bool:
            members = [served.member for served in self.connected()]
            leaders = {member.leader_id for member in members}
            in_office = [member.id for member in members if member.lessor.is_primary]
            return leaders == set(in_office) and len(in_office) == 1

        await until(is_settled)
        return self.leader

    async def added_learner(self, **settings: Any) -> Served:
        """Add a learner, and start it."""
        from etcd_pinwheel.protos import rpcs

        url = self._learner_url
        await self.leader(rpcs.CLUSTER_MEMBER_ADD, peerURLs=[url], isLearner=True)
        named = [
            (served.settings.name, served.settings.initial_advertise_peer_urls)
            for served in self.all
        ]
        learner = self._served(
            "learner",
            url,
            (*named, ("learner", (url,))),
            initial_cluster_state="existing",
            **settings,
        )
        await self._start(learner)
        self.all.append(learner)
        return learner
