//! The types that every registry source produces and the catalog consumes.
//!
//! In: nothing. Out: events with registrations, and the age of the data. A source turns
//! the text of keys and values into a [`Reading`] or a [`Rejected`]; no code after it
//! parses that text again.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{HostPort, Meta, ServiceName, Weight};

pub mod etcd;
pub mod record;

/// An event of a registry source. `T` is the decoded value of a key. A source never
/// ends and never fails: it retries by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<T = Result<Reading, Rejected>> {
    /// All keys at one revision. A key that is not in here no longer exists.
    Reset {
        /// The store's revision.
        revision: i64,
        /// Every key below the prefixes.
        all: Vec<Entry<T>>,
        /// Whether the store is older than it was, or is another store: a restored
        /// copy, an emptied etcd or a foreign one. Its content may be out of date.
        went_back: bool,
    },
    /// The changes of one revision. Without changes it is a sign of life: nothing
    /// happened.
    Apply {
        /// The store's revision.
        revision: i64,
        /// The changes, in the order in which they happened.
        changes: Vec<Change<T>>,
    },
    /// The store does not answer. The data stays as it is.
    Stale {
        /// When the store last answered.
        since: Instant,
        /// The cause, as text for people.
        reason: String,
    },
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T = Result<Reading, Rejected>> {
    /// A key was written.
    Put(Entry<T>),
    /// A key was deleted, with the cause as far as it is known. The source sends the
    /// deletion again when it learns more about the cause.
    Delete(Key, Cause),
}

/// Why a key was deleted. etcd reports the deletion but not its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This very key was deleted: it had no lease, or its lease is still alive.
    Deregistered,
    /// It was deleted together with keys of other leases, in one revision: a clean-up
    /// or an accident.
    Swept,
    /// Its lease expired or was revoked, or the source could not find out.
    InDoubt,
}

/// One key and its decoded value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<T = Result<Reading, Rejected>> {
    /// The key in the store.
    pub key: Key,
    /// The decoded value, or the reason why it could not be decoded.
    pub decoded: T,
    /// Whether the key has a lease, so that etcd deletes it when its registrant stops
    /// renewing.
    pub leased: bool,
}

/// The decoded content of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// One backend or several. Empty for a key that is no registration by design, such
    /// as a directory marker.
    pub registrations: Vec<Registration>,
    /// Oddities of the key and its value.
    pub remarks: Vec<Remark>,
}

/// A note about an oddity of a key that is still read, such as a weight that is no number or
/// one bad address among several. It names the value and the value that is used instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark(pub Arc<str>);

/// A key in the store: bytes, mostly text. It identifies a registration, because a
/// deletion carries nothing but the key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Arc<[u8]>);

/// One backend of one service, as one key registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// The backend's own name.
    pub id: Arc<str>,
    /// The address where the backend listens. A host name is resolved later.
    pub address: HostPort,
    /// The backend's share of the calls.
    pub weight: Weight,
    /// All other fields of the registration.
    pub meta: Arc<Meta>,
}

/// A key that could not be decoded, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The reason, with the value and the remedy.
    pub reason: String,
    /// The beginning of the value, shown to people.
    pub value: String,
}

impl From<Vec<Registration>> for Reading {
    fn from(registrations: Vec<Registration>) -> Self {
        Self { registrations, remarks: Vec::new() }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// Makes a key of the store's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", String::from_utf8_lossy(&self.0))
    }
}
