//! The services whose names fold together, and who asked for them.
//!
//! In: snapshots, as the driver has them. Out: what each spelling means, to
//! those who asked for it. It decides what a spelling means and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{ServiceName, name};

use super::topic::{Rounds, Topic};
use super::{Known, ServiceSnapshot};

/// The services that share a canonical name (nearly always one), and who asked
/// for it in which spelling.
#[derive(Default)]
pub(super) struct Group {
    pub(super) services: BTreeMap<ServiceName, Arc<ServiceSnapshot>>,
    topics: BTreeMap<Arc<str>, Asked>,
}

/// A spelling, and how many subscriptions it has.
struct Asked {
    topic: Arc<Topic>,
    times: usize,
}

impl Group {
    /// The service that a spelling means: the best match, and among equals the
    /// first by name, so that every replica says the same.
    pub(super) fn known(&self, typed: &str) -> Known {
        let rank = |service: &&ServiceName| name::matches(typed, service);
        let best = self.services.keys().filter(|service| rank(service).is_some()).min_by_key(rank);
        match best.and_then(|service| self.services.get(service)) {
            Some(snapshot) => Known::Present(snapshot.clone()),
            None => Known::Absent,
        }
    }

    /// What a spelling means, from now on.
    pub(super) fn subscribe(&mut self, typed: &Arc<str>, synced: bool) -> Arc<Topic> {
        if !self.topics.contains_key(typed) {
            let now = if synced { self.known(typed) } else { Known::Syncing };
            self.topics.insert(typed.clone(), Asked { topic: Topic::new(now), times: 0 });
        }
        let asked = self.topics.get_mut(typed).expect("it is there or was put there");
        asked.times += 1;
        asked.topic.clone()
    }

    /// One subscription less.
    pub(super) fn unsubscribe(&mut self, typed: &Arc<str>) {
        if let Some(asked) = self.topics.get_mut(typed) {
            asked.times -= 1;
            if asked.times == 0 {
                self.topics.remove(typed);
            }
        }
    }

    /// Tells each spelling what it means now.
    pub(super) fn announce(&self, rounds: &mut Rounds) {
        for (typed, asked) in &self.topics {
            asked.topic.publish(self.known(typed), rounds);
        }
    }

    /// Ends every subscription.
    pub(super) fn close(&mut self) {
        std::mem::take(&mut self.topics).values().for_each(|asked| asked.topic.close());
    }

    pub(super) fn is_unused(&self) -> bool {
        self.services.is_empty() && self.topics.is_empty()
    }
}
