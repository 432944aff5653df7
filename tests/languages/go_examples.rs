//! Tests of the Go programs in `examples/`, started as a user starts them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::signal::{self, Signal};

/// The example server. Dropping the value kills it.
struct Server(Child);

impl Server {
    fn start(registry: &str, service: &str, format: &str) -> Self {
        let mut server = Command::new(build("servers"));
        server.args(["-etcd", registry, "-service", service, "-format", format, "-ttl", "5s"]);
        Self(server.stderr(Stdio::piped()).spawn().expect("the server starts"))
    }

    /// Returns the key that the server says it has registered.
    fn key(&mut self) -> String {
        let stderr = self.0.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let key = lines.find_map(|line| Some(line.split_once(" registered: ")?.1.to_owned()));
        // Further output must not block the server.
        std::thread::spawn(move || lines.for_each(drop));
        key.expect("it registers")
    }

    /// Sends SIGTERM, and waits until the server has ended.
    fn terminate(mut self) {
        signal::send(self.0.id(), Signal::TERM);
        eventually("it ends", || self.0.try_wait().expect("a child can be asked"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the output of the example client for four calls.
fn greetings(balancer: &Balancer, service: &str) -> Vec<String> {
    let mut client = Command::new(build("clients"));
    client.args(["-count", "4", "-interval", "10ms", &balancer.target(service)]);
    let Output { stdout, .. } = client.output().expect("the client runs");
    String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect()
}

/// Checks that a server is listed, and is unlisted at once when it is terminated.
fn comes_and_goes(balancer: &Balancer, registry: &str, format: &str) {
    let service = format!("greet-{format}");
    let mut server = Server::start(registry, &service, format);
    let key = server.key();
    let greeting = format!("Hello world from {}", key.rsplit('/').next().unwrap());
    eventually("the client is greeted", || {
        (greetings(balancer, &service) == vec![greeting.clone(); 4]).then_some(())
    });
    server.terminate();
    eventually("nobody is registered", || {
        let (status, _) = balancer.get(&format!("/api/v1/services/{service}"));
        (status == 404).then_some(())
    });
}

#[test]
fn the_go_examples_work_with_etcd_and_a_server_returns_when_etcd_forgets() {
    let mut etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_ready();
    for format in ["plain", "naming"] {
        comes_and_goes(&balancer, &etcd.url(), format);
    }
    let mut server = Server::start(&etcd.url(), "hello", "plain");
    let key = server.key();
    // The key is deleted, and later etcd loses all its data.
    etcd.ctl(&["del", &key]);
    let registered = |etcd: &Etcd| {
        eventually("it registers again", || {
            (etcd.ctl(&["get", "--keys-only", &key]).trim() == key).then_some(())
        });
    };
    registered(&etcd);
    etcd.restart_empty();
    registered(&etcd);
    server.terminate();
}

#[test]
fn the_go_examples_work_with_the_embedded_registry() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let registry = format!("http://{}", balancer.registry());
    for format in ["plain", "naming"] {
        comes_and_goes(&balancer, &registry, format);
    }
}

/// Builds `examples/{kind}/go`, quickly when nothing changed, and returns the program.
fn build(kind: &str) -> PathBuf {
    // A program cannot be started while another test writes it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/clients/examples-go").join(kind);
    let built = Command::new(root.join("scripts/go"))
        .args(["build", "-buildvcs=false", "-o"])
        .args([program.as_path(), Path::new(".")])
        .current_dir(root.join("examples").join(kind).join("go"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "go build: see above");
    program
}
