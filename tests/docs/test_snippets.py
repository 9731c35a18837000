"""The examples of the pages for users are run, as they stand there.

A line ``expression  # -> value`` says what the expression is, and is held to it. A block that
begins with ``# name.ext`` is the file of that name. Everything else runs in the page's order.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import LocalMember

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/client.md", "docs/balancer.md", "docs/server.md", "docs/testing.md")

BLOCK = re.compile(r"^```(python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.\w+)\n")
CLAIM = re.compile(r"^(\s*)(\S.*?)  # -> (.+)$", re.MULTILINE)
ADDRESSES = re.compile(r'\["10\.0\.0\.1:2379"[^]]*\]|"127\.0\.0\.1:2379"')


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with LocalMember() as member:
        yield member.endpoint


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to run a page in, whose modules and entry points are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in {str(p) for p in tmp_path.iterdir()}:
            del sys.modules[name]


@pytest.mark.process
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, endpoint: str, workplace: Path) -> None:
    with Client(endpoint) as etcd:
        etcd.delete("", prefix=True)
        names: dict[str, Any] = {"etcd": etcd, "__name__": "example"}
        for line, code in programs(page, workplace):
            exec(compile("\n" * line + with_claims(code, endpoint), page, "exec"), names)


def programs(page: str, workplace: Path) -> Iterator[tuple[int, str]]:
    """The blocks of a page that are to be run, each with its line; files are put in place."""
    text = (ROOT / page).read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks or "```" not in text
    for block in blocks:
        language, code = block.groups()
        if name := FILE_NAME.match(code):
            (workplace / name[1]).write_text(code)
            install_entry_points(workplace)
        else:
            assert language == "python", f"{page}: a TOML example needs a file's name"
            yield text.count("\n", 0, block.start(2)), code


def with_claims(code: str, endpoint: str) -> str:
    """The code with the member's endpoint in place, and its claims made into assertions."""
    code = ADDRESSES.sub(f'"{endpoint}"', code)
    return CLAIM.sub(r"\1assert (\2) == (\3), (\2)", code)


def install_entry_points(workplace: Path) -> None:
    """Do for a page's pyproject.toml what installing the package would do."""
    project = workplace / "pyproject.toml"
    if not project.exists():
        return
    groups = tomllib.loads(project.read_text())["project"]["entry-points"]
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    metadata = workplace / "example-0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def test_a_false_claim_is_found() -> None:
    exec(with_claims("1 + 1  # -> 2", ""))
    with pytest.raises(AssertionError):
        exec(with_claims("1 + 1  # -> 3", ""))


def test_claims_are_made() -> None:
    """A page whose claims are no longer recognised would pass in silence."""
    claims = {page: len(CLAIM.findall((ROOT / page).read_text())) for page in PAGES}
    assert claims["docs/client.md"] > 10
    assert claims["README.md"] >= 2
    assert claims["docs/balancer.md"] >= 1
