"""What thousands of clients do to a cluster together: the balancers themselves, simulated."""
