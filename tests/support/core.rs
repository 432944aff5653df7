//! Clients by the name of their language, mostly for tests of C-core.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{self, Options};
use super::language::Language;

pub use super::client::{Calls, Channel, GRPCLB, Report};

/// A process of clients. It ends when this value is dropped.
pub struct Driver(client::Driver);

/// The options of a channel.
#[derive(Debug, Clone)]
pub struct Open(Options);

impl Driver {
    /// Starts the driver of a language, after building it if necessary.
    #[track_caller]
    pub fn start(name: &'static str) -> Self {
        Self(client::Driver::start(&Language::named(name)))
    }

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, open: &Open) -> Channel<'_> {
        self.0.open(&open.0)
    }

    /// Checks that the process still runs and answers.
    #[track_caller]
    pub fn is_alive(&self) {
        self.0.version();
    }
}

impl Open {
    /// A channel with this service config, or (`None`) with the one in DNS.
    pub fn with(target: impl Into<String>, config: Option<&str>) -> Self {
        Self(Options { config: config.map(str::to_owned), ..Options::grpclb(target) })
    }

    /// grpclb, with the config set by the client.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self(Options::grpclb(target))
    }

    /// Sets how long the client waits for a first list before it uses the fallback addresses
    /// from DNS; the default is ten seconds.
    #[must_use]
    pub fn fallback_after(mut self, time: Duration) -> Self {
        self.0.fallback_seconds = Some(time.as_secs_f64());
        self
    }

    /// Uses TLS to balancers and backends. This authority must have signed their certificates.
    #[must_use]
    pub fn ca(mut self, path: &Path) -> Self {
        self.0.ca = Some(path.to_str().expect("a path of ours is text").to_owned());
        self
    }

    /// Sets a channel argument of C-core.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.options.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the shortest time between two DNS lookups; the default is thirty seconds.
    #[must_use]
    pub fn ask_dns_every(self, time: Duration) -> Self {
        self.option("grpc.dns_min_time_between_resolutions_ms", time.as_millis() as u64)
    }
}
