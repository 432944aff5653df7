//! Real, unmodified gRPC clients in any language: one process with many channels, controlled
//! over its standard input. `tests/clients/README.md` has the protocol.
//!
//! If a language lacks a feature, the test ends by a panic with the value [`Unsupported`],
//! which tests of many languages catch.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::panic::panic_any;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::language::{Language, Resolver};
use super::{WAIT_MAX, try_eventually};

/// The config that selects grpclb.
pub const GRPCLB: &str = r#"{"loadBalancingConfig":[{"grpclb":{}}]}"#;
/// The config that selects grpclb with pick_first: it tries a list's backends in order.
pub const GRPCLB_PICK_FIRST: &str =
    r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;

/// A process of clients. It ends when this value is dropped.
pub struct Driver {
    language: Language,
    child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    number: AtomicU64,
}

/// A feature that a language's gRPC lacks, and the reason, as the driver reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(pub String);

/// The options of a channel.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    pub target: String,
    /// The service config; `None`: the one in DNS (TXT).
    pub config: Option<String>,
    /// The channel becomes idle after this many seconds without calls.
    pub idle_seconds: Option<f64>,
    /// How long the client waits for a first list before it uses the fallback addresses from
    /// DNS; `None`: ten seconds.
    pub fallback_seconds: Option<f64>,
    /// The PEM file of the trusted authority; `None`: no TLS.
    pub ca: Option<String>,
    /// Raw channel arguments, for C-core only.
    pub options: Vec<(String, Value)>,
}

/// One client channel with its own connections. It closes when this value is dropped.
pub struct Channel<'a> {
    driver: &'a Driver,
    number: u64,
}

/// A series of calls, one after the other.
#[derive(Debug, Clone, Serialize)]
pub struct Calls {
    /// The number of calls; [`Channel::start`] ignores it.
    pub count: u64,
    /// The deadline of a call in seconds.
    pub timeout: f64,
    /// Whether a call waits for a ready backend instead of failing.
    pub wait_for_ready: bool,
    /// Seconds between two calls.
    pub every: f64,
    /// The name in the request.
    pub name: String,
    /// Whether the report has each call with the metadata of its answer.
    pub details: bool,
    /// Headers of the calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// The results of a series of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// The number of times that each answer came.
    pub answers: BTreeMap<String, u64>,
    /// The number of times that each error came, as `CODE: details`.
    pub errors: BTreeMap<String, u64>,
    /// Each call in order, if [`Calls::details`] asked for it.
    #[serde(default)]
    pub calls: Vec<Call>,
}

/// The result of one call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Call {
    pub answer: Option<String>,
    pub error: Option<String>,
    /// The backend's initial and trailing metadata, without binary values.
    pub metadata: BTreeMap<String, String>,
}

/// A command whose reply is pending.
pub struct Pending {
    reply: Receiver<Result<Value, String>>,
    wait_max: Duration,
}

/// The senders of replies by command; `None` once the driver has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, SyncSender<Result<Value, String>>>>>>;

impl Driver {
    /// Starts the driver of a language with the machine's resolver, after building it if
    /// necessary.
    #[track_caller]
    pub fn start(language: &Language) -> Self {
        Self::start_with(language, &Resolver::System)
    }

    #[track_caller]
    pub fn start_with(language: &Language, resolver: &Resolver) -> Self {
        Self::start_in(language, resolver, &[])
    }

    /// Starts the driver of a language with a bootstrap file for targets `xds:///`.
    #[track_caller]
    pub fn start_xds(language: &Language, bootstrap: &str) -> Self {
        Self::start_xds_with(language, &Resolver::System, bootstrap)
    }

    /// Starts like [`Self::start_xds`] with a resolver.
    #[track_caller]
    pub fn start_xds_with(language: &Language, resolver: &Resolver, bootstrap: &str) -> Self {
        let environment = [("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap)];
        Self::start_in(language, resolver, &environment)
    }

    /// Starts the driver of a language with a resolver and variables of the environment.
    #[track_caller]
    pub fn start_in(
        language: &Language,
        resolver: &Resolver,
        environment: &[(&str, &str)],
    ) -> Self {
        language.build().unwrap_or_else(|why| panic!("{}: {why}", language.name));
        let mut child = language
            .command(resolver)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the driver starts");
        let stdin = Mutex::new(child.stdin.take().expect("it is piped"));
        let stdout = child.stdout.take().expect("it is piped");
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let replies = Arc::clone(&waiting);
        std::thread::spawn(move || hand_out(stdout, &replies));
        Self { language: *language, child, stdin, waiting, number: AtomicU64::new(1) }
    }

    pub fn language(&self) -> Language {
        self.language
    }

    /// Returns the processor time that the process has used so far.
    pub fn cpu(&self) -> Duration {
        super::cpu(self.child.id())
    }

    /// Returns the memory of the process (RSS), in bytes.
    pub fn memory(&self) -> u64 {
        super::memory(self.child.id())
    }

    /// Returns name and version of the tested library.
    #[track_caller]
    pub fn version(&self) -> String {
        let id = self.number.fetch_add(1, Ordering::Relaxed);
        let mut hello = self.send(id, json!({"do": "hello"}), WAIT_MAX).reply();
        serde_json::from_value(hello["version"].take()).expect("a version is text")
    }

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, options: &Options) -> Channel<'_> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut command = serde_json::to_value(options).expect("numbers and text");
        command["do"] = "open".into();
        self.begin(number, command, Duration::ZERO).reply();
        Channel { driver: self, number }
    }

    /// Sends a command for a channel. Its reply may take [`WAIT_MAX`] plus `longer`.
    #[track_caller]
    fn begin(&self, channel: u64, mut command: Value, longer: Duration) -> Pending {
        command["channel"] = channel.into();
        self.send(self.number.fetch_add(1, Ordering::Relaxed), command, WAIT_MAX + longer)
    }

    #[track_caller]
    fn send(&self, id: u64, mut command: Value, wait_max: Duration) -> Pending {
        command["id"] = id.into();
        let (reply_tx, reply) = sync_channel(1);
        match self.waiting.lock().expect("no holder panics").as_mut() {
            Some(waiting) => waiting.insert(id, reply_tx),
            None => panic!("the driver has ended: see its standard error"),
        };
        let mut stdin = self.stdin.lock().expect("no holder panics");
        writeln!(stdin, "{command}").expect("the driver listens");
        Pending { reply, wait_max }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Options {
    /// grpclb by SRV records, with the config set by the client.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            config: Some(GRPCLB.to_owned()),
            idle_seconds: None,
            fallback_seconds: None,
            ca: None,
            options: Vec::new(),
        }
    }

    /// grpclb by SRV records, with the config from DNS (TXT).
    pub fn txt(target: impl Into<String>) -> Self {
        Self { config: None, ..Self::grpclb(target) }
    }

    /// A channel whose target is `xds:///`, which needs no config.
    pub fn xds(name: &str) -> Self {
        Self { config: None, ..Self::grpclb(format!("xds:///{name}")) }
    }

    /// Sets the service config.
    #[must_use]
    pub fn config(self, config: &str) -> Self {
        Self { config: Some(config.to_owned()), ..self }
    }

    /// Sets how long the client waits for a first list before it uses the fallback addresses
    /// from DNS.
    #[must_use]
    pub fn fallback_after(self, time: Duration) -> Self {
        Self { fallback_seconds: Some(time.as_secs_f64()), ..self }
    }

    /// Sets a channel argument of C-core.
    #[must_use]
    pub fn option(mut self, name: &str, value: u64) -> Self {
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// Sets C-core's shortest time between two DNS lookups; the default is thirty seconds.
    #[must_use]
    pub fn ask_dns_every(self, time: Duration) -> Self {
        let milliseconds = u64::try_from(time.as_millis()).expect("a short time");
        self.option("grpc.dns_min_time_between_resolutions_ms", milliseconds)
    }
}

impl Channel<'_> {
    /// Makes calls and waits for their report.
    #[track_caller]
    pub fn call(&self, calls: &Calls) -> Report {
        self.begin(calls).wait()
    }

    /// Starts a series of calls without waiting for it.
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

    /// Ends the calls of [`Channel::start`] after the current call. Returns their report.
    #[track_caller]
    pub fn stop(&self) -> Report {
        self.driver.begin(self.number, json!({"do": "stop"}), Duration::ZERO).wait()
    }

    /// Checks that a client spreads calls evenly, once it is connected to exactly these
    /// backends. It makes forty calls per backend. The calls of a backend may differ from
    /// forty by at most the number of backends.
    #[track_caller]
    pub fn shares(&self, ids: &[&str]) {
        let (few, many) = (ids.len() as u64 * 4, ids.len() as u64 * 40);
        // Waiting calls could use another connection: Ruby's have their own channel.
        let calls = Calls::new(few).timeout(WAIT_MAX / 6);
        self.until("calls go to all of these alike, and to no others", &calls, |r| {
            r.succeeded() == few && ids.iter().all(|id| r.from(id) == 4)
        });
        let report = self.call(&Calls::new(many));
        for id in ids {
            assert!(report.from(id).abs_diff(40) <= ids.len() as u64, "{id}: {report:?}");
        }
        assert_eq!(report.succeeded(), many, "{report:?}");
    }

    /// Waits until calls without wait_for_ready fail with `UNAVAILABLE` before their deadline.
    #[track_caller]
    pub fn is_unavailable(&self) {
        let calls = Calls::new(3).timeout(WAIT_MAX / 3);
        self.until("calls that do not wait fail UNAVAILABLE", &calls, |report| {
            report.failed() == 3 && report.errors.keys().all(|e| e.starts_with("UNAVAILABLE"))
        });
    }

    /// Repeats calls until `wanted` accepts their report. Panics with `what` after
    /// [`WAIT_MAX`].
    #[track_caller]
    pub fn until(&self, what: &str, calls: &Calls, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut last = Report::default();
        let found = try_eventually(|| {
            last = self.call(calls);
            wanted(&last).then_some(())
        });
        assert!(found.is_some(), "gave up waiting: {what}; last seen: {last:?}");
        last
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        // A panic here would hide the panic of the test.
        if !std::thread::panicking() {
            self.driver.begin(self.number, json!({"do": "close"}), Duration::ZERO).reply();
        }
    }
}

impl Calls {
    /// Calls that fail at once if no backend is ready.
    pub fn new(count: u64) -> Self {
        Self {
            count,
            timeout: 10.0,
            wait_for_ready: false,
            every: 0.0,
            name: "test".to_owned(),
            details: false,
            headers: BTreeMap::new(),
        }
    }

    /// Calls that wait until a backend is ready.
    pub fn waiting(count: u64) -> Self {
        Self { wait_for_ready: true, timeout: WAIT_MAX.as_secs_f64(), ..Self::new(count) }
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
    pub fn name(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
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

    /// Returns the number of calls that the backend `id` answered: its greeting ends with
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
        match self.reply.recv_timeout(self.wait_max) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => match error.strip_prefix("unsupported: ") {
                Some(what) => panic_any(Unsupported(what.to_owned())),
                None => panic!("the driver refuses: {error}"),
            },
            Err(error) => panic!("no reply from the driver ({error}): has it crashed?"),
        }
    }
}

/// Passes each reply to its waiting command, until the driver ends.
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
            // The receiver is gone if the test gave up.
            let _ = reply_tx.send(error.map_or(Ok(ok), Err));
        }
    }
    waiting.lock().expect("no holder panics").take();
}
