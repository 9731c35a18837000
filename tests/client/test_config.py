"""Settings from arguments, mappings, files and variables; errors that name the field."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from certificates import sign
from grpc.experimental.session_cache import ssl_session_cache_lru

from etcd_pinwheel import AsyncClient, Client, Config, ConfigError, Endpoint, Tls
from etcd_pinwheel.client.config import settle

TOML = """
balancer = "round_robin"
timeout = 2.5
ca = "ca.pem"

[[endpoints]]
url = "https://10.0.0.1:2379"

[[endpoints]]
url = "https://10.0.0.2"
ca = "other.pem"
server_name = "node2.example"
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ETCD_PINWHEEL_"):
            monkeypatch.delenv(name)


def test_defaults() -> None:
    config = settle()
    assert config == Config()
    assert [endpoint.url for endpoint in config.endpoints] == ["http://127.0.0.1:2379"]
    assert config.timeout == 5.0
    assert config.balancer == "round_robin"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text(TOML)
    config = Config.from_toml(path)
    first, second = config.endpoints
    assert config.timeout == 2.5
    assert first.url == "https://10.0.0.1:2379"
    assert config.tls_of(first) == Tls(ca="ca.pem")
    assert second.url == "https://10.0.0.2:2379"
    assert config.tls_of(second) == Tls(ca="other.pem", server_name="node2.example")


def test_a_file_with_a_table_around_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text('[service]\nname = "x"\n[etcd_pinwheel]\ntimeout = 7\n')
    assert Config.from_toml(path).timeout == 7.0


@pytest.mark.parametrize("name", ["keepalive_time", "sync_interval"])
def test_what_may_be_off_is_off_in_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text(f"{name} = 'none'")
    assert getattr(Config.from_toml(path), name) is None
    for wrong in (f"{name} = ''", "keepalive_timeout = 'none'"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="a positive number of seconds is needed"):
            Config.from_toml(path)


def test_variables() -> None:
    environ = {
        "ETCD_PINWHEEL_ENDPOINTS": "a:1, https://b:2",
        "ETCD_PINWHEEL_TIMEOUT": "1.5",
        "ETCD_PINWHEEL_KEEPALIVE_TIME": "none",
        "ETCD_PINWHEEL_MAX_RECEIVE_BYTES": "1000",
        "ETCD_PINWHEEL_RETRY": "at_least_once",
        "ETCD_PINWHEEL_MAX_CONCURRENT_RETRIES": "7",
        "ETCD_NAME": "is the server's",
    }
    config = Config.from_environment(environ)
    assert [endpoint.url for endpoint in config.endpoints] == ["http://a:1", "https://b:2"]
    assert (config.timeout, config.keepalive_time, config.max_receive_bytes) == (1.5, None, 1000)
    assert (config.retry, config.max_concurrent_retries) == ("at_least_once", 7)


def test_precedence(tmp_path: Path) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text("timeout = 1\nconnect_timeout = 1\nkeepalive_timeout = 1\nserver_name = 'f'")
    config = settle(
        {"timeout": 2, "connect_timeout": 2},
        arguments={"timeout": 3},
        file=path,
        environ={
            "ETCD_PINWHEEL_TIMEOUT": "4",
            "ETCD_PINWHEEL_CONNECT_TIMEOUT": "4",
            "ETCD_PINWHEEL_KEEPALIVE_TIMEOUT": "4",
        },
    )
    assert config.timeout == 3  # the argument
    assert config.connect_timeout == 2  # the mapping
    assert config.keepalive_timeout == 4  # the variable
    assert config.server_name == "f"  # the file


def test_a_config_object_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_PINWHEEL_TIMEOUT", "9")
    assert settle(Config(timeout=2)).timeout == 2
    assert settle(Config(timeout=2), arguments={"timeout": 3}).timeout == 3
    assert settle({}).timeout == 9


@pytest.mark.parametrize("face", [Client, AsyncClient])
def test_clients_take_all_of_them(
    face: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text("timeout = 2")
    monkeypatch.setenv("ETCD_PINWHEEL_CONNECT_TIMEOUT", "4")
    from_file = face.from_toml(path, endpoints=["a:1"]).config
    assert (from_file.timeout, from_file.connect_timeout) == (2, 4)
    assert from_file.endpoints[0].url == "http://a:1"
    assert face(config={"timeout": 3}).config.timeout == 3
    assert face(config=Config(timeout=3)).config.timeout == 3
    assert face("a:1,b:2").config.endpoints[1].url == "http://b:2"
    assert face([Endpoint("https://a", Tls(server_name="x"))]).config.endpoints[0].tls
    assert "round_robin over http://a:1" in repr(face("a:1"))


def test_a_client_that_was_never_used_needs_no_closing() -> None:
    Client("a:1")
    AsyncClient("a:1")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"keepalive_time": 1}, "keepalive_time"),
        ({"max_receive_bytes": -1}, "max_receive_bytes"),
        ({"retry": "twice"}, "retry"),
        ({"exactly_once_prefix": ""}, "exactly_once_prefix"),
        ({"exactly_once_prefix": b"x"}, "exactly_once_prefix"),
        ({"retry": None}, "retry"),
        ({"retry": []}, "retry"),
        ({"max_concurrent_retries": 0}, "max_concurrent_retries"),
        ({"max_concurrent_retries": 1.5}, "max_concurrent_retries"),
        ({"balancer": 5}, "balancer"),
        ({"balancer": "wheel_of_fortune"}, "balancer"),
        ({"balancer_options": {"speed": 1}}, "balancer_options"),
        ({"grpc_options": "x"}, "grpc_options"),
        ({"grpc_options": {"grpc.user_agent": None}}, "grpc_options"),
        ({"grpc_options": {"grpc.max_send_message_length": 1.5}}, "grpc_options"),
        ({"grpc_options": {"grpc.max_send_message_length": 2**31}}, "grpc_options"),
        ({"grpc_options": {"grpc.max_send_message_length": Decimal(5)}}, "grpc_options"),
        ({"grpc_options": {"grpc.max_send_message_length": object()}}, "grpc_options"),
        ({"grpc_options": {5: 1}}, "grpc_options"),
        ({"cert": "c.pem"}, "key"),
        ({"username": "alice"}, "password"),
        ({"password": "secret"}, "username"),
        ({"username": "", "password": "secret"}, "username"),
        ({"username": 7, "password": "secret"}, "username"),
        ({"username": "alice", "password": ""}, "password"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": 5}, "endpoints"),
        ({"endpoints": ["a", 5]}, "endpoints[1]"),
        ({"endpoints": ["a", "http://"]}, "endpoints[1]"),
        ({"endpoints": ["a:1", "http://a:1/"]}, "endpoints[1]"),
        ({"endpoints": [{"host": "a"}]}, "endpoints[0]"),
        ({"endpoints": [{"url": "https://a", "ca": "x", "port": 1}]}, "endpoints[0].port"),
        ({"endpoints": [{"url": "https://a", "key": "x"}]}, "endpoints[0].cert"),
        ({"endpoints": [{"url": "http://a", "ca": "x"}]}, "endpoints[0].tls"),
        ({"tiemout": 5}, "tiemout"),
    ],
)
def test_an_error_names_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(config=settings)
    assert caught.value.field == field
    assert field in str(caught.value)


def test_a_name_and_a_password_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "etcd.toml"
    path.write_text('username = "alice"\npassword = "secret"')
    environ = {"ETCD_PINWHEEL_USERNAME": "alice", "ETCD_PINWHEEL_PASSWORD": "secret"}
    for config in (Config.from_toml(path), Config.from_environment(environ)):
        assert (config.username, config.password) == ("alice", "secret")
    mixed = settle(arguments={"username": "bob"}, file=path)
    assert (mixed.username, mixed.password) == ("bob", "secret")


@pytest.mark.parametrize("face", [Client, AsyncClient])
def test_objects_of_grpcs_own_are_channel_arguments(face: Any) -> None:
    options = {"grpc.ssl_session_cache": ssl_session_cache_lru(4), "grpc.enable_retries": True}
    client = face("https://127.0.0.1:1", grpc_options=options)
    arguments = client._world.roster.setup(client.config.endpoints[0]).options
    assert set(options.items()) <= set(arguments)


@pytest.mark.parametrize("face", [Client, AsyncClient])
def test_nothing_tells_the_password(face: Any) -> None:
    client = face(username="alice", password="secret")
    assert "alice" in repr(client.config)
    for thing in (client, client.config, client._call.credentials, vars(client._call)):
        assert "secret" not in repr(thing)


@pytest.mark.parametrize("face", [Client, AsyncClient])
def test_nothing_tells_the_private_key(face: Any, tmp_path: Path) -> None:
    key, cert = sign(tmp_path, "alice").pems
    endpoint = Endpoint("https://a", Tls(cert=cert, key=key))
    client = face([endpoint, "https://b"], cert=cert, key=key)
    line = key.decode().splitlines()[1]
    for thing in (client, client.config, endpoint, endpoint.tls, client.config.endpoints):
        assert line not in repr(thing)
    with pytest.raises(ConfigError, match="PEM is to be given as bytes") as caught:
        face(["https://b"], cert=cert, key=key.decode())
    assert caught.value.field == "key"
    assert line not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "password", [b"secret", 5252, ["secret"], "secret\udc80"], ids=["bytes", "int", "list", "lone"]
)
def test_nor_does_the_error_about_a_bad_one(password: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(username="alice", password=password)
    assert caught.value.field == "password"
    assert caught.value.__context__ is None
    assert not {"secret", "5252"} & set(str(caught.value).replace("'", " ").split())


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ETCD_PINWHEEL_TIMEOUT", "soon"),
        ("ETCD_PINWHEEL_MAX_RECEIVE_BYTES", "1k"),
        ("ETCD_PINWHEEL_MAX_CONCURRENT_RETRIES", "many"),
        ("ETCD_PINWHEEL_TIMEOT", "5"),
        ("ETCD_PINWHEEL_GRPC_OPTIONS", "{}"),
    ],
)
def test_an_error_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(environ={variable: text})
    assert caught.value.field == variable


def test_files_that_are_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_toml(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("timeout = = 5")
    with pytest.raises(ConfigError, match="is not TOML"):
        Config.from_toml(broken)
    typo = tmp_path / "typo.toml"
    typo.write_text("timeot = 5")
    with pytest.raises(ConfigError, match=r"timeot.*typo\.toml"):
        Config.from_toml(typo)


@pytest.mark.parametrize("face", [Client, AsyncClient])
def test_a_missing_certificate_is_found_at_once(face: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca: cannot read .*nowhere\.pem"):
        face("https://a:1", ca=tmp_path / "nowhere.pem")
