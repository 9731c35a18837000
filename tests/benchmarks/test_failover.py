"""The failover benchmark's command line, pages and processes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.failover import __main__ as failover
from benchmarks.failover import docs, faults, numbers, pictures, settings
from benchmarks.failover.campaign import Campaign
from benchmarks.failover.claims import findings
from benchmarks.failover.job import Job
from benchmarks.failover.keep import as_json
from benchmarks.failover.loads import LoadProcess
from benchmarks.failover.page import page
from benchmarks.failover.record import Stored, WatchEvent
from benchmarks.failover.run import Missing, Results
from benchmarks.failover.settings import ALL, Setting
from benchmarks.peers import Peer, PeerUnavailable
from etcd_pinwheel.client.config import Config
from tests.benchmarks.failover_runs import outcome, steady

POSSIBLE = [setting for setting in ALL if setting.possible]


def campaign(server: str = "etcd-pinwheel's server") -> Campaign:
    runs = [
        outcome(steady(60, 20), fault=fault.name, setting=each.name)
        for fault in (faults.HANG, faults.KILL_LEADER, faults.HANG_NUMBERS)
        for each in ALL
    ]
    return Campaign(
        facts={"date": "today", "cpu": "2 x fast"},
        server=server,
        settings=ALL,
        faults=(faults.HANG, faults.KILL_LEADER),
        numbers=(faults.HANG_NUMBERS,),
        repeats=1,
        every_ms=20.0,
        results=Results(runs, [Missing("hang", "round_robin", 1, "round_robin: hung <b>")]),
    )


def test_everything_is_played_unless_narrowed() -> None:
    whole = failover.arguments([])
    assert failover.chosen_faults(whole) == faults.FAULTS
    assert failover.chosen_numbers(whole) == faults.NUMBERS
    assert list(failover.chosen_settings(whole)) == POSSIBLE
    quick = failover.arguments(["--quick"])
    assert failover.chosen_faults(quick) == faults.QUICK
    assert failover.chosen_numbers(quick) == ()
    some = failover.arguments(["--fault", "hang", "--policy", "round_robin", "health_aware"])
    assert failover.chosen_faults(some) == (faults.HANG,)
    assert failover.chosen_numbers(some) == ()
    assert [each.name for each in failover.chosen_settings(some)] == ["round_robin", "health_aware"]
    assert failover.chosen_faults(failover.arguments(["--only", "numbers"])) == ()
    assert failover.chosen_numbers(failover.arguments(["--only", "claims"])) == ()
    etcd = failover.arguments(["--etcd"])
    assert failover.chosen_numbers(etcd) == ()
    assert failover.chosen_numbers(failover.arguments(["--etcd", "--peers"])) == faults.NUMBERS


def test_a_program_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert failover.main(["--etcd", "/nowhere/etcd"], Console()) == 2
    assert "no program at /nowhere/etcd" in capsys.readouterr().out


def test_quick_is_quick() -> None:
    assert sum(failover.seconds_of(fault) for fault in faults.QUICK) < 90


@pytest.mark.parametrize("setting", POSSIBLE, ids=lambda each: each.name)
def test_settings_are_files_that_the_client_takes(setting: Setting, tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(setting.toml(["127.0.0.1:1", "127.0.0.1:2"]))
    config = Config.from_toml(file)
    assert len(config.endpoints) == 2
    assert (config.balancer, config.timeout) == (setting.policy, 3.0)


def test_faults_are_undone_while_there_is_load_or_after_it() -> None:
    for fault in faults.FAULTS:
        if fault.undone_at is not None:
            assert fault.struck_at < fault.undone_at <= fault.seconds
        assert not fault.undone_late
    assert [(each.struck_at, each.seconds) for each in faults.NUMBERS] == [(5.0, 16.0)] * 4
    assert all(fault.undone_late and not fault.reads for fault in faults.NUMBERS)


def test_a_broken_promise_is_told_and_a_failed_call_is_none() -> None:
    assert not failover.broken(Results([outcome(steady(10, 10))]))
    assert failover.broken(Results([outcome(steady(10))]))  # acknowledged, and the store is empty
    assert not failover.broken(Results([outcome(steady(10), setting="aetcd")]))
    stored = {number: Stored(1, number + 2) for number in range(10)}
    told = [WatchEvent(3.0, number, number + 2) for number in range(10)]
    for watched, is_broken in ((told, False), (told[:-1], True), ([*told, told[-1]], True)):
        seen = outcome(steady(10), fault=faults.IDLE_HANG.name, stored=stored, watched=watched)
        assert failover.broken(Results([seen])) == is_broken
        assert not failover.broken(Results([replace(seen, fault=faults.HANG_NUMBERS.name)])), (
            "nobody watches"
        )


def test_the_page_needs_nothing_from_elsewhere() -> None:
    shown = campaign()
    html = page(shown, findings(shown.results, ALL, shown.faults))
    assert "A follower hangs (SIGSTOP), goes on later" in html
    assert "health_aware" in html
    for outside in ("<link", "<script", "src=", "url(", "@import"):
        assert outside not in html


def test_the_picture_compares_the_policies() -> None:
    drawn = pictures.comparison(campaign())
    assert drawn is not None
    assert all(setting.name in drawn for setting in settings.POLICIES)
    assert "33 % failed" in drawn
    assert pictures.comparison(Campaign({}, "", ALL, (), (), 1, 20.0)) is None


def test_the_typical_repeat_is_the_median_one() -> None:
    shown = campaign()
    shown.results = Results(
        [outcome(steady(60, bad), repeat=repeat) for repeat, bad in enumerate((50, 1, 20))]
    )
    assert shown.typical(faults.HANG)["round_robin"].repeat == 2
    assert shown.typical(faults.RESTART) == {}


def test_docs_are_brought_up_to_date_where_something_was_measured(tmp_path: Path) -> None:
    places = "\n".join(
        "\n".join(report.markers(place)) for place in (docs.OURS, docs.ETCD, docs.NUMBERS)
    )
    (tmp_path / "failover.md").write_text(f"# Failover\n\n{places}\n\nThe end.\n")
    shown = campaign()
    docs.write_docs(shown, findings(shown.results, ALL, shown.faults), tmp_path)
    text = (tmp_path / "failover.md").read_text()
    assert text.startswith("# Failover")
    assert text.endswith("The end.\n")
    assert "\n".join(report.markers(docs.ETCD)) in text
    assert "Beside other clients" in text
    assert "hung <b>" in text
    assert (tmp_path / "failover.html").exists()
    assert (tmp_path / "failover.svg").read_text().startswith("<svg")
    on_etcd = campaign("etcd")
    docs.write_docs(on_etcd, findings(on_etcd.results, ALL, on_etcd.faults), tmp_path)
    assert (tmp_path / "failover-etcd.svg").exists()


def test_the_page_of_docs_has_its_places() -> None:
    text = (report.ROOT / "docs" / "failover.md").read_text()
    for place in (docs.OURS, docs.ETCD, docs.NUMBERS):
        report.replace_measured(text, "", place)


def test_everything_is_kept(tmp_path: Path) -> None:
    shown = campaign()
    kept = json.loads(json.dumps(as_json(shown, findings(shown.results, ALL, shown.faults))))
    assert len(kept["runs"]) == len(shown.results.outcomes)
    assert kept["runs"][0]["calls"][0] == ["put", 2000, 2.0, "TimedOut", "m2"]
    assert {"claim", "expected", "values", "verdict"} <= kept["claims"][0].keys()


def job(tmp_path: Path) -> Job:
    return Job("", [], "", str(tmp_path / "recording"), "", "", 0, False, 0.0, 0.0)


def test_a_load_that_dies_is_told_of(tmp_path: Path) -> None:
    program = "import sys; sys.exit('no such thing')"
    load = LoadProcess("mine", job(tmp_path), tmp_path, (sys.executable, "-c", program))
    try:
        load.wait_until_ready()
        load.begin(0.0)
        assert load.recording() is None
        assert str(load.failure) == "mine: died before ready; no such thing"
    finally:
        load.close()


def test_a_load_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.failover.loads.PATIENCE_SECONDS", 0.2)
    program = "import time; print('ready', flush=True); time.sleep(100)"
    load = LoadProcess("mine", job(tmp_path), tmp_path, (sys.executable, "-c", program))
    try:
        load.wait_until_ready()
        load.begin(0.0)
        load.wait_until_done()
        assert load.recording() is None
        assert str(load.failure) == "mine: hung before it was done"
    finally:
        load.close()


@pytest.mark.process
@pytest.mark.slow
def test_a_killed_follower_loses_no_write(tmp_path: Path) -> None:
    kept, html = tmp_path / "kept.json", tmp_path / "page.html"
    where = ["--json", str(kept), "--html", str(html)]
    load = ["--repeats", "1", "--every-ms", "100", "--policy", "pinned_multi", "health_aware"]
    code = failover.main(["--fault", "kill-follower", *load, *where], Console(width=140))
    found = json.loads(kept.read_text())
    assert found["missing"] == []
    assert code == 0
    for run in found["runs"]:
        assert run["operations"]["put"]["calls"] == 80
        assert run["audit"]["lost"] == run["audit"]["twice"] == 0
        assert run["events"]["lost"] == run["events"]["twice"] == run["events"]["reordered"] == 0
        assert run["victim"] not in run["answered"]["during"]
        before = [counts for at, counts in run["sockets"] if at <= run["struck"]]
        assert sum(before[-1].values()) == 3
    assert html.read_text().startswith("<!doctype html>")


def test_a_peer_that_cannot_be_installed_is_a_row_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(peer: Peer) -> Path:
        raise PeerUnavailable(f"{peer.name}: no such release")

    monkeypatch.setattr("benchmarks.peers.interpreter", refuse)
    said: list[str] = []
    riders = numbers.peer_riders(said.append)
    assert len(said) == len(riders) == len(numbers.PEERS)
    table = numbers.table(Results(), riders)
    assert [row[0] for row in table.rows[1:]] == [peer.name for peer in numbers.PEERS]
    assert all("no such release" in row[1] for row in table.rows[1:])


def test_a_headline_says_who_fares_alike() -> None:
    fates = {
        "pinned_multi": outcome(steady(10, 5)),
        "round_robin": outcome(steady(10, 5)),
        "health_aware": outcome(steady(10)),
    }
    said = pictures.headline(fates)
    assert said == "pinned_multi, round_robin: 50 % fail; health_aware: no call fails."
    assert pictures.headline({}) == ""
