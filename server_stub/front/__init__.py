"""The front: carries the services to their clients, and knows nothing below them."""

from .front import Front
from .limits import GRPC_OVERHEAD_BYTES, Limits

__all__ = ["GRPC_OVERHEAD_BYTES", "Front", "Limits"]
