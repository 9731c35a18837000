"""The transport between members: connections, messages, questions, snapshots.

``Peers`` is all of it for one member; ``Receiver`` is what it needs of that member.
``fetch_cluster`` asks a cluster about itself before one is a member.
"""

from .inquiry import fetch_cluster
from .limits import PeerLimits
from .peers import Peers
from .receiver import ClusterInfo, PeerUnreachable, Receiver
from .traffic import Traffic

__all__ = [
    "ClusterInfo",
    "PeerLimits",
    "PeerUnreachable",
    "Peers",
    "Receiver",
    "Traffic",
    "fetch_cluster",
]
