"""Whom a client speaks for: a name and a password, and the token that they are traded for.

Decides which token a call carries and who gets the next one; the waiting is in login.py.

Rule 1: at most one Authenticate is under way, the *flight*. Whoever needs a token meanwhile waits
for it to end, and takes its token or its refusal for their own.
Rule 2: a token that a server refused is asked for anew once, by whoever learns of it first; those
who learn of it later find the next one here.
Rule 3: the password is in no repr, and the token in none either.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TypeAlias

from ..protos.etcdserverpb import AuthenticateRequest
from .errors import CallError
from .flow import Metadata


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """What calls carry to say whom they are for; a tuple made once, for all of them."""

    metadata: Metadata = field(repr=False)
    """Empty: the servers do not ask."""
    flight: int
    """The number of the Authenticate that it came from; they are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a token: nobody else is about it. Is to be answered by one of ``landed``, ``refused``
    and ``gave_up``."""

    flight: int


@dataclass(frozen=True, slots=True)
class Await:
    """Wait for this flight, which is under way, and ask again."""

    flight: int


Answer: TypeAlias = Token | Fetch | Await | CallError


class Credentials:
    """A user's name and password, and the token of the moment. Used by any thread."""

    def __init__(self, username: str, password: str) -> None:
        self.request = AuthenticateRequest(name=username, password=password)
        self.username = username
        self.token: Token | None = None
        """The one to carry; None: one has to be asked for."""
        self.flights = 0
        """How many were begun."""
        self._lock = threading.Lock()
        self._under_way = False
        self._refusal: CallError | None = None
        self._refused_flight = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.username}>"

    @property
    def metadata(self) -> Metadata:
        """What is carried by who does not wait for a token."""
        token = self.token
        return () if token is None else token.metadata

    def ask(self, joined: int = 0) -> Answer:
        """Say how a call comes by a token. ``joined``: the flight that it has waited for, if any.

        A refusal is the answer to those who waited for it; who comes later tries again.
        """
        with self._lock:
            if self.token is not None:
                return self.token
            if joined and self._refusal is not None and self._refused_flight >= joined:
                return self._refusal
            if self._under_way:
                return Await(self.flights)
            self._under_way = True
            self.flights += 1
            return Fetch(self.flights)

    def landed(self, text: str) -> Token:
        """End the flight with a token; empty: the servers ask nobody who they are."""
        metadata = (("token", text),) if text else ()
        with self._lock:
            self._under_way = False
            self.token = Token(metadata, self.flights)
            return self.token

    def refused(self, refusal: CallError) -> None:
        """End the flight with what every other would end with too: a wrong password."""
        with self._lock:
            self._under_way = False
            self._refusal, self._refused_flight = refusal, self.flights

    def gave_up(self) -> None:
        """End the flight with nothing, which says nothing about the next one."""
        with self._lock:
            self._under_way = False

    def reject(self, token: Token) -> None:
        """Take in that a server refused a token: it is carried no more."""
        with self._lock:
            if self.token is token:
                self.token = None


@dataclass(slots=True)
class Rejections:
    """The tokens that one call was refused for, one after the other. Ends what would be a loop."""

    _known_flights: int | None = None

    def another(self, credentials: Credentials, token: Token | None) -> bool:
        """Take in that a token was refused; say whether the call is sent once more, with another.

        It is, until a token is refused that was asked for after the first refusal. The one that
        comes next need not be: somebody may have got it, or begun to, before that. None: the call
        carried no token.
        """
        if token is not None:
            credentials.reject(token)
        if self._known_flights is None:
            self._known_flights = credentials.flights
            return True
        return token is not None and token.flight <= self._known_flights

    def clear(self) -> None:
        """Take in that the call got past the question of who it is for."""
        self._known_flights = None
