//! Clients by the name of their language, for what is told of C-core above
//! all.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{self, Options};
use super::language::Language;

pub use super::client::{Calls, Channel, GRPCLB, Report};

/// A process of clients; ends with its value.
pub struct Driver(client::Driver);

/// How a channel is opened.
#[derive(Debug, Clone)]
pub struct Open(Options);

impl Driver {
    /// Builds it first if need be.
    #[track_caller]
    pub fn start(name: &'static str) -> Self {
        Self(client::Driver::start(&Language::named(name)))
    }

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, open: &Open) -> Channel<'_> {
        self.0.open(&open.0)
    }

    /// That no call and no answer has ended the process.
    #[track_caller]
    pub fn is_alive(&self) {
        self.0.version();
    }
}

impl Open {
    /// A channel with this service config; without any it is left to DNS.
    pub fn with(target: impl Into<String>, config: Option<&str>) -> Self {
        Self(Options { config: config.map(str::to_owned), ..Options::grpclb(target) })
    }

    /// The client itself says that it wants grpclb.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self(Options::grpclb(target))
    }

    /// How long it waits for a first list before it uses the addresses that
    /// DNS gave. Ten seconds without this.
    #[must_use]
    pub fn fallback_after(mut self, time: Duration) -> Self {
        self.0.fallback_seconds = Some(time.as_secs_f64());
        self
    }

    /// TLS to balancers and backends, whom this authority must have signed.
    #[must_use]
    pub fn ca(mut self, path: &Path) -> Self {
        self.0.ca = Some(path.to_str().expect("a path of ours is text").to_owned());
        self
    }

    /// A channel argument of C-core's.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.options.push((name.to_owned(), value.into()));
        self
    }

    /// How soon DNS may be asked again. Thirty seconds without this.
    #[must_use]
    pub fn ask_dns_every(self, time: Duration) -> Self {
        self.option("grpc.dns_min_time_between_resolutions_ms", time.as_millis() as u64)
    }
}
