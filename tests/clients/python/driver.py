"""A real grpcio client, steered by lines of JSON: see ../README.md.

The client is unmodified: nothing here knows of lookaside.
"""

import collections
import json
import os
import pathlib
import sys
import threading

import grpc

sys.path.append(str(pathlib.Path(__file__).parents[3] / "proto"))
protos, services = grpc.protos_and_services("helloworld/greeter.proto")


class Report:
    """What came of a number of calls."""

    def __init__(self, details):
        self.answers = collections.Counter()
        self.errors = collections.Counter()
        self.calls = [] if details else None

    def add(self, kind, text, call):
        getattr(self, kind + "s")[text] += 1
        if self.calls is not None:
            pairs = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
            metadata = {key: value for key, value in pairs if isinstance(value, str)}
            self.calls.append({kind: text, "metadata": metadata})

    def as_json(self):
        report = {"answers": self.answers, "errors": self.errors}
        return report if self.calls is None else report | {"calls": self.calls}


class Channel:
    """One channel, with connections of its own."""

    def __init__(self, target, config, idle_seconds, fallback_seconds, ca, options):
        settings = {"grpc.use_local_subchannel_pool": 1, "grpc.dns_enable_srv_queries": 1}
        if config is None:
            settings["grpc.service_config_disable_resolution"] = 0
        else:
            settings["grpc.service_config"] = config
        if idle_seconds is not None:
            settings["grpc.client_idle_timeout_ms"] = int(idle_seconds * 1000)
        if fallback_seconds is not None:
            settings["grpc.grpclb_fallback_timeout_ms"] = int(fallback_seconds * 1000)
        settings = [*settings.items(), *map(tuple, options)]
        if ca is None:
            self.channel = grpc.insecure_channel(target, options=settings)
        else:
            credentials = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes())
            self.channel = grpc.secure_channel(target, credentials, options=settings)
        self.greeter = services.GreeterStub(self.channel)
        self.stopping = threading.Event()
        self.background = None

    def call(
        self, count, timeout, wait_for_ready, every, name, details=False, headers=None, stop=None
    ):
        """Calls one after the other: count times, or until stop is set."""
        report = Report(details)
        request = protos.HelloRequest(name=name)
        metadata = [*(headers or {}).items()]
        made = 0
        while made != count and not (stop and stop.is_set()):
            if made and every:
                (stop or threading.Event()).wait(every)
            made += 1
            try:
                reply, call = self.greeter.SayHello.with_call(
                    request, timeout=timeout, wait_for_ready=wait_for_ready, metadata=metadata
                )
                report.add("answer", reply.message, call)
            except grpc.RpcError as error:
                report.add("error", f"{error.code().name}: {error.details()}", error)
        return report.as_json()

    def start(self, **arguments):
        if self.background:
            raise ValueError("it is calling already")
        self.stopping.clear()
        result = []
        thread = threading.Thread(
            target=lambda: result.append(self.call(count=-1, stop=self.stopping, **arguments)),
            daemon=True,
        )
        self.background = thread, result
        thread.start()

    def stop(self):
        if not self.background:
            raise ValueError("it is not calling")
        thread, result = self.background
        self.stopping.set()
        thread.join()
        self.background = None
        return result[0]

    def close(self):
        self.stopping.set()
        self.channel.close()


class Driver:
    """Carries out commands."""

    def __init__(self, out):
        self.out = out
        self.lock = threading.Lock()
        self.channels = {}

    def run(self, commands):
        for line in commands:
            command = json.loads(line)
            if command["do"] in ("open", "start"):
                # At once and in order: what follows may rely on them.
                self.answer(command)
            else:
                threading.Thread(target=self.answer, args=[command], daemon=True).start()

    def answer(self, command):
        number = command.pop("id")
        try:
            reply = {"id": number, "ok": self.carry_out(**command)}
        except Exception as error:  # the other side decides what it means
            reply = {"id": number, "error": f"{type(error).__name__}: {error}"}
        with self.lock:
            print(json.dumps(reply), file=self.out, flush=True)

    def carry_out(self, do, channel=None, **arguments):
        if do == "hello":
            return {"version": f"grpcio {grpc.__version__}"}
        if do == "open":
            self.channels[channel] = Channel(**arguments)
            return None
        if do == "close":
            return self.channels.pop(channel).close()
        if do not in ("call", "start", "stop"):
            raise ValueError(f"no such command: {do}")
        return getattr(self.channels[channel], do)(**arguments)


if __name__ == "__main__":
    Driver(sys.stdout).run(sys.stdin)
    # Calls that still wait would hold up the interpreter's end.
    os._exit(0)
