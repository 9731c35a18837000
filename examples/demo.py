"""A walk through etcd-pinwheel: one member, a cluster that loses its leader, and every policy.

Starts the bundled server on temporary directories, talks to it, and leaves nothing behind.
``--etcd PATH`` plays the second part on a real etcd. The last part, which compares the balancing
policies while members fail, takes about a minute; ``--faults`` narrows it down.
"""

from __future__ import annotations

import argparse

import demo_cluster
import demo_failover
import demo_member


def main() -> None:
    parser = argparse.ArgumentParser(description="A walk through etcd-pinwheel.")
    parser.add_argument("--etcd", help="the program of a real etcd, for the cluster")
    parser.add_argument("--faults", nargs="+", default=(), help="only these, in the last part")
    asked = parser.parse_args()
    demo_member.walk()
    print()
    demo_cluster.walk(asked.etcd)
    print()
    demo_failover.walk(asked.faults)


if __name__ == "__main__":
    main()
