"""What the server is told: etcd's flags and ``ETCD_*`` variables, made into ``Settings``.

The command line beats the environment, as in etcd. Whatever is wrong is found here, before
anything is opened, and said in one line: ``FlagError``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .command_line import HelpAsked, VersionAsked, split
from .flag import Fate, Flag, FlagError, read
from .flags import BY_ANY_NAME, CONFIG_FILE, FLAGS, SECTIONS
from .security import peer_tls, tls
from .settings import (
    DEFAULT_BATCH_INTERVAL_SECONDS,
    DEFAULT_BATCH_LIMIT,
    DEFAULT_CATCHUP_ENTRIES,
    DEFAULT_QUOTA_BYTES,
    DEFAULT_SNAPSHOT_COUNT,
    PeerTlsSettings,
    Settings,
    TlsSettings,
)
from .values import Url, boolean, duration, unsigned

__all__ = [
    "FlagError",
    "HelpAsked",
    "PeerTlsSettings",
    "Settings",
    "TlsSettings",
    "VersionAsked",
    "parse",
    "usage",
]

_MIN_PROGRESS_INTERVAL_SECONDS: Final = 0.1
_ENVIRONMENT_PREFIX: Final = "ETCD_"
_CLIENT_PREFIX: Final = "ETCD_PINWHEEL_"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the command line (without the program's name) and the environment.

    Raises ``FlagError``, ``HelpAsked`` or ``VersionAsked``.
    """
    given = dict(_from_command_line(argv))
    if given.get("config-file", ("", ""))[1] or environ.get("ETCD_CONFIG_FILE"):
        raise FlagError(f"--config-file is not supported: {CONFIG_FILE.why}")
    notices: list[str] = []
    given = {**_from_environment(environ, given, notices), **given}
    values = {name: read(flag, flag.default, "") for name, flag in FLAGS.items()}
    explicit = set()
    for name, (spelled, text) in given.items():
        flag = FLAGS[name]
        value = read(flag, text, spelled)
        if value != values[name]:
            _accept(flag, spelled, notices)
        values[name] = value
        explicit.add(name)
    return _settings(values, explicit, notices)


def usage() -> str:
    """The text of ``--help``."""
    lines = [
        "Usage:",
        "  etcd-pinwheel-server [flags]",
        "  etcd-pinwheel-server restore FILE [flags]",
        "  etcd-pinwheel-server --version",
        "",
    ]
    for title, flags in SECTIONS.items():
        lines.append(f"{title}:")
        for flag in flags:
            lines.append(f"  --{flag.name} '{flag.default}'")
            if flag.fate is Fate.REFUSED:
                lines.append(f"    Refused: {flag.why}.")
            elif flag.fate is Fate.WITHOUT_EFFECT:
                lines.append(f"    {flag.help} (without effect: {flag.why}).")
            else:
                lines.append(f"    {flag.help}.")
        lines.append("")
    lines.append(
        "Every flag can be set by an environment variable: --max-txn-ops, ETCD_MAX_TXN_OPS."
    )
    return "\n".join(lines)


# Where values come from.


_IS_SWITCH: Final = {
    **{name: flag.is_switch for name, flag in BY_ANY_NAME.items()},
    **dict.fromkeys(("h", "help", "version"), True),
}


def _from_command_line(argv: Sequence[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Read the command line; yields (name, (as spelled, text of the value))."""
    for name, text in split(argv, _IS_SWITCH):
        if name in ("h", "help"):
            raise HelpAsked(usage())
        if name == "version":
            if boolean(text):
                raise VersionAsked
            continue
        yield BY_ANY_NAME[name].name, (f"--{name}", text)


def _from_environment(
    environ: Mapping[str, str], given: Mapping[str, object], notices: list[str]
) -> dict[str, tuple[str, str]]:
    """The flags set by variables, less those the command line sets too (noted)."""
    found: dict[str, tuple[str, str]] = {}
    by_variable = {
        _ENVIRONMENT_PREFIX + name.upper().replace("-", "_"): flag
        for name, flag in BY_ANY_NAME.items()
    }
    for variable, text in environ.items():
        if not variable.startswith(_ENVIRONMENT_PREFIX) or not text:
            continue
        flag = by_variable.get(variable)
        if flag is None:
            if not variable.startswith(_CLIENT_PREFIX):
                notices.append(f"environment variable {variable} is not one of the server's")
        elif flag.name in given:
            notices.append(f"environment variable {variable} is shadowed by --{flag.name}")
        else:
            found[flag.name] = (variable, text)
    return found


def _accept(flag: Flag, spelled: str, notices: list[str]) -> None:
    """Refuse or note a flag that is set to other than its default."""
    if flag.fate is Fate.REFUSED:
        raise FlagError(f"{spelled} is not supported: {flag.why}")
    if flag.fate is Fate.WITHOUT_EFFECT:
        notices.append(f"{spelled} has no effect: {flag.why}")


# What the values mean together.


def _settings(values: Mapping[str, Any], explicit: set[str], notices: list[str]) -> Settings:
    if "listen-client-urls" in explicit and "advertise-client-urls" not in explicit:
        raise FlagError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        )
    _check_timing(values)
    _check_learners(values)
    period, revisions = _retention(values)
    return Settings(
        name=values["name"],
        data_dir=Path(values["data-dir"] or f"{values['name']}.etcd"),
        wal_dir=Path(values["wal-dir"]) if values["wal-dir"] else None,
        listen_client_urls=tuple(dict.fromkeys(values["listen-client-urls"])),
        listen_metrics_urls=tuple(dict.fromkeys(values["listen-metrics-urls"])),
        advertise_client_urls=_texts(values["advertise-client-urls"]),
        initial_advertise_peer_urls=_texts(values["initial-advertise-peer-urls"]),
        listen_peer_urls=tuple(dict.fromkeys(values["listen-peer-urls"])),
        initial_cluster=tuple(values["initial-cluster"].items()),
        tls=tls(values, notices),
        peer_tls=peer_tls(values, notices),
        auto_compaction_mode=values["auto-compaction-mode"],
        auto_compaction_period_seconds=period,
        auto_compaction_revisions=revisions,
        snapshot_count=values["snapshot-count"] or DEFAULT_SNAPSHOT_COUNT,
        snapshot_catchup_entries=values["snapshot-catchup-entries"] or DEFAULT_CATCHUP_ENTRIES,
        quota_backend_bytes=max(values["quota-backend-bytes"] or DEFAULT_QUOTA_BYTES, 0),
        backend_batch_interval_seconds=values["backend-batch-interval"]
        or DEFAULT_BATCH_INTERVAL_SECONDS,
        backend_batch_limit=values["backend-batch-limit"] or DEFAULT_BATCH_LIMIT,
        lease_checkpoints=values["enable-lease-checkpoint"]
        or "LeaseCheckpoint" in values["feature-gates"],
        **{field: values[name] for name, field in _AS_THEY_ARE.items()},
        notices=tuple(notices),
    )


_AS_THEY_ARE: Final = {
    "initial-cluster-state": "initial_cluster_state",
    "initial-cluster-token": "initial_cluster_token",
    "force-new-cluster": "force_new_cluster",
    "strict-reconfig-check": "strict_reconfig_check",
    "max-learners": "max_learners",
    "election-timeout": "election_timeout_ms",
    "heartbeat-interval": "heartbeat_interval_ms",
    "initial-election-tick-advance": "initial_election_tick_advance",
    "pre-vote": "pre_vote",
    "max-snapshots": "max_snapshots",
    "max-wals": "max_wals",
    "unsafe-no-fsync": "unsafe_no_fsync",
    "max-txn-ops": "max_txn_ops",
    "max-request-bytes": "max_request_bytes",
    "max-concurrent-streams": "max_concurrent_streams",
    "grpc-keepalive-min-time": "grpc_keepalive_min_time_seconds",
    "grpc-keepalive-interval": "grpc_keepalive_interval_seconds",
    "grpc-keepalive-timeout": "grpc_keepalive_timeout_seconds",
    "compaction-sleep-interval": "compaction_sleep_interval_seconds",
    "watch-progress-notify-interval": "watch_progress_notify_interval_seconds",
    "learner-by-default": "learner_by_default",
    "learner-auto-promote": "learner_auto_promote",
    "learner-promote-max-lag": "learner_promote_max_lag",
    "learner-promote-healthy": "learner_promote_healthy_seconds",
    "standby-failover": "standby_failover_seconds",
    "learner-reads": "learner_reads",
    "log-outputs": "log_outputs",
    "log-level": "log_level",
    "log-format": "log_format",
}
"""Flags whose value goes into the field as it was read; the field's name adds the unit."""


def _texts(urls: Sequence[Url]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(url.text for url in urls))


def _check_timing(values: Mapping[str, Any]) -> None:
    heartbeat, election = values["heartbeat-interval"], values["election-timeout"]
    if 5 * heartbeat > election:
        raise FlagError(
            f"--election-timeout[{election}ms] should be at least as 5 times as"
            f" --heartbeat-interval[{heartbeat}ms]"
        )
    for name in _DURATIONS:
        if values[name] < 0:
            raise FlagError(f"--{name} must not be negative")
    if values["watch-progress-notify-interval"] < _MIN_PROGRESS_INTERVAL_SECONDS:
        raise FlagError("--watch-progress-notify-interval must be at least 100ms")


_DURATIONS: Final = tuple(flag.name for flag in FLAGS.values() if flag.read is duration)


def _check_learners(values: Mapping[str, Any]) -> None:
    standby_seconds, election_ms = values["standby-failover"], values["election-timeout"]
    if not standby_seconds:
        return
    if values["learner-auto-promote"]:
        raise FlagError(
            "--learner-auto-promote and --standby-failover contradict each other: the one promotes"
            " every learner, the other keeps learners in reserve"
        )
    if standby_seconds * 1000 < 2 * election_ms:
        raise FlagError(
            f"--standby-failover[{standby_seconds:g}s] should be at least twice as long as"
            f" --election-timeout[{election_ms}ms], which it takes to notice that a voter is gone"
        )


def _retention(values: Mapping[str, Any]) -> tuple[float, int]:
    """Read --auto-compaction-retention by its mode: (seconds, revisions)."""
    mode, text = values["auto-compaction-mode"], values["auto-compaction-retention"]
    try:
        if mode == "revision":
            return 0.0, unsigned(text)
        seconds = float(unsigned(text) * 3600) if text.isdecimal() else duration(text)
        if seconds < 0:
            raise ValueError("must not be negative")
    except ValueError as error:
        raise FlagError(
            f'invalid value "{text}" for --auto-compaction-retention in {mode} mode: {error}'
        ) from None
    return seconds, 0
