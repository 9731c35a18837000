"""What adding a member does to a cluster: each danger once with a voter, once with a learner."""
