//! Real grpc-java clients: one process, many channels, steered by
//! `tests/clients/java/driver`. Java asks only the system's resolver, so all
//! of a test runs in a namespace.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::python::{Calls, GRPCLB, Report};
use super::{PATIENCE, namespace};

/// A process of clients; ends with its value.
pub struct Driver {
    child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    number: AtomicU64,
}

/// How a channel is opened.
#[derive(Debug, Clone)]
pub struct Options {
    target: String,
    config: Option<String>,
    fallback: Option<f64>,
}

/// One client channel, with connections of its own; closed with its value.
pub struct Channel<'a> {
    driver: &'a Driver,
    number: u64,
}

/// Calls under way.
pub struct Pending {
    reply: Receiver<Result<Value, String>>,
    patience: Duration,
}

/// Who waits for the reply of which command; `None` once no more can come.
type Waiting = Arc<Mutex<Option<HashMap<u64, SyncSender<Result<Value, String>>>>>>;

/// Runs a test in a namespace, once the programs are built: what that
/// downloads is out of reach inside. See [`namespace::isolated`].
#[track_caller]
pub fn isolated<F: FnOnce()>(test: F) {
    static BUILT: OnceLock<()> = OnceLock::new();
    if !namespace::is_inside() {
        BUILT.get_or_init(|| {
            let status = Command::new(root().join("tests/clients/java/build")).status();
            let built = status.is_ok_and(|status| status.success());
            assert!(built, "tests/clients/java/build: see above");
        });
    }
    namespace::isolated(test);
}

/// One of the example programs, such as `examples/clients/java`.
pub fn example(path: &str, jar: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-jar"]);
    command.arg(root().join(path).join("target").join(jar));
    command
}

impl Driver {
    pub fn start() -> Self {
        let mut child = Command::new(root().join("tests/clients/java/driver"))
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

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, options: &Options) -> Channel<'_> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let Options { target, config, fallback } = options;
        let command = json!({
            "do": "open", "target": target, "config": config, "fallback_seconds": fallback,
        });
        self.begin(number, command, Duration::ZERO).reply();
        Channel { driver: self, number }
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

impl Options {
    /// grpclb, its config given by the client itself.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self::config(target, GRPCLB)
    }

    /// grpclb, its config taken from DNS (TXT).
    pub fn txt(target: impl Into<String>) -> Self {
        Self { target: target.into(), config: None, fallback: None }
    }

    pub fn config(target: impl Into<String>, config: &str) -> Self {
        Self { config: Some(config.to_owned()), ..Self::txt(target) }
    }

    /// How long it waits for a first list before it uses the addresses that
    /// DNS gave. Ten seconds without this.
    #[must_use]
    pub fn fallback_timeout(self, timeout: Duration) -> Self {
        Self { fallback: Some(timeout.as_secs_f64()), ..self }
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
        let mut command = command("start", calls);
        command.as_object_mut().expect("a command is an object").remove("count");
        self.driver.begin(self.number, command, Duration::ZERO).reply();
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
        match self.reply.recv_timeout(self.patience) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => panic!("the driver refuses: {error}"),
            Err(error) => panic!("no reply from the driver: {error}"),
        }
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
