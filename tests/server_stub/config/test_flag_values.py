"""Values of flags: what Go and etcd read, we read; what they refuse, we refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.config import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("100ms", 0.1),
        ("1h2m", 3720.0),
        ("1h2m3.5s", 3723.5),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("-1s", -1.0),
        ("+2s", 2.0),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("1ns", 1e-9),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-", ".s", "1x", "1 s", "1s ", "1h-2m", "1S", "1e3s", "9999999999h"]
)
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError):
        values.duration(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    total = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert values.duration(text) == pytest.approx(total)


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true(text: str) -> None:
    assert values.boolean(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text: str) -> None:
    assert values.boolean(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "tRUE", "2", " true"])
def test_neither_true_nor_false(text: str) -> None:
    with pytest.raises(ValueError):
        values.boolean(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("-5", -5), ("+5", 5), ("0x10", 16), ("0b11", 3), ("017", 15), ("1_000", 1000)],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert values.integer(text) == number


@pytest.mark.parametrize("text", ["", "1.5", "x", "1e3", "0x", " 1", "9223372036854775808", "٣"])
def test_not_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        values.integer(text)


def test_bounds() -> None:
    assert values.between(4, 31)("31") == 31
    with pytest.raises(ValueError, match="from 4 to 31"):
        values.between(4, 31)("32")
    with pytest.raises(ValueError, match="negative"):
        values.unsigned("-1")


def test_urls() -> None:
    first, second = values.urls("http://10.0.0.1:2379,https://[::1]:1")
    assert (first.scheme, first.host, first.port) == ("http", "10.0.0.1", 2379)
    assert (second.scheme, second.host, second.port) == ("https", "::1", 1)
    assert str(second) == "https://[::1]:1"
    assert values.urls("") == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
        ("ftp://a:1", "URL scheme must be"),
        ("http://a", 'URL address does not have the form "host:port": http://a'),
        ("http://a:x", "does not have the form"),
        ("http://a:70000", "does not have the form"),
        ("http://a:1/path", "URL must not contain a path: http://a:1/path"),
        ("http://a:1,", "URL scheme must be"),
        ("http://[::1", "http://[::1"),
        ("unix://sock:1", "unix sockets are not served"),
    ],
)
def test_not_urls(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.urls(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["http://localhost:1", "http://0.0.0.0:1", "http://[::]:1"])
def test_addresses_to_listen_on(text: str) -> None:
    assert len(values.bind_urls(text)) == 1


@pytest.mark.parametrize("text", ["http://example.com:1", "http://:1"])
def test_names_cannot_be_listened_on(text: str) -> None:
    with pytest.raises(ValueError, match="expected IP in URL for binding"):
        values.bind_urls(text)


def test_initial_cluster() -> None:
    members = values.initial_cluster("a=http://a:1,b=http://b:1,a=http://a:2")
    assert members == {"a": ("http://a:1", "http://a:2"), "b": ("http://b:1",)}
    for text in ("a", "=http://a:1", "a=", "a=b"):
        with pytest.raises(ValueError):
            values.initial_cluster(text)


def test_feature_gates() -> None:
    assert values.feature_gates("") == frozenset()
    assert values.feature_gates("LeaseCheckpoint=false,FastLeaseKeepAlive=true") == frozenset()
    assert values.feature_gates("LeaseCheckpoint=true") == {"LeaseCheckpoint"}
    for text in ("Nonsense=true", "LeaseCheckpoint", "LeaseCheckpoint=maybe", "CompactHashCheck=1"):
        with pytest.raises(ValueError):
            values.feature_gates(text)


def outcome(reader: Callable[[str], Any], text: str) -> str:
    """Why a text is refused, or that it is not; anything else that is raised is a defect."""
    try:
        reader(text)
    except ValueError as error:
        return str(error)
    return "read"


@given(text=st.text(max_size=30))
@pytest.mark.parametrize(
    "reader",
    [
        values.boolean,
        values.integer,
        values.duration,
        values.urls,
        values.bind_urls,
        values.initial_cluster,
        values.feature_gates,
        values.auth_token,
    ],
)
def test_any_text_is_read_or_refused(reader: Callable[[str], Any], text: str) -> None:
    assert outcome(reader, text)


@given(host=st.text(max_size=20))
def test_any_host_is_read_or_refused(host: str) -> None:
    assert outcome(values.bind_urls, f"http://{host}:1")
