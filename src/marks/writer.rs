//! Writes marks into etcd.
//!
//! In: marks, and how to reach etcd. Out: keys that every balancer of the zone follows.
//! It does not check whether a mark is sensible: its caller does.

use std::time::Duration;

use super::{Mark, MarkKey, Timestamp, Value};
use crate::model::Zone;
use crate::registry::etcd::{self, Connect, EtcdError};

/// Writes the marks of one zone.
#[derive(Clone)]
pub struct MarkWriter {
    connect: Connect,
    zone: Zone,
}

/// etcd deletes a mark this long after its end. The end itself is checked by the wall
/// clock, which works while etcd is away.
const DELETE_AFTER: Duration = Duration::from_secs(600);
/// How long etcd keeps the note that a mark was ended. A balancer that was away for less
/// than this time keeps marks that are missing without such a note.
pub const ENDED_FOR: Duration = Duration::from_secs(3600);

impl MarkWriter {
    /// Makes a writer of marks for the balancers of a zone.
    #[must_use]
    pub fn new(connect: Connect, zone: Zone) -> Self {
        Self { connect, zone }
    }

    /// Sets a mark, and replaces the previous one with its key.
    ///
    /// # Errors
    /// If etcd does not write it.
    pub async fn set(&self, Mark { key, value }: &Mark) -> Result<(), EtcdError> {
        let Value { set, until, .. } = value;
        let ttl = until.map(|until| until.since(set.unwrap_or(until)) + DELETE_AFTER);
        etcd::put(&self.connect, &key.in_etcd(&self.zone), &value.to_json(), ttl).await
    }

    /// Ends a mark. For [`ENDED_FOR`], its key holds a note with the end and its author. So a
    /// balancer that was away meanwhile, or that keeps a mark that etcd has lost, learns of
    /// the end.
    ///
    /// # Errors
    /// If etcd does not write it.
    pub async fn end(&self, key: &MarkKey, value: Value) -> Result<(), EtcdError> {
        // An end long ago, because clocks differ.
        let over = Value { until: Some(Timestamp(0)), ..value };
        etcd::put(&self.connect, &key.in_etcd(&self.zone), &over.to_json(), Some(ENDED_FOR)).await
    }
}
