"""The exact signatures are visible to type checkers on both faces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = Path(__file__).with_name("typing_of_both_faces.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mypy_sees_the_signatures() -> None:
    """A signature that became Any would leave the file's ``type: ignore`` unused: an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", str(CHECKED)],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pyright_sees_the_signatures() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", str(CHECKED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] >= 1
    assert [
        entry["message"]
        for entry in report["generalDiagnostics"]
        if entry["severity"] == "error" and entry["file"].endswith(CHECKED.name)
    ] == []
