//! Tests with clients of languages whose gRPC has no grpclb: Node.js and Rust. They
//! get all backends from DNS and follow changes by their own rules. The backends
//! share a port, because A records have none.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::backend::Backend;
use crate::support::client::{Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::NODE;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, free_port};

const ROUND_ROBIN: &str = r#"{"loadBalancingConfig":[{"round_robin":{}}]}"#;
const IPS: [&str; 4] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];

struct Scene {
    etcd: Etcd,
    balancer: Balancer,
    port: u16,
}

impl Scene {
    fn start() -> Self {
        let etcd = Etcd::start();
        let balancer = Balancer::start(&["--etcd", &etcd.url()]);
        balancer.wait_ready();
        Self { etcd, balancer, port: free_port() }
    }

    /// Starts a backend whose id is its IP address, and waits until it is listed.
    fn backend(&self, ip: &str) -> Backend {
        let address = format!("{ip}:{}", self.port).parse().expect("an address");
        let mut backend = Backend::start_at(ip, address);
        backend.register(&self.etcd.url(), "hello");
        self.balancer.wait_listed("hello", ip);
        backend
    }

    fn stop(&self, backend: Backend) {
        let ip = backend.addr().ip().to_string();
        backend.stop();
        self.balancer.wait_unlisted("hello", &ip);
    }
}

/// grpc-js asks DNS only when a connection ends. So it notices at once that a backend
/// leaves, and notices a new backend when another one leaves.
#[test]
fn node_sees_all_backends_and_looks_again_when_one_leaves() {
    let scene = Scene::start();
    let [a, _b, c] = [IPS[0], IPS[1], IPS[2]].map(|ip| scene.backend(ip));
    let driver = Driver::start(&NODE);
    let target = format!("{}:{}", scene.balancer.target("hello"), scene.port);
    let options = Options::grpclb(target).config(ROUND_ROBIN);
    let client = driver.open(&options.ask_dns_every(std::time::Duration::from_millis(100)));
    client.shares(&IPS[..3]);
    scene.stop(a);
    client.shares(&IPS[1..3]);
    let _d = scene.backend(IPS[3]);
    scene.stop(c);
    client.shares(&[IPS[1], IPS[3]]);
}

/// The example asks again whenever an answer's five seconds are over.
#[test]
fn rust_sees_all_instances_and_follows_dns() {
    let scene = Scene::start();
    let [a, _b] = [IPS[0], IPS[1]].map(|ip| scene.backend(ip));
    let example = Example::start(&scene);
    example.is_answered_by(&IPS[..2]);
    let _c = scene.backend(IPS[2]);
    example.is_answered_by(&IPS[..3]);
    scene.stop(a);
    example.is_answered_by(&IPS[1..3]);
}

/// A running `examples/greeter_client.rs`. Dropping the value kills it.
struct Example {
    child: Child,
    /// The lines printed since the last look.
    lines: Arc<Mutex<Vec<String>>>,
}

impl Example {
    fn start(scene: &Scene) -> Self {
        let mut child = Command::new(built())
            .arg(format!("hello.lookaside.internal:{}", scene.port))
            .args(["--dns", &scene.balancer.dns().to_string(), "--interval", "0.01"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                all.lock().expect("no holder panics").push(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until answers come from exactly these backends.
    #[track_caller]
    fn is_answered_by(&self, ids: &[&str]) {
        let expected: BTreeSet<String> =
            ids.iter().map(|id| format!("Hello world from {id}")).collect();
        eventually("all of these answer, and nobody else", || {
            let mut lines = self.lines.lock().expect("no holder panics");
            if lines.len() < 50 {
                return None;
            }
            let seen: BTreeSet<String> = lines.drain(..).collect();
            (seen == expected).then_some(())
        });
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the example's path, and builds it if it is older than its source: Cargo
/// builds examples for `cargo test`, but not for a single test.
fn built() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = Path::new(env!("CARGO_BIN_EXE_lookaside")).parent().expect("it lies somewhere");
    let program = beside.join("examples/greeter_client");
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    // Cargo runs only if it must: it would build much again, because build scripts
    // see that a test runs it.
    if changed(&program) < changed(&root.join("examples/greeter_client.rs")) {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", "greeter_client"])
            .current_dir(root)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "the example builds");
    }
    program
}
