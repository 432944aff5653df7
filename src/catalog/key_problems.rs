//! Rejected keys, keys with remarks, and host names that do not resolve: published and
//! logged.
//!
//! In: the index, and what a change affected. Out: sorted lists for the admin port, and
//! log lines when there are more of them than before.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::clock;
use crate::registry::{Key, Rejected, Remark};

use super::Catalog;
use super::affected::Affected;
use super::index::Index;
use super::unresolved::{self, Unresolved};

impl Catalog {
    /// Returns the rejected keys, sorted, and the reasons.
    #[must_use]
    pub fn rejected(&self) -> Vec<(Key, Rejected)> {
        let all = self.0.rejected.iter();
        let mut all: Vec<_> =
            all.map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Returns how many keys are rejected.
    #[must_use]
    pub fn rejected_len(&self) -> usize {
        self.0.rejected.len()
    }

    /// Returns the keys with remarks, sorted, and the remarks. A host name that does not
    /// resolve is one too.
    #[must_use]
    pub fn remarks(&self) -> Vec<(Key, Vec<Remark>)> {
        let all = self.0.remarks.iter();
        let mut all: BTreeMap<_, _> =
            all.map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        for one in self.unresolved().iter() {
            all.entry(one.key.clone()).or_default().push(one.remark());
        }
        all.into_iter().collect()
    }

    /// Returns the backends whose host names do not resolve, sorted by service and key;
    /// at most 10,000.
    #[must_use]
    pub fn unresolved(&self) -> Arc<[Unresolved]> {
        self.0.unresolved.borrow().clone()
    }

    /// Returns how many keys have remarks, without those on host names.
    #[must_use]
    pub fn remarks_len(&self) -> usize {
        self.0.remarks.len()
    }

    /// Publishes the rejections, remarks and unresolved host names that a change affected.
    pub(super) fn publish_key_problems(&self, index: &Index, affected: &Affected) {
        let before = self.0.rejected.len();
        for key in &affected.rejections {
            match index.rejection(key) {
                Some(rejected) => {
                    tracing::debug!(%key, reason = rejected.reason, "key rejected");
                    self.0.rejected.insert(key.clone(), rejected.clone());
                }
                None => drop(self.0.rejected.remove(key)),
            }
            match index.remarks(key) {
                [] => drop(self.0.remarks.remove(key)),
                remarks => {
                    tracing::debug!(%key, remark = %remarks[0], "key has a remark");
                    self.0.remarks.insert(key.clone(), remarks.to_vec());
                }
            }
        }
        let rejected = self.0.rejected.len();
        let mut warnings = self.0.rejection_warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = warnings.count(rejected.saturating_sub(before), clock::now()) {
            tracing::warn!(rejected, new, "keys rejected: see /api/v1/rejected for the reasons");
        }
        if affected.unresolved {
            let now: Arc<[Unresolved]> = index.unresolved().into();
            let before = self.0.unresolved.send_replace(now.clone());
            let mut logged = self.0.unresolved_logged.load(Ordering::Relaxed);
            unresolved::log(&before, &now, &mut logged);
            self.0.unresolved_logged.store(logged, Ordering::Relaxed);
        }
    }
}
