//! A subscription to one typed name.
//!
//! In: the topics of all readings of the name, the one with the fewest selectors first.
//! Out: the meaning of the first reading that a service answers to, now and whenever it
//! changes. Most names have only one reading.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::model::Target;

use super::topic::{Listener, Topic};
use super::{Catalog, Known};

/// A subscription to one typed name. It ends when the catalog closes.
pub struct Subscription {
    first: Arc<Topic<Known>>,
    others: Vec<Arc<Topic<Known>>>,
    catalog: Catalog,
    target: Target,
}

/// One stream's listener on a subscription.
#[derive(Debug)]
pub struct Subscriber {
    first: Listener<Known>,
    /// Empty for most names, so that a stream costs no more for them.
    others: Box<[Other]>,
}

/// The listener on a reading that is not the first.
#[derive(Debug)]
struct Other {
    listener: Listener<Known>,
    /// Whether a service answers to an earlier reading, and the listener is counted as
    /// served.
    served: bool,
}

impl Subscription {
    pub(super) fn new(
        first: Arc<Topic<Known>>,
        others: Vec<Arc<Topic<Known>>>,
        catalog: Catalog,
        target: Target,
    ) -> Self {
        Self { first, others, catalog, target }
    }

    /// Returns what the name means now.
    #[must_use]
    pub fn known(&self) -> Known {
        known(self.topics())
    }

    /// Returns the number of the newest meaning. It grows with each meaning.
    #[must_use]
    pub fn version(&self) -> u64 {
        version(self.topics())
    }

    /// Returns whether no further meaning will come.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.topics().any(|topic| topic.has_closed())
    }

    /// Makes a listener.
    #[must_use]
    pub fn listen(&self) -> Subscriber {
        let other = |topic| Other { listener: Listener::new(topic), served: false };
        let others = self.others.iter().cloned().map(other).collect();
        Subscriber { first: Listener::new(self.first.clone()), others }
    }

    fn topics(&self) -> impl Iterator<Item = &Arc<Topic<Known>>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.catalog.release(&self.target);
    }
}

impl Subscriber {
    /// Returns the newest meaning and its version, if it is newer than the last one
    /// returned; `None` once the catalog has closed.
    pub fn poll_known(&mut self, cx: &mut Context<'_>) -> Poll<Option<(u64, Known)>> {
        if self.others.is_empty() {
            return self.first.poll_newest(cx);
        }
        let mut news = false;
        let others = self.others.iter_mut().map(|other| &mut other.listener);
        for listener in std::iter::once(&mut self.first).chain(others) {
            match listener.poll_newest(cx) {
                Poll::Ready(Some(_)) => news = true,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        if !news {
            return Poll::Pending;
        }
        let mut served = self.first.topic().newest().is_present();
        for other in &mut self.others {
            other.note(served);
            served |= other.listener.topic().newest().is_present();
        }
        let others = self.others.iter().map(|other| &other.listener);
        let topics = std::iter::once(&self.first).chain(others).map(Listener::topic);
        Poll::Ready(Some((version(topics.clone()), known(topics))))
    }
}

impl Other {
    fn note(&mut self, served: bool) {
        if std::mem::replace(&mut self.served, served) != served {
            self.listener.topic().count_served(served);
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// Returns the first meaning that is not absent. A topic that is still syncing counts,
/// because a service may answer to it.
fn known<'a>(topics: impl Iterator<Item = &'a Arc<Topic<Known>>>) -> Known {
    let mut last = Known::Syncing;
    for topic in topics {
        last = topic.newest();
        if !matches!(last, Known::Absent(_)) {
            break;
        }
    }
    // No service answers: the last reading says which service would be meant.
    last
}

fn version<'a>(topics: impl Iterator<Item = &'a Arc<Topic<Known>>>) -> u64 {
    topics.map(|topic| topic.version()).sum()
}
