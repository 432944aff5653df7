//! Limits the bytes of messages in flight, over all connections.
//!
//! In: the length of a message before it is made. Out: a reservation, at once or when other
//! messages are done; or an error. An answer that its client does not read is ended when
//! others need its room. The lock never leaves this file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

/// The longest small message, in bytes. Small messages never wait for large ones.
pub(super) const SMALL: usize = 64 * 1024;
/// The limit for all small messages, in bytes: a thousand of the longest.
const SMALL_MAX: usize = 64 * 1024 * 1024;
/// The limit for all large messages, in bytes. A longer message is allowed alone.
const LARGE_MAX: usize = 64 * 1024 * 1024;
/// The limit for the large messages of a connection, in bytes. A longer one is allowed alone.
const SHARE_MAX: usize = 16 * 1024 * 1024;
/// The longest answer, in bytes: a hundred thousand keys of 1 KiB. etcd has no limit, but
/// most clients accept at most 4 MiB.
pub(super) const ANSWER_MAX: usize = 128 * 1024 * 1024;
/// How long a reservation waits for room. etcd's own deadline for a request is longer, but
/// clients give up after some seconds.
const WAIT: Duration = Duration::from_secs(10);
/// How long an answer may take before it can be ended. Its client gains a second more for
/// each MiB that it reads.
const READ_GRACE: Duration = Duration::from_secs(1);
const BYTES_PER_SECOND: usize = 1024 * 1024;

/// The messages in flight. Clones share them.
#[derive(Clone, Default)]
pub(super) struct MessageBudget(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// Notified when a message is done.
    gone: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// All messages, the oldest first.
    all: BTreeMap<u64, Entry>,
    small: usize,
    large: usize,
}

struct Entry {
    bytes: usize,
    share: Share,
    began: Instant,
    /// The bytes that the client has read.
    read: usize,
    /// The answer to end if others need the room.
    holder: Option<Weak<dyn Cancellable>>,
}

/// A holder of an answer's bytes.
pub(super) trait Cancellable: Send + Sync {
    /// Drops the bytes. The client gets an error at the end of its answer.
    fn cancel(&self);
}

/// The bytes of one connection's large messages.
#[derive(Clone, Default)]
pub(super) struct Share(Arc<Mutex<usize>>);

/// A reservation of bytes. Dropping it releases them.
pub(super) struct Reservation {
    budget: MessageBudget,
    id: u64,
    bytes: usize,
}

impl MessageBudget {
    /// Reserves `bytes`; waits up to [`WAIT`] for room.
    ///
    /// # Errors
    /// Returns `RESOURCE_EXHAUSTED` if there is no room in time or `bytes` exceeds
    /// [`ANSWER_MAX`].
    pub(super) async fn reserve(&self, bytes: usize, share: &Share) -> Result<Reservation, Status> {
        if bytes > ANSWER_MAX {
            return Err(Status::resource_exhausted(format!(
                "etcdserver: response is too large: {bytes} bytes, where {ANSWER_MAX} are allowed; \
                 read in pages"
            )));
        }
        let deadline = Instant::now() + WAIT;
        loop {
            let gone = self.0.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes, share) {
                return Ok(reservation);
            }
            let mut again = deadline;
            match self.slowest(bytes, share) {
                Slowest::Overdue(holder) => {
                    holder.cancel();
                    continue;
                }
                Slowest::Due(due) => again = again.min(due),
                Slowest::None => {}
            }
            tokio::select! {
                () = gone => {}
                () = tokio::time::sleep_until(again) => {}
            }
            if Instant::now() >= deadline {
                return Err(Status::resource_exhausted("etcdserver: too many requests"));
            }
        }
    }

    fn try_reserve(&self, bytes: usize, share: &Share) -> Option<Reservation> {
        let mut table = lock(&self.0.table);
        let mut mine = lock(&share.0);
        let fits = |is: usize, most: usize| is == 0 || is + bytes <= most;
        if bytes <= SMALL {
            fits(table.small, SMALL_MAX).then(|| table.small += bytes)?;
        } else {
            (fits(table.large, LARGE_MAX) && fits(*mine, SHARE_MAX))
                .then(|| table.large += bytes)?;
            *mine += bytes;
        }
        drop(mine);
        let id = table.next;
        table.next += 1;
        let began = Instant::now();
        table.all.insert(id, Entry { bytes, share: share.clone(), began, read: 0, holder: None });
        Some(Reservation { budget: self.clone(), id, bytes })
    }

    /// Returns the most overdue answer among those that take the needed room, or the time at
    /// which the first one is due.
    fn slowest(&self, bytes: usize, share: &Share) -> Slowest {
        let table = lock(&self.0.table);
        let mine = *lock(&share.0);
        let own = bytes > SMALL && mine > 0 && mine + bytes > SHARE_MAX;
        let in_the_way = table.all.values().filter(|entry| {
            (entry.bytes > SMALL) == (bytes > SMALL)
                && (!own || Arc::ptr_eq(&entry.share.0, &share.0))
        });
        let due = |entry: &Entry| {
            let earned = entry.read as f64 / BYTES_PER_SECOND as f64;
            entry.began + READ_GRACE + Duration::from_secs_f64(earned)
        };
        let holder = in_the_way.filter_map(|entry| Some((due(entry), entry.holder.as_ref()?)));
        let holder = holder.filter(|(_, holder)| holder.strong_count() > 0);
        let Some((due, holder)) = holder.min_by_key(|(due, _)| *due) else { return Slowest::None };
        let holder = holder.clone();
        // The upgraded value may be the last owner, whose drop releases bytes and takes the
        // lock. So the lock is released first.
        drop(table);
        match holder.upgrade() {
            Some(holder) if due <= Instant::now() => Slowest::Overdue(holder),
            Some(_) => Slowest::Due(due),
            None => Slowest::None,
        }
    }

    fn release(&self, id: u64) {
        let mut table = lock(&self.0.table);
        if let Some(entry) = table.all.remove(&id) {
            if entry.bytes <= SMALL {
                table.small -= entry.bytes;
            } else {
                table.large -= entry.bytes;
                *lock(&entry.share.0) -= entry.bytes;
            }
        }
        drop(table);
        self.0.gone.notify_waiters();
    }

    /// Returns the bytes of small and of large messages.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (usize, usize) {
        let table = lock(&self.0.table);
        (table.small, table.large)
    }
}

enum Slowest {
    Overdue(Arc<dyn Cancellable>),
    Due(Instant),
    None,
}

impl Reservation {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records the holder of the bytes, and that the client has read `read` bytes more.
    pub(super) fn progress(&self, holder: Weak<dyn Cancellable>, read: usize) {
        if let Some(entry) = lock(&self.budget.0.table).all.get_mut(&self.id) {
            entry.holder = Some(holder);
            entry.read += read;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.id);
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Reader {
        cancelled: AtomicBool,
        reservation: Mutex<Option<Reservation>>,
    }

    impl Cancellable for Reader {
        fn cancel(&self) {
            self.cancelled.store(true, Ordering::Relaxed);
            drop(lock(&self.reservation).take());
        }
    }

    impl Reader {
        fn new(reservation: Reservation) -> Arc<Self> {
            let reader = Arc::new(Self::default());
            let holder: Arc<dyn Cancellable> = reader.clone();
            reservation.progress(Arc::downgrade(&holder), 0);
            *lock(&reader.reservation) = Some(reservation);
            reader
        }

        fn is_cancelled(&self) -> bool {
            self.cancelled.load(Ordering::Relaxed)
        }
    }

    const LARGE: usize = 10 * 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn small_ones_do_not_wait_for_large_ones() {
        let budget = MessageBudget::default();
        let mut all = Vec::new();
        for _ in 0..LARGE_MAX / LARGE {
            all.push(budget.reserve(LARGE, &Share::default()).await.expect("there is room"));
        }
        let _small = budget.reserve(SMALL, &Share::default()).await.expect("there is room");
        let refused = budget.reserve(LARGE, &Share::default()).await;
        assert_eq!(refused.err().expect("no room").code(), tonic::Code::ResourceExhausted);
        all.pop();
        budget.reserve(LARGE, &Share::default()).await.expect("there is room again");
        assert_eq!(budget.bytes(), (SMALL, all.len() * LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_makes_room() {
        let budget = MessageBudget::default();
        let mut readers = Vec::new();
        for _ in 0..LARGE_MAX / LARGE {
            let reservation =
                budget.reserve(LARGE, &Share::default()).await.expect("there is room");
            readers.push(Reader::new(reservation));
        }
        // The client of the first answer has read, so the second is the slowest.
        let holder: Arc<dyn Cancellable> = readers[0].clone();
        let progress =
            |reservation: &Reservation| reservation.progress(Arc::downgrade(&holder), LARGE / 2);
        lock(&readers[0].reservation).as_ref().map(progress).expect("it is there");
        budget.reserve(LARGE, &Share::default()).await.expect("room is made");
        let cancelled: Vec<_> = readers.iter().map(|reader| reader.is_cancelled()).collect();
        assert_eq!(cancelled.iter().filter(|&&cancelled| cancelled).count(), 1, "{cancelled:?}");
        assert!(!cancelled[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_takes_its_share() {
        let budget = MessageBudget::default();
        let greedy = Share::default();
        let first = Reader::new(budget.reserve(LARGE, &greedy).await.expect("there is room"));
        let other = Reader::new(budget.reserve(LARGE, &Share::default()).await.expect("room"));
        let _second = budget.reserve(LARGE, &greedy).await.expect("its own first one goes");
        assert!(first.is_cancelled() && !other.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn one_longer_than_all_goes_alone_and_one_too_long_not_at_all() {
        let budget = MessageBudget::default();
        let alone = budget.reserve(LARGE_MAX + 1, &Share::default()).await.expect("alone");
        assert!(budget.reserve(LARGE, &Share::default()).await.is_err());
        drop(alone);
        assert!(budget.reserve(ANSWER_MAX + 1, &Share::default()).await.is_err());
        assert_eq!(budget.bytes(), (0, 0));
    }
}
