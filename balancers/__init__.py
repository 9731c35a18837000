"""Who answers the next call: the treaty of a balancer, and one file per policy.

Nothing here opens a connection, reads a clock or draws a random number; see :mod:`.api`.
"""

from .api import (
    Action,
    Balancer,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Drain,
    Endpoint,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    Standing,
    WakeAt,
    Woken,
)
from .health_aware import HealthAware
from .health_record import HealthAwareOptions
from .pinned_multi import PinnedMulti
from .pinned_single import PinnedSingle
from .round_robin import RoundRobin

__all__ = [
    "Action",
    "Balancer",
    "Connect",
    "Connected",
    "Disconnect",
    "Disconnected",
    "Drain",
    "Endpoint",
    "EndpointsChanged",
    "Event",
    "FailedOver",
    "Failure",
    "Health",
    "HealthAware",
    "HealthAwareOptions",
    "Need",
    "PinnedMulti",
    "PinnedSingle",
    "Probe",
    "Probed",
    "RoundRobin",
    "Standing",
    "WakeAt",
    "Woken",
]
