"""What users of other Python clients complain about most, held against this one.

Numbers are those of the list that the project keeps of them; the issues named are python-etcd3's
(kragniz/python-etcd3) unless another repository is. Watches and leases have a file of their own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import psutil
import pytest
import structlog

from etcd_pinwheel import (
    AsyncClient,
    Client,
    Endpoint,
    NotSent,
    ReplyTooLarge,
    TimedOut,
    Tls,
    prefix_end,
)
from etcd_pinwheel.client.backoff import Backoff
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

NOWHERE = "127.0.0.1:1"


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_complaint_3_several_endpoints(server: LocalMember, connect: Any) -> None:
    """No. 3 (#150, #103, #106, #1596, PR #2107): more than one endpoint, and any may be down."""
    etcd = connect([NOWHERE, server.endpoint])
    for _ in range(4):
        etcd.put("k", "v")
    assert etcd.get("k").version == 4


def test_complaint_4_it_can_be_imported() -> None:
    """No. 4 (#2709, #2242, #2000): importable with the protobuf that pip installs."""
    done = run_script("import google.protobuf, etcd_pinwheel; etcd_pinwheel.Client; print('ok')")
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_complaint_5_others_may_register_the_same_proto_files() -> None:
    """No. 5 (etcd-io/etcd#19106): another package's rpc.proto in the same process."""
    done = run_script(
        """
        from google.protobuf import descriptor_pb2, descriptor_pool
        for name, package in [("rpc.proto", "etcdserverpb"), ("kv.proto", "mvccpb")]:
            file = descriptor_pb2.FileDescriptorProto(name=name, package=package)
            file.message_type.add(name="KeyValue")
            file.message_type.add(name="RangeRequest")
            descriptor_pool.Default().Add(file)
        from etcd_pinwheel import Client
        from etcd_pinwheel.protos.etcdserverpb import RangeRequest
        print(RangeRequest(key=b"k").key)
        """
    )
    assert done.stdout == "b'k'\n", done.stderr


def test_complaint_7_an_error_when_etcd_is_down(connect: Any) -> None:
    """No. 7 (#88): no error when etcd is down; here a typed one, in time, that says why."""
    started = time.monotonic()
    with pytest.raises(NotSent, match=r"(?i)refused") as caught:
        connect([NOWHERE], timeout=0.5).get("k")
    assert time.monotonic() - started < 5
    assert isinstance(caught.value, ConnectionError)


def test_complaint_15_backoff_does_not_depend_on_what_tenacity_does_next() -> None:
    """No. 15 (#2149): locks broke with a newer tenacity. These numbers are what we promise."""

    class NoJitter:
        def uniform(self, low: float, high: float) -> float:
            return 0.0

    backoff = Backoff(NoJitter(), first_seconds=0.025, most_seconds=1.0)  # type: ignore[arg-type]
    waits = [backoff.seconds(round_) for round_ in range(1, 9)]
    assert waits == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_complaint_17_threads_share_a_client(server: LocalMember) -> None:
    """No. 17 (#224, gaopeiliang/aioetcd3#4): thread safety. (Fork: test_lifecycle.py.)"""
    wrong: list[BaseException] = []
    with Client([server.endpoint]) as etcd:

        def work(number: int) -> None:
            try:
                for round_ in range(25):
                    etcd.put(f"c/{number}", str(round_))
                    kv = etcd.get(f"c/{number}")
                    assert kv is not None
                    assert kv.value == str(round_).encode()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_complaint_18_clients_do_not_leak(server: LocalMember) -> None:
    """No. 18 (#291, #1411): threads and connections leaked with every client."""

    def held() -> tuple[int, int]:
        process = psutil.Process()
        return threading.active_count(), len(process.net_connections("tcp"))

    before = held()
    for _ in range(5):
        with Client([server.endpoint]) as etcd:
            etcd.get("k")
    latest = time.monotonic() + 10
    while held() > before and time.monotonic() < latest:
        time.sleep(0.01)
    assert held() <= before


def test_complaint_19_reconnecting_neither_spins_nor_floods_the_log() -> None:
    """No. 19 (#258, #152, lablup/backend.ai#10618): 100 % CPU, a log line every 10 ms."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture])
    try:
        before = time.process_time()
        with pytest.raises(NotSent), Client([NOWHERE, "127.0.0.1:2"], timeout=3.0) as etcd:
            etcd.put("k", "v")
        spent = time.process_time() - before
    finally:
        structlog.reset_defaults()
    assert spent < 1.5  # of 3 s: a spin takes all of them
    assert len(capture.entries) <= 4


def test_complaint_20_large_ranges(etcd: Any, server: LocalMember, connect: Any) -> None:
    """No. 20 (#1228, #1716): "Received message larger than max (… vs. 4194304)" on get_prefix."""
    for number in range(6):
        etcd.put(f"big/{number}", b"x" * 1_000_000)
    assert len(etcd.get_prefix("big/")) == 6  # no limit of 4 MiB
    read = [kv.key for page in etcd.pages("big/", prefix=True, page_size=2) for kv in page]
    assert len(read) == 6
    with pytest.raises(ReplyTooLarge):
        connect([server.endpoint], max_receive_bytes=4 * 2**20).get_prefix("big/")


async def test_complaint_21_asyncio(server: LocalMember) -> None:
    """No. 21 (#616, PR #1177, PR #2098): asyncio, with many calls at once."""
    async with AsyncClient([server.endpoint]) as etcd:
        await asyncio.gather(*(etcd.put(f"a/{n}", str(n)) for n in range(100)))
        assert await etcd.count("a/", prefix=True) == 100


def test_complaint_22_tls_is_set_per_endpoint() -> None:
    """No. 22 (martyanov/aetcd#37): TLS; each endpoint with a name of its own."""
    etcd = Client(
        [
            Endpoint("https://10.0.0.1:2379", Tls(server_name="one.example")),
            Endpoint("https://10.0.0.2:2379", Tls(server_name="two.example")),
        ]
    )
    names = [etcd.config.tls_of(endpoint) for endpoint in etcd.config.endpoints]
    assert [tls.server_name for tls in names if tls] == ["one.example", "two.example"]


def test_complaint_25_prefixes_that_end_in_0xff(etcd: Any) -> None:
    """No. 25 (PR #1647, lablup/etcetra#27): wrong range ends, so wrong keys."""
    inside = [b"ab\xff", b"ab\xff\x00", b"ab\xff\xff"]
    for key in [b"ab\xfe", *inside, b"ac", b"ac\xff", b"\xff\xff"]:
        etcd.put(key, "v")
    assert [kv.key for kv in etcd.get_prefix(b"ab\xff")] == inside
    assert prefix_end(b"ab\xff") == b"ac"
    assert [kv.key for kv in etcd.get_prefix(b"\xff")] == [b"\xff\xff"]
    assert etcd.delete_prefix(b"ab\xff").deleted == 3


def test_complaint_105_whether_it_is_connected_can_be_told(
    server: LocalMember, connect: Any
) -> None:
    """Also there (microsoft/etcd3#105): how to tell whether the client is connected."""
    etcd = connect([server.endpoint, NOWHERE])
    etcd.get("k")
    latest = time.monotonic() + 10
    while not etcd.endpoints[f"http://{NOWHERE}"].reason and time.monotonic() < latest:
        time.sleep(0.01)
    up, down = etcd.endpoints.values()
    assert (up.state.value, up.standing.eligible, up.reason) == ("ready", True, "")
    assert (down.state.value, down.standing.eligible) == ("failing", False)
    assert "refused" in down.reason.lower()


def test_complaint_111_every_call_has_a_deadline_and_may_have_its_own(
    own_server: LocalMember, connect: Any, paused: Any
) -> None:
    """Also there (microsoft/etcd3#111, #131): deadlines per call, and one by default."""
    etcd = connect([own_server.endpoint], timeout=0.4)
    etcd.put("k", "v", timeout=10)
    with paused(own_server):
        for own in ({}, {"timeout": 0.2}):
            started = time.monotonic()
            with pytest.raises(TimedOut):
                etcd.get("k", **own)
            assert time.monotonic() - started < 5
