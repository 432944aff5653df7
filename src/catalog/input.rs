//! Everything that can change what the catalog knows.
//!
//! In: nothing. Out: the types of the values that the catalog's one writer receives.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::facts::capacity::Report;
use crate::facts::demand::Demand;
use crate::facts::overload::CallRates;
use crate::load::ServiceCalls;
use crate::marks::Marks;
use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::{Event, Key, Rejected, Remark};
use crate::settings::Settings;

use super::health::{HealthAnswer, HealthTarget};
use super::liveness::ProbeResult;
use super::load::LoadTarget;

/// A value for the catalog's one writer.
#[derive(Debug)]
pub enum Input {
    /// An event from a registry.
    Registry(Event),
    /// The result of resolving a registered host name.
    Hosts(Resolved),
    /// The answer of a backend to a probe.
    Probed(BackendAddr, ProbeResult),
    /// The answer of a backend to a health check.
    HealthChecked(HealthTarget, HealthAnswer),
    /// What the clients of services have reported since the start.
    Reported(Vec<(ServiceName, ServiceCalls)>),
    /// A report of a backend's load.
    Loaded(LoadTarget, Report),
    /// A backend did not report its load, or stopped.
    LoadSilent(LoadTarget),
    /// An operator's release. It drops the held backends of the services with this
    /// canonical name whose loss began at least this long ago.
    Release(String, Duration),
    /// The settings that are in force from now on.
    Settings(Arc<Settings>),
    /// The marks that are in force from now on.
    Marks(Arc<Marks>),
    /// The demand of a service's clients by zone, for which its split is made from now on.
    Demand(ServiceName, Arc<Demand>),
    /// The calls that the clients of services start, each second. Of services whose settings
    /// ask for shedding by overload.
    Started(Vec<(ServiceName, CallRates)>),
    /// The balancer has placed clients of a service on other cells, or moved keys.
    Placed(ServiceName),
    /// A question: which keys register some backends. It changes nothing. It comes as an
    /// input because only the writer knows.
    Origins(OriginsQuery),
    /// The saved state. It is ignored once the registry has been read.
    Restored(Restored),
}

/// Asks which keys register some backends of a service. The answer has one item for each
/// address and key.
#[derive(Debug)]
pub struct OriginsQuery {
    /// The service.
    pub service: ServiceName,
    /// The addresses of the backends.
    pub backends: HashSet<BackendAddr>,
    /// Takes the answer.
    pub answer: oneshot::Sender<Vec<(BackendAddr, Origin)>>,
}

/// A key that registers a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The key.
    pub key: Key,
    /// Whether the key has a lease.
    pub leased: bool,
    /// The host name that the key registers as its address, if it does.
    pub host: Option<String>,
    /// Why the key's newest value is rejected, if it is. An older value counts then.
    pub rejected: Option<Rejected>,
    /// The remarks on the key.
    pub remarks: Vec<Remark>,
}

/// A saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// When it was saved, as text for people.
    pub saved: String,
    /// How long ago it was saved.
    pub age: Duration,
    /// The endpoints of each service.
    pub services: Vec<(ServiceName, Vec<Endpoint>)>,
}

/// The result of resolving a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The host name as registered, in lower case.
    pub host: String,
    /// All addresses of the last successful answer.
    pub addresses: Vec<IpAddr>,
    /// Why the name does not resolve any more, or never did.
    pub trouble: Option<String>,
}
