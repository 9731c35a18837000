"""The demo shows what it says, and ends by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "examples" / "demo.py"
SAID = (
    "kept alive, 5 s at a time",
    "without a leader, then m",
    "back as a follower, with all that it missed",
    "is_learner=True",
    "a voter after",
    "of which the cluster lost 0",
    "0 missing, in order, none twice",
    "1.0 keeps a TCP connection to each endpoint",
)


@pytest.mark.process
@pytest.mark.slow
def test_the_demo() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(DEMO), "--faults", "kill-follower"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    for words in SAID:
        assert words in done.stdout
