"""Who the members are: what becomes of a list of members, and of SRV records."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import (
    Client,
    ClientClosed,
    Config,
    ConfigError,
    DiscoveryFailed,
    Endpoint,
    Member,
    SrvRecord,
)
from etcd_pinwheel.client.assembly import assemble
from etcd_pinwheel.client.connections import Connections, LinkState
from etcd_pinwheel.client.discovery import Discovery, choose_endpoints
from etcd_pinwheel.client.endpoints import Tls
from etcd_pinwheel.client.flow import AwaitChange, CallFailed, LookUp, Send
from etcd_pinwheel.client.roster import Roster
from etcd_pinwheel.client.srv import endpoints_of, srv_names
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import StatusResponse
from etcd_pinwheel.protos.rpcs import MAINTENANCE_STATUS

from .scripted import World


def member(*urls: str, name: str = "m", learner: bool = False) -> Member:
    return Member(id=1, name=name, peer_urls=(), client_urls=urls, learner=learner)


def chosen(known: Iterable[str], *found: Member) -> list[str]:
    return [each.url for each in choose_endpoints(found, [Endpoint(url) for url in known])]


@pytest.mark.parametrize(
    ("known", "found", "expected"),
    [
        (["a"], [member("http://a:2379"), member("http://b:2379")], ["a", "b"]),
        (["a"], [member("http://a:2379"), member("http://b:2379", learner=True)], ["a"]),
        (["a"], [member("http://a:2379"), member("http://b:2379", name="")], ["a"]),
        (["a"], [member("http://a:2379"), member()], ["a"]),
        (["x"], [member("http://a:2379")], ["a"]),
        # several addresses: the one that is known, else the first of the kind in use
        (["b"], [member("http://a:2379", "http://b:2379")], ["b"]),
        (["x"], [member("http://a:2379", "http://b:2379")], ["a"]),
        (["x"], [member("https://a:1", "http://b:2379")], ["b"]),
        (["https://x"], [member("http://a:2379", "https://b:2379")], ["https://b"]),
        (["http://y", "https://x"], [member("https://b", "http://a")], ["https://b"]),
        (["unix:///s"], [member("http://a:2379")], ["a"]),
        # never away from TLS, nor to what is no address
        (["https://x"], [member("http://a:2379")], []),
        (["a"], [member("ftp://c", "http://d/path", "http://b:2379")], ["b"]),
        # two members behind one address are one endpoint
        (["a"], [member("http://a:2379"), member("http://a:2379")], ["a"]),
        (["a"], [], []),
    ],
)
def test_which_addresses_are_chosen(
    known: list[str], found: list[Member], expected: list[str]
) -> None:
    assert chosen(known, *found) == [Endpoint(url).url for url in expected]


def test_known_endpoints_keep_their_tls_settings_and_new_ones_have_the_clients() -> None:
    own = Endpoint("https://a", Tls(server_name="one.example"))
    found = choose_endpoints([member("https://a:2379"), member("https://b:2379")], [own])
    assert found == (own, Endpoint("https://b"))


# SRV


def test_the_names_are_etcds() -> None:
    assert srv_names("example.com", None) == (
        "_etcd-client-ssl._tcp.example.com",
        "_etcd-client._tcp.example.com",
    )
    assert srv_names("example.com", "blue")[0] == "_etcd-client-ssl-blue._tcp.example.com"


PLACES = ("a.example:1", "b.example:1", "c.example:2379", "d.example:1")


def test_records_come_in_the_order_of_priority_and_weight() -> None:
    records = [
        SrvRecord("d.example.", 1, priority=2, weight=9),
        SrvRecord("b.example.", 1, priority=1, weight=1),
        SrvRecord("c.example.", 2379, priority=1, weight=1),
        SrvRecord("a.example.", 1, priority=1, weight=5),
    ]
    urls = [each.url for each in endpoints_of([], records)]
    assert urls == [f"http://{place}" for place in PLACES]


def test_what_is_on_both_lists_speaks_tls_and_what_is_no_address_is_left_out() -> None:
    one, two = SrvRecord("one.example", 2379), SrvRecord("two.example", 2379)
    nowhere = [SrvRecord(".", 0), SrvRecord("x.example", 0), SrvRecord(" ", 1)]
    urls = [each.url for each in endpoints_of([two, *nowhere], [one, two])]
    assert urls == ["https://two.example:2379", "http://one.example:2379"]


# The settings


def test_dns_or_a_list_but_not_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config(discovery_srv="example.com").endpoints == ()
    with pytest.raises(ConfigError, match="discovery_srv: endpoints are given, too"):
        Config(discovery_srv="example.com", endpoints=("a:1",))  # type: ignore[arg-type]
    monkeypatch.setenv("ETCD_PINWHEEL_DISCOVERY_SRV", "example.com")
    monkeypatch.setenv("ETCD_PINWHEEL_SYNC_INTERVAL", "30")
    assert Client("a").config.discovery_srv is None  # the argument goes before the environment
    assert Client().config.discovery_srv == "example.com"
    assert Client().config.sync_interval == 30
    path = tmp_path / "etcd.toml"
    path.write_text('endpoints = ["a"]')
    assert Client.from_toml(path).config.endpoints == ()
    made = Client().config
    assert Client("b", config=made).config.endpoints == (Endpoint("b"),)
    assert Client(config=made, timeout=1).config.discovery_srv == "example.com"
    monkeypatch.setenv("ETCD_PINWHEEL_SYNC_INTERVAL", "off")
    assert Client().config.sync_interval is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"discovery_srv": 7}, "discovery_srv"),
        ({"discovery_srv": "a", "discovery_srv_name": 7}, "discovery_srv_name"),
        ({"srv_resolver": "dns"}, "srv_resolver"),
        ({"sync_interval": 0}, "sync_interval"),
    ],
)
def test_settings_that_cannot_be_right(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert caught.value.field == field


def test_without_dnspython_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    with pytest.raises(ConfigError, match=r"dnspython .* pip install 'etcd-pinwheel\[srv\]'"):
        Client(discovery_srv="example.com")
    other = Client(discovery_srv="example.com", srv_resolver=lambda name: [])
    assert repr(other) == "<Client round_robin over endpoints yet to be found>"


# The flow, driven by hand


class Stage:
    """A discovery on a clock that the test sets."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        config = Config(srv_resolver=lambda name: [], **settings)
        self.world: Any = World()
        self.world.roster = self.roster = Roster(config)
        call = assemble(config, self.world)
        self.connections: Connections = self.world.connections
        self.discovery = Discovery(config, self.roster, call, Random(3), lambda: self.now)
        self.roster.begin(self.connections)


ONE, TWO = SrvRecord("one.example", 1), SrvRecord("two.example", 2)
ONE_URL, TWO_URL = "https://one.example:1", "http://two.example:2"


def test_dns_is_asked_until_it_knows_somebody_and_then_at_intervals() -> None:
    stage = Stage(discovery_srv="example.com", sync_interval=60, reconnect_backoff_max=1.0)
    assert "found yet" in stage.connections.reasons()["discovery_srv"]
    flow = stage.discovery.in_background()
    step = next(flow)
    rests = []
    for _ in range(4):
        assert isinstance(step, LookUp)
        step = flow.throw(OSError("no network"))
        assert "no network" in stage.connections.reasons()["discovery_srv"]
        assert isinstance(step, AwaitChange)
        assert step.seconds is not None
        rests.append(step.seconds)
        stage.now += step.seconds / 2
        assert isinstance(flow.send(None), AwaitChange)  # woken by something else
        stage.now += step.seconds
        step = flow.send(None)
    assert rests == [pytest.approx(each, rel=0.11) for each in (0.25, 0.5, 1, 1)]
    assert step == LookUp(step.resolver, "_etcd-client-ssl._tcp.example.com")
    assert flow.send([ONE])[1:] == ("_etcd-client._tcp.example.com",)
    step = flow.send([TWO])
    assert isinstance(step, AwaitChange)
    assert step.seconds == pytest.approx(60, rel=0.1)
    assert list(stage.connections.view()) == [ONE_URL, TWO_URL]
    stage.connections.close()
    with pytest.raises(StopIteration):
        flow.send(None)


def answer(flow: Any, answers: Iterable[Any]) -> None:
    """Play DNS to a flow."""
    next(flow)
    for each in answers:
        _ = flow.throw(each) if isinstance(each, OSError) else flow.send(each)


def test_one_list_that_cannot_be_had_and_no_answer_change_nothing() -> None:
    stage = Stage(discovery_srv="example.com")
    stage.roster.change("a:1", "set")
    for answers in (([ONE], OSError("timeout")), (OSError("timeout"), []), ([], [])):
        with pytest.raises(DiscoveryFailed, match=r"could not be looked up: timeout|no members of"):
            answer(stage.discovery.once(), answers)
        assert str(stage.roster) == "http://a:1"


@pytest.mark.parametrize(
    "oddly",
    [
        (0, 0, 2379, "10.0.0.1"),  # in the order of RFC 2782
        ("10.0.0.1",),
        ("10.0.0.1", None),
        ("10.0.0.1", "two"),
        ("10.0.0.1", 2379, 0, 0, "more"),
        (b"10.0.0.1", 2379),
        None,
    ],
)
def test_what_is_no_record_is_a_failure_of_discovery_and_dns_is_asked_again(oddly: Any) -> None:
    stage = Stage(discovery_srv="example.com")
    with pytest.raises(DiscoveryFailed, match=r"ssl.* could not be looked up: .* is no SrvRecord"):
        answer(stage.discovery.once(), [[ONE, oddly]])
    flow = stage.discovery.in_background()
    next(flow)
    step = flow.send([oddly])
    assert "is no SrvRecord" in stage.connections.reasons()["discovery_srv"]
    assert isinstance(step, AwaitChange)
    stage.now += 1
    assert isinstance(flow.send(None), LookUp)


def test_a_mistake_in_the_background_is_told_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(discovery_srv="example.com")
    flow = stage.discovery.in_background()
    next(flow)
    flow.send([])

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(stage.roster, "change", no_thread)
        assert isinstance(flow.send([TWO]), AwaitChange)
    assert "can't start new thread" in stage.connections.reasons()["discovery_srv"]
    stage.now += 1
    assert isinstance(flow.send(None), LookUp)
    flow.send([])
    with pytest.raises(StopIteration):
        flow.send([TWO])
    assert list(stage.connections.view()) == [TWO_URL]


def asking(stage: Stage) -> tuple[Any, Send]:
    """A client that is served at one address, and asks at the first of those that DNS says."""
    stage.roster.change("a:1", "set")
    stage.connections.link_changed(stage.connections.link("http://a:1"), LinkState.READY, "")
    stage.world.did.clear()
    flow = stage.discovery.once(timeout=2)
    next(flow)
    flow.send([ONE])
    step = flow.send([TWO])
    assert isinstance(step, Send)
    assert (step.rpc, step.timeout_seconds) == (MAINTENANCE_STATUS, pytest.approx(2, abs=0.5))
    return flow, step


NOBODY = CallFailed(Code.UNAVAILABLE, "connection refused")


def test_who_is_served_is_led_to_somebody_or_stays() -> None:
    stage = Stage(discovery_srv="example.com")
    flow, step = asking(stage)
    assert step.link.url == ONE_URL
    assert flow.throw(NOBODY).link.url == TWO_URL
    with pytest.raises(DiscoveryFailed) as caught:
        flow.throw(CallFailed(Code.DEADLINE_EXCEEDED, ""))
    assert str(caught.value).endswith(
        f"{ONE_URL}: connection refused; {TWO_URL}: DEADLINE_EXCEEDED"
    )
    assert str(stage.roster) == "http://a:1"
    assert stage.world.did == [
        (act, url) for url in (ONE_URL, TWO_URL) for act in ("open", "close")
    ]


@pytest.mark.parametrize("outcome", [StatusResponse(), CallFailed(Code.PERMISSION_DENIED, "")])
def test_one_who_answers_is_enough(outcome: Any) -> None:
    stage = Stage(discovery_srv="example.com")
    flow, _ = asking(stage)
    flow.throw(NOBODY)
    with pytest.raises(StopIteration):
        flow.throw(outcome) if isinstance(outcome, CallFailed) else flow.send(outcome)
    assert str(stage.roster) == f"{ONE_URL}, {TWO_URL}"


def test_closing_the_client_ends_the_asking() -> None:
    stage = Stage(discovery_srv="example.com")
    flow, _ = asking(stage)
    stage.connections.close()
    with pytest.raises(ClientClosed):
        flow.throw(NOBODY)


def test_a_client_with_tls_settings_is_not_talked_out_of_tls() -> None:
    stage = Stage(discovery_srv="example.com", server_name="example.com")
    flow = stage.discovery.once()
    next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send([ONE])
    assert stop.value.value == (Endpoint("https://one.example:1"),)


def test_without_an_interval_dns_is_asked_once() -> None:
    flow = Stage(discovery_srv="example.com").discovery.in_background()
    next(flow)
    flow.send([])
    with pytest.raises(StopIteration):
        flow.send([ONE])


def test_nothing_runs_unless_it_is_asked_for() -> None:
    assert not Stage().discovery.runs_by_itself
    assert Stage(sync_interval=1).discovery.runs_by_itself
    assert Stage(discovery_srv="example.com").discovery.runs_by_itself
