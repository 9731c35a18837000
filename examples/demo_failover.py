"""Every balancing policy loses a member, and the claims about them are held against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from narration import say

ROOT = Path(__file__).resolve().parents[1]


def walk(faults: Sequence[str] = ()) -> None:
    """Run the benchmark's quick mode: in a process of its own, for it is no part of the package."""
    say("failover", "the policies side by side under load, while members fail: a minute or so")
    sys.stdout.flush()
    command = [sys.executable, "-m", "benchmarks.failover", "--quick"]
    if faults:
        command += ["--fault", *faults]
    subprocess.run(command, cwd=ROOT, check=True)
