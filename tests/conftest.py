"""What all tests share."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `consistency`, which no package holds

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As of whatever a shell starts in the background; the programs of tests would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say with which of the promised versions a run was."""
    packages = ("grpcio", "protobuf", "structlog", "tenacity")
    return ", ".join(f"{package} {version(package)}" for package in packages)
