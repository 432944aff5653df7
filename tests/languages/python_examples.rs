//! Tests of example servers that register themselves, started as a user starts them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::support::client::{Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;
use crate::support::signal::{self, Signal};
use crate::support::{WAIT_MAX, eventually};

/// A process of the Python example. Dropping the value kills it.
struct Server {
    child: Child,
    registered: Receiver<String>,
    failed: Receiver<String>,
}

/// The lines of a pipe, of which at most 16 wait to be read.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (line_tx, read) = sync_channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = line_tx.try_send(line);
        }
    });
    read
}

/// Installs the server's dependencies; tests take turns.
fn install(root: &Path) {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let status = Command::new(root.join("scripts/need")).arg("python-server").status();
    assert!(status.is_ok_and(|status| status.success()), "scripts/need: see above");
}

impl Server {
    fn start(id: &str, etcd: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        install(root);
        let mut child = Command::new(root.join("target/python-server/bin/python"))
            .arg(root.join("examples/servers/python/greeter_server.py"))
            .args(["--etcd", etcd, "--service", "hello", "--id", id, "--ttl", "3"])
            // A proxy of the machine must not be used for loopback.
            .env("no_grpc_proxy", "127.0.0.1,localhost,.internal")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let registered = lines(child.stdout.take().expect("it is piped"));
        let failed = lines(child.stderr.take().expect("it is piped"));
        let server = Self { child, registered, failed };
        server.has_registered();
        server
    }

    /// Waits until the server prints again that it has registered.
    #[track_caller]
    fn has_registered(&self) {
        let line = self.registered.recv_timeout(WAIT_MAX).expect("it registers");
        assert!(line.starts_with("registered "), "{line}");
    }

    /// Waits until the server prints that it cannot register.
    #[track_caller]
    fn has_failed(&self) {
        let line = self.failed.recv_timeout(WAIT_MAX).expect("it says so");
        assert!(line.starts_with("cannot register: "), "{line}");
    }

    /// Stops the server with SIGTERM, as an operator would.
    #[track_caller]
    fn terminate(mut self) {
        signal::send(self.child.id(), Signal::TERM);
        eventually("the server ends in order", || {
            let ended = self.child.try_wait().expect("a child can be asked")?;
            ended.success().then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_python_server_registers_in_etcd_and_comes_back_when_etcd_does() {
    let mut etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_ready();
    let port = format!("127.0.0.1:{}", etcd.port());
    let (one, two) = (Server::start("one", &port), Server::start("two", &port));
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    client.shares(&["one", "two"]);
    // The key is deleted by hand; then etcd loses everything.
    etcd.ctl(&["del", "/etcd3_naming/hello/one"]);
    one.has_registered();
    etcd.kill();
    // Each server notices the outage before etcd is back.
    one.has_failed();
    two.has_failed();
    etcd.restart_empty();
    one.has_registered();
    two.has_registered();
    balancer.wait_listed("hello", "one");
    client.shares(&["one", "two"]);
    // A server that is terminated is unlisted at once, a killed one with its lease.
    two.terminate();
    client.shares(&["one"]);
    drop(one);
    eventually("the crashed server is unlisted", || {
        (balancer.get("/api/v1/services/hello").0 == 404).then_some(())
    });
}

#[test]
fn the_python_server_registers_in_the_embedded_registry() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let registry = balancer.registry().to_string();
    let (one, _two) = (Server::start("one", &registry), Server::start("two", &registry));
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    client.shares(&["one", "two"]);
    one.terminate();
    client.shares(&["two"]);
}
