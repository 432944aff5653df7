//! Tests with a real CoreDNS that answers from the records that balancers keep in etcd.
//!
//! In: two balancers, services, and CoreDNS's plugin etcd. Out: a panic if its answers are not
//! those of lookaside's own DNS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::dns::{addresses, balancers, texts};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::{eventually, free_port, skip};

use super::recipe;

const HELLO: &str = "hello.lookaside.internal";
const SRV: &str = "_grpclb._tcp.hello.lookaside.internal";
const TXT: &str = "_grpc_config.hello.lookaside.internal";

/// A running CoreDNS. It is killed when this value is dropped.
struct CoreDns {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Drop for CoreDns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CoreDns {
    /// Runs CoreDNS with the server block that docs/dns.md has.
    fn start(etcd: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Command::new(root.join("scripts/need")).arg("coredns").status();
        if !built.is_ok_and(|status| status.success()) {
            skip("skydns", "scripts/need coredns: see above");
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let (file, port) = (directory.path().join("Corefile"), free_port());
        let settings = recipe("lookaside.internal:53 {\n    errors\n    etcd")
            .replace(":53 {", &format!(":{port} {{\n    bind 127.0.0.1"))
            .replace("http://10.0.0.2:2379", etcd);
        std::fs::write(&file, settings).expect("a temporary file");
        let child = Command::new(root.join("target/tools/coredns"))
            .arg("-conf")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("CoreDNS starts");
        Some(Self { child, address: ([127, 0, 0, 1], port).into(), _directory: directory })
    }
}

#[test]
fn coredns_answers_as_lookaside_does() {
    let etcd = Etcd::start();
    let Some(coredns) = CoreDns::start(&etcd.url()) else { return };
    let url = etcd.url();
    let serve = || {
        let own = format!("127.0.0.1:{}", free_port());
        let args = ["--etcd", &url, "--listen", &own, "--advertise", &own];
        Balancer::start(&[&args[..], &["--skydns-prefix", "/skydns"]].concat())
    };
    let put =
        |key: &str, address: &str| etcd.ctl(&["put", &format!("/etcd3_naming/{key}"), address]);
    put("hello/a", "10.0.0.9:50051");
    put("dev/game/a", "10.0.0.7:50051");
    let (one, mut other) = (serve(), serve());
    let named = |name: &str| {
        let mut found = balancers(coredns.address, name)?;
        found.sort_unstable();
        found.dedup();
        Some(found)
    };
    let expect = |expected: &[&Balancer], name: &str| {
        let mut expected: Vec<_> = expected.iter().map(|one| one.grpclb()).collect();
        expected.sort_unstable();
        eventually(&format!("{name} leads to {expected:?}"), || {
            named(name).filter(|found| *found == expected)
        });
    };
    expect(&[&one, &other], SRV);
    expect(&[&one, &other], "_grpclb._tcp.game.dev.lookaside.internal");
    let found = eventually("the service config is there", || texts(coredns.address, TXT));
    assert_eq!(found, texts(one.dns(), TXT).expect("lookaside answers"));
    // The balancers' own records below the name are none of its addresses.
    let backends = |expected: &[[u8; 4]]| {
        let expected: Vec<Ipv4Addr> = expected.iter().map(|ip| (*ip).into()).collect();
        eventually(&format!("the backends are {expected:?}"), || {
            addresses(coredns.address, HELLO).filter(|found| *found == expected)
        });
    };
    backends(&[[10, 0, 0, 9]]);
    put("hello/b", "10.0.0.10:50051");
    backends(&[[10, 0, 0, 9], [10, 0, 0, 10]]);
    etcd.ctl(&["del", "/etcd3_naming/hello/a"]);
    backends(&[[10, 0, 0, 10]]);
    // Its records are gone before the clients are told to leave.
    other.signal(Signal::TERM);
    expect(&[&one], SRV);
    assert!(other.wait().success());
    // Records that are lost are written again, twice a minute.
    etcd.ctl(&["del", "--prefix", "/skydns/"]);
    expect(&[&one], SRV);
    assert_eq!(one.metric("lookaside_skydns_records"), Some(2.0 + 4.0 + 4.0));
}
