//! Real grpc-go clients: one process of one release, many channels, steered as
//! `tests/clients/python/driver.py` is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::PATIENCE;
pub use super::python::{Calls, GRPCLB, Report};

/// The releases that are tried: directories of `tests/clients/`.
pub const RELEASES: [&str; 2] = ["go", "go-old"];

/// A process of clients; ends with its value.
pub struct Driver {
    child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    number: AtomicU64,
}

/// One client channel, with connections of its own; closed with its value.
pub struct Channel<'a> {
    driver: &'a Driver,
    number: u64,
}

/// A command under way.
pub struct Pending {
    reply: Receiver<Result<Value, String>>,
    patience: Duration,
}

/// Who waits for the reply of which command; `None` once no more can come.
type Waiting = Arc<Mutex<Option<HashMap<u64, SyncSender<Result<Value, String>>>>>>;

impl Driver {
    /// Builds the client where it is not built yet, and runs it.
    #[track_caller]
    pub fn start(release: &str) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(release);
        build(&home);
        let mut child = Command::new(home.join("driver"))
            // A proxy of the machine's has no business on loopback.
            .env("NO_PROXY", "127.0.0.1,localhost,.internal")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the driver starts");
        let stdin = Mutex::new(child.stdin.take().expect("it is piped"));
        let stdout = child.stdout.take().expect("it is piped");
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let replies = Arc::clone(&waiting);
        std::thread::spawn(move || hand_out(stdout, &replies));
        Self { child, stdin, waiting, number: AtomicU64::new(1) }
    }

    /// The library and its release, as its `user-agent` begins.
    #[track_caller]
    pub fn version(&self) -> String {
        let reply = self.begin(0, json!({"do": "hello"}), Duration::ZERO).reply();
        reply["version"].as_str().expect("a version is text").replace(' ', "/")
    }

    /// Opens a channel, its service config given by the client or (`None`)
    /// found in DNS. It connects with its first call.
    #[track_caller]
    pub fn open(&self, target: impl AsRef<str>, config: Option<&str>) -> Channel<'_> {
        let command = json!({"do": "open", "target": target.as_ref(), "config": config});
        self.open_with(command).unwrap_or_else(|error| panic!("the driver refuses: {error}"))
    }

    /// Opens a channel by a command of the test's own, if the client can do
    /// what it says.
    #[track_caller]
    pub fn open_with(&self, command: Value) -> Result<Channel<'_>, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.begin(number, command, Duration::ZERO).outcome()?;
        Ok(Channel { driver: self, number })
    }

    /// Sends a command for a channel. Its reply may take `longer` than usual.
    #[track_caller]
    fn begin(&self, channel: u64, mut command: Value, longer: Duration) -> Pending {
        let id = self.number.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        command["channel"] = channel.into();
        let (reply_tx, reply) = sync_channel(1);
        match self.waiting.lock().expect("no holder panics").as_mut() {
            Some(waiting) => waiting.insert(id, reply_tx),
            None => panic!("the driver has ended: see its standard error"),
        };
        let mut stdin = self.stdin.lock().expect("no holder panics");
        writeln!(stdin, "{command}").expect("the driver listens");
        Pending { reply, patience: PATIENCE + longer }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Channel<'_> {
    /// Makes calls and waits for what comes of them.
    #[track_caller]
    pub fn call(&self, calls: &Calls) -> Report {
        self.begin(calls).wait()
    }

    /// Begins to make calls.
    #[track_caller]
    pub fn begin(&self, calls: &Calls) -> Pending {
        let each = calls.timeout + calls.every;
        let longest = Duration::from_secs_f64(each * calls.count as f64);
        self.driver.begin(self.number, command("call", calls), longest)
    }

    /// Makes calls until [`Channel::stop`].
    #[track_caller]
    pub fn start(&self, calls: &Calls) {
        self.driver.begin(self.number, command("start", calls), Duration::ZERO).reply();
    }

    /// Ends what [`Channel::start`] began, after the call under way.
    #[track_caller]
    pub fn stop(&self) -> Report {
        self.driver.begin(self.number, json!({"do": "stop"}), Duration::ZERO).wait()
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        // A panic here would hide the test's own.
        if !std::thread::panicking() {
            self.driver.begin(self.number, json!({"do": "close"}), Duration::ZERO).reply();
        }
    }
}

impl Pending {
    /// Waits for the end of the calls.
    #[track_caller]
    pub fn wait(self) -> Report {
        serde_json::from_value(self.reply()).expect("the driver sends reports")
    }

    #[track_caller]
    fn reply(self) -> Value {
        self.outcome().unwrap_or_else(|error| panic!("the driver refuses: {error}"))
    }

    #[track_caller]
    fn outcome(self) -> Result<Value, String> {
        let reply = self.reply.recv_timeout(self.patience);
        reply.unwrap_or_else(|error| panic!("no reply from the driver: {error}"))
    }
}

fn command(what: &str, calls: &Calls) -> Value {
    let mut command = serde_json::to_value(calls).expect("numbers and text");
    command["do"] = what.into();
    command
}

/// Brings each reply to who waits for it, until the driver ends.
fn hand_out(stdout: ChildStdout, waiting: &Waiting) {
    #[derive(Deserialize)]
    struct Reply {
        id: u64,
        #[serde(default)]
        ok: Value,
        error: Option<String>,
    }
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Reply { id, ok, error } = serde_json::from_str(&line).expect("replies are JSON");
        let reply_tx =
            waiting.lock().expect("no holder panics").as_mut().and_then(|w| w.remove(&id));
        if let Some(reply_tx) = reply_tx {
            // Nobody waits any more when the test gave up.
            let _ = reply_tx.send(error.map_or(Ok(ok), Err));
        }
    }
    waiting.lock().expect("no holder panics").take();
}

/// One at a time: the releases share their sources and Go's caches.
fn build(home: &Path) {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let status = Command::new(home.join("build")).status();
    assert!(status.is_ok_and(|status| status.success()), "{}/build: see above", home.display());
}
