"""What all tests share."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `consistency`, which no package holds

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As of whatever a shell starts in the background; the programs of tests would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whether an example is quick says something about the machine, and nothing about the product
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_report_header() -> str:
    """Say with which of the promised versions a run was."""
    packages = ("grpcio", "protobuf", "structlog", "tenacity")
    return ", ".join(f"{package} {version(package)}" for package in packages)
