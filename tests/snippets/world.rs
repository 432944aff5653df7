//! The world in which a scene's commands run as they are written.
//!
//! In a network namespace of its own, 10.0.0.1 to 10.0.0.10 are addresses of loopback, and
//! every default port is free. Commands run in a directory of their own, with the program as
//! `lookaside` in PATH.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::page::root;
use crate::support::backend::{Backend, PREFIX};
use crate::support::etcd::Etcd;
use crate::support::lookaside::program;
use crate::support::signal::{self, Signal};
use crate::support::{WAIT_MAX, eventually, namespace};

/// What the scenes of one test share. Everything in it ends with it.
pub(super) struct World {
    home: TempDir,
    etcd: Option<Etcd>,
    running: Vec<Running>,
    listeners: Vec<TcpListener>,
    pub(super) backends: Vec<Backend>,
}

/// A command that runs until it is ended.
pub(super) struct Running {
    child: Child,
    command: String,
    /// What it has printed on both streams.
    printed: Arc<Mutex<String>>,
}

/// What a command that ended has printed.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl World {
    pub(super) fn new() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory can be made");
        std::os::unix::fs::symlink(program(), bin.join("lookaside")).expect("a link can be made");
        let world = Self {
            home,
            etcd: None,
            running: Vec::new(),
            listeners: Vec::new(),
            backends: Vec::new(),
        };
        if namespace::is_inside() {
            world.ok("for n in 1 2 3 4 5 6 7 8 9 10; do ip addr add 10.0.0.$n/32 dev lo; done");
        }
        world
    }

    /// Returns the etcd at port 2379 of 10.0.0.1, 10.0.0.2 and loopback. The first call
    /// starts it.
    pub(super) fn etcd(&mut self) -> &Etcd {
        self.etcd.get_or_insert_with(|| Etcd::start_at(2379, &["10.0.0.1", "10.0.0.2"]))
    }

    /// Registers 10.0.0.N:50051 as a backend of `hello`, by the id `i-N`, under a lease that
    /// outlives the test.
    pub(super) fn register(&mut self, n: u8) {
        let lease = self.lease();
        let (key, value) = (format!("{PREFIX}hello/i-{n}"), format!("10.0.0.{n}:50051"));
        self.etcd().ctl(&["put", &key, &value, "--lease", &lease]);
    }

    /// Returns the id of a new lease.
    pub(super) fn lease(&mut self) -> String {
        let granted = self.etcd().ctl(&["lease", "grant", "600"]);
        granted.split(' ').nth(1).expect("lease ID granted with ...").to_owned()
    }

    /// Listens at an address until the scene ends, as a backend that is alive.
    pub(super) fn listen(&mut self, address: &str) {
        self.listeners.push(TcpListener::bind(address).expect("the address is free"));
    }

    /// Writes a file into the directory of the commands.
    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).expect("a file can be written");
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(super) fn run(&self, command: &str) -> Ended {
        let output = self.shell(command).output().expect("sh runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Runs a command that must succeed. Returns its output.
    #[track_caller]
    pub(super) fn ok(&self, command: &str) -> String {
        let Ended { code, out, err } = self.run(command);
        assert_eq!(code, Some(0), "$ {command}\n{out}{err}");
        out
    }

    /// Runs a command to its end. Returns its exit code, and both streams as a terminal shows
    /// them.
    #[track_caller]
    pub(super) fn terminal(&self, command: &str) -> (Option<i32>, String) {
        let ended = self.run(&format!("exec 2>&1\n{command}"));
        (ended.code, ended.out)
    }

    /// Starts a command that runs until it is ended, or until the scene ends.
    #[track_caller]
    pub(super) fn start(&mut self, command: &str) -> usize {
        let mut shell = self.shell(&format!("exec {command}"));
        // The command gets a process group, so that its children can be ended with it.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().expect("sh runs");
        let printed = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("it is piped"), &printed);
        collect(child.stderr.take().expect("it is piped"), &printed);
        self.running.push(Running { child, command: command.to_owned(), printed });
        self.running.len() - 1
    }

    /// Starts `lookaside serve ...` as written, and waits until it listens and has read the
    /// registry.
    #[track_caller]
    pub(super) fn serve(&mut self, command: &str) -> usize {
        let balancer = self.start(command);
        self.prints(balancer, "listening grpclb=");
        eventually("the balancer is ready", || self.get("/readyz"));
        balancer
    }

    /// Waits until a running command has printed `text`.
    #[track_caller]
    pub(super) fn prints(&mut self, running: usize, text: &str) {
        let Running { child, command, printed } = &mut self.running[running];
        let printed = || printed.lock().expect("no holder panics").clone();
        let seen = crate::support::try_eventually(|| {
            let ended = child.try_wait().expect("a child can be asked").is_some();
            let seen = printed().contains(text);
            (seen || ended).then_some(seen)
        });
        assert!(seen == Some(true) || printed().contains(text), "$ {command}\n{}", printed());
    }

    /// Returns what a running command has printed.
    pub(super) fn printed(&self, running: usize) -> String {
        self.running[running].printed.lock().expect("no holder panics").clone()
    }

    /// Sends SIGTERM to a running command and returns its exit code.
    #[track_caller]
    pub(super) fn stop(&mut self, running: usize) -> Option<i32> {
        let Running { child, command, .. } = &mut self.running[running];
        signal::send(child.id(), Signal::TERM);
        let ended = eventually(&format!("{command} ends"), || child.try_wait().ok().flatten());
        ended.code()
    }

    /// Returns what the balancer's admin address answers with 200.
    pub(super) fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:12001{path}");
        let request = ureq::get(url).config().proxy(None).timeout_global(Some(WAIT_MAX)).build();
        request.call().ok()?.body_mut().read_to_string().ok()
    }

    /// Waits until the balancer's answer to `path` contains `text`.
    #[track_caller]
    pub(super) fn shows(&self, path: &str, text: &str) {
        eventually(&format!("{path} shows {text}"), || {
            self.get(path)?.contains(text).then_some(())
        });
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).current_dir(self.home.path()).stdin(Stdio::null());
        // Settings and proxies of the test run must not influence the commands.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("LOOKASIDE_") || name.to_lowercase().ends_with("_proxy") {
                shell.env_remove(name);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        // Debian keeps servers and their checks in /usr/sbin.
        let path = format!("{}/bin:{path}:/usr/sbin", self.home.path().display());
        let python = root().join("target/python/bin/python");
        shell.env("PATH", path).env("USER", "ops").env("PYTHON", python).env("ETCDCTL_API", "3");
        shell
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for Running { child, .. } in &mut self.running {
            if child.try_wait().is_ok_and(|ended| ended.is_none()) {
                signal::send_group(child.id(), Signal::KILL);
                let _ = child.wait();
            }
        }
    }
}

/// Fails unless `printed` has the documented lines. Compares words; moments, durations,
/// revisions and `USER@HOST` may be any.
#[track_caller]
pub(super) fn same(at: &str, documented: &[String], printed: &str) {
    let documented: Vec<_> = documented.iter().map(|line| form(line)).collect();
    let printed: Vec<_> = printed.lines().map(form).collect();
    assert_eq!(documented, printed, "{at}: the document and the program differ");
}

fn form(line: &str) -> String {
    let mut revision = false;
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', ')']);
        let end = &word[bare.len()..];
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b".0123456789".contains(&b));
        let moment = bare.len() == 20 && bare.contains('T') && bare.ends_with('Z');
        let shape = match bare {
            _ if revision => "REVISION",
            _ if moment => "MOMENT",
            _ if bare.strip_suffix('s').is_some_and(digits) => "SECONDS",
            _ if bare.contains('@') => "USER@HOST",
            _ => bare,
        };
        revision = bare.ends_with("revision");
        format!("{shape}{end}")
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn collect(mut stream: impl Read + Send + 'static, printed: &Arc<Mutex<String>>) {
    let printed = Arc::clone(printed);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..length]);
            printed.lock().expect("no holder panics").push_str(&text);
        }
    });
}
