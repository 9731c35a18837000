"""Which etcd this server is like."""

SERVER_VERSION = "3.7.0"
"""The release whose wire contract and behaviour this server has; clients ask for it."""
CLUSTER_VERSION = "3.7.0"
"""What a cluster of such members agrees on."""
