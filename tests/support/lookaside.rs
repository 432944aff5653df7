//! The program as a process: `lookaside serve` on free ports.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::signal::{self, Signal};
use super::{WAIT_MAX, eventually};

/// The flags that are passed unless the test passes them itself.
const DEFAULTS: [(&str, &str); 4] = [
    ("--listen", "127.0.0.1:0"),
    ("--admin-listen", "127.0.0.1:0"),
    ("--dns-listen", "127.0.0.1:0"),
    ("--registry-listen", "127.0.0.1:0"),
];

/// A running balancer. It is killed when this value is dropped.
pub struct Balancer {
    child: Child,
    /// The line with the bound addresses.
    listening: String,
    log: Arc<Mutex<String>>,
}

impl Balancer {
    /// Runs `lookaside serve` and waits until its sockets are bound. With
    /// `--etcd` in `args` there is no embedded registry.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::try_start(args).unwrap_or_else(|log| panic!("lookaside {args:?}:\n{log}"))
    }

    /// Starts like [`Self::start`], but returns the log as an error if it fails, for example
    /// because its port is taken.
    pub fn try_start(args: &[&str]) -> Result<Self, String> {
        Self::try_start_with(args, &[])
    }

    /// Starts like [`Self::try_start`] with further environment variables.
    pub fn try_start_with(args: &[&str], environment: &[(&str, &str)]) -> Result<Self, String> {
        Self::run(Command::new(program()), args, environment)
    }

    /// Starts `program` in a network of the test's: see [`super::network`].
    pub fn try_start_in(network: &str, program: &Path, args: &[&str]) -> Result<Self, String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", network]).arg(program);
        Self::run(command, args, &[])
    }

    fn run(
        mut command: Command,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        // Settings in the environment of the test run must not influence the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LOOKASIDE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .args(args)
            .args(defaults(args))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lookaside starts");
        let log = collect(child.stderr.take().expect("it is piped"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (line_tx, line_rx) = sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = line_tx.send(line);
            // Read further output, so that the program never blocks on it.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let mut balancer = Self { child, listening: String::new(), log };
        balancer.listening = line_rx.recv_timeout(WAIT_MAX).unwrap_or_default();
        if balancer.listening.starts_with("listening ") {
            return Ok(balancer);
        }
        balancer.kill();
        // The last log lines may still be in the pipe.
        let end = Instant::now() + Duration::from_secs(2);
        while balancer.log().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(balancer.log())
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address of the gRPC server.
    #[track_caller]
    pub fn grpclb(&self) -> SocketAddr {
        self.address("grpclb")
    }

    #[track_caller]
    pub fn dns(&self) -> SocketAddr {
        self.address("dns")
    }

    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// Returns the address of the embedded registry.
    #[track_caller]
    pub fn registry(&self) -> SocketAddr {
        self.address("registry")
    }

    /// Registers a backend in the embedded registry.
    #[track_caller]
    pub fn register(&self, service: &str, id: &str, address: &str) {
        let key = format!("/etcd3_naming/{service}/{id}");
        let registry = self.registry().to_string();
        let args = ["--endpoints", &registry, "put", &key, address];
        let put = Command::new("etcdctl").env("ETCDCTL_API", "3").args(args).output();
        assert!(put.expect("etcdctl runs").status.success());
    }

    /// Returns the target of a service for a client: its name in the default zone, with this
    /// balancer's DNS server.
    #[track_caller]
    pub fn target(&self, service: &str) -> String {
        format!("dns://{}/{service}.lookaside.internal", self.dns())
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no holder panics").clone()
    }

    /// Returns status and body of a path at the admin address; `None` if it does not answer.
    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.admin());
        let request = ureq::get(url).config().http_status_as_error(false);
        let request = request.proxy(None).timeout_global(Some(WAIT_MAX)).build();
        let mut response = request.call().ok()?;
        let body = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), body))
    }

    /// Returns status and body of a path at the admin address.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.log()))
    }

    /// Returns the value of a metric, with its labels written as on the page; `None` if it is
    /// not there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a metric is a number"))
    }

    /// Waits until the balancer is ready: it has read the registry.
    #[track_caller]
    pub fn wait_ready(&self) {
        eventually("/readyz says ready", || {
            self.try_get("/readyz").filter(|(status, _)| *status == 200)
        });
    }

    /// Waits until the balancer lists the service's endpoint. A client asks DNS once and then
    /// only after a failure, so the endpoint must be listed before a client starts.
    #[track_caller]
    pub fn wait_listed(&self, service: &str, id: &str) {
        eventually("the registration is read", || self.lists(service, id).then_some(()));
    }

    /// Waits until the balancer does not list the service's endpoint.
    #[track_caller]
    pub fn wait_unlisted(&self, service: &str, id: &str) {
        eventually("the removal is read", || (!self.lists(service, id)).then_some(()));
    }

    fn lists(&self, service: &str, id: &str) -> bool {
        let (_, text) = self.get(&format!("/api/v1/services/{service}"));
        text.contains(&format!("\"id\":\"{id}\""))
    }

    /// Kills the process, like a crash.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and waits until the process ends.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal to the process.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        signal::send(self.child.id(), signal);
    }

    /// Waits until the process ends.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end:\n{}", self.log());
    }

    #[track_caller]
    fn address(&self, name: &str) -> SocketAddr {
        address(&self.listening, name)
            .unwrap_or_else(|| panic!("no address for {name} in {:?}", self.listening))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the program to run: the one in `LOOKASIDE_BIN`, else the one built for the test.
pub fn program() -> PathBuf {
    let other = std::env::var_os("LOOKASIDE_BIN");
    other.map_or_else(|| env!("CARGO_BIN_EXE_lookaside").into(), PathBuf::from)
}

/// Returns the default flags that are not in `args`.
fn defaults(args: &[&str]) -> Vec<&'static str> {
    let given = |flag: &str| {
        args.iter()
            .any(|arg| arg.strip_prefix(flag).is_some_and(|r| r.is_empty() || r.starts_with('=')))
    };
    DEFAULTS
        .into_iter()
        .filter(|(flag, _)| !given(flag))
        .filter(|(flag, _)| *flag != "--registry-listen" || !given("--etcd"))
        .flat_map(|(flag, value)| [flag, value])
        .collect()
}

fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let words = line.trim().strip_prefix("listening ")?.split(' ');
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

fn collect(mut stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let writer = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..length]);
            writer.lock().expect("no holder panics").push_str(&text);
        }
    });
    log
}
