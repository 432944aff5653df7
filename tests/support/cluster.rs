//! A cluster of real etcds on loopback, optionally with TLS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::signal::{self, Signal};
use super::{WAIT_MAX, free_port};

/// A running cluster. Its processes end and its data is deleted when this value is dropped.
pub struct Cluster {
    data: TempDir,
    members: Vec<Member>,
    certificates: Option<Certificates>,
}

struct Member {
    /// The member's address, and its network if it is not the test's.
    host: String,
    network: Option<String>,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// The files of an authority and of one certificate for 127.0.0.1 that it signed, with its
/// key. Servers and clients use the same certificate.
#[derive(Clone)]
pub struct Certificates {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Cluster {
    pub fn start(size: usize) -> Self {
        Self::start_inner(&here(size), false)
    }

    /// Starts each member in its own network. `networks` has the address and the network of
    /// each.
    pub fn start_in(networks: &[(String, Option<String>)]) -> Self {
        Self::start_inner(networks, false)
    }

    /// Starts one member that refuses clients without a certificate.
    pub fn start_with_tls() -> Self {
        Self::start_inner(&here(1), true)
    }

    fn start_inner(networks: &[(String, Option<String>)], tls: bool) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let certificates = tls.then(|| Certificates::new(data.path()));
        let member = |(host, network): &(String, Option<String>)| Member {
            host: host.clone(),
            network: network.clone(),
            client_port: free_port(),
            peer_port: free_port(),
            child: None,
        };
        let members = networks.iter().map(member).collect();
        let mut cluster = Self { data, members, certificates };
        (0..networks.len()).for_each(|index| cluster.run(index));
        assert!(cluster.wait_until_serving(), "the cluster does not start");
        cluster
    }

    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("it was started with TLS")
    }

    pub fn urls(&self) -> Vec<String> {
        (0..self.members.len()).map(|index| self.url(index)).collect()
    }

    pub fn url(&self, index: usize) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let Member { host, client_port, .. } = &self.members[index];
        format!("{scheme}://{host}:{client_port}")
    }

    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn restart(&mut self, index: usize) {
        self.kill(index);
        self.run(index);
        assert!(self.wait_until_serving(), "member {index} does not come back");
    }

    pub fn freeze(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    pub fn thaw(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    /// Returns the index of the leader.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|&index| {
            let text = self.ask(index, &["endpoint", "status", "-w", "json"]);
            let status: Option<serde_json::Value> =
                text.and_then(|text| serde_json::from_str(&text).ok());
            status.is_some_and(|all| {
                all[0]["Status"]["header"]["member_id"] == all[0]["Status"]["leader"]
            })
        })
    }

    /// Makes another member the leader.
    pub fn move_leader(&self) {
        let leader = self.leader().expect("somebody leads");
        let members = self.ask(leader, &["member", "list"]).expect("the leader answers");
        let name = format!("m{}", (leader + 1) % self.members.len());
        let other = members.lines().find(|line| line.contains(&format!(" {name},")));
        let (id, _) = other.expect("it is a member").split_once(',').expect("fields");
        assert!(self.ctl(leader, &["move-leader", id]), "the leader does not move");
    }

    /// Runs `etcdctl` against one member. Returns whether it succeeded.
    pub fn ctl(&self, index: usize, args: &[&str]) -> bool {
        self.ask(index, args).is_some()
    }

    fn ask(&self, index: usize, args: &[&str]) -> Option<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.url(index)));
        command.args(["--command-timeout=2s", "--dial-timeout=2s"]);
        if let Some(Certificates { ca, cert, key }) = &self.certificates {
            command.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
        }
        let output = command.args(args).stdin(Stdio::null()).output();
        let output = output.expect("etcdctl runs: Debian package etcd-client");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&mut self, index: usize) {
        let peer = |member: &Member| format!("http://{}:{}", member.host, member.peer_port);
        let all = self.members.iter().enumerate();
        let all: Vec<_> = all.map(|(i, member)| format!("m{i}={}", peer(member))).collect();
        let (client, own_peer) = (self.url(index), peer(&self.members[index]));
        let mut command = match &self.members[index].network {
            None => Command::new("etcd"),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "etcd"]);
                command
            }
        };
        command
            .args(["--name", &format!("m{index}"), "--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data.path().join(format!("m{index}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &own_peer, "--initial-advertise-peer-urls", &own_peer])
            .args(["--initial-cluster", &all.join(","), "--unsafe-no-fsync"]);
        if let Some(Certificates { ca, cert, key }) = &self.certificates {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.members[index].child = Some(child.expect("etcd runs: Debian package etcd-server"));
    }

    fn wait_until_serving(&mut self) -> bool {
        let deadline = Instant::now() + WAIT_MAX;
        (0..self.members.len()).all(|index| {
            while Instant::now() < deadline {
                let Some(child) = &mut self.members[index].child else { return true };
                if child.try_wait().expect("a child can be asked").is_some() {
                    return false;
                }
                if self.ctl(index, &["endpoint", "health"]) {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            false
        })
    }

    fn signal(&self, index: usize, signal: Signal) {
        signal::send(self.members[index].child.as_ref().expect("it runs").id(), signal);
    }
}

/// Returns the networks of `size` members on loopback.
fn here(size: usize) -> Vec<(String, Option<String>)> {
    vec![("127.0.0.1".to_owned(), None); size]
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

impl Certificates {
    pub fn new(directory: &Path) -> Self {
        let path = |name| directory.join(name);
        let files = Self { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") };
        files.renew();
        files
    }

    /// Replaces authority, certificate and key in the same files.
    pub fn renew(&self) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(vec![]).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let cert_pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a file");
        write(&self.ca, &ca_pem);
        write(&self.cert, &cert_pem);
        write(&self.key, &key.serialize_pem());
    }
}
