"""The examples do what they say, against both servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcd_pinwheel import Config
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"

SAID = {
    "first_steps.py": ["b'red' since", "b'fruit/lemon' = b'yellow'", "deleted 2", "gone: True"],
    "compare_and_swap.py": ["1\n2\n3\n"],
    "what_went_wrong.py": ["certainly not written:"],
    "asyncio_pages.py": ["100 keys of 250", "50 keys of 50"],
}


@pytest.mark.parametrize("example", SAID)
def test_example(example: str, server: LocalMember) -> None:
    environ = {**os.environ, "ETCD_PINWHEEL_ENDPOINTS": server.endpoint}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    for words in SAID[example]:
        assert words in done.stdout


def test_the_example_of_a_file() -> None:
    config = Config.from_toml(EXAMPLES / "client.toml")
    assert config.timeout == 3.0
    assert [endpoint.url for endpoint in config.endpoints] == ["http://127.0.0.1:2379"]
