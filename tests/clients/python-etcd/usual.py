"""The usual calls of Python's etcd3, or of another library with its interface,
each with a line that says what came of it. Lines do not depend on the server:
leases are numbered as they appear."""

import faulthandler
import importlib
import os
import sys

faulthandler.dump_traceback_later(45, exit=True)

host, port = sys.argv[1], int(sys.argv[2])
library = importlib.import_module(sys.argv[3])
etcd = library.client(host=host, port=port, timeout=10)
leases = {0: "-"}


def lease(id):
    return leases.setdefault(id, f"L{len(leases)}")


def text(value):
    if isinstance(value, (list, tuple)):
        return [text(one) for one in value]
    if hasattr(value, "mod_revision"):
        return (value.key, value.create_revision, value.mod_revision, value.version, lease(value.lease_id))
    return value


def see(what, call):
    try:
        print(f"{what}: {text(call())}")
    except Exception as error:
        print(f"{what}: {failure(error)}")


def failure(error):
    if hasattr(error, "details"):
        return error.code(), error.details()
    return type(error).__name__, getattr(error, "compacted_revision", str(error)[:80])


def event(event):
    return (type(event).__name__, event.key, event.value, event._event.kv.mod_revision,
            event._event.prev_kv.value)


events, cancel = etcd.watch_prefix("/p/", prev_kv=True)
see("put", lambda: etcd.put("/p/a", "1").header.revision)
see("put prev", lambda: etcd.put("/p/a", "2", prev_kv=True).prev_kv.value)
see("put empty key", lambda: etcd.put("", "x"))
see("put much", lambda: etcd.put("/p/much", "x" * 1_700_000))
see("get", lambda: etcd.get("/p/a"))
see("get none", lambda: etcd.get("/p/none"))
etcd.put("/p/b", "b")
etcd.put("/p/c", "c")
see("prefix", lambda: list(etcd.get_prefix("/p/", sort_order="descend", sort_target="mod")))
see("range", lambda: list(etcd.get_range("/p/a", "/p/c")))
see("all", lambda: len(list(etcd.get_all())))
see("replace", lambda: (etcd.replace("/p/a", "2", "3"), etcd.replace("/p/a", "2", "4")))
see("put if new", lambda: (etcd.put_if_not_exists("/p/d", "d"), etcd.put_if_not_exists("/p/d", "e")))
see("delete", lambda: (etcd.delete("/p/d"), etcd.delete("/p/d")))
see("delete prefix", lambda: etcd.delete_prefix("/p/none").deleted)


def transaction():
    t = etcd.transactions
    done, answers = etcd.transaction(
        compare=[t.value("/p/a") == "3", t.version("/p/a") > 1, t.create("/p/x") == 0, t.mod("/p/b") < 100],
        success=[t.put("/p/x", "x"), t.get("/p/a"), t.delete("/p/b")],
        failure=[t.get("/p/b")],
    )
    return done, answers[1], len(answers)


see("transaction", transaction)
see("events", lambda: [event(one) for _, one in zip(range(9), events)])
cancel()


def leasing():
    one = etcd.lease(60)
    lease(one.id)
    etcd.put("/l/a", "1", lease=one)
    seen = [one.ttl, one.refresh()[0].TTL, one.granted_ttl, 50 < one.remaining_ttl <= 60, list(one.keys)]
    seen.append(etcd.get("/l/a")[1])
    one.revoke()
    seen.append(etcd.get("/l/a")[0])
    return seen


see("lease", leasing)
see("revoke none", lambda: etcd.revoke_lease(4711))
see("put with no such lease", lambda: etcd.put("/l/a", "1", lease=4711))


def locking():
    with etcd.lock("lock", ttl=10) as lock:
        held = lock.is_acquired()
        return held, etcd.lock("lock", ttl=10).acquire(timeout=0.3)


see("lock", locking)
see("unlocked", lambda: etcd.lock("lock", ttl=10).acquire(timeout=5))
see("members", lambda: [(len(m.client_urls), len(m.name) > 0) for m in etcd.members])
see("status", lambda: (etcd.status().version[:2], etcd.status().leader.id in [m.id for m in etcd.members]))
see("alarms", lambda: list(etcd.list_alarms()))
see("defragment", lambda: etcd.defragment())
see("hash", lambda: etcd.hash() != 0)
see("compact", lambda: etcd.compact(5) and None)
see("compact again", lambda: etcd.compact(4))
see("late watch", lambda: list(etcd.watch("/p/a", start_revision=1)[0]))
try:
    library.client(host=host, port=port, user="root", password="root", timeout=10).get("/p/a")
    print("user: served")
except Exception as error:
    print(f"user: {failure(error)}")
print("done", flush=True)
# Some generations hang when they are taken down.
os._exit(0)
