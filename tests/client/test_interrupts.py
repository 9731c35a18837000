"""Ctrl-C in a thread that is inside grpc: it ends the call, and no lock stays taken."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from etcd_pinwheel.client import interrupts
from etcd_pinwheel.client.interrupts import interruptible
from etcd_pinwheel.server_stub.local import LocalMember

SOON = 30.0

interrupt = partial(signal.raise_signal, signal.SIGINT)


@pytest.fixture(autouse=True)
def as_python_has_it() -> Iterator[None]:
    """What handles SIGINT in a program that has not said anything about it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def lock(
    taken: Callable[[], object] = lambda: None, given_back: Callable[[], object] = lambda: None
) -> threading.Condition:
    """A condition that calls something just when its lock changes hands."""
    ends = {"__enter__": taken, "__exit__": lambda *error: given_back()}
    return threading.Condition(SimpleNamespace(acquire=taken, release=given_back, **ends))  # type: ignore[arg-type]


def test_it_ends_a_call_at_once() -> None:
    reached: list[str] = []

    def call() -> None:
        interrupt()
        reached.append("behind")

    with pytest.raises(KeyboardInterrupt):
        interruptible(call)
    assert reached == []


def test_it_waits_while_a_lock_is_taken_and_then_ends_the_call() -> None:
    told: list[str] = []

    def call() -> None:
        with lock(taken=interrupt, given_back=lambda: told.append("given back")):
            told.append("taken")

    with pytest.raises(KeyboardInterrupt):
        interruptible(call)
    assert told == ["taken", "given back"]


def test_it_comes_again_where_the_call_goes_on_to_wait() -> None:
    def call() -> None:
        with lock(taken=interrupt):
            pass
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        interruptible(call)


def test_it_comes_once() -> None:
    def call() -> None:
        with lock(taken=interrupt):
            pass

    with pytest.raises(KeyboardInterrupt):
        interruptible(call)
    interrupts._interrupt_again()  # what may still be on its way finds that it was told
    assert interruptible(lambda: "an answer") == "an answer"


def test_an_application_that_handles_it_is_left_alone() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        interruptible(interrupt)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [signal.SIGINT]


def test_other_threads_are_none_of_its_business() -> None:
    found: list[object] = []
    asked = threading.Thread(
        target=lambda: found.append(interruptible(lambda: signal.getsignal(signal.SIGINT)))
    )
    asked.start()
    asked.join()
    assert found == [signal.default_int_handler]


FORK = """
    import os, signal, sys, threading
    from etcd_pinwheel.client.interrupts import interruptible

    def handler():
        return interruptible(lambda: signal.getsignal(signal.SIGINT))

    def fork():
        assert handler() is signal.default_int_handler  # not the main thread's business
        child = os.fork()
        if not child:
            os._exit(0 if handler() is not signal.default_int_handler else 7)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_whoever_forks_is_the_main_thread_of_the_child() -> None:
    program = [sys.executable, "-c", textwrap.dedent(FORK)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=SOON, check=False)
    assert done.stdout == "child 0\n", done.stderr


CALLS = """
    import sys
    from etcd_pinwheel import Client
    client = Client([sys.argv[1]])
    watch = client.watch("w")
    try:
        print("calling", flush=True)
        while True:
            client.put("w", "x")
            client.get("w")
    except KeyboardInterrupt:
        client.close()
        print("closed", flush=True)
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_client_closes_after_it(own_server: LocalMember) -> None:
    """In one of three programs like this, grpc's lock stayed taken and closing never ended."""
    seed = random.randrange(2**32)
    print("seed", seed)
    pauses = random.Random(seed)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CALLS), own_server.endpoint],
            stdout=subprocess.PIPE,
            text=True,
        ) as calling:
            try:
                assert calling.stdout is not None
                assert calling.stdout.readline() == "calling\n"
                time.sleep(pauses.uniform(0.1, 0.3))  # to strike anywhere in a call
                calling.send_signal(signal.SIGINT)
                ended = threading.Timer(SOON, calling.kill)
                ended.start()
                assert calling.stdout.readline() == "closed\n"
                ended.cancel()
            finally:
                calling.kill()
