//! grpc-go's releases, as clients to be driven.

use super::client::{self, Options};
use super::language::Language;

pub use super::client::{Calls, Channel, GRPCLB, Report};

/// The releases that are tried: directories of `tests/clients/`.
pub const RELEASES: [&str; 2] = ["go", "go-old"];

/// A process of clients of one release; ends with its value.
pub struct Driver(client::Driver);

impl Driver {
    #[track_caller]
    pub fn start(release: &str) -> Self {
        Self(client::Driver::start(&Language::named(release)))
    }

    /// The library and its release, as its `user-agent` begins.
    #[track_caller]
    pub fn version(&self) -> String {
        self.0.version().replace(' ', "/")
    }

    /// Opens a channel, its service config given by the client or (`None`)
    /// found in DNS. It connects with its first call.
    #[track_caller]
    pub fn open(&self, target: impl AsRef<str>, config: Option<&str>) -> Channel<'_> {
        let options = Options::grpclb(target.as_ref());
        self.0.open(&Options { config: config.map(str::to_owned), ..options })
    }
}
