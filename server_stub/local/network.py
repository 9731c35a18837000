"""The network between members: a proxy before each peer port, and what it lets through.

Who calls is read off a connection's first bytes (:mod:`.callers`), who is called is the proxy it
comes to; so each direction between two members can be cut by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from .callers import UNKNOWN, caller_id, owner_of_port
from .loop_thread import LoopThread
from .proxy import Connection, Proxy

Link = tuple[str, str]
"""From whom, to whom: the names of two members."""


class Network:
    """Proxies for members, by name. Methods are for other threads, and return when in effect.

    ``ids`` tells the names of members by their ids, ``pids`` by those of their processes, as far
    as they are known by now. A caller that cannot be told is cut off from a member that is cut
    off from all.
    """

    def __init__(
        self,
        loop: LoopThread,
        ids: Callable[[], Mapping[int, str]],
        pids: Callable[[], Mapping[int, str]],
    ) -> None:
        self._loop = loop
        self._ids = ids
        self._pids = pids
        self._proxies: dict[str, Proxy] = {}
        self._callers: dict[Connection, int] = {}
        self._names: dict[Connection, str] = {}
        self._cut: set[Link] = set()
        self._resets = False
        self._changed = asyncio.Event()
        self._past_bytes: Counter[Link] = Counter()

    def add(self, name: str, target_port: int) -> int:
        """Put a proxy before a member's port; return the proxy's own port."""
        proxy = Proxy(target_port, partial(self._admit, name), partial(self._forget, name))
        self._loop.run(proxy.listen())
        self._proxies[name] = proxy
        return proxy.port

    def remove(self, name: str) -> None:
        """Take the proxy of a member away."""
        self._loop.run(self._proxies.pop(name).close())

    def close(self) -> None:
        """Take all proxies away."""
        for name in list(self._proxies):
            self.remove(name)

    def cut(self, links: Collection[Link], *, resets: bool = False) -> None:
        """Let nothing through from one member to another any more.

        What is sent is held back; with ``resets`` connections end with an error instead, old ones
        and new ones, which takes both directions away.
        """
        self._loop.call(lambda: self._let_through(self._cut | set(links), resets))

    def heal(self) -> None:
        """Let everything through again. What was held back comes now."""
        self._loop.call(lambda: self._let_through(set(), False))

    def bytes_sent(self, sender: str, receiver: str) -> int:
        """How many bytes one member has sent to another, over connections of either of them."""
        return self._loop.call(lambda: self._counted()[sender, receiver])

    # On the loop

    async def _admit(self, target: str, connection: Connection) -> None:
        """Wait until a connection may reach its target."""
        while (said := caller_id(connection.caller.early)) is None:
            connection.news.clear()
            await connection.news.wait()
            if connection.is_over:
                return
        self._callers[connection] = said
        self._judge(target, connection)
        while connection.caller.is_held and not connection.is_over:
            await self._changed.wait()

    def _forget(self, target: str, connection: Connection) -> None:
        self._past_bytes.update(self._bytes_of(target, connection))
        self._callers.pop(connection, None)
        self._names.pop(connection, None)

    def _let_through(self, cut: set[Link], resets: bool) -> None:
        self._cut, self._resets = cut, resets
        for target, proxy in self._proxies.items():
            for connection in list(proxy.connections):
                self._judge(target, connection)
        self._changed.set()
        self._changed = asyncio.Event()

    def _judge(self, target: str, connection: Connection) -> None:
        """Hold a connection, or let it go on, in each direction."""
        if connection not in self._callers:
            return
        there = self._is_cut(connection, lambda caller: (caller, target), target)
        back = self._is_cut(connection, lambda caller: (target, caller), target)
        if self._resets and (there or back):
            connection.reset()
            return
        connection.caller.hold(there)
        connection.target.hold(back)

    def _is_cut(self, connection: Connection, link: Callable[[str], Link], target: str) -> bool:
        if not self._cut:
            return False
        if caller := self._caller(connection):
            return link(caller) in self._cut
        return all(link(each) in self._cut for each in self._proxies if each != target)

    def _caller(self, connection: Connection) -> str | None:
        """Find out the name of who called, as late as it is asked for."""
        if connection in self._names:
            return self._names[connection]
        said = self._callers.get(connection, UNKNOWN)
        name = self._ids().get(said) if said != UNKNOWN else self._owner(connection)
        if name is not None:
            self._names[connection] = name
        return name

    def _owner(self, connection: Connection) -> str | None:
        pids = self._pids()
        pid = owner_of_port(connection.caller.port, pids)
        return pids[pid] if pid is not None else None

    def _counted(self) -> Counter[Link]:
        counted = Counter(self._past_bytes)
        for target, proxy in self._proxies.items():
            for connection in proxy.connections:
                counted.update(self._bytes_of(target, connection))
        return counted

    def _bytes_of(self, target: str, connection: Connection) -> Mapping[Link, int]:
        caller = self._names.get(connection) or self._ids().get(self._callers.get(connection, 0))
        if caller is None:
            return {}
        return {
            (caller, target): connection.caller.bytes_read,
            (target, caller): connection.target.bytes_read,
        }
