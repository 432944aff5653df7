//! The servers under test, as processes of their own.
//!
//! In: the kind of a server and the length of its list. Out: its address, a way to make
//! it publish, and its costs from /proc.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::client::Protocols;
use super::shared::support::skip;
use super::start::WAIT_MAX;

/// The servers: lookaside, and those that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A bare epoll loop that writes the same bytes.
    Limit,
    Lookaside,
    /// Another build of lookaside, named by `LOOKASIDE_BENCH_OTHER`.
    Other,
    /// Plain tonic.
    Tonic,
    /// A BalanceLoad server on grpc-go.
    GrpcGo,
    /// The bare loop with the bytes of xDS.
    LimitXds,
    /// lookaside and the other build, asked by xDS.
    LookasideXds,
    OtherXds,
    /// An xDS server on go-control-plane.
    GoXds,
}

/// A running server. Dropping the value kills it.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    pub(crate) addr: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Limit,
        Self::Lookaside,
        Self::Other,
        Self::Tonic,
        Self::GrpcGo,
        Self::LimitXds,
        Self::LookasideXds,
        Self::OtherXds,
        Self::GoXds,
    ];

    pub(crate) fn is_lookaside(self) -> bool {
        matches!(self, Self::Lookaside | Self::LookasideXds) || self.is_other()
    }

    fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::OtherXds)
    }

    pub(crate) fn is_limit(self) -> bool {
        self == self.limit()
    }

    /// Returns the bare loop that writes the same bytes.
    pub(crate) fn limit(self) -> Self {
        match self.protocol() {
            Protocols::Grpclb => Self::Limit,
            Protocols::Eds => Self::LimitXds,
        }
    }

    pub(crate) fn protocol(self) -> Protocols {
        match self {
            Self::Limit | Self::Lookaside | Self::Other | Self::Tonic | Self::GrpcGo => {
                Protocols::Grpclb
            }
            Self::LimitXds | Self::LookasideXds | Self::OtherXds | Self::GoXds => Protocols::Eds,
        }
    }

    /// Returns the servers of these names that can run here, or all without names.
    pub(crate) fn these(names: &[String]) -> Vec<Self> {
        let mut kinds = Self::ALL.to_vec();
        kinds.retain(|kind| names.is_empty() || names.contains(&kind.to_string()));
        kinds.retain(|kind| match kind {
            Self::Other => other().is_some(),
            Self::OtherXds => other().is_some_and(|program| has_xds(&program)),
            Self::GrpcGo | Self::GoXds => go_servers().is_some(),
            _ => true,
        });
        kinds
    }

    /// Returns the server of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == name)
    }

    fn command(self, count: usize, etcd: &str) -> Command {
        let own = || Command::new(std::env::current_exe().expect("a program knows itself"));
        let mut command = match self {
            Self::Limit | Self::LimitXds | Self::Tonic => own(),
            Self::Lookaside | Self::LookasideXds => Command::new(env!("CARGO_BIN_EXE_lookaside")),
            Self::Other | Self::OtherXds => Command::new(other().expect("asked before")),
            Self::GrpcGo => {
                Command::new(go_servers().expect("asked before").join("go-balanceload"))
            }
            Self::GoXds => Command::new(go_servers().expect("asked before").join("go-xds")),
        };
        match self {
            kind if kind.is_lookaside() => {
                for (name, _) in std::env::vars_os() {
                    if name.to_string_lossy().starts_with("LOOKASIDE_") {
                        command.env_remove(name);
                    }
                }
                let loopback = "127.0.0.1:0";
                command.args(["serve", "--listen", loopback, "--admin-listen", loopback]);
                command.args(["--etcd", etcd, "--log", "error"])
            }
            Self::Limit => command.args(["role-limit", &count.to_string()]),
            Self::LimitXds => command.args(["role-limit-xds", &count.to_string()]),
            Self::Tonic => command.args(["role-tonic", &count.to_string()]),
            _ => command.arg(count.to_string()),
        };
        command
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Limit => "limit",
            Self::Lookaside => "lookaside",
            Self::Other => "other",
            Self::Tonic => "tonic",
            Self::GrpcGo => "grpc-go",
            Self::LimitXds => "limit-xds",
            Self::LookasideXds => "lookaside-xds",
            Self::OtherXds => "other-xds",
            Self::GoXds => "go-xds",
        })
    }
}

impl Server {
    /// Starts a server with a list of this length; lookaside reads its own from etcd. If
    /// `pinned`, the server runs on the first core only.
    pub(crate) fn start(kind: Kind, count: usize, etcd: &str, pinned: bool) -> Self {
        Self::start_with(kind, count, etcd, pinned, &[])
    }

    /// Does what [`Self::start`] does, with more arguments.
    pub(crate) fn start_with(
        kind: Kind,
        count: usize,
        etcd: &str,
        pinned: bool,
        more: &[&str],
    ) -> Self {
        let mut command = kind.command(count, etcd);
        command.args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // A child inherits its parent's cores, and counts its own by them.
        let child = if pinned { on_core(0, || command.spawn()) } else { command.spawn() };
        let mut child = child.unwrap_or_else(|error| panic!("{kind} does not start: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it says where it listens");
        let addr = |name: &str| {
            let mut words = line.split_whitespace().skip(1);
            words.find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        let found = addr("grpclb=").or_else(|| addr(""));
        let found = found.unwrap_or_else(|| panic!("{kind} says {line:?}, not where it listens"));
        let input = child.stdin.take().expect("it is piped");
        let server = Self { child, input, addr: found, admin: addr("admin=") };
        server.wait_ready();
        server
    }

    /// Makes a server other than lookaside, which follows etcd, push a changed list.
    pub(crate) fn publish(&mut self) {
        self.input.write_all(b"publish\n").expect("it listens");
    }

    /// Gives the clients' thread the core that both want. Real clients have machines of their
    /// own, so a server does not slow them down.
    pub(crate) fn let_clients_go_first(&self) {
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs") {
            let name = task.expect("it can be read").file_name();
            let thread = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
            // A thread may have ended.
            let _ = setpriority_process(thread, 10);
        }
    }

    /// Returns the processor time so far, of all the server's threads.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let spent = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.flatten().filter_map(spent).sum())
    }

    /// Returns the server's resident memory, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has some");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Waits until `/readyz` says that the server is ready, if it has an admin server.
    fn wait_ready(&self) {
        let Some(admin) = self.admin else { return };
        let deadline = Instant::now() + WAIT_MAX;
        while ureq::get(format!("http://{admin}/readyz")).call().is_err() {
            assert!(Instant::now() < deadline, "lookaside does not become ready");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `work` with this thread bound to one core, then lifts the binding.
pub(crate) fn on_core<T>(core: usize, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("it has one");
    let mut one = CpuSet::new();
    one.set(core);
    // On a machine with other cores than these, all share what there is.
    let bound = before.is_set(core) && sched_setaffinity(None, &one).is_ok();
    let result = work();
    if bound {
        let _ = sched_setaffinity(None, &before);
    }
    result
}

fn other() -> Option<PathBuf> {
    std::env::var_os("LOOKASIDE_BENCH_OTHER").map(PathBuf::from)
}

/// Returns whether a build of lookaside speaks xDS. Early builds do not.
fn has_xds(program: &Path) -> bool {
    let output = Command::new(program).args(["xds-bootstrap", "--help"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Returns the folder of the servers in Go, built once in a run, or `None` without Go.
fn go_servers() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build_go_servers).as_deref()
}

fn build_go_servers() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !Command::new(root.join("scripts/need")).arg("go").status().is_ok_and(|it| it.success()) {
        skip("bench: grpc-go and go-xds", "there is no Go: see above");
        return None;
    }
    let out = super::out_dir();
    for name in ["go-balanceload", "go-xds"] {
        let mut go = Command::new(root.join("scripts/go"));
        go.args(["build", "-buildvcs=false", "-o"]).arg(out.join(name)).arg(".");
        let status = go.current_dir(root.join("benches").join(name)).status();
        assert!(status.is_ok_and(|it| it.success()), "benches/{name} does not build");
    }
    Some(out)
}
