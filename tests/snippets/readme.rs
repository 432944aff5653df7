//! The README's commands, which run one after another in one world.

use super::page::Block;
use super::world::{Ended, World};
use crate::support::backend::PREFIX;
use crate::support::eventually;

/// A backend that answers the health check and greets, given `--port PORT`.
const MY_SERVER: &str = r#"
import sys
from concurrent import futures

import grpc

ANSWERS = {
    "/grpc.health.v1.Health/Check": b"\x08\x01",
    "/helloworld.Greeter/SayHello": b"\n\x09my-server",
}


class Server(grpc.GenericRpcHandler):
    def service(self, call):
        answer = ANSWERS.get(call.method)
        return answer and grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Server()])
server.add_insecure_port("0.0.0.0:" + sys.argv[2])
server.start()
server.wait_for_termination()
"#;

/// Starts the balancer, which says where it listens in the documented words.
pub(super) fn serve(world: &mut World, block: &Block) {
    world.etcd();
    let [serve] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let balancer = world.serve(&serve.text);
    world.prints(balancer, &serve.output.join("\n"));
}

/// Registers a backend without and with a command of its own. The latter goes on running.
pub(super) fn register(world: &mut World, block: &Block) {
    let [alone, around] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    world.etcd();
    let registered = world.start(&alone.text);
    world.prints(registered, "registered service=hello address=10.0.0.7:50051");
    wait_for_key(world, |value| value.contains("10.0.0.7:50051"));
    assert_eq!(world.stop(registered), Some(0), "{}", world.printed(registered));
    wait_for_key(world, str::is_empty);

    my_server(world);
    let around = world.start(&around.text);
    world.prints(around, "registered service=hello address=10.0.0.7:50051");
    let with = |value: &str, field: &str| value.replace(' ', "").contains(field);
    wait_for_key(world, |value| with(value, "10.0.0.7:50051") && with(value, "\"zone\":\"a\""));
    wait_for_key(world, |value| with(value, "\"weight\":3") || with(value, "\"weight\":\"3\""));
}

/// Registers like [`register`], then ends the second command too: its key goes with it.
pub(super) fn register_and_end(world: &mut World, block: &Block) {
    register(world, block);
    // It is the second one that was started.
    let code = world.stop(1);
    assert!(code.is_some(), "{}: {}", block.at(), world.printed(1));
    wait_for_key(world, str::is_empty);
}

/// Looks at the balancer that runs, in which a client has a stream.
pub(super) fn look(world: &mut World, block: &Block) {
    let commands = block.commands();
    let [services, clients, watch, explain, drain] = &commands[..] else {
        panic!("{}: five commands", block.at())
    };
    world.register(9);
    world.shows("/api/v1/services/hello", "10.0.0.9:50051");
    let services = world.ok(&services.text);
    assert!(services.contains(" hello ") && services.contains("STATE"), "{services}");
    let clients = world.ok(&clients.text);
    assert!(clients.contains("hello.lookaside.internal"), "{clients}");
    let watched = world.start(&watch.text);
    world.prints(watched, "+ 10.0.0.9:50051");
    let explained = world.ok(&explain.text);
    assert!(explained.contains("listed      yes"), "{explained}");
    let drained = world.ok(&drain.text);
    assert!(drained.contains("10.0.0.9:50051 of hello: 1 drained until"), "{drained}");
    world.prints(watched, "- 10.0.0.9:50051");
    let Ended { code, out, .. } = world.run(&explain.text);
    assert!(code == Some(3) && out.contains("undrained   NO"), "{out}");
}

/// Puts the program `my-server` into the world.
pub(super) fn my_server(world: &World) {
    world.write("my-server.py", MY_SERVER);
    world.write("my-server", "#!/bin/sh\nexec \"$PYTHON\" my-server.py \"$@\"\n");
    world.ok("chmod +x my-server");
}

#[track_caller]
fn wait_for_key(world: &mut World, is_right: impl Fn(&str) -> bool) {
    let below = format!("{PREFIX}hello/");
    eventually("etcd has the key, or has it no more", || {
        let value = world.etcd().ctl(&["get", "--prefix", &below, "--print-value-only"]);
        is_right(&value).then_some(())
    });
}
