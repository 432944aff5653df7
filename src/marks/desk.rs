//! Writes marks into etcd.
//!
//! In: marks, and how etcd is reached. Out: keys that every balancer of the zone follows.
//! It decides nothing: whether a mark is sensible is asked before.

use std::time::Duration;

use super::{Mark, MarkKey, Moment, Value};
use crate::model::Zone;
use crate::registry::etcd::{self, Connect, Trouble};

/// Where marks are written.
#[derive(Clone)]
pub struct Desk {
    connect: Connect,
    zone: Zone,
}

/// etcd deletes a mark that long after its end. The end itself is told by the wall clock,
/// for that goes on while etcd is away.
const TIDY_AFTER: Duration = Duration::from_secs(600);
/// How long etcd remembers that a mark was ended: longer than a balancer is away whose
/// marks are still believed.
pub const ENDED_FOR: Duration = Duration::from_secs(3600);

impl Desk {
    /// Marks for the balancers of a zone.
    #[must_use]
    pub fn new(connect: Connect, zone: Zone) -> Self {
        Self { connect, zone }
    }

    /// Sets a mark, and replaces the former of its key.
    ///
    /// # Errors
    /// When etcd does not take it.
    pub async fn set(&self, Mark { key, value }: &Mark) -> Result<(), Trouble> {
        let Value { set, until, .. } = value;
        let ttl = until.map(|until| until.since(set.unwrap_or(until)) + TIDY_AFTER);
        etcd::put(&self.connect, &key.in_etcd(&self.zone), &value.to_json(), ttl).await
    }

    /// Ends a mark: for [`ENDED_FOR`] its key says that it is over, and by whom. A balancer
    /// that was away meanwhile, or keeps the mark because etcd has lost it, hears of it so.
    ///
    /// # Errors
    /// When etcd does not take it.
    pub async fn end(&self, key: &MarkKey, value: Value) -> Result<(), Trouble> {
        // Long ago, for clocks differ.
        let over = Value { until: Some(Moment(0)), ..value };
        etcd::put(&self.connect, &key.in_etcd(&self.zone), &over.to_json(), Some(ENDED_FOR)).await
    }
}
