//! One channel of tonic-xds, and the calls over it.
//!
//! In: how it is opened, and which calls to make. Out: reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, KeyAndValueRef, MetadataMap};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tonic_xds::{XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};

/// How a channel is opened.
#[derive(Deserialize)]
pub struct Opening {
    target: String,
    config: Option<String>,
    idle_seconds: Option<f64>,
    fallback_seconds: Option<f64>,
    ca: Option<String>,
    options: Vec<serde_json::Value>,
}

/// Calls one after the other.
#[derive(Deserialize)]
pub struct Calls {
    #[serde(default)]
    pub count: u64,
    timeout: f64,
    wait_for_ready: bool,
    every: f64,
    name: String,
    details: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What came of calls.
#[derive(Default, Serialize)]
pub struct Report {
    answers: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Detail>,
}

/// What came of one call.
#[derive(Serialize)]
struct Detail {
    answer: Option<String>,
    error: Option<String>,
    metadata: BTreeMap<String, String>,
}

/// A channel with connections of its own, as each channel of tonic-xds has.
pub struct Channel {
    grpc: XdsChannelGrpc,
    runtime: Handle,
    running: Mutex<Option<Running>>,
}

/// The calls that `start` began.
struct Running {
    stopped: Arc<AtomicBool>,
    report: JoinHandle<Report>,
}

/// `helloworld.HelloRequest`, and `HelloReply` too.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

impl Channel {
    pub fn open(opening: &Opening, runtime: &Handle) -> Result<Self, String> {
        let unsupported = [
            (opening.config.is_some(), "config: tonic-xds has no service config"),
            (opening.idle_seconds.is_some(), "idle_seconds: tonic-xds does not become idle"),
            (opening.fallback_seconds.is_some(), "fallback_seconds: tonic-xds has no grpclb"),
            (opening.ca.is_some(), "ca: tonic-xds is told by xDS which backends speak TLS"),
            (!opening.options.is_empty(), "options: tonic-xds has no channel arguments"),
        ];
        if let Some((_, what)) = unsupported.iter().find(|(wanted, _)| *wanted) {
            return Err(format!("unsupported: {what}"));
        }
        // The bootstrap file is in the environment.
        let target = XdsUri::parse(&opening.target).map_err(|error| error.to_string())?;
        // It begins tasks.
        let _entered = runtime.enter();
        let builder = XdsChannelBuilder::new(XdsChannelConfig::new(target));
        let grpc = builder.build_grpc_channel().map_err(|error| error.to_string())?;
        Ok(Self { grpc, runtime: runtime.clone(), running: Mutex::new(None) })
    }

    /// Makes calls one after the other: `count` calls, or until `stopped`.
    pub fn call(&self, calls: &Calls, count: Option<u64>, stopped: &AtomicBool) -> Report {
        let mut report = Report::default();
        let mut made = 0;
        while count.is_none_or(|count| made < count) {
            if made > 0 && calls.every > 0.0 {
                std::thread::sleep(Duration::from_secs_f64(calls.every));
            }
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            made += 1;
            // The compiler does not see that the call's future could go to another thread, so
            // each series of calls has a thread.
            let result = self.runtime.block_on(self.call_once(calls));
            report.add(result, calls.details);
        }
        report
    }

    pub fn start(self: &Arc<Self>, calls: Calls) -> Result<(), String> {
        let mut running = self.running.lock().expect("no holder panics");
        if running.is_some() {
            return Err("it is calling already".to_owned());
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let (channel, stop) = (self.clone(), stopped.clone());
        let report = std::thread::spawn(move || channel.call(&calls, None, &stop));
        *running = Some(Running { stopped, report });
        Ok(())
    }

    /// Ends what `start` began, after the call under way.
    pub fn stop(&self) -> Result<Report, String> {
        let Running { stopped, report } = self.take().ok_or("it is not calling")?;
        stopped.store(true, Ordering::SeqCst);
        report.join().map_err(|_| "the calls ended in a panic".to_owned())
    }

    /// Ends what `start` began, without a report.
    pub fn end(&self) {
        if let Some(running) = self.take() {
            running.stopped.store(true, Ordering::SeqCst);
        }
    }

    fn take(&self) -> Option<Running> {
        self.running.lock().expect("no holder panics").take()
    }

    async fn call_once(&self, calls: &Calls) -> Result<Response<Text>, Status> {
        let mut request = Request::new(Text { text: calls.name.clone() });
        for (name, value) in &calls.headers {
            let name: AsciiMetadataKey =
                name.parse().map_err(|_| Status::internal("a header that cannot be sent"))?;
            let value =
                value.parse().map_err(|_| Status::internal("a value that cannot be sent"))?;
            request.metadata_mut().insert(name, value);
        }
        let call = async {
            let mut client = tonic::client::Grpc::new(self.grpc.clone());
            client.ready().await.map_err(Status::from_error)?;
            let path = PathAndQuery::from_static("/helloworld.Greeter/SayHello");
            client.unary(request, path, ProstCodec::default()).await
        };
        // tonic tells the server of a deadline, but waits for a backend without one.
        let timeout = Duration::from_secs_f64(calls.timeout);
        let late = |_| Status::deadline_exceeded("the deadline of the call");
        tokio::time::timeout(timeout, call).await.map_err(late)?
    }
}

impl Calls {
    pub fn check(&self) -> Result<(), String> {
        match self.wait_for_ready {
            true => Err("unsupported: wait_for_ready: tonic has no such option".to_owned()),
            false => Ok(()),
        }
    }
}

impl Report {
    fn add(&mut self, result: Result<Response<Text>, Status>, details: bool) {
        let (answer, error, metadata) = match result {
            Ok(response) => {
                let metadata = texts(response.metadata());
                (Some(response.into_inner().text), None, metadata)
            }
            Err(status) => {
                let error = format!("{}: {}", canonical(status.code()), status.message());
                (None, Some(error), texts(status.metadata()))
            }
        };
        for (text, counts) in [(&answer, &mut self.answers), (&error, &mut self.errors)] {
            if let Some(text) = text {
                *counts.entry(text.clone()).or_default() += 1;
            }
        }
        if details {
            self.calls.push(Detail { answer, error, metadata });
        }
    }
}

fn texts(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let text = |entry| match entry {
        KeyAndValueRef::Ascii(key, value) => {
            Some((key.to_string(), value.to_str().ok()?.to_owned()))
        }
        KeyAndValueRef::Binary(..) => None,
    };
    metadata.iter().filter_map(text).collect()
}

/// Returns a code's name as gRPC writes it: `DeadlineExceeded` becomes `DEADLINE_EXCEEDED`.
fn canonical(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
