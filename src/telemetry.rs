//! What the parts count and show, for those who show it.
//!
//! In: increments from the drivers. Out: totals since start. It decides
//! nothing and waits for nobody; the parts that count and the parts that show
//! need not know each other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::load::Calls;
use crate::model::{ClientKind, ServiceName};

/// A total since start.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// Every total there is.
#[derive(Debug, Default)]
pub struct Counters {
    /// TCP connections taken on the gRPC port.
    pub connections: Counter,
    /// Connections that are open on the gRPC port.
    pub connections_open: Gauge,
    /// Connections that ended before they spoke HTTP/2 (silent, failed TLS).
    pub connections_failed: Counter,
    /// Connections closed at once because there are as many as there may be.
    pub connections_refused: Counter,
    /// Connections told to go because others wanted their place.
    pub connections_replaced: Counter,
    /// Times when no connection could be taken (descriptors exhausted).
    pub accept_errors: Counter,
    /// BalanceLoad streams that got their first list.
    pub streams: Counter,
    /// BalanceLoad streams refused before their first list.
    pub streams_refused: Counter,
    /// BalanceLoad streams let go because their clients do not read.
    pub streams_stalled: Counter,
    /// Lists sent, first ones included.
    pub lists_sent: Counter,
    /// Lists not sent because the client holds an equal one.
    pub lists_suppressed: Counter,
    /// Lists encoded: once for all the streams that share one.
    pub lists_encoded: Counter,
    /// Lists that are kept: one for each service and class of its clients.
    pub list_classes: Gauge,
    /// Bytes of all encoded lists that anything holds.
    pub list_bytes: Gauge,
    /// Fallback responses sent.
    pub fallbacks_sent: Counter,
    /// Load reports read.
    pub reports: Counter,
    /// Load reports and other messages that made no sense.
    pub reports_rejected: Counter,
    /// DNS questions answered.
    pub dns_answers: Counter,
    /// DNS questions refused, or no questions at all.
    pub dns_rejected: Counter,
    /// Times the state was saved, or found to be saved already.
    pub states_saved: Counter,
    /// Times the state could not be saved.
    pub states_failed: Counter,
    /// Certificates, keys and passwords that are read from files.
    pub credentials: Credentials,
}

/// The credentials as they are now.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<Vec<Credential>>);

/// What is read from files of one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// What it is used for, in one word.
    pub used_for: &'static str,
    /// When the certificates in it end, in seconds since 1970, each with its use.
    pub expiries: Vec<(&'static str, i64)>,
    /// Whether the files as they are now cannot be used, so that former ones are.
    pub broken: bool,
    /// How often it was read anew because the files changed.
    pub reloads: u64,
    /// How often changed files could not be used.
    pub failures: u64,
}

/// One BalanceLoad stream as shown to people.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// Where the client is.
    pub peer: SocketAddr,
    /// What it says it is.
    pub user_agent: String,
    /// What it is, by that.
    pub kind: ClientKind,
    /// The name it asked for, as typed.
    pub name: String,
    /// The service that the name means now.
    pub service: Option<ServiceName>,
    /// What it was told last: `list`, `empty`, `drop` or `fallback`.
    pub told: &'static str,
    /// How many entries its list has.
    pub entries: usize,
    /// The registry's revision that brought its list.
    pub revision: i64,
    /// When its stream opened.
    pub opened: Instant,
    /// When its list was handed to the connection.
    pub told_at: Instant,
    /// The calls it has reported on this stream.
    pub calls: Calls,
}

/// Every BalanceLoad stream that is open, for those who show them.
pub type ListClients = Arc<dyn Fn() -> Vec<ClientView> + Send + Sync>;

/// How far over its share the most favoured backend of any list in use is, for
/// those who show it: 0.05 is 5 % over.
pub type TellExcess = Arc<dyn Fn() -> f32 + Send + Sync>;

impl Credentials {
    /// All of them.
    pub fn set(&self, all: Vec<Credential>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// As last set.
    #[must_use]
    pub fn all(&self) -> Vec<Credential> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many until now.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many less.
    pub fn take(&self, less: usize) {
        self.0.fetch_sub(u64::try_from(less).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
