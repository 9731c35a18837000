"""The plan of the house: who may name whom, what is where, and how long it may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "balancers", "protos", "server_stub")
MAY_NAME: dict[str, set[str]] = {
    "client": {"balancers", "protos"},
    "balancers": set(),
    "protos": set(),
    "server_stub": {"protos"},
}
# Inside the server: a part may name those listed (and itself).
GROUND = {"raft", "mvcc", "lease", "auth"}
SERVER_MAY_NAME: dict[str, set[str]] = {
    **{part: set() for part in (*GROUND, "config", "request_ids", "version", "logs")},
    "complaints": set(),
    "accepting": {"complaints"},
    "storage": GROUND,
    "cluster": GROUND,
    "apply": {*GROUND, "storage", "cluster"},
    "compactor": {"mvcc", "storage"},
    "replica": {"apply", "mvcc", "raft"},
    "consensus": {"raft", "replica", "storage"},
    "aftermath": {"member", "raft", "replica"},
    "entering": {"member", "raft"},
    "handover": {"member"},
    "reception": {"member", "peers", "raft"},
    "state_transfer": {"mvcc", "raft", "replica", "storage"},
    "reads": set(),
    "answers": set(),
    "leadership": {"lease"},
    "lease_duties": {"answers", "leadership", "lease", "peers"},
    "proposals": {"apply", "raft", "replica", "request_ids"},
    "boot": {
        *GROUND,
        "apply",
        "cluster",
        "config",
        "joining",
        "replica",
        "standalone",
        "state_transfer",
        "storage",
    },
    "joining": {"cluster", "config", "peers"},
    "restore": {"cluster", "config", "joining", "mvcc", "storage"},
    "standalone": {"cluster"},
    "learners": {"admission"},
    "learner_duties": {"apply", "config", "learners", "reconfiguration"},
    "admission": {"cluster"},
    "reconfiguration": {"admission", "answers", "apply", "cluster", "config", "peers"},
    "chores": {"compactor", "entering", "member", "replica", "storage"},
    "peers": {"accepting", "cluster", "complaints", "raft"},
    "member": {
        *("aftermath", "answers", "boot", "chores", "cluster", "compactor", "config", "consensus"),
        *("entering", "handover", "joining", "leadership", "learner_duties", "lease_duties"),
        *("peers", "proposals", "raft", "reads", "reception", "reconfiguration", "request_ids"),
        *("state_transfer", "storage", "tls"),
    },
    "api": {"apply", "member", "mvcc", "peers"},
    "front": {"accepting", "api.call"},
    "tls": {"config"},
    "server": {"accepting", "api", "config", "front", "member", "tls"},
    "process": {
        *("config", "joining", "logs", "member", "raft", "server", "standalone", "storage", "tls"),
    },
    "__main__": {"config", "process", "restore"},
    "local": {"accepting", "config", "peers", "server"},
    "__init__": set(),
}
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def modules_named_by(path: Path) -> Iterator[tuple[str, ...]]:
    """Every import of a module, as its path from the package's root."""
    here = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            stem = (*base, *(node.module.split(".") if node.module else ()))
            for name in node.names:
                yield (*stem, name.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield tuple(node.module.split("."))
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield tuple(name.name.split("."))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_names_only_those_below_it(room: str) -> None:
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != room:
            continue
        for target in modules_named_by(path):
            assert target[0] != "etcd_pinwheel", f"{path} imports absolutely within the package"
            assert target[0] not in {"tests", "benchmarks", "examples"}, f"{path} names {target}"
            if target[0] in ROOMS and target[0] != room:
                assert target[0] in MAY_NAME[room], f"{path} names {'.'.join(target)}"


def test_balancers_know_neither_grpc_nor_protobuf() -> None:
    for path in (ROOT / "balancers").rglob("*.py"):
        named = {target[0] for target in modules_named_by(path)}
        assert not named & {"grpc", "google", "asyncio", "threading", "time", "socket"}, path


def test_inside_the_server_arrows_point_down() -> None:
    for path in (ROOT / "server_stub").rglob("*.py"):
        parts = path.relative_to(ROOT / "server_stub").with_suffix("").parts
        allowed = SERVER_MAY_NAME[parts[0]] | {"version"}
        for target in modules_named_by(path):
            if target[0] != "server_stub" or len(target) < 2 or target[1] == parts[0]:
                continue
            assert target[1] in allowed or ".".join(target[1:3]) in allowed, (
                f"{path} names {'.'.join(target)}"
            )


@pytest.mark.parametrize("room", ROOMS)
def test_the_package_is_made_of_links(room: str) -> None:
    """A clone without symbolic links would build an empty wheel."""
    link = ROOT / "src" / "etcd_pinwheel" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room


def python_files() -> list[Path]:
    folders = (*ROOMS, "tests", "benchmarks", "examples")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    if path == ROOT / "protos" / "rpcs.py":  # a table, written by regenerate.py
        return
    assert text.count("\n") <= 500, "about 500 lines is the cap"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = (ast.get_docstring(node) or "").count("\n")
            length = (node.end_lineno or 0) - node.lineno + 1 - docstring
            assert length <= 70, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_named_for_their_noun(path: Path) -> None:
    assert not re.fullmatch(r"(utils?|helpers?|common|misc|managers?)\.py", path.name)


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "importlib mode needs it"
