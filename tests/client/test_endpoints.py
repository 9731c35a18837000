"""Endpoints as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import ConfigError, Endpoint
from etcd_pinwheel.client.endpoints import normalise, parse_endpoints


@pytest.mark.parametrize(
    ("written", "url", "target"),
    [
        ("10.0.0.1:2379", "http://10.0.0.1:2379", "10.0.0.1:2379"),
        ("etcd.example", "http://etcd.example:2379", "etcd.example:2379"),
        (" http://a:1/ ", "http://a:1", "a:1"),
        ("HTTPS://A.Example:1", "https://a.example:1", "a.example:1"),
        ("https://a", "https://a:2379", "a:2379"),
        ("[::1]:2379", "http://[::1]:2379", "[::1]:2379"),
        ("https://[fe80::1]", "https://[fe80::1]:2379", "[fe80::1]:2379"),
        ("unix:///run/etcd.sock", "unix:///run/etcd.sock", "unix:/run/etcd.sock"),
        ("unix:/run/etcd.sock", "unix:///run/etcd.sock", "unix:/run/etcd.sock"),
        ("unix://etcd.sock", "unix://etcd.sock", "unix:etcd.sock"),
        ("unix:etcd.sock", "unix://etcd.sock", "unix:etcd.sock"),
        ("unixs:///run/etcd.sock", "unixs:///run/etcd.sock", "unix:/run/etcd.sock"),
    ],
)
def test_forms(written: str, url: str, target: str) -> None:
    endpoint = Endpoint(written)
    assert endpoint.url == url
    assert endpoint.target == target
    assert endpoint.secure == url.startswith(("https", "unixs"))
    assert normalise(url) == url


@pytest.mark.parametrize(
    "written",
    [
        "",
        "http://",
        ":2379",
        "ftp://a:1",
        "a:port",
        "a:99999",
        "a:0",
        "http://user@a:1",
        "http://a:1/path",
        "http://a:1?x",
        "::1:2379:",
        "unix:",
        "two words:1",
        "[::1:2379",
    ],
)
def test_what_is_no_endpoint(written: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(written)
    assert caught.value.field == "url"


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_config_error(text: str) -> None:
    try:
        url = normalise(text)
    except ConfigError:
        return
    assert normalise(url) == url


def test_many_in_one_string() -> None:
    urls = [endpoint.url for endpoint in parse_endpoints("a:1,b:2 , https://c")]
    assert urls == ["http://a:1", "http://b:2", "https://c:2379"]
