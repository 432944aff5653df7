//! Clients of grpc-java. They use only the system's resolver, so a test with them runs
//! inside a namespace.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::language::Language;
use super::{client, namespace};

pub use super::client::{Calls, Channel, GRPCLB, Report};

/// A process of clients. It ends when this value is dropped.
pub struct Driver(client::Driver);

/// The options of a channel.
#[derive(Debug, Clone)]
pub struct Options(client::Options);

/// Builds the programs and then runs a test in a namespace, where the build could not
/// download anything. See [`namespace::isolated`].
#[track_caller]
pub fn isolated<F: FnOnce()>(test: F) {
    if !namespace::is_inside() {
        Language::named("java").build().unwrap_or_else(|why| panic!("java: {why}"));
    }
    namespace::isolated(test);
}

/// Returns the command of an example program, such as `examples/clients/java`.
pub fn example(path: &str, jar: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-jar"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    command.arg(root.join(path).join("target").join(jar));
    command
}

impl Driver {
    pub fn start() -> Self {
        Self(client::Driver::start(&Language::named("java")))
    }

    /// Opens a channel. It connects with its first call.
    #[track_caller]
    pub fn open(&self, options: &Options) -> Channel<'_> {
        self.0.open(&options.0)
    }
}

impl Options {
    /// grpclb, with the config set by the client.
    pub fn grpclb(target: impl Into<String>) -> Self {
        Self(client::Options::grpclb(target))
    }

    /// grpclb, with the config from DNS (TXT).
    pub fn txt(target: impl Into<String>) -> Self {
        Self(client::Options::txt(target))
    }

    pub fn config(target: impl Into<String>, config: &str) -> Self {
        let options = client::Options::grpclb(target);
        Self(client::Options { config: Some(config.to_owned()), ..options })
    }

    /// Sets how long the client waits for a first list before it uses the fallback addresses
    /// from DNS; the default is ten seconds.
    #[must_use]
    pub fn fallback_timeout(mut self, timeout: Duration) -> Self {
        self.0.fallback_seconds = Some(timeout.as_secs_f64());
        self
    }
}
