"""A plain gRPC server that registers itself in etcd for as long as it lives.

    python greeter_server.py --etcd 127.0.0.1:2379 --service hello --id one
"""

import argparse
import pathlib
import signal
import sys
import threading
from concurrent import futures

import grpc
import pyetcd

# Where greeter.proto is, which becomes Python here, at import.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "proto"))
protos, services = grpc.protos_and_services("helloworld/greeter.proto")


class Greeter(services.GreeterServicer):
    def __init__(self, identity):
        self.identity = identity

    def SayHello(self, request, context):
        return protos.HelloReply(message=f"Hello {request.name} from {self.identity}")


class Registration:
    """Keeps one key in etcd: put under a lease, and put again whenever the
    lease or the key is gone. A server that dies is gone with its lease."""

    def __init__(self, etcd, key, address, ttl):
        self.etcd, self.key, self.address, self.ttl = etcd, key, address, ttl
        self.lease = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.keep)

    def keep(self):
        while True:
            try:
                if not self.is_held():
                    self.lease = self.etcd.lease(self.ttl)
                    self.etcd.put(self.key, self.address, lease=self.lease)
                    print(f"registered {self.key} = {self.address}", flush=True)
            except (pyetcd.Etcd3Exception, grpc.RpcError) as error:
                # Its server is well all the same: try again.
                print(f"cannot register: {error!r}", file=sys.stderr, flush=True)
            # A third of the time to live leaves room for two failures.
            if self.stopping.wait(self.ttl / 3):
                return

    def is_held(self):
        if self.lease is None or self.lease.refresh()[0].TTL <= 0:
            return False
        _, meta = self.etcd.get(self.key)
        return meta is not None and meta.lease_id == self.lease.id

    def withdraw(self):
        """Deletes the key at once. The lease ends by itself: one that is
        revoked looks like an accident to those who watch."""
        self.stopping.set()
        self.thread.join()
        try:
            if self.lease is not None:
                self.etcd.delete(self.key)
        except (pyetcd.Etcd3Exception, grpc.RpcError) as error:
            print(f"cannot deregister: {error!r}", file=sys.stderr, flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--etcd", default="127.0.0.1:2379", help="HOST:PORT")
    arguments.add_argument("--service", default="hello")
    arguments.add_argument("--id", help="this instance [default: its address]")
    arguments.add_argument("--host", default="127.0.0.1", help="the IP clients reach this server by")
    arguments.add_argument("--port", type=int, default=0, help="0 = any")
    arguments.add_argument("--prefix", default="/etcd3_naming/")
    arguments.add_argument("--ttl", type=int, default=15, help="seconds a dead server stays listed")
    given = arguments.parse_args()

    # Before any thread is there: a signal interrupts the wait below.
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    port = server.add_insecure_port(f"{given.host}:{given.port}")
    address = f"{given.host}:{port}"
    identity = given.id or address
    services.add_GreeterServicer_to_server(Greeter(identity), server)
    server.start()

    etcd_host, _, etcd_port = given.etcd.rpartition(":")
    # By default pyetcd refuses an endpoint for 300 seconds after a failure, and gRPC waits
    # up to 120 seconds before it connects again.
    options = [("grpc.max_reconnect_backoff_ms", 5000)]
    endpoint = pyetcd.Endpoint(etcd_host, int(etcd_port), secure=False, time_retry=0, opts=options)
    etcd = pyetcd.MultiEndpointEtcd3Client([endpoint], timeout=5)
    registration = Registration(etcd, f"{given.prefix}{given.service}/{identity}", address, given.ttl)
    registration.thread.start()

    stopped.wait()
    # First nobody is sent here any more, then what is under way is finished.
    registration.withdraw()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
