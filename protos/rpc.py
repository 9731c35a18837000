"""What an RPC is to both ends: a path and the types that travel on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, eq=False)
class Rpc(Generic[Request, Reply]):
    """One RPC. Compared and hashed by identity: there is one object for each."""

    path: str
    """The HTTP/2 path, e.g. ``/etcdserverpb.KV/Range``."""
    request: type[Request]
    reply: type[Reply]
    client_streaming: bool = False
    server_streaming: bool = False

    @property
    def name(self) -> str:
        """The method's own name, e.g. ``Range``."""
        return self.path.rpartition("/")[2]
