//! A real etcd with one member on loopback, which tests can kill, restart and freeze.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::signal::{self, Signal};
use super::{WAIT_MAX, free_port};

/// A running etcd. It ends and its data is deleted when this value is dropped.
pub struct Etcd {
    data: TempDir,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    extra: Vec<String>,
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts etcd with further flags.
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_on(free_port(), extra.iter().map(|&flag| flag.to_owned()).collect())
    }

    /// Starts etcd at `port` of loopback and of further addresses.
    pub fn start_at(port: u16, addresses: &[&str]) -> Self {
        let hosts = ["127.0.0.1"].iter().chain(addresses);
        let urls: Vec<_> = hosts.map(|host| format!("http://{host}:{port}")).collect();
        // The last one of two flags counts.
        Self::start_on(port, vec!["--listen-client-urls".to_owned(), urls.join(",")])
    }

    fn start_on(client_port: u16, extra: Vec<String>) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let mut etcd = Self { data, client_port, peer_port: free_port(), child: None, extra };
        etcd.run();
        assert!(etcd.wait_until_serving(), "etcd does not start at port {client_port}");
        etcd
    }

    pub fn port(&self) -> u16 {
        self.client_port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Kills the process (SIGKILL), like a crash. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Restarts etcd on the same ports with the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
        assert!(self.wait_until_serving(), "etcd does not come back on port {}", self.client_port);
    }

    /// Restarts etcd with an empty store at revision 1.
    pub fn restart_empty(&mut self) {
        self.kill();
        self.data = TempDir::new().expect("a temporary directory");
        self.restart();
    }

    /// Restarts etcd with the data of a snapshot that `etcdctl snapshot save` made.
    pub fn restart_from(&mut self, snapshot: &Path) {
        self.kill();
        let data = TempDir::new().expect("a temporary directory");
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", "--name", "test"])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .arg("--data-dir")
            .arg(data.path().join("restored"))
            .arg(snapshot)
            .output()
            .expect("etcdctl runs: Debian package etcd-client");
        assert!(output.status.success(), "{output:?}");
        self.data = data;
        self.restart();
    }

    /// Freezes the process (SIGSTOP): connections stay open, and it does not answer.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs `etcdctl` against this etcd and returns its output.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{}", self.client_port))
            // By default five seconds, which a busy disk can take.
            .arg("--command-timeout=30s")
            .args(args)
            .output()
            .expect("etcdctl runs: Debian package etcd-client");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn run(&mut self) {
        let client = self.url();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new("etcd")
            .args(["--name", "test", "--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .args(["--unsafe-no-fsync"])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: Debian package etcd-server");
        self.child = Some(child);
    }

    fn data_dir(&self) -> PathBuf {
        let restored = self.data.path().join("restored");
        if restored.exists() { restored } else { self.data.path().to_owned() }
    }

    /// Returns `false` if the process ended or does not serve in time.
    fn wait_until_serving(&mut self) -> bool {
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            if self.healthy() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn healthy(&self) -> bool {
        if TcpStream::connect(("127.0.0.1", self.client_port)).is_err() {
            return false;
        }
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{}", self.client_port))
            .args(["endpoint", "health"])
            .output();
        output.is_ok_and(|output| {
            // An etcd that requires a user serves too.
            let error = String::from_utf8_lossy(&output.stderr);
            output.status.success() || error.contains("user name is empty")
        })
    }

    fn signal(&self, signal: Signal) {
        signal::send(self.child.as_ref().expect("it runs").id(), signal);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
