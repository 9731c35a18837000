"""``/livez`` and ``/readyz`` over a member in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inprocess.served import Served

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import TIMEOUT, Refused
from etcd_pinwheel.protos.etcdserverpb import CORRUPT, NOSPACE
from etcd_pinwheel.server_stub.api.probes import LIVEZ, READYZ
from etcd_pinwheel.server_stub.member import Member


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data") as served:
        yield served


async def ask(served: Served, path: str, **query: list[str]) -> tuple[int, str]:
    answer = await served.http(path, **query)
    assert answer.content_type.startswith("text/plain")
    return answer.status, answer.body.decode()


async def test_a_member_that_is_well(served: Served) -> None:
    for probe, checks in (("/livez", LIVEZ), ("/readyz", READYZ)):
        assert await ask(served, probe) == (200, "ok\n")
        every = "".join(f"[+]{check} ok\n" for check in checks)
        assert await ask(served, probe, verbose=[""]) == (200, every + "ok\n")
        for check in checks:
            assert await ask(served, f"{probe}/{check}") == (200, "ok\n")
            told = await ask(served, f"{probe}/{check}", verbose=[""])
            assert told == (200, f"[+]{check} ok\nok\n")
    assert "/livez/linearizable_read" not in served.routes
    assert (await served.http("/livez", method="POST")).status == 405


async def test_corruption_is_no_reason_for_a_restart(served: Served) -> None:
    await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=NOSPACE)
    assert (await ask(served, "/readyz"))[0] == 200, "reads and deletions go on"
    await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=CORRUPT)
    failed = "[-]data_corruption failed: alarm activated: CORRUPT\n"
    status, told = await ask(served, "/readyz")
    assert (status, told.splitlines()[0] + "\n") == (503, failed)
    assert "[+]linearizable_read ok\n" in told, "what fails is told with everything else"
    assert await ask(served, "/readyz/data_corruption") == (503, failed + "\n")
    assert await ask(served, "/readyz", exclude=["data_corruption"]) == (200, "ok\n")
    assert (await ask(served, "/livez"))[0] == 200


async def test_without_a_leader_a_member_lives_but_is_not_ready(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise Refused(TIMEOUT)

    monkeypatch.setattr(served.member, "read_barrier", refuse)
    assert await ask(served, "/livez") == (200, "ok\n")
    status, told = await ask(served, "/readyz")
    assert status == 503
    assert f"[-]linearizable_read failed: {TIMEOUT.text}\n" in told
    excluded = ["linearizable_read", "data_corruption"]
    told = (await ask(served, "/readyz", exclude=excluded, verbose=[""]))[1]
    assert told == "[+]serializable_read ok\n[+]non_learner ok\nok\n"


async def test_a_learner_is_not_ready(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "is_learner", property(lambda member: True))
    status, told = await ask(served, "/readyz")
    assert (status, "[-]non_learner failed: not supported for learner\n" in told) == (503, True)
    assert (await ask(served, "/livez"))[0] == 200


async def test_a_member_that_has_failed(served: Served) -> None:
    served.member.consensus.fail(OSError("no disk"))
    assert (await ask(served, "/livez"))[0] == 503


async def test_checks_are_counted(served: Served) -> None:
    await ask(served, "/readyz")
    await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=CORRUPT)
    await ask(served, "/readyz")
    metrics = (await served.http("/metrics")).body.decode()
    check = 'name="data_corruption"'
    assert f'etcd_server_healthcheck{{{check},type="readyz"}} 0.0' in metrics
    for status in ("success", "error"):
        labels = f'{check},status="{status}",type="readyz"'
        assert f"etcd_server_healthchecks_total{{{labels}}} 1.0" in metrics
