//! The view of each target, shared by its streams.
//!
//! In: targets and snapshots. Out: for each target one subscription, and the lists of its
//! class, which streams of other targets may share. It holds nothing for targets that no
//! stream asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::catalog::{Catalog, Known, Service, Subscriber, Subscription};
use crate::model::{Class, Target};
use crate::policy;
use crate::streams::admission::{Admission, Admitted};
use crate::telemetry::Counters;

use super::lists::{ListToSend, Lists, StreamList};

/// The views in use.
pub(super) struct Views {
    catalog: Catalog,
    lists: Arc<Lists>,
    admission: Arc<Admission>,
    in_use: Mutex<HashMap<Target, Weak<View>>>,
}

/// The view of one target, shared by its streams.
pub(super) struct View {
    target: Target,
    subscription: Subscription,
    owner: Arc<Views>,
}

/// A stream's hold of what it shares with others.
pub(super) struct StreamView {
    view: Arc<View>,
    list: Option<StreamList>,
    /// Given back when the stream ends.
    admitted: Option<Box<Admitted>>,
}

impl Views {
    pub(super) fn new(catalog: Catalog, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            lists: Lists::new(counters),
            admission: Arc::default(),
            in_use: Mutex::default(),
        })
    }

    /// Returns how far over its share the most favoured backend of any list is.
    pub(super) fn excess(&self) -> f32 {
        self.lists.excess()
    }

    /// Returns the view of a target; `None` if the catalog has closed.
    pub(super) fn view(self: &Arc<Self>, target: &Target) -> Option<Arc<View>> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = in_use.get(target).and_then(Weak::upgrade) {
            return Some(view);
        }
        let subscription = self.catalog.subscribe(target)?;
        let view = Arc::new(View { target: target.clone(), subscription, owner: self.clone() });
        in_use.insert(target.clone(), Arc::downgrade(&view));
        Some(view)
    }
}

impl View {
    /// Returns what the target means now.
    pub(super) fn known(&self) -> Known {
        self.subscription.known()
    }

    /// Returns the number of the newest meaning.
    pub(super) fn version(&self) -> u64 {
        self.subscription.version()
    }

    /// Returns whether the catalog has closed, so that no further meaning will come.
    pub(super) fn has_closed(&self) -> bool {
        self.subscription.has_closed()
    }

    /// Admits one more stream of a connection. Returns `None` if the lists of classes
    /// with selectors are as large as they may be.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, known: &Known) -> Option<StreamView> {
        let mut stream_view = StreamView { view: self.clone(), list: None, admitted: None };
        let admission = &self.owner.admission;
        if let Known::Present(service) = known {
            let class = self.class(service);
            let list = self.owner.lists.join(&service.name, &class);
            if !class.is_whole() {
                let most = policy::most(service, &class);
                stream_view.admitted =
                    Some(Box::new(admission.admit(peer, most, list.others())?));
                list.reserve(most);
            }
            stream_view.list = Some(list);
        } else if !self.target.selectors.is_empty() {
            // There is no list yet, and its length is unknown.
            stream_view.admitted = Some(Box::new(admission.admit(peer, 0, 0)?));
        }
        Some(stream_view)
    }

    /// Returns the class of the target's clients. Its selectors depend on the service
    /// that the target turns out to mean.
    fn class(&self, service: &Service) -> Class {
        Class::new(self.target.selectors_for(&service.name))
    }
}

impl StreamView {
    /// Returns a listener for what the target means.
    pub(super) fn listen(&self) -> Subscriber {
        self.view.subscription.listen()
    }

    /// Returns the list to send, one for all streams of the class; no list if no backend
    /// can be listed.
    pub(super) fn list(&mut self, known: &Known) -> ListToSend {
        let Known::Present(service) = known else {
            self.list = None;
            return ListToSend::default();
        };
        match &self.list {
            Some(list) if list.is_of(&service.name) => list.get(service),
            _ => {
                let list = self.view.owner.lists.join(&service.name, &self.view.class(service));
                self.list.insert(list).get(service)
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut in_use = self.owner.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        // Another view may have replaced this one since its last stream left.
        if in_use.get(&self.target).is_some_and(|view| view.strong_count() == 0) {
            in_use.remove(&self.target);
        }
    }
}
