//! Snippets of programs: run in a small frame, or a verbatim part of an example that tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::page::{Block, blocks, read, root};
use super::readme::my_server;
use super::world::World;
use crate::support::language::Language;
use crate::support::{eventually, skip};

/// The target in every snippet. An example takes it as an argument.
const TARGET: &str = "\"dns:///hello.lookaside.internal\"";

/// What follows the Python snippet: a call, and then the channel stays open.
const PYTHON_CALL: &str = r#"
say_hello = channel.unary_unary("/helloworld.Greeter/SayHello")
print(say_hello(b"\n\x05world", wait_for_ready=True, timeout=30), flush=True)
__import__("sys").stdin.read()
"#;

const RUBY_CALL: &str = r#"
puts stub.say_hello(Helloworld::HelloRequest.new(name: "world"), deadline: Time.now + 30).message
"#;

/// What goes around the Go snippet: it registers until SIGTERM.
const GO_FRAME: &str = r#"package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"10.0.0.1:2379"}})
	if err != nil {
		panic(err)
	}
	defer etcd.Close()
	register(ctx, etcd, "go", "10.0.0.7:50051")
}

"#;

const RUST_EXAMPLE: &str = "examples/greeter_server.rs";

/// Where [`build`] puts the program with the Go snippet.
const GO_PROGRAM: &str = "target/clients/go-register";

/// Calls a backend by the snippet. The client goes on running.
pub(super) fn python(world: &mut World, block: &Block) {
    balancer(world);
    world.write("client.py", &format!("import grpc\n\n{}{PYTHON_CALL}", block.text));
    let client = world.start("\"$PYTHON\" client.py");
    world.prints(client, "my-server");
}

/// Calls a backend by the snippet.
pub(super) fn ruby(world: &mut World, block: &Block) {
    if let Err(why) = Language::named("ruby").build() {
        return skip("snippets::languages::ruby", &why);
    }
    balancer(world);
    let requires = "require \"grpc\"\nrequire \"helloworld/greeter_services_pb\"\n\n";
    world.write("client.rb", &format!("{requires}{}{RUBY_CALL}", block.text));
    let generated = root().join("target/clients/ruby");
    let printed = world.ok(&format!("ruby -I {} client.rb", generated.display()));
    assert_eq!(printed, "my-server\n", "{}", block.at());
}

/// Registers by the snippet, through the loss of a lease, and deletes the key at the end.
pub(super) fn go_register(world: &mut World, block: &Block) {
    let program = root().join(GO_PROGRAM);
    if !program.exists() {
        return skip("snippets::languages::go_register", "Go is not installed");
    }
    let program = world.start(&program.display().to_string());
    let key = "/etcd3_naming/go/10.0.0.7:50051";
    let mut lease = || {
        let fields = world.etcd().ctl(&["get", key, "--write-out=fields"]);
        let lease = fields.lines().find_map(|line| line.strip_prefix("\"Lease\" : "))?;
        assert!(fields.contains("\"Value\" : \"10.0.0.7:50051\""), "{}: {fields}", block.at());
        Some(lease.parse::<i64>().expect("a number"))
    };
    let first = eventually("it registers", &mut lease);
    world.etcd().ctl(&["lease", "revoke", &format!("{first:x}")]);
    let mut lease = || {
        let fields = world.etcd().ctl(&["get", key, "--write-out=fields"]);
        fields.lines().find_map(|line| line.strip_prefix("\"Lease\" : "))?.parse::<i64>().ok()
    };
    let second = eventually("it registers again", &mut lease);
    assert_ne!(first, second);
    assert_eq!(world.stop(program), Some(0), "{}", world.printed(program));
    let left = world.etcd().ctl(&["get", key]);
    assert_eq!(left, "", "{}: the key is deleted", block.at());
}

pub(super) fn go(_: &mut World, block: &Block) {
    let parts: Vec<_> = block.text.split("\n\n").collect();
    let parts: Vec<_> = parts.iter().map(|part| part.trim_start_matches("import ")).collect();
    is_part_of("examples/clients/go/main.go", "flag.Arg(0)", block, &parts);
}

pub(super) fn java(_: &mut World, block: &Block) {
    let example = "examples/clients/java/src/main/java/GreeterClient.java";
    is_part_of(example, "args[0]", block, &[&block.text]);
}

/// Compares the snippet with the example, and calls a backend by the example.
pub(super) fn cpp(world: &mut World, block: &Block) {
    is_part_of("examples/clients/cpp/greeter_client.cc", "argv[1]", block, &[&block.text]);
    if let Err(why) = Language::named("cpp").build() {
        return skip("snippets::languages::cpp", &why);
    }
    balancer(world);
    let example = root().join("target/clients/cpp/greeter_client");
    assert_eq!(world.ok(&format!("{} {TARGET} 1", example.display())), "my-server\n");
}

/// Compares the snippet with the example, which registers and deletes its key at the end.
pub(super) fn rust(world: &mut World, block: &Block) {
    let parts: Vec<_> = block.text.split("// … serve …").collect();
    is_part_of(RUST_EXAMPLE, "", block, &parts);
    let example = world.start(&format!("{} http://10.0.0.1:2379 rust", rust_program().display()));
    let has_key = |world: &mut World| {
        !world.etcd().ctl(&["get", "--prefix", "/etcd3_naming/rust/"]).is_empty()
    };
    world.etcd();
    eventually("it registers", || has_key(world).then_some(()));
    assert_eq!(world.stop(example), Some(0), "{}", world.printed(example));
    assert!(!has_key(world), "{}: the key is deleted", block.at());
}

/// Returns the example's program, which cargo builds beside the program for all tests.
fn rust_program() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_lookaside")).parent().expect("it lies somewhere");
    beside.join("examples/greeter_server")
}

/// Builds what the scene of the clients runs: the example in Rust, and the Go snippet.
pub(super) fn build() {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    // Cargo builds examples for `cargo test`, but not for one test alone. It would build much
    // again: its build scripts see that a test runs it.
    if changed(&rust_program()) < changed(&root().join(RUST_EXAMPLE)) {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", "greeter_server"])
            .current_dir(root())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{RUST_EXAMPLE} does not build");
    }
    for language in ["ruby", "cpp"] {
        // The scene asks again, and skips what cannot be built.
        let _ = Language::named(language).build();
    }
    if can_have_go() {
        build_go();
    }
}

fn can_have_go() -> bool {
    let need = Command::new(root().join("scripts/need")).arg("go").status();
    need.is_ok_and(|status| status.success())
}

/// Builds the Go snippet as a program, in the module of the example for Go.
fn build_go() {
    let blocks = blocks("docs/register.md");
    let snippet = blocks.iter().find(|block| block.tag == "go").expect("the page has one");
    let sources = tempfile::tempdir().expect("a temporary directory");
    let main = sources.path().join("main.go");
    std::fs::write(&main, format!("{GO_FRAME}{}", snippet.text)).expect("it can be written");
    let module = root().join("examples/servers/go");
    // The snippet's file stands in for the example's two.
    let overlay = serde_json::json!({ "Replace": {
        module.join("main.go").display().to_string(): main,
        module.join("registration.go").display().to_string(): "",
    }});
    let file = sources.path().join("overlay.json");
    std::fs::write(&file, overlay.to_string()).expect("it can be written");
    let program = root().join(GO_PROGRAM);
    let built = Command::new(root().join("scripts/go"))
        .args(["build", "-buildvcs=false", "-overlay"])
        .args([&file, Path::new("-o"), &program, Path::new(".")])
        .current_dir(module)
        .output();
    let output = built.expect("scripts/go runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", snippet.at());
}

/// Fails unless the parts stand in the example one after another, white space aside, where
/// the example has `argument` for the target.
#[track_caller]
fn is_part_of(example: &str, argument: &str, block: &Block, parts: &[&str]) {
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    let text = bare(&code(example));
    let mut rest = &text[..];
    for part in parts {
        let wanted = bare(&part.replace(TARGET, argument));
        let at = rest.find(&wanted);
        let at = at.unwrap_or_else(|| panic!("{}: {example} has no\n{part}", block.at()));
        rest = &rest[at + wanted.len()..];
    }
}

/// Returns the example without its comments, which the document says in its text.
fn code(example: &str) -> String {
    let text = read(example);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Starts a balancer with a backend, unless the scene has one.
fn balancer(world: &mut World) {
    if world.get("/readyz").is_some() {
        return;
    }
    world.etcd();
    my_server(world);
    world.start("./my-server --port 50051");
    world.serve("lookaside serve --etcd http://10.0.0.1:2379 --dns-listen 0.0.0.0:53");
    world.register(7);
    world.shows("/api/v1/services/hello", "10.0.0.7:50051");
}
