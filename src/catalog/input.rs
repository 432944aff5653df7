//! Everything that can change what the catalog knows.
//!
//! In: nothing. Out: the values that its one writer is sent.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::Event;

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
    /// What a service lists without registration is to go: the operator's word.
    Release(ServiceName),
    /// What was served before the start. Without meaning once the registry has
    /// been read.
    Restored(Restored),
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
