"""Nothing is left behind: threads, tasks, sockets, processes, log lines."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from etcd_pinwheel import AsyncClient, Client, ClientClosed, NotSent, Refused, WrongEventLoop
from etcd_pinwheel.client import events
from etcd_pinwheel.client.events import Throttle
from etcd_pinwheel.server_stub.local import LocalMember

from .waiting import sockets, wait_until

pytestmark = pytest.mark.process

SCRIPT_SECONDS = 60


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
        check=False,
    )


def test_closing_leaves_no_thread_and_no_socket(server: LocalMember) -> None:
    before_threads, before_sockets = set(threading.enumerate()), sockets()
    clients = [Client([server.endpoint]) for _ in range(3)]
    for client in clients:
        client.put("k", "v")
    opened = sockets() - before_sockets
    assert opened
    for client in clients:
        client.close()
    assert wait_until(lambda: set(threading.enumerate()) <= before_threads)
    assert wait_until(lambda: not opened & sockets())


async def test_closing_leaves_no_task_and_no_socket(server: LocalMember) -> None:
    """But for the pair of its own that grpc.aio makes once, and 1.60 now and then anew."""
    first = AsyncClient([server.endpoint])
    await first.put("k", "v")
    await first.close()
    before_tasks, before_sockets = asyncio.all_tasks(), sockets()
    client = AsyncClient([server.endpoint, "127.0.0.1:1"])
    await client.put("k", "v")
    opened = {each for each in sockets() - before_sockets if each[2]}  # those that lead somewhere
    assert opened
    await client.close()
    assert asyncio.all_tasks() == before_tasks
    closed = await asyncio.to_thread(wait_until, lambda: not opened & sockets())
    assert closed  # by grpc, on a thread of its own


def test_closing_twice_and_using_after(server: LocalMember) -> None:
    with Client([server.endpoint]) as client:
        client.put("k", "v")
    client.close()
    with pytest.raises(ClientClosed):
        client.get("k")
    with pytest.raises(ClientClosed), client:
        pass


async def test_closing_twice_and_using_after_in_asyncio(server: LocalMember) -> None:
    async with AsyncClient([server.endpoint]) as client:
        await client.put("k", "v")
    await client.close()
    with pytest.raises(ClientClosed):
        await client.get("k")


def test_close_ends_calls_under_way(own_server: LocalMember, paused: Any) -> None:
    client = Client([own_server.endpoint, "127.0.0.1:1"])
    client.put("k", "v")
    with paused(own_server), ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.get, "k", timeout=60) for _ in range(4)]
        time.sleep(0.2)  # lets most of them be sent; those that are not are closed as well
        started = time.monotonic()
        client.close()
        for call in calls:
            with pytest.raises(ClientClosed):
                call.result()
        assert time.monotonic() - started < 10


async def test_close_ends_calls_under_way_in_asyncio(own_server: LocalMember, paused: Any) -> None:
    client = AsyncClient([own_server.endpoint, "127.0.0.1:1"])
    await client.put("k", "v")
    with paused(own_server):
        calls = [asyncio.create_task(client.get("k", timeout=60)) for _ in range(4)]
        await asyncio.sleep(0.2)
        await client.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, ClientClosed)


async def test_a_cancelled_call_is_cancelled(own_server: LocalMember, paused: Any) -> None:
    async with AsyncClient([own_server.endpoint]) as client:
        await client.put("k", "v")
        with paused(own_server), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.get("k", timeout=60)
        (view,) = client.endpoints.values()
        assert (view.calls, view.failures) == (2, 1)


def test_a_client_dropped_without_closing_warns_and_is_closed(server: LocalMember) -> None:
    before = set(threading.enumerate())
    client = Client([server.endpoint])
    client.put("k", "v")
    with pytest.warns(ResourceWarning, match="unclosed <Client"):  # noqa: PT031
        del client
        gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_an_async_client_belongs_to_one_loop(server: LocalMember) -> None:
    client = AsyncClient([server.endpoint])

    async def first() -> None:
        await client.put("k", "v")

    async def second() -> None:
        with pytest.raises(WrongEventLoop, match="another event loop"):
            await client.get("k")

    with asyncio.Runner() as runner:
        runner.run(first())
        asyncio.run(second())
        runner.run(client.close())


def test_many_threads_share_one_client(server: LocalMember) -> None:
    with Client([server.endpoint]) as client, ThreadPoolExecutor(16) as pool:

        def work(number: int) -> int:
            for round_ in range(20):
                client.put(f"t/{number}", str(round_))
            kv = client.get(f"t/{number}")
            assert kv is not None
            return kv.version

        assert list(pool.map(work, range(16))) == [20] * 16
        assert sum(view.calls for view in client.endpoints.values()) == 16 * 21


FORK = """
    import os, sys
    from etcd_pinwheel import Client, ClientForked
    client, unused = Client([sys.argv[1]]), Client([sys.argv[1]])
    client.put("k", "v")
    child = os.fork()
    if child == 0:
        with Client([sys.argv[1]]) as own:
            own.put("from", "child")
        try:
            client.get("k")
        except ClientForked as error:
            assert "create one in the child" in str(error)
            client.close()
            sys.exit(7)
        sys.exit(8)
    _, status = os.waitpid(child, 0)
    print("child", os.waitstatus_to_exitcode(status))
    print("parent", client.get("k").value, client.get("from").value)
    client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_and_the_parent_goes_on(server: LocalMember) -> None:
    done = run_script(FORK, server.endpoint)
    assert done.stdout.split("\n")[:2] == ["child 7", "parent b'v' b'child'"], done.stderr
    assert done.stderr == ""


FORK_BEFORE_USE = """
    import os, sys
    from etcd_pinwheel import Client
    client = Client([sys.argv[1]])
    child = os.fork()
    with client:
        client.put(f"child{child == 0}", "v")
    if child:
        _, status = os.waitpid(child, 0)
        print("child", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_client_not_used_before_the_fork_works_in_both(server: LocalMember) -> None:
    done = run_script(FORK_BEFORE_USE, server.endpoint)
    assert done.stdout == "child 0\n", done.stderr
    with Client([server.endpoint]) as client:
        assert client.count("child", prefix=True) == 2


INTERRUPTED = """
    import sys, time
    from etcd_pinwheel import Client
    client = Client([sys.argv[1]])
    if sys.argv[2] == "sent":
        client.put("k", "v")
    print("calling", flush=True)
    if sys.argv[2] == "sent":
        sys.stdin.readline()  # the server is paused now
        print("going", flush=True)
    try:
        client.get("k", timeout=60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    client.close()
"""


def interrupt(endpoint: str, where: str, before: Callable[[], None]) -> str:
    """Start a script that blocks in a call; send it what Ctrl-C sends; return its last words."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), endpoint, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "calling\n"
            before()
            if where == "sent":
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "going\n"
            time.sleep(0.5)  # so that it is likely inside the call; sooner is as good
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.stdout.readline()
            assert time.monotonic() - started < 10
            return said
        finally:
            process.kill()


def test_ctrl_c_interrupts_a_call_that_waits_for_a_connection() -> None:
    assert interrupt("127.0.0.1:1", "waiting", lambda: None) == "interrupted\n"


def test_ctrl_c_interrupts_a_call_that_waits_for_an_answer(own_server: LocalMember) -> None:
    said = interrupt(own_server.endpoint, "sent", own_server.pause)
    own_server.resume()
    assert said == "interrupted\n"


def test_the_library_is_silent(own_server: LocalMember) -> None:
    script = """
        import sys
        from etcd_pinwheel import Client, NotSent
        with Client([sys.argv[1], "127.0.0.1:1"]) as client:
            client.put("k", "v")
        try:
            with Client(["127.0.0.1:1"], timeout=0.5) as client:
                client.put("k", "v")
        except NotSent:
            pass
    """
    done = run_script(script, own_server.endpoint)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_client_that_is_never_closed_does_not_keep_the_process(server: LocalMember) -> None:
    script = """
        import sys
        from etcd_pinwheel import Client
        client = Client([sys.argv[1]])
        print(client.put("k", "v").prev_kv)
    """
    done = run_script(script, server.endpoint)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr


def test_events_are_logged_once_configured_and_throttled() -> None:
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture])
    try:
        with (
            pytest.raises(NotSent),
            Client(["127.0.0.1:1"], timeout=1.0, reconnect_backoff_max=0.05) as client,
        ):
            client.put("k", "v")
    finally:
        structlog.reset_defaults()
    failing = [entry for entry in capture.entries if entry["event"] == "endpoint_failing"]
    assert len(failing) == 1
    assert failing[0]["endpoint"] == "http://127.0.0.1:1"
    assert "refused" in failing[0]["reason"].lower()
    assert failing[0]["log_level"] == "warning"


def test_logging_that_fails_does_not_keep_a_client_from_connecting(
    server: LocalMember, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_throttle", Throttle(0.0))
    told: list[str] = []

    def fail(logger: Any, level: str, event: Any) -> Any:
        told.append(event["event"])
        raise OSError("the log is gone")

    structlog.configure(processors=[fail])
    try:
        assert connect([server.endpoint]).put("k", "v")
    finally:
        structlog.reset_defaults()
    assert "endpoint_connected" in told


def test_the_throttle_counts_what_it_keeps_back() -> None:
    throttle = Throttle(quiet_seconds=10.0)
    assert throttle.admit(("a",), now=0.0) == 0
    assert throttle.admit(("a",), now=1.0) is None
    assert throttle.admit(("b",), now=1.0) == 0
    assert throttle.admit(("a",), now=9.0) is None
    assert throttle.admit(("a",), now=10.0) == 2
    assert throttle.admit(("a",), now=11.0) is None


def test_events_of_a_library_nobody_configured_go_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not structlog.is_configured()
    events.Changes().link("http://silent:1", "connecting", "failing", "refused")
    assert capsys.readouterr() == ("", "")


def test_importing_the_server_does_not_import_the_client() -> None:
    script = """
        import sys
        import etcd_pinwheel.server_stub
        loaded = [name for name in sys.modules if name.startswith("etcd_pinwheel.client")]
        assert not loaded and "grpc" not in sys.modules, loaded
    """
    done = run_script(script)
    assert done.returncode == 0, done.stderr


def test_warnings_are_errors_here() -> None:
    """What the tests about unclosed clients rest on."""
    with pytest.raises(ResourceWarning):
        warnings.warn("unclosed", ResourceWarning, stacklevel=1)


def test_a_kept_error_does_not_keep_the_connection(server: LocalMember, connect: Any) -> None:
    first = connect([server.endpoint])  # grpc.aio makes a pair of sockets, once
    first.get("k")
    before = sockets()
    client = connect([server.endpoint])
    with pytest.raises(Refused) as caught:
        client.get("")
    opened = sockets() - before
    assert opened
    client.close()
    assert wait_until(lambda: not opened & sockets())
    assert caught.value.__cause__ is not None
