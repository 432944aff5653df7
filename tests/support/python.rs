//! Real grpcio clients: one Python process, many channels, steered by
//! `tests/clients/python/driver.py`.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::PATIENCE;

/// The config that selects grpclb.
pub const GRPCLB: &str = r#"{"loadBalancingConfig":[{"grpclb":{}}]}"#;

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
    args: Vec<(String, Value)>,
}

/// One client channel, with connections of its own; closed with its value.
pub struct Channel<'a> {
    driver: &'a Driver,
    number: u64,
}

/// Calls, one after the other.
#[derive(Debug, Clone, Serialize)]
pub struct Calls {
    /// How many; without meaning for [`Channel::start`].
    pub count: u64,
    /// Seconds until a call gives up.
    pub timeout: f64,
    /// Wait while nothing is ready, instead of failing.
    pub wait_for_ready: bool,
    /// Seconds between two calls.
    pub every: f64,
    /// Who is greeted.
    pub name: String,
    /// Report each call with what metadata came back.
    pub details: bool,
}

/// What came of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// How often each answer came.
    pub answers: BTreeMap<String, u64>,
    /// How often each error came, as `CODE: details`.
    pub errors: BTreeMap<String, u64>,
    /// Each call in order, if [`Calls::details`] asked for it.
    #[serde(default)]
    pub calls: Vec<Call>,
}

/// What came of one call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Call {
    pub answer: Option<String>,
    pub error: Option<String>,
    /// The server's initial and trailing metadata, less binary values.
    pub metadata: BTreeMap<String, String>,
}

/// Calls under way.
pub struct Pending {
    reply: Receiver<Result<Value, String>>,
    patience: Duration,
}

/// Who waits for the reply of which command; `None` once no more can come.
type Waiting = Arc<Mutex<Option<HashMap<u64, SyncSender<Result<Value, String>>>>>>;

impl Driver {
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(python(root))
            .arg(root.join("tests/clients/python/driver.py"))
            // A proxy of the machine's has no business on loopback.
            .env("no_grpc_proxy", "127.0.0.1,localhost,.internal")
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
        let Options { target, args } = options;
        let command = json!({"do": "open", "target": target, "options": args});
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
    /// A channel without options, to a server or to a name.
    pub fn plain(target: impl Into<String>) -> Self {
        Self { target: target.into(), args: Vec::new() }
    }

    /// grpclb by SRV records; its config given by the client itself.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self::plain(target).arg("grpc.dns_enable_srv_queries", 1).arg("grpc.service_config", GRPCLB)
    }

    /// grpclb by SRV records; its config taken from DNS (TXT).
    pub fn txt(target: impl Into<String>) -> Self {
        Self::plain(target)
            .arg("grpc.dns_enable_srv_queries", 1)
            .arg("grpc.service_config_disable_resolution", 0)
    }

    /// How long it waits for a first list before it uses the addresses that
    /// DNS gave. Ten seconds without this.
    #[must_use]
    pub fn fallback_timeout(self, timeout: Duration) -> Self {
        self.arg("grpc.grpclb_fallback_timeout_ms", timeout.as_millis() as u64)
    }

    /// A channel argument of grpc's.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.args.push((name.to_owned(), value.into()));
        self
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
        self.driver.begin(self.number, calls.command("call"), longest)
    }

    /// Makes calls until [`Channel::stop`].
    #[track_caller]
    pub fn start(&self, calls: &Calls) {
        let mut command = calls.command("start");
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

impl Calls {
    /// Calls that fail at once when nothing is ready.
    pub fn new(count: u64) -> Self {
        Self {
            count,
            timeout: 10.0,
            wait_for_ready: false,
            every: 0.0,
            name: "test".to_owned(),
            details: false,
        }
    }

    /// Calls that wait until something is ready.
    pub fn waiting(count: u64) -> Self {
        Self { wait_for_ready: true, timeout: PATIENCE.as_secs_f64(), ..Self::new(count) }
    }

    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { every: interval.as_secs_f64(), ..self }
    }

    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.as_secs_f64(), ..self }
    }

    #[must_use]
    pub fn details(self) -> Self {
        Self { details: true, ..self }
    }

    fn command(&self, what: &str) -> Value {
        let mut command = serde_json::to_value(self).expect("numbers and text");
        command["do"] = what.into();
        command
    }
}

impl Report {
    pub fn succeeded(&self) -> u64 {
        self.answers.values().sum()
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// How many calls the backend answered that ends its greeting with
    /// `from ID`.
    pub fn from(&self, id: &str) -> u64 {
        let end = format!(" from {id}");
        self.answers.iter().filter(|(text, _)| text.ends_with(&end)).map(|(_, count)| count).sum()
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

/// The environment's interpreter. Makes the environment if it is not there.
fn python(root: &Path) -> &'static Path {
    static PYTHON: OnceLock<std::path::PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let status = Command::new(root.join("scripts/need")).arg("python").status();
        assert!(status.is_ok_and(|status| status.success()), "scripts/need python: see above");
        root.join("target/python/bin/python")
    })
}
