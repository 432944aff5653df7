"""A plain gRPC client. What it knows of the servers is one DNS name.

    python greeter_client.py dns:///hello.lookaside.internal
"""

import argparse
import pathlib
import sys
import time

import grpc

# Where greeter.proto is, which becomes Python here, at import.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "proto"))
protos, services = grpc.protos_and_services("helloworld/greeter.proto")

# All that a client needs for grpclb: look up SRV records, and use what they say.
OPTIONS = [
    ("grpc.dns_enable_srv_queries", 1),
    ("grpc.service_config", '{"loadBalancingConfig":[{"grpclb":{}}]}'),
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("target", help="dns:///NAME, or dns://IP:PORT/NAME to ask that DNS server")
    arguments.add_argument("--name", default="world")
    arguments.add_argument("--interval", type=float, default=1.0, help="seconds between calls")
    arguments.add_argument("--count", type=int, default=0, help="calls to make; 0 = no end")
    given = arguments.parse_args()

    with grpc.insecure_channel(given.target, options=OPTIONS) as channel:
        greeter = services.GreeterStub(channel)
        made = 0
        while True:
            try:
                reply = greeter.SayHello(protos.HelloRequest(name=given.name), timeout=5)
                print(reply.message, flush=True)
            except grpc.RpcError as error:
                print(f"{error.code().name}: {error.details()}", flush=True)
            made += 1
            if made == given.count:
                return
            time.sleep(given.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
