//! The balancers that are known, and which of them DNS names.
//!
//! In: events of the balancers' keys in etcd, and the state of this balancer. Out: rows
//! for operators, and the addresses of a DNS answer. Pure.
//!
//! DNS names the balancers in the best state that one of them is in: ready, else stale,
//! else starting. A balancer that drains is named only by itself, and only if it knows of no
//! other: clients that find no balancer leave grpclb, and return late to its successor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::order::{self, Candidate};
use super::record::{Announcement, Record, State};
use crate::model::HostPort;
use crate::registry::{Change, Event, Key};

/// A decoded key, or why it announces no balancer.
pub type Decoded = Result<Announcement, String>;

/// This balancer, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The address that it announces; `None` while it is not known.
    pub address: Option<HostPort>,
    /// Whether only programs on this host reach that address.
    pub host_only: bool,
    /// The key of its record.
    pub key: Option<Key>,
    /// What it can do for clients.
    pub state: State,
    /// The zone in which it runs.
    pub zone: Option<String>,
    /// Its open streams.
    pub streams: u64,
    /// The newest revision of the registry that it knows.
    pub revision: i64,
}

/// A balancer, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whether it is this balancer.
    pub own: bool,
    /// The address that it announces; `None` if this balancer announces none.
    pub address: Option<HostPort>,
    /// Whether only programs on its own host reach that address.
    pub host_only: bool,
    /// What it can do for clients.
    pub state: State,
    /// The zone in which it runs.
    pub zone: Option<String>,
    /// The version of its program; `None` for a former version, which does not say it.
    pub version: Option<String>,
    /// Its open streams, as it last said.
    pub streams: Option<u64>,
    /// The streams that it has by now if it went like this balancer since.
    pub expected: Option<u64>,
    /// The newest revision of the registry that it knows.
    pub revision: Option<i64>,
}

/// Whether this balancer's record is in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// It is.
    Yes,
    /// It is not, and need not be: the reason.
    Off(&'static str),
    /// It is not, or may not be: the reason.
    Failing(String),
}

/// All balancers of a DNS zone that this balancer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// This balancer first, then the others by address.
    pub rows: Vec<Row>,
    /// Whether the balancers' keys in etcd were read.
    pub read: bool,
    /// Whether they are followed now; if not, the rows may be out of date.
    pub current: bool,
    /// The keys below the zone that announce no balancer, and why.
    pub rejected: Vec<(Key, String)>,
    /// Whether this balancer's record is in etcd.
    pub announced: Announced,
}

/// A moment, and the open streams of this balancer at it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub at: Instant,
    /// The open streams.
    pub streams: u64,
}

/// What is known from etcd.
#[derive(Debug, Default)]
pub struct Known {
    /// The decoded keys, and when each came; `None` before etcd was read.
    keys: Option<BTreeMap<Key, (Decoded, Moment)>>,
    /// Whether etcd answers.
    current: bool,
}

/// A balancer whose streams change writes its record more often than this. An older record
/// still says how many it has.
const OLD: Duration = Duration::from_secs(7);

impl Known {
    /// Takes an event in. An outage of etcd removes no balancer.
    pub fn apply(&mut self, event: Event<Decoded>, now: Moment) {
        match event {
            Event::Reset { all, .. } => {
                let keyed = all.into_iter().map(|entry| (entry.key, (entry.decoded, now)));
                self.keys = Some(keyed.collect());
                self.current = true;
            }
            Event::Apply { changes, .. } => {
                self.current = true;
                let keys = self.keys.get_or_insert_default();
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            keys.insert(entry.key, (entry.decoded, now));
                        }
                        Change::Delete(key, _) => {
                            keys.remove(&key);
                        }
                    }
                }
            }
            Event::Stale { .. } => self.current = false,
        }
    }

    /// Returns all balancers, this one included, as they are at a time.
    #[must_use]
    pub fn replicas(
        &self,
        own: &Own,
        version: &str,
        announced: Announced,
        at: Instant,
    ) -> Replicas {
        let now = Moment { at, streams: own.streams };
        let mut rows = vec![Row {
            own: true,
            address: own.address.clone(),
            host_only: own.host_only,
            state: own.state,
            zone: own.zone.clone(),
            version: Some(version.to_owned()),
            streams: Some(own.streams),
            expected: Some(own.streams),
            revision: Some(own.revision),
        }];
        rows.extend(self.others(own, now).into_values());
        let refused = self.keys.iter().flatten().filter_map(|(key, (decoded, _))| {
            decoded.as_ref().err().map(|reason| (key.clone(), reason.clone()))
        });
        let rejected = refused.collect();
        Replicas { rows, read: self.keys.is_some(), current: self.current, rejected, announced }
    }

    /// Returns the other balancers. Of the records of one address the latest counts; an
    /// address alone counts if it has no record.
    fn others(&self, own: &Own, now: Moment) -> BTreeMap<HostPort, Row> {
        let mut records: BTreeMap<HostPort, (&Record, Moment)> = BTreeMap::new();
        let mut alone = Vec::new();
        for (key, (decoded, came)) in self.keys.iter().flatten() {
            match decoded {
                Ok(Announcement::Record(record)) if own.key.as_ref() != Some(key) => {
                    let known = records.entry(record.address.clone()).or_insert((record, *came));
                    if known.0.started < record.started {
                        *known = (record, *came);
                    }
                }
                Ok(Announcement::Address(address)) => alone.push(address),
                _ => {}
            }
        }
        let row = |(record, came)| row_of_record(record, expected(record.streams, came, now));
        let mut rows: BTreeMap<_, _> =
            records.into_iter().map(|(address, known)| (address, row(known))).collect();
        for address in alone {
            rows.entry(address.clone()).or_insert_with(|| row_of_address(address));
        }
        if let Some(address) = &own.address {
            rows.remove(address);
        }
        rows
    }
}

/// Returns how many streams a balancer has now that said a number before. Many clients that
/// come at once go to all balancers alike, so it is taken to have got as many since as this
/// one. Without that, the one whose record is the newest would seem the fullest, and all
/// clients would go to the others.
fn expected(streams: u64, then: Moment, now: Moment) -> u64 {
    let recent = now.at.saturating_duration_since(then.at) < OLD;
    let got = if recent { now.streams.saturating_sub(then.streams) } else { 0 };
    streams.saturating_add(got)
}

fn row_of_record(record: &Record, expected: u64) -> Row {
    Row {
        own: false,
        address: Some(record.address.clone()),
        host_only: record.host_only,
        state: record.state,
        zone: record.zone.clone(),
        version: Some(record.version.clone()),
        streams: Some(record.streams),
        expected: Some(expected),
        revision: Some(record.revision),
    }
}

/// Returns the row of a balancer of which only the address is known.
pub(crate) fn row_of_address(address: &HostPort) -> Row {
    Row {
        own: false,
        address: Some(address.clone()),
        host_only: false,
        state: State::Ready,
        zone: None,
        version: None,
        streams: None,
        expected: None,
        revision: None,
    }
}

impl Replicas {
    /// Returns the balancers that an answer names, in order; none if that cannot be said.
    /// `own` is this balancer's address in this answer. `on_host` tells whether the question
    /// came from this host. `seed` differs from question to question.
    #[must_use]
    pub fn in_dns(&self, own: Option<HostPort>, on_host: bool, seed: usize) -> Vec<HostPort> {
        let (first, others) = self.rows.split_first().map_or((None, &[][..]), |(first, others)| {
            (own.map(|address| (address, first)), others)
        });
        let visible = others.iter().filter(|row| !row.host_only || on_host);
        let visible = visible.filter(|row| row.state != State::Draining);
        let known = visible.filter_map(|row| Some((row.address.clone()?, row)));
        // A balancer that stops before it has read etcd names none, so that resolvers ask
        // another.
        let first = first.filter(|(_, row)| row.state != State::Draining || self.read);
        let all: Vec<_> = first.into_iter().chain(known).collect();
        let Some(best) = all.iter().map(|(_, row)| self.rank(row)).min() else { return Vec::new() };
        let zone = self.rows.first().and_then(|own| own.zone.as_ref());
        let mut candidates: Vec<Candidate<HostPort>> = Vec::new();
        for (name, row) in all.into_iter().filter(|(_, row)| self.rank(row) == best) {
            if candidates.iter().all(|known| known.name != name) {
                let near = row.own || zone.is_none() || row.zone.as_ref() == zone;
                candidates.push(Candidate { name, near, streams: row.expected });
            }
        }
        order::ordered(candidates, seed)
    }

    /// Returns the streams of this balancer, and of each other one that takes clients of the
    /// same place. `None` while that is not known for certain: while etcd does not answer,
    /// while this balancer is not ready, or if one of the others does not say it.
    #[must_use]
    pub fn loads(&self) -> Option<(u64, Vec<u64>)> {
        let (own, others) = self.rows.split_first()?;
        if !self.current || own.state != State::Ready {
            return None;
        }
        let others = others.iter().filter(|row| row.state == State::Ready);
        let others = others.filter(|row| !row.host_only || own.host_only);
        // DNS sends clients of one zone to the balancers of that zone.
        let others = others.filter(|row| own.zone.is_none() || row.zone == own.zone);
        let others: Option<Vec<u64>> = others.map(|row| row.streams).collect();
        Some((own.streams?, others?))
    }

    /// Returns the part of the streams of all balancers that this one has, as [`Self::loads`]
    /// counts them; 1 while that is not known.
    #[must_use]
    pub fn part(&self) -> f64 {
        let Some((own, others)) = self.loads().filter(|(own, _)| *own > 0) else { return 1.0 };
        own as f64 / (own + others.iter().sum::<u64>()) as f64
    }

    /// Returns a balancer's rank; the least is named. While etcd does not answer, nobody
    /// knows who has lost it, so *stale* is no worse than *ready*.
    fn rank(&self, row: &Row) -> State {
        if row.state == State::Stale && !self.current { State::Ready } else { row.state }
    }
}

#[cfg(test)]
mod tests;
