"""An unmodified Python client of etcd against host and port given: leases,
renewals, watches, transactions, a lock. Prints "done" when all was as it is
with etcd."""

import faulthandler
import importlib
import sys

# A watch that never tells what it should would be waited for for ever.
faulthandler.dump_traceback_later(30, exit=True)

host, port = sys.argv[1], int(sys.argv[2])
# Another module with the same interface (etcd3) can be named for a try by hand.
library = importlib.import_module(sys.argv[3] if len(sys.argv) > 3 else "pyetcd")
etcd = library.client(host=host, port=port, timeout=10)

events, cancel = etcd.watch_prefix("/py/", prev_kv=True)

lease = etcd.lease(60)
etcd.put("/py/a", "1", lease=lease)
etcd.put("/py/b", "2")
value, meta = etcd.get("/py/a")
assert value == b"1" and meta.key == b"/py/a" and meta.lease_id == lease.id, (value, meta)
assert [value for value, _ in etcd.get_prefix("/py/", sort_order="descend")] == [b"2", b"1"]
assert etcd.get("/py/none")[0] is None

assert lease.refresh()[0].TTL == 60
assert lease.granted_ttl == 60 and 50 < lease.remaining_ttl <= 60
assert list(lease.keys) == [b"/py/a"]

done, answers = etcd.transaction(
    compare=[etcd.transactions.value("/py/a") == "1", etcd.transactions.version("/py/a") > 0],
    success=[etcd.transactions.put("/py/c", "3"), etcd.transactions.get("/py/b")],
    failure=[etcd.transactions.delete("/py/a")],
)
assert done and answers[1][0][0] == b"2", answers
assert etcd.replace("/py/b", "2", "4") and not etcd.replace("/py/b", "2", "5")
assert etcd.delete("/py/c") and not etcd.delete("/py/c")
lease.revoke()
assert etcd.get("/py/a")[0] is None

seen = [(type(event).__name__, event.key, event.value) for _, event in zip(range(6), events)]
cancel()
assert seen == [
    ("PutEvent", b"/py/a", b"1"),
    ("PutEvent", b"/py/b", b"2"),
    ("PutEvent", b"/py/c", b"3"),
    ("PutEvent", b"/py/b", b"4"),
    ("DeleteEvent", b"/py/c", b""),
    ("DeleteEvent", b"/py/a", b""),
], seen

# A short lease expires by itself; the watch says so.
expired, cancel = etcd.watch("/py/short")
etcd.put("/py/short", "1", lease=etcd.lease(3))
assert type(next(expired)).__name__ == "PutEvent"
assert type(next(expired)).__name__ == "DeleteEvent"
cancel()

with etcd.lock("py", ttl=10) as lock:
    assert lock.is_acquired()
    assert not etcd.lock("py", ttl=10).acquire(timeout=0.3)

(member,) = etcd.members
assert member.client_urls[0].endswith(f":{port}"), member
assert etcd.status().leader.id == member.id
etcd.compact(meta.mod_revision)
try:
    list(etcd.watch("/py/a", start_revision=1)[0])
    raise AssertionError("a compacted revision was watched")
except library.exceptions.RevisionCompactedError as error:
    assert error.compacted_revision == meta.mod_revision, error
print("done")
