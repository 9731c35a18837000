"""Count up without losing a count: a guarded transaction, tried again when somebody was faster."""

from etcd_pinwheel import Client, mod_revision, put


def count_up(etcd: Client, key: str) -> int:
    """Add 1 to the number at a key, whoever else does so at the same time; return the sum."""
    while True:
        found = etcd.get(key)
        number = int(found.value) + 1 if found else 1
        seen = found.mod_revision if found else 0
        swap = etcd.txn().when(mod_revision(key) == seen).then(put(key, str(number)))
        if swap.commit().succeeded:
            return number


with Client() as etcd:
    etcd.delete("counter")
    for _ in range(3):
        print(count_up(etcd, "counter"))
