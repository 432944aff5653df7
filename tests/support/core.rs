//! Real clients of several languages, each a process that is steered by the
//! protocol of `tests/clients/python/driver.py`: `tests/clients/LANGUAGE/`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::PATIENCE;
pub use super::python::{Calls, GRPCLB, Report};

/// A process of clients; ends with its value.
pub struct Driver {
    language: &'static str,
    child: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    number: AtomicU64,
}

/// How a channel is opened.
#[derive(Debug, Clone, Serialize)]
pub struct Open {
    target: String,
    config: Option<String>,
    idle_seconds: Option<f64>,
    fallback_seconds: Option<f64>,
    ca: Option<PathBuf>,
    options: Vec<(String, Value)>,
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

impl Driver {
    /// Builds it first if need be.
    pub fn start(language: &'static str) -> Self {
        let mut child = command(language)
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
        let child = Mutex::new(child);
        Self { language, child, stdin, waiting, number: AtomicU64::new(1) }
    }

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, open: &Open) -> Channel<'_> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut command = match self.language {
            "python" => json!({ "target": open.target, "options": open.arguments() }),
            _ => serde_json::to_value(open).expect("numbers and text"),
        };
        command["do"] = "open".into();
        self.begin(number, command, Duration::ZERO).reply();
        Channel { driver: self, number }
    }

    /// That no call and no answer has ended the process.
    #[track_caller]
    pub fn is_alive(&self) {
        let ended = self.child.lock().expect("no holder panics").try_wait();
        assert_eq!(ended.expect("a child can be asked"), None, "the {} client", self.language);
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
            None => panic!("the {} driver has ended: see its standard error", self.language),
        };
        let mut stdin = self.stdin.lock().expect("no holder panics");
        writeln!(stdin, "{command}").expect("the driver listens");
        Pending { reply, patience: PATIENCE + longer }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Open {
    /// A channel with this service config; without any it is left to DNS.
    pub fn with(target: impl Into<String>, config: Option<&str>) -> Self {
        Self {
            target: target.into(),
            config: config.map(str::to_owned),
            idle_seconds: None,
            fallback_seconds: None,
            ca: None,
            options: Vec::new(),
        }
    }

    /// The client itself says that it wants grpclb.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self::with(target, Some(GRPCLB))
    }

    /// How long it waits for a first list before it uses the addresses that
    /// DNS gave. Ten seconds without this.
    #[must_use]
    pub fn fallback_after(self, time: Duration) -> Self {
        Self { fallback_seconds: Some(time.as_secs_f64()), ..self }
    }

    /// TLS to balancers and backends, whom this authority must have signed.
    #[must_use]
    pub fn ca(self, path: &Path) -> Self {
        Self { ca: Some(path.to_owned()), ..self }
    }

    /// A channel argument of C-core's.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// How soon DNS may be asked again. Thirty seconds without this.
    #[must_use]
    pub fn ask_dns_every(self, time: Duration) -> Self {
        self.option("grpc.dns_min_time_between_resolutions_ms", time.as_millis() as u64)
    }

    /// The same as channel arguments alone.
    fn arguments(&self) -> Vec<(String, Value)> {
        assert!(self.ca.is_none(), "unsupported: ca: the Python driver has no TLS");
        let ms = |seconds: f64| Value::from((seconds * 1000.0) as u64);
        let config = match &self.config {
            Some(config) => ("grpc.service_config", config.as_str().into()),
            None => ("grpc.service_config_disable_resolution", 0.into()),
        };
        let named = [
            Some(("grpc.dns_enable_srv_queries", 1.into())),
            Some(config),
            self.idle_seconds.map(|seconds| ("grpc.client_idle_timeout_ms", ms(seconds))),
            self.fallback_seconds.map(|seconds| ("grpc.grpclb_fallback_timeout_ms", ms(seconds))),
        ];
        let named = named.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
        named.chain(self.options.clone()).collect()
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
        self.driver.begin(self.number, calls_as(calls, "call"), longest)
    }

    /// Makes calls until [`Channel::stop`].
    #[track_caller]
    pub fn start(&self, calls: &Calls) {
        let mut command = calls_as(calls, "start");
        let command_fields = command.as_object_mut().expect("a command is an object");
        command_fields.remove("count");
        command_fields.remove("details");
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

fn calls_as(calls: &Calls, what: &str) -> Value {
    let mut command = serde_json::to_value(calls).expect("numbers and text");
    command["do"] = what.into();
    command
}

fn command(language: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "{program:?}: see above");
    };
    if language == "python" {
        run(&root.join("scripts/need"), &["python"]);
        let mut command = Command::new(root.join("target/python/bin/python"));
        command.arg(root.join("tests/clients/python/driver.py"));
        return command;
    }
    let home = root.join("tests/clients").join(language);
    run(&home.join("build"), &[]);
    Command::new(home.join("driver"))
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
