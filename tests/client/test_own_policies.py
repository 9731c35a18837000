"""Policies of one's own: by object and by entry point, and what is wrong with some."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

import etcd_pinwheel
from etcd_pinwheel import AsyncClient, Client, Config, ConfigError, Generation
from etcd_pinwheel.balancers.round_robin import RoundRobin
from etcd_pinwheel.client import generations
from etcd_pinwheel.client.generations import BUILT_IN, ROUND_ROBIN_TABLE, Cause, QuorumBackoff


class Rotation(RoundRobin):
    """A policy with an option."""

    def __init__(self, random: Random, options: Mapping[str, Any]) -> None:
        super().__init__(random)
        if set(options) - {"speed"}:
            raise ValueError(f"rotation has no option {min(options)!r}; there are: speed")
        if not isinstance(options.get("speed", 1), int):
            raise TypeError(f"speed: a number is needed, not {options['speed']!r}")


ROTATION = Generation(Rotation, ROUND_ROBIN_TABLE, QuorumBackoff)
FACES = pytest.mark.parametrize("face", [Client, AsyncClient])


@FACES
@pytest.mark.parametrize("given", ["argument", "mapping", "config"])
def test_a_policy_is_taken_as_an_object(face: Any, given: str) -> None:
    if given == "argument":
        etcd = face("127.0.0.1:1", balancer=ROTATION)
    elif given == "mapping":
        etcd = face("127.0.0.1:1", config={"balancer": ROTATION})
    else:
        etcd = face("127.0.0.1:1", config=Config(balancer=ROTATION))
    assert etcd.config.balancer is ROTATION
    assert isinstance(etcd._call.connections._balancer, Rotation)


@FACES
def test_each_client_has_a_balancer_of_its_own(face: Any) -> None:
    one, other = (face("127.0.0.1:1", balancer=ROTATION) for _ in range(2))
    assert one._call.connections._balancer is not other._call.connections._balancer


@dataclass(frozen=True)
class Point:
    """An entry point, as packaging makes one."""

    name: str
    target: object

    def load(self) -> object:
        return self.target


@FACES
def test_an_entry_point_gives_a_policy_its_name(face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("rotation", ROTATION), Point("no_policy", Rotation)]
    monkeypatch.setattr(generations, "entry_points", lambda group: points)
    named = face("127.0.0.1:1", balancer="rotation")
    assert isinstance(named._call.connections._balancer, Rotation)
    with pytest.raises(ConfigError, match="'no_policy' does not name a Generation"):
        face("127.0.0.1:1", balancer="no_policy")
    with pytest.raises(ConfigError, match=r"no policy is called 'wheel'; .*, rotation, "):
        face("127.0.0.1:1", balancer="wheel")


@FACES
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"spede": 1}, "rotation has no option 'spede'; there are: speed"),
        ({"speed": "x"}, "speed: a number is needed, not 'x'"),
    ],
)
def test_options_are_checked_by_the_policy(
    face: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        face("127.0.0.1:1", balancer=ROTATION, balancer_options=options)
    assert caught.value.field == "balancer_options"
    face("127.0.0.1:1", balancer=ROTATION, balancer_options={"speed": 2})


@FACES
@pytest.mark.parametrize("balancer", [Rotation, Rotation(Random(0), {}), 5, None, ["round_robin"]])
def test_what_is_neither_a_name_nor_a_generation(face: Any, balancer: Any) -> None:
    with pytest.raises(ConfigError, match="the name of a policy or a Generation is needed"):
        face("127.0.0.1:1", balancer=balancer)


def test_in_a_file_it_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text("balancer = 5\n")
    with pytest.raises(ConfigError, match="the name of a policy") as caught:
        Config.from_toml(path)
    assert caught.value.field == "balancer"
    path.write_text('balancer = "health_aware"\n')
    assert Config.from_toml(path).balancer == "health_aware"
    assert Config.from_environment({"ETCD_PINWHEEL_BALANCER": "x"}).balancer == "x"


def test_what_builds_no_balancer_is_told_at_once() -> None:
    class Half:
        def __init__(self, random: Random, options: Mapping[str, Any]) -> None:
            pass

        def update(self, event: object, now: float) -> tuple[()]:
            return ()

    halved = replace(ROTATION, balancer=Half)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="balancer: Half builds no balancer: pick is missing"):
        Client("127.0.0.1:1", balancer=halved)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"balancer": 5}, "balancer"),
        ({"retry_rule": None}, "retry_rule"),
        ({"table": {}}, "table"),
        (
            {"table": replace(ROUND_ROBIN_TABLE, rows={Cause.BROKEN: (None, None)})},
            "table",
        ),
        ({"first_attempt_share": 0}, "first_attempt_share"),
        ({"first_attempt_share": 1.1}, "first_attempt_share"),
        ({"first_attempt_share": True}, "first_attempt_share"),
        ({"first_attempt_share": float("nan")}, "first_attempt_share"),
        ({"first_attempt_share": "half"}, "first_attempt_share"),
    ],
)
def test_a_generation_that_cannot_be_right_names_its_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(ROTATION, **changes)
    assert caught.value.field == field


def test_for_people_it_is_called_as_its_balancer_or_as_it_says() -> None:
    assert (str(ROTATION), repr(ROTATION)) == ("Rotation", "<Generation Rotation>")
    assert str(replace(ROTATION, name="my policy")) == "my policy"
    assert {name: str(each) for name, each in BUILT_IN.items()} == {name: name for name in BUILT_IN}
    assert repr(Client("a:1", balancer=ROTATION)) == "<Client Rotation over http://a:1>"
    assert repr(AsyncClient("a:1", balancer="health_aware")).startswith(
        "<AsyncClient health_aware "
    )


def test_public_names_are_there() -> None:
    assert etcd_pinwheel.Generation is Generation
    for name in generations.__all__:
        assert getattr(generations, name) is not None


def test_a_config_with_a_name_loads_no_policy() -> None:
    """They bring tenacity, which only a client needs."""
    code = (
        "import sys; from etcd_pinwheel import Config; Config(balancer='health_aware');"
        "assert not {'tenacity', 'etcd_pinwheel.client.generations'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
