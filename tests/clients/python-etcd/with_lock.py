"""The usual calls of etcd-client-py, a library made of Rust's client, each with
a line that says what came of it."""

import asyncio
import sys

from etcd_client import (
    Client, Compare, CompareOp, CondVar, ConnectOptions, EtcdLockOption, GRPCStatusError, Txn, TxnOp,
)

url = sys.argv[1]


async def see(what, call):
    try:
        print(f"{what}: {await call}")
    except GRPCStatusError as error:
        print(f"{what}: {error}")


async def main():
    client = Client([url])
    async with client.connect() as etcd:
        ready = CondVar()
        watch = etcd.watch_prefix(b"/c/", ready_event=ready)
        seeing = asyncio.create_task(collect(watch, 4))
        await ready.wait()
        await see("put", etcd.put(b"/c/a", b"1"))
        await see("get", etcd.get(b"/c/a"))
        await see("get none", etcd.get(b"/c/none"))
        await see("put empty key", etcd.put(b"", b"1"))
        await etcd.put(b"/c/b", b"2")
        await see("prefix", etcd.get_prefix(b"/c/"))
        await see("keys", etcd.keys_prefix(b"/c/"))
        txn = Txn().when([Compare.value(b"/c/a", CompareOp.EQUAL, b"1")]).and_then([TxnOp.put(b"/c/c", b"3")])
        await see("txn", succeeded(etcd.txn(txn)))
        await see("delete", etcd.delete(b"/c/b"))
        print("seen:", await seeing)
    async with client.with_lock(EtcdLockOption(lock_name=b"/c/lock", ttl=5, timeout=5)) as etcd:
        await see("with lock", etcd.get(b"/c/a"))
        try:
            async with client.with_lock(EtcdLockOption(lock_name=b"/c/lock", ttl=5, timeout=1)):
                print("busy: no")
        except Exception as error:
            print("busy:", type(error).__name__)
    async with client.with_lock(EtcdLockOption(lock_name=b"/c/lock", ttl=5, timeout=5)):
        print("free again")
    try:
        named = Client([url], ConnectOptions().with_user("root", "root"))
        async with named.connect() as etcd:
            await see("user", etcd.get(b"/c/a"))
    except Exception as error:
        print("user:", type(error).__name__, error)
    print("done")


async def collect(watch, count):
    seen = []
    async for event in watch:
        seen.append((event.key, event.value, str(event.event)))
        if len(seen) == count:
            return seen


async def succeeded(call):
    answer = await call
    return type(answer).__name__


asyncio.run(asyncio.wait_for(main(), 45))
