"""What a call costs: our client beside a bare stub and other clients, our server beside etcd."""
