//! Everything that can change what the catalog knows.
//!
//! In: nothing. Out: the values that its one writer is sent.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::marks::Marks;
use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::{Event, Key, Rejected, Remark};
use crate::settings::Settings;

use super::doubts::Answer;

/// Everything that can change the world.
#[derive(Debug)]
pub enum Input {
    /// A registry said something.
    Registry(Event),
    /// A registered host name has these addresses now, or does not resolve.
    Hosts(Resolved),
    /// A probe of a backend came to this.
    Probed(BackendAddr, Answer),
    /// What services of a canonical name held, that long ago, is to go: the operator's
    /// word.
    Release(String, Duration),
    /// These settings hold from now on.
    Settings(Arc<Settings>),
    /// These marks are in force from now on.
    Marks(Arc<Marks>),
    /// Somebody asks what registers some backends. Changes nothing; only the one writer
    /// knows.
    Origins(AskOrigins),
    /// What was served before the start. Without meaning once the registry has
    /// been read.
    Restored(Restored),
}

/// A question for what registers some backends of a service, and where the answer
/// goes: each key that registers one, with the address.
#[derive(Debug)]
pub struct AskOrigins {
    /// The service.
    pub service: ServiceName,
    /// The backends.
    pub backends: HashSet<BackendAddr>,
    /// Who asks.
    pub answer: oneshot::Sender<Vec<(BackendAddr, Origin)>>,
}

/// A key that registers a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The key.
    pub key: Key,
    /// Whether it has a lease.
    pub leased: bool,
    /// The host name that it registers as the address, if it does.
    pub host: Option<String>,
    /// Why its newest value is not what counts, if so.
    pub rejected: Option<Rejected>,
    /// What is odd about it.
    pub remarks: Vec<Remark>,
}

/// What was served when it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// When that was, for people.
    pub saved: String,
    /// How long ago that was.
    pub age: Duration,
    /// Each service's endpoints.
    pub services: Vec<(ServiceName, Vec<Endpoint>)>,
}

/// What a host name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As registered, lower case.
    pub host: String,
    /// All of its addresses, as it resolved last.
    pub addresses: Vec<IpAddr>,
    /// Why it does not resolve any more, or never did.
    pub trouble: Option<String>,
}
