"""The fixtures that users of the package get, tried in a pytest of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.process

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"
FILE = re.compile(r"^```python\n(# (\S+\.py)\n.*?)^```$", re.MULTILINE | re.DOTALL)
QUIET = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error")


def test_the_page_s_example_runs(pytester: pytest.Pytester) -> None:
    files = {name: code for code, name in FILE.findall(PAGE.read_text())}
    assert set(files) == {"test_jobs.py", "conftest.py"}
    for name, code in files.items():
        (pytester.path / name).write_text(code)
    pytester.runpytest_subprocess(*QUIET, "--strict-markers").assert_outcomes(passed=2)


def test_markers_make_the_members(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from etcd_pinwheel.server_stub.local import LocalMember

        pytestmark = pytest.mark.etcd_options("--max-txn-ops=10", size=2, partitions=True)

        def test_module(etcd_cluster):
            assert len(etcd_cluster) == 2
            assert etcd_cluster.bytes_sent(*etcd_cluster) > 0
            assert not isinstance(etcd_cluster[0], LocalMember)

        @pytest.mark.etcd_options("--max-request-bytes=1000", size=1, processes=True)
        class TestClass:
            def test_one(self, etcd_cluster):
                assert len(etcd_cluster) == 1
                member = etcd_cluster[0]
                assert isinstance(member, LocalMember)
                assert member.flags == ("--max-txn-ops=10", "--max-request-bytes=1000")

            def test_member(self, etcd_member):
                assert isinstance(etcd_member, LocalMember)
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=3)


def test_a_session_shares_its_members(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def etcd_session_options():
            return {"flags": ["--max-txn-ops=7"], "size": 1}
        """
    )
    pytester.makepyfile(
        """
        import pytest

        seen = []

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it(etcd_session_cluster, etcd_session_member, turn):
            assert etcd_session_cluster[0].flags == ("--max-txn-ops=7",)
            assert len(etcd_session_cluster) == 1
            seen.append((etcd_session_cluster.endpoints, etcd_session_member.endpoint))
            assert len(seen) == turn
            assert seen[0] == seen[-1]
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=2)


def test_the_plugin_costs_nothing_to_those_who_do_not_use_it() -> None:
    heavy = "{'asyncio', 'google.protobuf', 'grpc', 'lmdb', 'BTrees', 'ssl'}"
    program = (
        "import sys, pytest; before = set(sys.modules);"
        "import etcd_pinwheel.server_stub.local.pytest_plugin;"
        f"assert not {heavy} & (set(sys.modules) - before);"
        "assert len(set(sys.modules) - before) < 10, set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
