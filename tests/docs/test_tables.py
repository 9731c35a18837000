"""The tables of the pages for users are those of the code.

``python tests/docs/test_tables.py`` writes the flags of docs/server.md anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

import etcd_pinwheel
from etcd_pinwheel import Config
from etcd_pinwheel.balancers import HealthAwareOptions
from etcd_pinwheel.client.error_handler import ROUND_ROBIN_TABLE, Cause, Verdict
from etcd_pinwheel.client.health_aware import HEALTH_AWARE_TABLE
from etcd_pinwheel.client.pinned_tables import PINNED_MULTI_TABLE, PINNED_SINGLE_TABLE
from etcd_pinwheel.server_stub.config.flag import Fate
from etcd_pinwheel.server_stub.config.flags import FLAGS
from etcd_pinwheel.server_stub.local import LocalMember

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "docs" / "client.md"
SERVER = ROOT / "docs" / "server.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BEGIN, END = "<!-- flags: begin -->\n", "<!-- flags: end -->"


def rows_under(page: Path, head: str) -> list[list[str]]:
    """The cells of the table whose first column is called ``head``."""
    table = re.search(rf"^\| {head} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", page.read_text(), re.M)
    assert table, f"{page.name} has no table of {head}"
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table[1].splitlines()]


# The client

TYPES = {
    "tuple[Endpoint, ...]": "one or many strings, `Endpoint`s or tables",
    "str": "string",
    "str | Generation": "string or `Generation`",
    "str | None": "string",
    "Retry": "string",
    "float": "number",
    "float | None": "number or None",
    "int": "integer",
    "PathLike | bytes | None": "path or bytes",
    "SrvResolver | None": "callable",
    "Mapping[str, Any]": "table",
    "Mapping[str, ChannelArgument]": "table",
}


def test_settings() -> None:
    defaults = Config()
    expected = [
        [f"`{field.name}`", TYPES[str(field.type)], f"`{_default(defaults, field.name)}`"]
        for field in fields(Config)
    ]
    told = rows_under(CLIENT, "Setting")
    assert [[name, kind, default] for name, kind, _, default, _ in told] == expected
    in_seconds = {field.name for field in fields(Config) if "float" in str(field.type)}
    assert {name.strip("`") for name, _, unit, _, _ in told if unit == "seconds"} == in_seconds
    assert all(meaning for *_, meaning in told)


def _default(config: Config, name: str) -> str:
    if name == "endpoints":
        return ",".join(endpoint.url.removeprefix("http://") for endpoint in config.endpoints)
    return repr(getattr(config, name))


WORDS = {
    Verdict.RETRY: "tried again",
    Verdict.RETURN: "raised",
    Verdict.RETRY_ELSEWHERE: "tried elsewhere",
}


def test_verdicts() -> None:
    expected = [
        [f"`{cause.name.lower()}`", WORDS[repeatable], WORDS[other]]
        for cause, (repeatable, other) in ROUND_ROBIN_TABLE.rows.items()
    ]
    told = rows_under(CLIENT, "Cause")
    assert [[cause, repeatable, other] for cause, _, repeatable, other in told] == expected


def test_events() -> None:
    source = (ROOT / "client" / "events.py").read_text()
    emitted = re.findall(r'_(?:emit|report|tell)\(\s*"(\w+)",\s*"(\w+)"', source)
    expected = {f"`{name}`" + " (a warning)" * (level == "warning") for level, name in emitted}
    assert {event for event, _, _ in rows_under(CLIENT, "Event")} == expected


BALANCERS = ROOT / "docs" / "balancer.md"

SHORT = {
    Verdict.RETRY: "again",
    Verdict.RETURN: "raised",
    Verdict.RETRY_ELSEWHERE: "again elsewhere",
    Verdict.FAIL_OVER: "switch, again",
    Verdict.FAIL_OVER_AND_RETURN: "switch, raised",
}


def test_verdicts_of_the_policies() -> None:
    tables = (PINNED_MULTI_TABLE, PINNED_SINGLE_TABLE, ROUND_ROBIN_TABLE, HEALTH_AWARE_TABLE)

    def cell(row: tuple[Verdict, Verdict]) -> str:
        return " / ".join(dict.fromkeys(SHORT[verdict] for verdict in row))

    expected = [
        [f"`{cause.name.lower()}`", *(cell(table.rows[cause]) for table in tables)]
        for cause in Cause
    ]
    assert rows_under(BALANCERS, "Failure") == expected


def test_options_of_health_aware() -> None:
    told = rows_under(BALANCERS, "Option of `health_aware`")
    defaults = HealthAwareOptions()
    assert [(name, default) for name, default, _ in told] == [
        (f"`{option.name}`", f"`{getattr(defaults, option.name)}`") for option in fields(defaults)
    ]


def test_every_public_name_is_on_the_page() -> None:
    """Errors and the operations' results; what is made of them is said by their docstrings."""
    text = CLIENT.read_text()
    named = set(re.findall(r"\b[A-Z]\w+\b", text))
    left_out = {"EtcdError", "CallError", "Header", "Alarm", "Op"}
    missing = {
        name
        for name in dir(etcd_pinwheel)
        if isinstance(made := getattr(etcd_pinwheel, name), type)
        and made.__module__ == "etcd_pinwheel.client.errors"
        and name not in named | left_out
    }
    assert not missing


# The server


def flag_tables() -> str:
    """What becomes of every flag, in Markdown."""
    return "\n".join([*_served(), "", *_others(Fate.WITHOUT_EFFECT), "", *_others(Fate.REFUSED)])


def _served() -> Iterable[str]:
    yield "| Served | Default | Meaning |"
    yield "| --- | --- | --- |"
    for flag in FLAGS.values():
        if flag.fate is Fate.SERVED:
            default = flag.default or "''"
            yield f"| `{flag.name}` | `{default}` | {flag.help.replace('<', '&lt;')} |"


def _others(fate: Fate) -> Iterable[str]:
    yield f"| {_HEADS[fate]} | Why |"
    yield "| --- | --- |"
    flags = [flag for flag in FLAGS.values() if flag.fate is fate]
    for why in dict.fromkeys(flag.why for flag in flags):
        names = ", ".join(f"`{flag.name}`" for flag in flags if flag.why == why)
        yield f"| {names} | {why} |"


_HEADS = {Fate.WITHOUT_EFFECT: "Accepted without effect", Fate.REFUSED: "Refused"}


def test_flags() -> None:
    _, _, rest = SERVER.read_text().partition(BEGIN)
    told, end, _ = rest.partition(END)
    assert end
    assert told.strip() == flag_tables(), "run: python tests/docs/test_tables.py"


def test_no_flag_is_left_out() -> None:
    """The tables group flags; each must still be there once."""
    assert sorted(re.findall(r"`([a-z0-9-]+)`(?=[ ,])", _first_cells())) == sorted(FLAGS)


def _first_cells() -> str:
    return "\n".join(row.split("|")[1] for row in flag_tables().splitlines() if row)


def write_flags() -> None:
    """Put the tables into the page."""
    before, _, rest = SERVER.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    SERVER.write_text(f"{before}{BEGIN}\n{flag_tables()}\n\n{END}{after}")


@pytest.mark.process
def test_metrics() -> None:
    from urllib.request import urlopen

    with LocalMember() as member, urlopen(f"{member.client_url}/metrics") as reply:
        exposed = set(re.findall(r"^# TYPE (etcd_\w+)", reply.read().decode(), re.M))
    told = set(re.findall(r"`(etcd_\w+)`", SERVER.read_text()))
    assert told == {name for name in exposed if not name.endswith("_created")}


# All pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = unquote(target).partition("#")
        goal = page.parent / path if path else page
        assert goal.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(goal), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


if __name__ == "__main__":
    write_flags()
