//! Tracks whether the balancer is ready for clients, and which conditions are missing.
//!
//! In: the condition of each component. Out: the names of missing conditions, and `ready`
//! as it changes.
//! A registry that is lost after it has been read makes nothing unready: the last reading
//! is still served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::catalog::RegistryStatus;

/// All conditions together; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Shared>);

/// The condition of one component. It counts as met until the component says otherwise.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

#[derive(Debug)]
struct Shared {
    /// What is missing, by component.
    missing: Mutex<BTreeMap<&'static str, String>>,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// Makes a readiness that is ready until a condition is missing.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default would hide that it begins ready")]
    pub fn new() -> Self {
        let missing = Mutex::default();
        Self(Arc::new(Shared { missing, ready: watch::Sender::new(true) }))
    }

    /// Returns a component's condition. `name` is shown to operators.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        Condition { name, readiness: self.clone() }
    }

    /// Returns what is missing, as `component: why`, sorted. Empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let missing = self.0.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.iter().map(|(name, why)| format!("{name}: {why}")).collect()
    }

    /// Returns whether nothing is missing.
    #[must_use]
    pub fn ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Returns a receiver that follows whether nothing is missing.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, String>)) {
        let mut missing = self.0.missing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut missing);
        let now = missing.is_empty();
        // Sent under the lock, so that the last change is also the last one received.
        self.0.ready.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }
}

impl Condition {
    /// Marks the condition as missing, and says why: `not read yet`, `draining`.
    pub fn missing(&self, why: impl Into<String>) {
        self.readiness.change(|missing| drop(missing.insert(self.name, why.into())));
    }

    /// Marks the condition as met.
    pub fn met(&self) {
        self.readiness.change(|missing| drop(missing.remove(self.name)));
    }

    /// Waits until the registry has been read completely, then marks the condition as
    /// met.
    pub async fn met_when_read(self, mut status: watch::Receiver<RegistryStatus>) {
        // An error means that the catalog was dropped, so the registry will never be read.
        if status.wait_for(|status| status.synced).await.is_ok() {
            self.met();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_missing() {
        let readiness = Readiness::new();
        let (registry, shutdown) =
            (readiness.condition("registry"), readiness.condition("shutdown"));
        let mut watched = readiness.watch();
        assert!(readiness.ready());
        registry.missing("not read yet");
        assert_eq!(readiness.missing(), ["registry: not read yet"]);
        assert!(!*watched.borrow_and_update());
        shutdown.missing("draining");
        assert_eq!(readiness.missing(), ["registry: not read yet", "shutdown: draining"]);
        registry.met();
        assert!(!readiness.ready());
        assert!(!watched.has_changed().unwrap(), "only changes wake");
        shutdown.met();
        assert!(*watched.borrow_and_update());
        assert_eq!(readiness.missing(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_lost_registry_stays_ready_once_read() {
        let unread = RegistryStatus {
            synced: false,
            revision: 0,
            last_answer: None,
            stale: None,
            keys: 0,
            restored: None,
        };
        let status = watch::Sender::new(unread);
        let readiness = Readiness::new();
        let condition = readiness.condition("registry");
        condition.missing("not read yet");
        let following = condition.met_when_read(status.subscribe());
        tokio::pin!(following);
        assert!(futures_util::poll!(&mut following).is_pending());
        assert!(!readiness.ready());
        status.send_modify(|status| status.synced = true);
        following.await;
        assert!(readiness.ready());
        let lost = Some((std::time::Instant::now(), "gone".to_owned()));
        status.send_modify(|status| status.stale = lost);
        assert!(readiness.ready());
    }
}
