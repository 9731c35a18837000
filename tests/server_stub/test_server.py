"""The server as an object: the ports it looks at before it begins are the ones it opens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel.server_stub.config import parse
from etcd_pinwheel.server_stub.local import ReservedPorts
from etcd_pinwheel.server_stub.server import Server

NOT_OURS = "2001:db8::1"
"""An address for documentation: no machine can bind it, with IPv6 or without."""


async def test_a_name_with_an_address_that_cannot_be_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``localhost``, in many containers, is ``::1`` as well and IPv6 is off."""
    look_up = socket.getaddrinfo

    def found(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        unusable = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (NOT_OURS, port, 0, 0))
        others = look_up("127.0.0.1", port, type=socket.SOCK_STREAM)
        return [unusable, *others] if host == "localhost" else look_up(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    reserved = ReservedPorts(2)
    client, peer = (f"http://localhost:{port}" for port in reserved.numbers)
    flags = (
        f"--data-dir={tmp_path / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
    )
    async with Server(parse(flags, {})) as server:
        assert [host for host, _ in server.client_addresses] == ["127.0.0.1"]
