"""A backend with the health server of grpcio-health-checking, and no other service.

It prints its address. Each line of standard input is its state from then on, such as
NOT_SERVING. It ends with its standard input.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(futures.ThreadPoolExecutor())
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"127.0.0.1:{port}", flush=True)
for line in sys.stdin:
    state = health_pb2.HealthCheckResponse.ServingStatus.Value(line.strip())
    servicer.set("", state)
server.stop(None)
