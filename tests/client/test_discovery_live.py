"""Both clients find their endpoints, on both servers, and from a name server of the test's own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest

from etcd_pinwheel import AsyncClient, Client, DiscoveryFailed, NotSent, SrvRecord
from etcd_pinwheel.client.srv import dns_resolver
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

from .conftest import BINARIES
from .waiting import wait_until

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
SOON = 20.0


def url_of(server: LocalMember) -> str:
    return f"http://{server.endpoint}"


def srv_of(server: LocalMember) -> SrvRecord:
    host, _, port = server.endpoint.rpartition(":")
    return SrvRecord(host, int(port))


def failures_told(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the background has reported of its failures."""
    return [each for each in logged if each["event"] == "endpoints_sync_failed"]


# From the members


def test_members_that_serve_become_the_endpoints(own_server: LocalMember, connect: Connect) -> None:
    with FaultProxy(own_server.endpoint) as proxy:
        client = connect(proxy.endpoint)
        client.members.add_learner(["http://127.0.0.1:1"], timeout=SOON)
        with client.watch("k") as watch:
            (found,) = client.sync_endpoints(timeout=SOON)
            assert found.url == url_of(own_server)
            assert list(client.endpoints) == [found.url]
            client.put("k", "v", timeout=SOON)
            assert watch.next_event(SOON).value == b"v"
        assert client.sync_endpoints() == (found,)


def test_nobody_who_could_be_used_changes_nothing(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.endpoint)
    client.put("k", "v")
    client.set_endpoints(["https://127.0.0.1:1"])
    with pytest.raises(NotSent):
        client.sync_endpoints(timeout=0.3)
    assert list(client.endpoints) == ["https://127.0.0.1:1"]


@pytest.fixture
def advertising(make: str) -> Iterator[Callable[[str], LocalMember]]:
    """Starts a member that advertises this address of clients, wherever it really listens."""
    with ExitStack() as stack:

        def start(url: str) -> LocalMember:
            flags = ("--unsafe-no-fsync", f"--advertise-client-urls={url}")
            return stack.enter_context(LocalMember(*flags, binary=BINARIES[make]))

        yield start


def test_a_client_is_not_led_away_to_where_nobody_is(
    advertising: Callable[[str], LocalMember], connect: Connect
) -> None:
    member = advertising("http://127.0.0.1:1")
    client = connect(member.endpoint)
    with client.watch("k") as watch:
        with pytest.raises(DiscoveryFailed, match=r"http://127.0.0.1:1: .*[Cc]onnect"):
            client.sync_endpoints()
        assert list(client.endpoints) == [url_of(member)]
        client.put("k", "v")
        assert watch.next_event(SOON).value == b"v"


def test_a_client_is_not_led_away_to_another_cluster(
    server: LocalMember, advertising: Callable[[str], LocalMember], connect: Connect
) -> None:
    """As by members in containers that say ``localhost``, where somebody has one of his own."""
    member = advertising(url_of(server))
    client = connect(member.endpoint)
    with pytest.raises(DiscoveryFailed, match="a member of another cluster"):
        client.sync_endpoints()
    assert list(client.endpoints) == [url_of(member)]


def test_the_background_leads_nobody_away_either(
    advertising: Callable[[str], LocalMember], connect: Connect, logged: list[dict[str, Any]]
) -> None:
    client = connect(advertising("http://127.0.0.1:1").endpoint, sync_interval=0.05)
    client.put("k", "v")
    assert wait_until(lambda: failures_told(logged)[1:], SOON)
    assert "do not lead to them" in failures_told(logged)[0]["reason"]
    client.put("k", "v")


def test_it_is_repeated_in_the_background(
    proxy: FaultProxy, server: LocalMember, connect: Connect
) -> None:
    client = connect(proxy.endpoint, sync_interval=0.1)
    client.put("k", "v")
    assert wait_until(lambda: list(client.endpoints) == [url_of(server)], SOON)
    client.set_endpoints(proxy.endpoint)
    assert wait_until(lambda: list(client.endpoints) == [url_of(server)], SOON)


def test_failures_are_told_and_change_nothing(
    logged: list[dict[str, Any]], connect: Connect
) -> None:
    client = connect("127.0.0.1:1", sync_interval=0.05, timeout=0.05)
    with pytest.raises(NotSent):
        client.get("k")
    assert wait_until(lambda: len(failures_told(logged)) > 2, SOON)
    assert "no endpoint could be reached" in failures_told(logged)[0]["reason"]
    assert list(client.endpoints) == ["http://127.0.0.1:1"]


def test_closing_ends_it(server: LocalMember) -> None:
    before = set(threading.enumerate())
    for endpoint in (server.endpoint, "127.0.0.1:1"):
        with Client(endpoint, sync_interval=0.05):
            pass
        assert wait_until(lambda: set(threading.enumerate()) <= before, SOON)


async def test_closing_ends_it_in_asyncio(server: LocalMember) -> None:
    before = asyncio.all_tasks()
    for endpoint in (server.endpoint, "127.0.0.1:1"):
        async with AsyncClient(endpoint, sync_interval=0.05):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


def test_closing_does_not_wait_for_a_resolver(connect: Connect) -> None:
    asked, answering = threading.Semaphore(0), threading.Event()
    names: list[str] = []

    def resolve(name: str) -> list[SrvRecord]:
        names.append(name)
        asked.release()
        answering.wait(SOON)
        return []

    before = set(threading.enumerate())
    client = connect(discovery_srv="example.com", srv_resolver=resolve)
    with pytest.raises(NotSent):
        client.get("k", timeout=0.05)
    assert asked.acquire(timeout=SOON)
    client.close()
    assert not answering.is_set()
    answering.set()
    left = [each for each in set(threading.enumerate()) - before if "asyncio" not in each.name]
    assert wait_until(lambda: not any(thread.is_alive() for thread in left), SOON)
    assert len(names) == 1, "the second list is not asked for any more"


async def test_a_client_that_is_dropped_leaves_nothing_that_looks_for_endpoints(
    server: LocalMember,
) -> None:
    before_threads, before_tasks = set(threading.enumerate()), asyncio.all_tasks()

    def drop(face: type[Client | AsyncClient]) -> None:
        client: Any = face(srv_resolver=lambda name: [], discovery_srv="example.com")
        client._world.begin()

    for face in (Client, AsyncClient):
        with pytest.warns(ResourceWarning, match="unclosed"):
            drop(face)
    async with asyncio.timeout(SOON):
        while asyncio.all_tasks() != before_tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert wait_until(
        lambda: all("asyncio" in t.name for t in set(threading.enumerate()) - before_threads), SOON
    )


# From DNS


def test_calls_wait_until_dns_knows_somebody(server: LocalMember, connect: Connect) -> None:
    answers = iter([OSError("no network"), [], [], OSError("no network")])

    def resolve(name: str) -> list[SrvRecord]:
        answer = next(answers, [srv_of(server)] if "ssl" not in name else [])
        if isinstance(answer, OSError):
            raise answer
        return answer

    client = connect(discovery_srv="example.com", srv_resolver=resolve)
    client.put("k", "v", timeout=SOON)
    assert list(client.endpoints) == [url_of(server)]


def test_the_error_says_what_dns_said(connect: Connect) -> None:
    client = connect(discovery_srv="example.com", srv_resolver=lambda name: [])
    with pytest.raises(NotSent) as caught:
        client.get("k", timeout=0.5)
    assert "DNS knows no members of example.com" in caught.value.reasons["discovery_srv"]
    with pytest.raises(DiscoveryFailed):
        client.sync_endpoints()


def test_dns_is_asked_again(proxy: FaultProxy, server: LocalMember, connect: Connect) -> None:
    host, _, port = proxy.endpoint.rpartition(":")
    known = [SrvRecord(host, int(port))]
    client = connect(
        discovery_srv="example.com",
        srv_resolver=lambda name: [] if "ssl" in name else list(known),
        sync_interval=0.1,
    )
    with client.watch("k") as watch:
        assert list(client.endpoints) == [f"http://{proxy.endpoint}"]
        known[:] = [srv_of(server)]
        assert wait_until(lambda: list(client.endpoints) == [url_of(server)], SOON)
        client.put("k", "v")
        assert watch.next_event(SOON).value == b"v"


class NameServer:
    """Answers questions for SRV records over UDP, and knows nothing else."""

    def __init__(self, zone: dict[str, list[str]]) -> None:
        self._zone = zone
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.address: tuple[str, int] = self._socket.getsockname()

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            datagram, asker = self._socket.recvfrom(4096)
            if not datagram:
                return
            question = dns.message.from_wire(datagram)
            answer = dns.message.make_response(question)
            name = question.question[0].name
            records = self._zone.get(name.to_text())
            if records is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif records == ["broken"]:
                answer.set_rcode(dns.rcode.SERVFAIL)
            elif records:
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *records))
            self._socket.sendto(answer.to_wire(), asker)


def test_a_name_server_is_asked(server: LocalMember, connect: Connect) -> None:
    port = server.endpoint.rpartition(":")[2]
    zone = {
        "_etcd-client._tcp.example.com.": [f"1 5 {port} localhost.", "0 7 1 127.0.0.1."],
        "_etcd-client-ssl._tcp.broken.example.": ["broken"],
        "_etcd-client-ssl._tcp.empty.example.": [],
    }
    with NameServer(zone) as name_server:
        resolve = dns_resolver(5.0, name_server.address)
        assert sorted(resolve("_etcd-client._tcp.example.com")) == [
            SrvRecord("127.0.0.1.", 1, 0, 7),
            SrvRecord("localhost.", int(port), 1, 5),
        ]
        client = connect(discovery_srv="example.com", srv_resolver=resolve)
        client.put("k", "v", timeout=SOON)
        assert list(client.endpoints) == ["http://127.0.0.1:1", f"http://localhost:{port}"]
        for domain, problem in (("empty.example", "no members"), ("broken.example", "looked up")):
            lost = connect(
                discovery_srv=domain, srv_resolver=dns_resolver(0.5, name_server.address)
            )
            with pytest.raises(DiscoveryFailed, match=problem):
                lost.sync_endpoints()
