"""The seeds of the test-suite, in shards that run side by side."""

from __future__ import annotations

SEEDS = 2000
"""How many runs the test-suite makes: seeds 0 to this."""
SHARDS = 5
"""Test files among which they are shared out."""
SEEDS_PER_TEST = 25


def starts(shard: int) -> range:
    """The first seeds of the tests of a shard, 0 to SHARDS - 1."""
    per_shard = SEEDS // SHARDS
    return range(shard * per_shard, (shard + 1) * per_shard, SEEDS_PER_TEST)
