"""Who gets the token, who waits for it, and when enough is enough; no wire, no clock."""

from __future__ import annotations

from typing import Any

from etcd_pinwheel import Unauthenticated
from etcd_pinwheel.client.credentials import Await, Credentials, Fetch, Rejections, Token
from etcd_pinwheel.protos.errors import Code

REFUSAL = Unauthenticated("wrong", code=Code.INVALID_ARGUMENT)


def made() -> Credentials:
    return Credentials("alice", "secret")


def landed(credentials: Credentials, text: str = "t.1") -> Token:
    assert isinstance(credentials.ask(), Fetch)
    return credentials.landed(text)


def test_of_many_who_need_a_token_one_gets_it_and_all_have_it() -> None:
    credentials = made()
    answers = [credentials.ask() for _ in range(100)]
    assert answers == [Fetch(1), *[Await(1)] * 99]
    token = credentials.landed("t.1")
    assert token.metadata == (("token", "t.1"),)
    assert {credentials.ask(joined=1) for _ in range(99)} == {token}
    assert credentials.flights == 1


def test_the_metadata_is_made_once() -> None:
    credentials = made()
    token = landed(credentials)
    again = credentials.ask()
    assert isinstance(again, Token)
    assert again.metadata is token.metadata


def test_a_refusal_is_for_all_who_waited_and_for_nobody_else() -> None:
    credentials = made()
    credentials.ask()
    waiting = credentials.ask()
    assert isinstance(waiting, Await)
    credentials.refused(REFUSAL)
    assert credentials.ask() == Fetch(2)  # somebody who comes later
    assert credentials.ask(waiting.flight) is REFUSAL
    assert credentials.ask(2) == Await(2)


def test_who_gives_up_leaves_it_to_one_of_those_who_wait() -> None:
    credentials = made()
    credentials.ask()
    credentials.gave_up()
    assert [credentials.ask(1) for _ in range(3)] == [Fetch(2), Await(2), Await(2)]


def test_an_old_refusal_is_not_told_to_who_waited_for_a_flight_that_gave_up() -> None:
    credentials = made()
    credentials.ask()
    credentials.refused(REFUSAL)
    credentials.ask()
    credentials.gave_up()
    assert credentials.ask(joined=2) == Fetch(3)


def test_a_server_that_asks_nobody_is_sent_no_token() -> None:
    assert landed(made(), "").metadata == ()


def test_a_token_that_was_refused_to_many_is_asked_for_once() -> None:
    credentials = made()
    old = landed(credentials)
    for _ in range(10):
        credentials.reject(old)
    new = landed(credentials, "t.2")
    for _ in range(10):
        credentials.reject(old)  # by those who hear of it late
    assert credentials.ask() is new
    assert credentials.flights == 2


# How often one call tries


def test_a_second_refusal_in_a_row_is_the_last() -> None:
    credentials, rejections = made(), Rejections()
    assert rejections.another(credentials, landed(credentials))
    assert not rejections.another(credentials, landed(credentials))
    assert credentials.token is None


def test_a_newer_token_of_somebody_else_is_used_and_may_be_old_itself() -> None:
    credentials, rejections = made(), Rejections()
    carried = landed(credentials)
    credentials.reject(carried)
    newer = landed(credentials)
    assert rejections.another(credentials, carried)
    assert credentials.ask() is newer
    assert rejections.another(credentials, newer)  # got before users and roles changed again
    assert not rejections.another(credentials, landed(credentials))
    assert credentials.flights == 3


def test_so_may_one_that_was_on_its_way() -> None:
    credentials, rejections = made(), Rejections()
    carried = landed(credentials)
    credentials.reject(carried)
    credentials.ask()
    assert rejections.another(credentials, carried)
    assert rejections.another(credentials, credentials.landed("t.2"))
    assert not rejections.another(credentials, landed(credentials))


def test_what_happens_in_between_begins_a_new_row() -> None:
    credentials, rejections = made(), Rejections()
    for _ in range(3):
        assert rejections.another(credentials, landed(credentials))
        rejections.clear()


def test_a_call_without_a_token_is_sent_once_more() -> None:
    credentials, rejections = made(), Rejections()
    assert rejections.another(credentials, None)
    assert not rejections.another(credentials, None)


def test_no_repr_tells_the_password_or_the_token() -> None:
    credentials = made()
    token = landed(credentials)
    things: list[Any] = [credentials, token, Rejections(), Fetch(1), Await(1)]
    told = " ".join(map(repr, things))
    assert "alice" in told
    assert "secret" not in told
    assert "t.1" not in told
