//! Lists that streams share: one for all that asked for the same.
//!
//! In: targets, snapshots. Out: the same [`EncodedList`] for every stream of a
//! target, encoded by whichever asks first. It holds nothing for targets that
//! no stream asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::catalog::{Catalog, Known, ServiceSnapshot, Subscriber, Subscription};
use crate::model::Target;
use crate::policy;
use crate::telemetry::Counters;

use super::encode::EncodedList;

/// The views in use.
pub(super) struct Views {
    catalog: Catalog,
    counters: Arc<Counters>,
    in_use: Mutex<HashMap<Target, Weak<View>>>,
}

/// What all the streams of one target see.
pub(super) struct View {
    target: Target,
    subscription: Subscription,
    latest: Mutex<Option<Latest>>,
    owner: Arc<Views>,
}

struct Latest {
    of: Arc<ServiceSnapshot>,
    /// `None`: nobody in it can serve this target.
    list: Option<Arc<EncodedList>>,
}

impl Views {
    pub(super) fn new(catalog: Catalog, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { catalog, counters, in_use: Mutex::default() })
    }

    /// The view of a target; `None` when the catalog has closed.
    pub(super) fn view(self: &Arc<Self>, target: &Target) -> Option<Arc<View>> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = in_use.get(target).and_then(Weak::upgrade) {
            return Some(view);
        }
        let subscription = self.catalog.subscribe(target)?;
        let view = Arc::new(View {
            target: target.clone(),
            subscription,
            latest: Mutex::default(),
            owner: self.clone(),
        });
        in_use.insert(target.clone(), Arc::downgrade(&view));
        Some(view)
    }
}

impl View {
    /// What is known of the target's service, now and later.
    pub(super) fn listen(&self) -> Subscriber {
        self.subscription.listen()
    }

    /// What is known now.
    pub(super) fn known(&self) -> Known {
        self.subscription.known()
    }

    /// Which is the newest there is to know.
    pub(super) fn version(&self) -> u64 {
        self.subscription.version()
    }

    /// Whether the catalog has closed since: then nothing more will be known.
    pub(super) fn has_closed(&self) -> bool {
        self.subscription.has_closed()
    }

    /// The list to send, the very same to every stream; `None` when there is
    /// nobody to list.
    pub(super) fn list(&self, known: &Known) -> Option<Arc<EncodedList>> {
        let Known::Present(snapshot) = known else { return None };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = latest.as_ref()
            && Arc::ptr_eq(&latest.of, snapshot)
        {
            return latest.list.clone();
        }
        let list = self.encode(snapshot);
        // What only looks new (metadata changed, say) is not sent again.
        let list = match latest.take().and_then(|latest| latest.list) {
            Some(old) if list.as_ref() == Some(&*old) => Some(old),
            _ => list.map(Arc::new),
        };
        *latest = Some(Latest { of: snapshot.clone(), list: list.clone() });
        list
    }

    fn encode(&self, snapshot: &ServiceSnapshot) -> Option<EncodedList> {
        let assignment = policy::assign(snapshot, self.target.selectors_for(&snapshot.name));
        if assignment.0.is_empty() {
            return None;
        }
        let list = EncodedList::new(snapshot, &assignment);
        self.owner.counters.lists_encoded.increment();
        if list.cut > 0 {
            let (service, cut) = (&snapshot.name, list.cut);
            tracing::warn!(%service, cut, "list is over the size clients take: its end is cut off");
        }
        Some(list)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut in_use = self.owner.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have taken its place since the last stream left it.
        if in_use.get(&self.target).is_some_and(|view| view.strong_count() == 0) {
            in_use.remove(&self.target);
        }
    }
}
