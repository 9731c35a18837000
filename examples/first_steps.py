"""Put, get, range and delete. Needs an etcd; say where with ETCD_PINWHEEL_ENDPOINTS."""

from etcd_pinwheel import Client

with Client() as etcd:
    etcd.put("fruit/apple", "red")
    etcd.put("fruit/lemon", "yellow")

    apple = etcd.get("fruit/apple")
    if apple is not None:
        print(apple.value, "since revision", apple.mod_revision)

    for kv in etcd.get_prefix("fruit/"):
        print(kv.key, "=", kv.value)

    print("deleted", etcd.delete_prefix("fruit/").deleted)
    print("gone:", etcd.get("fruit/apple") is None)
