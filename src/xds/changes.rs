//! Which names of a stream have news.
//!
//! In: wake-ups, one for each name that changes, and the names that a stream begins to want.
//! Out: these names, each once, and a wake-up of the stream. So a stream looks only at the
//! names that changed, however many it has. It holds at most one entry for each name, and
//! nothing while none has news.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::name_set::NameSet;

/// The names of one stream that have news.
#[derive(Default)]
pub(super) struct Changes(Arc<Mutex<Changed>>);

#[derive(Default)]
struct Changed {
    /// Sorted, so that the order in which they are woken does not matter.
    names: NameSet,
    stream: Option<Waker>,
}

/// Is woken when a name changes.
struct NameWaker {
    name: Arc<str>,
    changed: Arc<Mutex<Changed>>,
}

impl Changes {
    /// Makes the waker of a name. It wakes the stream that called [`Self::follow`].
    pub(super) fn waker(&self, name: &Arc<str>) -> Waker {
        Arc::new(NameWaker { name: name.clone(), changed: self.0.clone() }).into()
    }

    /// Sets the waker of the stream.
    pub(super) fn follow(&self, stream: &Waker) {
        let mut changed = lock(&self.0);
        if !changed.stream.as_ref().is_some_and(|old| old.will_wake(stream)) {
            changed.stream = Some(stream.clone());
        }
    }

    /// Adds a name that has never been looked at, and wakes nobody.
    pub(super) fn add(&self, name: &Arc<str>) {
        lock(&self.0).names.insert(name.clone());
    }

    /// Returns a name with news, and forgets it. The caller looks for the news afterwards, so
    /// none is missed.
    pub(super) fn take(&self) -> Option<Arc<str>> {
        lock(&self.0).names.pop_first()
    }

    /// Forgets the names that the stream no longer wants.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        lock(&self.0).names.retain(wanted);
    }
}

impl Wake for NameWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut changed = lock(&self.changed);
        // A name that is there has woken the stream before.
        if changed.names.insert(self.name.clone())
            && let Some(stream) = &changed.stream
        {
            stream.wake_by_ref();
        }
    }
}

fn lock(changed: &Mutex<Changed>) -> MutexGuard<'_, Changed> {
    changed.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_name_that_changes_wakes_its_stream_once_and_is_found() {
        let (changes, count) = (Changes::default(), Arc::new(Count::default()));
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Into::into).to_vec();
        let wakers: Vec<_> = names.iter().map(|name| changes.waker(name)).collect();
        changes.add(&names[2]);
        changes.follow(&count.clone().into());
        for at in [1, 0, 1, 2] {
            wakers[at].wake_by_ref();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "of a and b");
        changes.retain(|name| name != "a");
        assert_eq!(
            [changes.take(), changes.take()].map(Option::unwrap),
            ["b", "c"].map(Into::into)
        );
        assert_eq!(changes.take(), None);
        wakers[1].wake_by_ref();
        assert_eq!((changes.take().as_deref(), count.0.load(Ordering::Relaxed)), (Some("b"), 3));
    }
}
