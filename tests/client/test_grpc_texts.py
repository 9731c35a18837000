"""Was it sent? Every sign that the diagnosis goes by, provoked with the grpcio that is installed.

grpc tells it by texts alone, and texts are no API: so here are they all, on both faces, from a
server that does to connections and requests what it is told and counts what it received. Rule 1 of
the error handler hangs on this: a request that a server may have carried out is never taken for
one that it did not see.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from faults.scripted_server import (
    MAX_STREAM_ID,
    OK,
    REFUSED_STREAM,
    Script,
    ScriptedServer,
    an_empty_message,
    answer,
    black_hole,
    cut,
    goaway,
    hang_up,
    headers,
    refusal,
    reset,
    scripted,
)

from etcd_pinwheel import CallError, Client, NotSent, OutcomeUnknown, Refused, TimedOut
from etcd_pinwheel.client.error_handler import Cause, Trouble, diagnose, error_class
from etcd_pinwheel.client.flow import CallFailed, Flow, Send
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.protos.etcdserverpb import PutRequest
from etcd_pinwheel.protos.rpcs import KV_PUT

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
Causes = frozenset[Cause]

NOT_SENT = frozenset({Cause.NOT_SENT})
BROKEN = frozenset({Cause.BROKEN})
UNKNOWN = frozenset({Cause.BROKEN, Cause.FOREIGN, Cause.CUT_SHORT})
AT_ONCE = {"connect_timeout": 0.4, "reconnect_backoff_max": 0.1}
SOON = 20.0

UNREACHED: dict[str, Script] = {
    "closed as accepted": Script(at_first=hang_up, greets=False),
    "reset as accepted": Script(at_first=cut, greets=False),
    "accepted, and not a word": Script(greets=False),
    "another protocol": Script(
        at_first=lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"), greets=False
    ),
}
"""No connection comes about."""

TURNED_AWAY: dict[str, Script] = {
    "GOAWAY, the stream is after the last": Script((goaway(0),)),
    "the same, and the end": Script((goaway(0),), hang_up),
    "the same, for too many pings": Script((goaway(0, 0xB, b"too_many_pings"),)),
    "GOAWAY twice, first for none": Script((goaway(MAX_STREAM_ID), goaway(0)), hang_up),
    "REFUSED_STREAM": Script((reset(REFUSED_STREAM),)),
}
"""The server says that it did not look at the request."""

TAKEN: dict[str, tuple[Script, Causes]] = {
    "closed": (Script(then=hang_up), BROKEN),
    "reset": (Script(then=cut), BROKEN),
    "headers, then closed": (Script((headers(*OK),), hang_up), BROKEN),
    "an answer without its end, then closed": (
        Script((headers(*OK), an_empty_message), hang_up),
        BROKEN,
    ),
    "GOAWAY, the stream is the last": (Script((goaway(None),), hang_up), BROKEN),
    "GOAWAY, the stream is before the last": (Script((goaway(MAX_STREAM_ID),), hang_up), BROKEN),
    "the same, then reset": (Script((goaway(MAX_STREAM_ID),), cut), BROKEN),
    "GOAWAY with a reason": (Script((goaway(None, 0, b"Server shutdown"),), hang_up), BROKEN),
    "no status": (Script((headers(*OK), headers(ended=True))), UNKNOWN),
    "a gateway's 502": (Script((headers((":status", "502"), ended=True),)), BROKEN),
    "a gateway's 504": (Script((headers((":status", "504"), ended=True),)), BROKEN),
    "a web server's 400": (Script((headers((":status", "400"), ended=True),)), UNKNOWN),
    "a text of tomorrow's": (Script((refusal(14, "a text of tomorrow's"),)), BROKEN),
    "an unknown code": (Script((refusal(99, "?"),)), UNKNOWN),
    **{
        f"RST_STREAM {code}": (Script((reset(code),)), UNKNOWN)
        for code in (*range(REFUSED_STREAM), *range(REFUSED_STREAM + 1, 15), 70, 77)
    },
}
"""The server has received the request, and nothing says that it did not carry it out."""

ANSWERED: dict[str, Script] = {
    "at once": Script((answer,)),
    "after GOAWAY": Script((goaway(None), answer)),
    "after a graceful GOAWAY": Script((goaway(MAX_STREAM_ID), goaway(None), answer), hang_up),
    "after one GOAWAY without": Script((answer,), except_first=(goaway(0),)),
}
"""All is well, as grpc sees to by itself."""


@pytest.fixture
def serve() -> Iterator[Callable[[Script], ScriptedServer]]:
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted(script))


def send_once(client: Any, endpoint: str, timeout: float) -> Trouble | None:
    """Hand a write to the endpoint's connection, as it is; diagnose what became of it."""
    call = client._call if isinstance(client, Client) else client._inner._call

    def flow() -> Flow[None]:
        link = call.connections.reach(f"http://{endpoint}")
        yield Send(link, KV_PUT, PutRequest(key=b"k"), timeout, None)

    try:
        client._run(flow())
    except CallFailed as failed:
        print(failed.code, failed.text)
        return diagnose(failed, time_left=True)
    return None


def sent_once(endpoint: str, connect: Connect, timeout: float = SOON) -> Trouble:
    trouble = send_once(connect([endpoint], **AT_ONCE), endpoint, timeout)
    assert trouble is not None
    return trouble


# Nothing was sent


@pytest.mark.parametrize("case", UNREACHED)
def test_a_connection_that_does_not_come_about(case: str, serve: Any, connect: Connect) -> None:
    server = serve(UNREACHED[case])
    assert sent_once(server.endpoint, connect).cause is Cause.NOT_SENT
    assert not server.received


def test_a_refused_connection(connect: Connect) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{bound.getsockname()[1]}"
        assert sent_once(endpoint, connect).cause is Cause.NOT_SENT


def test_a_host_that_does_not_answer(connect: Connect) -> None:
    with black_hole() as endpoint:
        assert sent_once(endpoint, connect).cause is Cause.NOT_SENT


def test_a_name_that_does_not_resolve(connect: Connect) -> None:
    assert sent_once("no.such.host.invalid:1", connect).cause is Cause.NOT_SENT


def test_a_socket_that_is_not_there(tmp_path: Any, connect: Connect) -> None:
    endpoint = f"unix:{tmp_path}/none.sock"
    client = connect([endpoint], **AT_ONCE)
    with pytest.raises(NotSent):
        client.put("k", "v", timeout=0.3)


def test_a_connection_that_was_closed_before(serve: Any, connect: Connect) -> None:
    server = serve(Script((answer,)))
    client = connect([server.endpoint], **AT_ONCE)
    assert send_once(client, server.endpoint, SOON) is None
    call = client._call if isinstance(client, Client) else client._inner._call
    link = call.connections.link(f"http://{server.endpoint}")
    put = link.callable(KV_PUT)
    close_channel(client, link)

    def flow() -> Flow[None]:
        link.callables[KV_PUT] = put  # as a call has it that was about to send
        yield Send(link, KV_PUT, PutRequest(), SOON, None)

    with pytest.raises(CallFailed) as caught:
        client._run(flow())
    assert diagnose(caught.value, time_left=True).cause is Cause.NOT_SENT
    assert server.received[KV_PUT.path] == 1


def close_channel(client: Any, link: Any) -> None:
    """Close a channel while a call is about to use it.

    One that is watched is not closed before that has ended: grpc's thread would die loudly.
    """
    if isinstance(client, Client):
        client._world._close_channels([link])
    else:
        channel = link.channel
        client._thread.do(lambda: channel.close(None))


# It was turned away


@pytest.mark.parametrize("case", TURNED_AWAY)
def test_a_request_that_was_not_looked_at(case: str, serve: Any, connect: Connect) -> None:
    server = serve(TURNED_AWAY[case])
    trouble = sent_once(server.endpoint, connect)
    assert (trouble.cause, trouble.may_have_been_applied) == (Cause.NOT_SENT, False)
    assert server.received[KV_PUT.path] in (1, 2)  # grpc itself tries such a one once more


# It was received


@pytest.mark.parametrize("case", TAKEN)
def test_a_request_that_was_received(case: str, serve: Any, connect: Connect) -> None:
    script, causes = TAKEN[case]
    server = serve(script)
    trouble = sent_once(server.endpoint, connect)
    assert trouble.cause in causes
    assert trouble.may_have_been_applied
    assert issubclass(error_class(trouble), OutcomeUnknown)
    assert server.received[KV_PUT.path] == 1


def test_a_channel_closed_under_a_call(serve: Any, connect: Connect) -> None:
    server = serve(Script())
    client = connect([server.endpoint], **AT_ONCE)
    troubles: list[Trouble | None] = []
    thread = threading.Thread(
        target=lambda: troubles.append(send_once(client, server.endpoint, SOON))
    )
    thread.start()
    assert server.arrived.wait(SOON)
    call = client._call if isinstance(client, Client) else client._inner._call
    close_channel(client, call.connections.link(f"http://{server.endpoint}"))
    thread.join(SOON)
    (trouble,) = troubles
    assert trouble is not None
    assert trouble.cause is Cause.CUT_SHORT
    assert trouble.may_have_been_applied


def test_a_deadline_after_sending(serve: Any, connect: Connect) -> None:
    server = serve(Script())
    trouble = sent_once(server.endpoint, connect, timeout=1.0)
    assert trouble.cause is Cause.CUT_SHORT  # NO_ANSWER, once the caller's own time is up
    assert trouble.may_have_been_applied


def test_a_deadline_before_there_is_a_connection(serve: Any, connect: Connect) -> None:
    """grpc has one text for both; what is not known to be unsent counts as sent."""
    server = serve(Script(greets=False))
    client = connect([server.endpoint], connect_timeout=30.0)
    trouble = send_once(client, server.endpoint, 0.3)
    assert trouble is not None
    assert trouble.may_have_been_applied
    assert not server.received
    with pytest.raises(NotSent):  # the client itself hands nothing to who is not connected
        client.put("k", "v", timeout=0.3)
    assert not server.received


# It was answered


@pytest.mark.parametrize("case", ANSWERED)
def test_an_answer(case: str, serve: Any, connect: Connect) -> None:
    server = serve(ANSWERED[case])
    client = connect([server.endpoint], **AT_ONCE)
    assert send_once(client, server.endpoint, SOON) is None


@pytest.mark.parametrize("status", ["401", "403", "404", "405", "415"])
def test_a_web_servers_refusal_is_one(status: str, serve: Any, connect: Connect) -> None:
    server = serve(Script((headers((":status", status), ended=True),)))
    trouble = sent_once(server.endpoint, connect)
    assert (trouble.cause, trouble.may_have_been_applied) == (Cause.REFUSED, False)
    assert issubclass(error_class(trouble), Refused)


def test_a_server_that_speaks_of_its_own_upstream_is_believed(serve: Any, connect: Connect) -> None:
    """The limit of going by texts: a proxy that lies about this is not found out."""
    text = "failed to connect to all addresses; last error: refused"
    assert sent_once(serve(Script((refusal(14, text),))).endpoint, connect).cause is Cause.NOT_SENT


# What the client makes of it


@pytest.mark.parametrize("policy", BUILT_IN)
@pytest.mark.parametrize("case", [*UNREACHED, *TURNED_AWAY, *TAKEN])
def test_no_policy_has_a_write_carried_out_twice(case: str, policy: str, serve: Any) -> None:
    """The safety property: of the requests that were looked at there is at most one, and
    NotSent means none."""
    script = UNREACHED.get(case) or TURNED_AWAY.get(case) or TAKEN[case][0]
    server = serve(script)
    with (
        Client([server.endpoint], balancer=policy, **AT_ONCE) as client,
        pytest.raises(CallError) as caught,
    ):
        client.put("k", "v", timeout=0.3 if case not in TAKEN else SOON)
    received = server.received[KV_PUT.path]
    if case in TAKEN:
        assert (received, type(caught.value) is NotSent) == (1, False)
        assert isinstance(caught.value, OutcomeUnknown)
    elif case in TURNED_AWAY:
        print(received)
        assert received
        assert isinstance(caught.value, NotSent | TimedOut)  # the last one had no time left
    else:
        assert not received
        assert isinstance(caught.value, NotSent)
