//! Clients of two grpc-go releases.

use super::client::{self, Options};
use super::language::Language;

pub use super::client::{Calls, Channel, GRPCLB, Report};

/// The tested releases: directories of `tests/clients/`.
pub const RELEASES: [&str; 2] = ["go", "go-old"];

/// A process of clients of one release. It ends when this value is dropped.
pub struct Driver(client::Driver);

impl Driver {
    #[track_caller]
    pub fn start(release: &str) -> Self {
        Self(client::Driver::start(&Language::named(release)))
    }

    /// Returns the library and its release, as at the start of its `user-agent`.
    #[track_caller]
    pub fn version(&self) -> String {
        self.0.version().replace(' ', "/")
    }

    /// Opens a channel with this service config, or (`None`) with the one in DNS. It connects
    /// with its first call.
    #[track_caller]
    pub fn open(&self, target: impl AsRef<str>, config: Option<&str>) -> Channel<'_> {
        let options = Options::grpclb(target.as_ref());
        self.0.open(&Options { config: config.map(str::to_owned), ..options })
    }
}
