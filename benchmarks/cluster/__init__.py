"""What a cluster of three does a second, beside the real etcd's."""
