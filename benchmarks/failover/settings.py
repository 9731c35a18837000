"""Who is compared: policies with their settings."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from etcd_pinwheel.client.config import Config
from etcd_pinwheel.client.errors import ConfigError

DEADLINE_SECONDS: Final = 3.0
PING_SECONDS: Final = 5.0
"""How often an idle connection is pinged: the shortest that etcd's server tolerates."""
PING_TIMEOUT_SECONDS: Final = 2.0
_NEVER_SECONDS: Final = 1e6


@dataclass(frozen=True)
class Setting:
    """A client as it is set up for a run."""

    name: str
    policy: str
    pings: bool
    """Whether dead connections are looked for by HTTP/2 pings, as far as the model could."""
    require_leader: bool = False
    """Whether its watch leaves a member without a leader; clientv3 has to be asked to."""
    extra: tuple[tuple[str, str], ...] = ()
    """More settings, as TOML."""

    def toml(self, endpoints: Sequence[str]) -> str:
        """Write the client's configuration file."""
        listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
        lines = [
            f"endpoints = [{listed}]",
            f'balancer = "{self.policy}"',
            f"timeout = {DEADLINE_SECONDS}",
            # So seldom that it never comes to a ping. The timeout holds for the pings that grpc
            # sends to measure the bandwidth, too.
            f"keepalive_time = {PING_SECONDS if self.pings else _NEVER_SECONDS}",
            f"keepalive_timeout = {PING_TIMEOUT_SECONDS if self.pings else _NEVER_SECONDS}",
            *(f"{name} = {value}" for name, value in self.extra),
        ]
        return "\n".join(lines) + "\n"

    @property
    def possible(self) -> bool:
        """Whether this client knows all of its settings."""
        try:
            Config(**tomllib.loads(self.toml(["127.0.0.1:1"])))
        except (ConfigError, TypeError):
            return False
        return True


PINNED_MULTI: Final = Setting("pinned_multi", "pinned_multi", pings=False)
PINNED_SINGLE: Final = Setting("pinned_single", "pinned_single", pings=True)
ROUND_ROBIN: Final = Setting("round_robin", "round_robin", pings=False)
HEALTH_AWARE: Final = Setting("health_aware", "health_aware", pings=True, require_leader=True)
EXACTLY_ONCE: Final = Setting(
    "exactly_once",
    "health_aware",
    pings=True,
    require_leader=True,
    extra=(("retry", '"exactly_once"'),),
)
"""``health_aware`` that repeats writes too, and has each applied once."""

POLICIES: Final = (PINNED_MULTI, PINNED_SINGLE, ROUND_ROBIN, HEALTH_AWARE)
ALL: Final = (*POLICIES, EXACTLY_ONCE)
BY_NAME: Final = {setting.name: setting for setting in ALL}
