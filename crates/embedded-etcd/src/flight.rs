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
const PATIENCE: Duration = Duration::from_secs(1);
const BYTES_PER_SECOND: usize = 1024 * 1024;

/// The messages in flight. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Flight(Arc<Shared>);

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
    held: Option<Weak<dyn Cancellable>>,
}

/// A holder of an answer's bytes.
pub(super) trait Cancellable: Send + Sync {
    /// Drops the bytes. The client gets an error at the end of its answer.
    fn cut(&self);
}

/// The bytes of one connection's large messages.
#[derive(Clone, Default)]
pub(super) struct Share(Arc<Mutex<usize>>);

/// A reservation of bytes. Dropping it releases them.
pub(super) struct Charge {
    flight: Flight,
    id: u64,
    bytes: usize,
}

impl Flight {
    /// Reserves `bytes`; waits up to [`WAIT`] for room.
    ///
    /// # Errors
    /// Returns `RESOURCE_EXHAUSTED` if there is no room in time or `bytes` exceeds
    /// [`ANSWER_MAX`].
    pub(super) async fn reserve(&self, bytes: usize, share: &Share) -> Result<Charge, Status> {
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
            if let Some(charge) = self.try_reserve(bytes, share) {
                return Ok(charge);
            }
            let mut again = deadline;
            match self.slowest(bytes, share) {
                Slowest::Overdue(held) => {
                    held.cut();
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

    fn try_reserve(&self, bytes: usize, share: &Share) -> Option<Charge> {
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
        table.all.insert(id, Entry { bytes, share: share.clone(), began, read: 0, held: None });
        Some(Charge { flight: self.clone(), id, bytes })
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
            entry.began + PATIENCE + Duration::from_secs_f64(earned)
        };
        let held = in_the_way.filter_map(|entry| Some((due(entry), entry.held.as_ref()?)));
        let held = held.filter(|(_, held)| held.strong_count() > 0);
        let Some((due, held)) = held.min_by_key(|(due, _)| *due) else { return Slowest::None };
        let held = held.clone();
        // The upgraded value may be the last owner, whose drop releases bytes and takes the
        // lock. So the lock is released first.
        drop(table);
        match held.upgrade() {
            Some(held) if due <= Instant::now() => Slowest::Overdue(held),
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

impl Charge {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records the holder of the bytes, and that the client has read `read` bytes more.
    pub(super) fn progress(&self, held: Weak<dyn Cancellable>, read: usize) {
        if let Some(entry) = lock(&self.flight.0.table).all.get_mut(&self.id) {
            entry.held = Some(held);
            entry.read += read;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.flight.release(self.id);
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
        cut: AtomicBool,
        charge: Mutex<Option<Charge>>,
    }

    impl Cancellable for Reader {
        fn cut(&self) {
            self.cut.store(true, Ordering::Relaxed);
            drop(lock(&self.charge).take());
        }
    }

    impl Reader {
        fn new(charge: Charge) -> Arc<Self> {
            let reader = Arc::new(Self::default());
            let held: Arc<dyn Cancellable> = reader.clone();
            charge.progress(Arc::downgrade(&held), 0);
            *lock(&reader.charge) = Some(charge);
            reader
        }

        fn is_cut(&self) -> bool {
            self.cut.load(Ordering::Relaxed)
        }
    }

    const LARGE: usize = 10 * 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn small_ones_do_not_wait_for_large_ones() {
        let flight = Flight::default();
        let mut all = Vec::new();
        for _ in 0..LARGE_MAX / LARGE {
            all.push(flight.reserve(LARGE, &Share::default()).await.expect("there is room"));
        }
        let _small = flight.reserve(SMALL, &Share::default()).await.expect("there is room");
        let refused = flight.reserve(LARGE, &Share::default()).await;
        assert_eq!(refused.err().expect("no room").code(), tonic::Code::ResourceExhausted);
        all.pop();
        flight.reserve(LARGE, &Share::default()).await.expect("there is room again");
        assert_eq!(flight.bytes(), (SMALL, all.len() * LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_makes_room() {
        let flight = Flight::default();
        let mut readers = Vec::new();
        for _ in 0..LARGE_MAX / LARGE {
            let charge = flight.reserve(LARGE, &Share::default()).await.expect("there is room");
            readers.push(Reader::new(charge));
        }
        // The client of the first answer has read, so the second is the slowest.
        let held: Arc<dyn Cancellable> = readers[0].clone();
        let progress = |charge: &Charge| charge.progress(Arc::downgrade(&held), LARGE / 2);
        lock(&readers[0].charge).as_ref().map(progress).expect("it is there");
        flight.reserve(LARGE, &Share::default()).await.expect("room is made");
        let cut: Vec<_> = readers.iter().map(|reader| reader.is_cut()).collect();
        assert_eq!(cut.iter().filter(|&&cut| cut).count(), 1, "{cut:?}");
        assert!(!cut[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_takes_its_share() {
        let flight = Flight::default();
        let greedy = Share::default();
        let first = Reader::new(flight.reserve(LARGE, &greedy).await.expect("there is room"));
        let other = Reader::new(flight.reserve(LARGE, &Share::default()).await.expect("room"));
        let _second = flight.reserve(LARGE, &greedy).await.expect("its own first one goes");
        assert!(first.is_cut() && !other.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn one_longer_than_all_goes_alone_and_one_too_long_not_at_all() {
        let flight = Flight::default();
        let alone = flight.reserve(LARGE_MAX + 1, &Share::default()).await.expect("alone");
        assert!(flight.reserve(LARGE, &Share::default()).await.is_err());
        drop(alone);
        assert!(flight.reserve(ANSWER_MAX + 1, &Share::default()).await.is_err());
        assert_eq!(flight.bytes(), (0, 0));
    }
}
