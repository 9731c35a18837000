"""Questions about speed and failover, one folder each, answered by running them."""
