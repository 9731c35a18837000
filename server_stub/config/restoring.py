"""The command line of ``etcd-pinwheel-server restore``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .command_line import HelpAsked, split
from .flag import Flag, FlagError, read
from .flags import FLAGS
from .settings import Settings
from .values import boolean

_SKIP_HASH_CHECK: Final = Flag(
    "skip-hash-check",
    "false",
    boolean,
    "take a file without a digest, such as a copy of member/snap/db of a stopped member",
)
_NAMES: Final = (
    "name",
    "data-dir",
    "wal-dir",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-token",
)
_FLAGS: Final = {**{name: FLAGS[name] for name in _NAMES}, "skip-hash-check": _SKIP_HASH_CHECK}


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What is to be restored, and as which member of which cluster."""

    file: Path
    settings: Settings
    """Those of the member that will run on what is restored."""
    skip_hash_check: bool = False


def parse_restore(argv: Sequence[str]) -> RestoreOrder:
    """Read the command line behind the word ``restore``. Raises ``FlagError``, ``HelpAsked``."""
    operands: list[str] = []
    values = {name: read(flag, flag.default, "") for name, flag in _FLAGS.items()}
    is_switch = {**{name: flag.is_switch for name, flag in _FLAGS.items()}, "h": True, "help": True}
    for name, text in split(argv, is_switch, operands):
        if name in ("h", "help"):
            raise HelpAsked(_usage())
        values[name] = read(_FLAGS[name], text, f"--{name}")
    if len(operands) != 1:
        raise FlagError(f"restore takes one file, and was given {len(operands)}")
    urls = values["initial-advertise-peer-urls"]
    settings = Settings(
        name=values["name"],
        data_dir=Path(values["data-dir"] or f"{values['name']}.etcd"),
        wal_dir=Path(values["wal-dir"]) if values["wal-dir"] else None,
        initial_advertise_peer_urls=tuple(dict.fromkeys(url.text for url in urls)),
        initial_cluster=tuple(values["initial-cluster"].items()),
        initial_cluster_token=values["initial-cluster-token"],
    )
    return RestoreOrder(Path(operands[0]), settings, values["skip-hash-check"])


def _usage() -> str:
    lines = [
        "Make the data directory of a member of a new cluster out of a snapshot.",
        "",
        "Usage:",
        "  etcd-pinwheel-server restore FILE [flags]",
        "",
    ]
    for name, flag in _FLAGS.items():
        lines += [f"  --{name} '{flag.default}'", f"    {flag.help}."]
    return "\n".join(lines)
