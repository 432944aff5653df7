//! Tests of the example programs for Java, started as a user starts them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::java_clients::{balancer, eventually, target, unready_balancer};
use crate::support::WAIT_MAX;
use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::java::{Driver, Options, example, isolated};
use crate::support::lookaside::Balancer;
use crate::support::signal::{self, Signal};

/// The example server, which registers itself. Dropping the value kills it.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    fn start(registry: &str, id: &str) -> Self {
        let mut command = example("examples/servers/java", "greeter-server.jar");
        command.args([registry, "hello", "127.0.0.1:0", id]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("java runs");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (line_tx, lines) = sync_channel(100);
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line))
        });
        Self { child, lines }
    }

    /// Waits for a line that begins with this text.
    #[track_caller]
    fn says(&self, beginning: &str) {
        loop {
            let line = self.lines.recv_timeout(WAIT_MAX);
            let line = line.unwrap_or_else(|_| panic!("it never says {beginning:?}"));
            if line.starts_with(beginning) {
                return;
            }
        }
    }

    fn terminate(&self) {
        signal::send(self.child.id(), Signal::TERM);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_example_client_prints_who_answers() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let _one = Backend::registered("one", &etcd.url(), "hello");
        let mut command = example("examples/clients/java", "greeter-client.jar");
        let output = command.args([&target("hello"), "2"]).output().expect("java runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert_eq!(printed, "Hello world from one\nHello world from one\n", "{error}");
    });
}

/// Checks that the server registers, registers again after losing its key and its
/// lease, deregisters when it is terminated, and is unlisted when it is killed.
fn holds_its_registration(balancer: &Balancer, registry: &str, ctl: impl Fn(&[&str]) -> String) {
    let key = "/etcd3_naming/hello/java-1";
    let driver = Driver::start();
    let client = driver.open(&Options::grpclb(target("hello")));
    let server = Server::start(registry, "java-1");
    server.says("registered");
    client.shares(&["java-1"]);

    ctl(&["del", key]);
    server.says("lost");
    server.says("registered");
    for lease in ctl(&["lease", "list"]).lines().skip(1) {
        ctl(&["lease", "revoke", lease]);
    }
    server.says("registered");
    client.shares(&["java-1"]);

    server.terminate();
    server.says("deregistered");
    assert_eq!(ctl(&["get", key]), "");

    let mut server = Server::start(registry, "java-1");
    server.says("registered");
    client.shares(&["java-1"]);
    server.child.kill().expect("it runs");
    eventually("its lease ends", || {
        let (status, _) = balancer.get("/api/v1/services/hello");
        (status == 404).then_some(())
    });
}

#[test]
fn the_example_server_holds_its_registration_in_etcd() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        holds_its_registration(&balancer, &etcd.url(), |args| etcd.ctl(args));
    });
}

#[test]
fn the_example_server_holds_its_registration_in_the_embedded_registry() {
    isolated(|| {
        let balancer = unready_balancer(&[]);
        balancer.wait_ready();
        let registry = balancer.registry();
        holds_its_registration(&balancer, &format!("http://{registry}"), |args| {
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .arg(format!("--endpoints={registry}"))
                .args(args)
                .output()
                .expect("etcdctl runs: Debian package etcd-client");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "etcdctl {args:?}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
    });
}
