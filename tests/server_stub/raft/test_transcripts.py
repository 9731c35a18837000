"""What clusters of cores do, scenario by scenario: see transcript.script for the language."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcript.script import TranscriptFailed, run, run_file

TRANSCRIPTS = sorted((Path(__file__).parents[2] / "data/raft/transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    run_file(path)


def test_all_transcripts_are_there() -> None:
    assert {path.stem for path in TRANSCRIPTS} >= {
        "async_storage_writes",
        "async_storage_writes_append_aba_race",
        "campaign",
        "campaign_learner_must_vote",
        "checkquorum",
        "confchange_disable_validation",
        "confchange_v1_add_single",
        "confchange_v1_remove_leader",
        "confchange_v1_remove_leader_stepdown",
        "confchange_v2_add_double_auto",
        "confchange_v2_add_double_implicit",
        "confchange_v2_add_single_auto",
        "confchange_v2_add_single_explicit",
        "confchange_v2_replace_leader",
        "confchange_v2_replace_leader_stepdown",
        "forget_leader",
        "forget_leader_prevote_checkquorum",
        "forget_leader_read_only_lease_based",
        "heartbeat_resp_recovers_from_probing",
        "lagging_commit",
        "prevote",
        "prevote_checkquorum",
        "probe_and_replicate",
        "replicate_pause",
        "single_node",
        "slow_follower_after_compaction",
        "snapshot_succeed_via_app_resp",
        "snapshot_succeed_via_app_resp_behind",
    }


ELECTED = """
nodes 1 2 3 pre_vote=off check_quorum=off

campaign 1
settle
"""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1 2: follower", r"1: role is leader, not follower"),
        ("2: term=1 lead=3 commit=1", r"2: lead is 1, not 3"),
        ("2: log=1x2", r"2: log is 1, not 1x2"),
        ("1: voters=1,2 learners=3", r"voters is 1,2,3, not 1,2; 1: learners is -, not 3"),
        ("1/2: probe match=1", r"state is replicate, not probe"),
        ("1/2: replicate match=2", r"match is 1, not 2"),
        ("1/4: replicate", r"state is absent, not replicate|there is no fact"),
        ("1>2: app", r"the mail is -, not app"),
        ("1: mood=good", r"there is no fact mood"),
        ("propose 1 a ! dropped", r"not refused \(dropped\)"),
        ("change 1 v2", r"refused: "),
        ("save 1", r"1 has nothing to save"),
        ("deliver 2", r"there is no such mail"),
        ("drop 2", r"there is no such mail"),
        ("dance 1", r"KeyError"),
    ],
)
def test_a_line_that_does_not_hold_is_reported_with_its_place(line: str, complaint: str) -> None:
    with pytest.raises(TranscriptFailed, match=complaint) as failed:
        run(ELECTED + line, "elected.txt")
    assert str(failed.value).startswith(f"elected.txt:6: {line}: ")


def test_mail_is_compared_in_its_order_and_in_detail() -> None:
    sent = ELECTED + "propose 1 a\nheartbeat 1\n"
    run(sent + "1>2: app(1+1) heartbeat(1)")
    for wrong in ("heartbeat app", "app", "app(1+1) heartbeat(0)", "app! heartbeat", "-"):
        with pytest.raises(TranscriptFailed, match=r"the mail is app\(1\+1\) heartbeat\(1\), not"):
            run(sent + f"1>2: {wrong}")
