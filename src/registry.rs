//! What a registry tells: registrations, and how fresh the telling is.
//!
//! In: nothing. Out: the types that every registry source produces and the
//! catalog consumes. Text of keys and values has become a [`Reading`] or
//! [`Rejected`] before it gets here; nobody behind this door reads text again.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{HostPort, Meta, ServiceName, Weight};

pub mod etcd;
pub mod record;

/// What a registry source says, where `T` is what it makes of a key's value. A source
/// never ends and never fails: retrying is its own business.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<T = Result<Reading, Rejected>> {
    /// The whole content at one revision. Whatever is not in here is gone.
    Reset {
        /// The store's revision.
        revision: i64,
        /// Every key below the prefixes.
        all: Vec<Entry<T>>,
        /// Whether the store is older than it was, or another one: a restored
        /// copy, an emptied or a foreign etcd. What it holds may be out of date.
        went_back: bool,
    },
    /// What happened at one revision; with no changes, that nothing did.
    Apply {
        /// The store's revision.
        revision: i64,
        /// In the order in which they happened.
        changes: Vec<Change<T>>,
    },
    /// The store cannot be heard. Data stays as it is.
    Stale {
        /// When it was last heard.
        since: Instant,
        /// What went wrong, for people.
        reason: String,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T = Result<Reading, Rejected>> {
    /// A key was written.
    Put(Entry<T>),
    /// A key is gone, and as far as can be told, why. Said once more when more
    /// can be told.
    Delete(Key, Cause),
}

/// Why a key is gone. The store says that it is, never why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Someone deleted this very key: it had no lease, or its lease lives on.
    Deregistered,
    /// Someone deleted it together with keys of other leases, in one stroke:
    /// tidying up, or an accident.
    Swept,
    /// Its lease is gone too, expired or revoked, or nobody could tell.
    InDoubt,
}

/// One key and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<T = Result<Reading, Rejected>> {
    /// The key in the store.
    pub key: Key,
    /// What it says, or why it could not be read.
    pub meaning: T,
    /// Whether the store takes the key away when its registrant falls silent.
    pub leased: bool,
}

/// What a readable key says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// One backend or several; none for a key that is no registration by design
    /// (a directory marker).
    pub registrations: Vec<Registration>,
    /// What is odd about it.
    pub remarks: Vec<Remark>,
}

/// Something odd in a key that is read all the same: a weight that is no
/// number, one bad address among several. Names the value and what counts
/// instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark(pub Arc<str>);

/// A key in the store: bytes, mostly text. Identity of a registration, for a
/// deletion brings nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Arc<[u8]>);

/// One backend of one service as one key registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// The instance's own name.
    pub id: Arc<str>,
    /// Where it listens; a host name is resolved later.
    pub address: HostPort,
    /// Its share of the calls.
    pub weight: Weight,
    /// Everything else it said.
    pub meta: Arc<Meta>,
}

/// A key that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Names the value and the remedy.
    pub reason: String,
    /// The beginning of the value, for people.
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
    /// From the store's bytes.
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
