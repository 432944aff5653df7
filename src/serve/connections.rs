//! Which connections are open, how many there may be, and how they are sent
//! away.
//!
//! In: connections, as they come and go; the end. Out: the word to leave, to
//! one after the other. Nobody waits for anybody here but the one who sends
//! them away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::http2::Leave;
use crate::telemetry::Counters;

use super::limits;

/// All that are open.
pub(super) struct Connections {
    max: u64,
    counters: Arc<Counters>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: HashMap<u64, Arc<Leave>>,
    next: u64,
}

/// One of them, from its acceptance to the end of its task.
pub(super) struct Admitted {
    all: Arc<Connections>,
    id: u64,
    pub(super) leave: Arc<Leave>,
}

/// So often some are sent away.
const TICK: Duration = Duration::from_millis(10);

impl Connections {
    pub(super) fn new(max: u64, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { max, counters, inner: Mutex::default() })
    }

    /// Takes one more in, if there is room.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        if self.counters.connections_open.now() >= self.max {
            return None;
        }
        self.counters.connections_open.increment();
        let leave = Arc::new(Leave::default());
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, leave.clone());
        Some(Admitted { all: self.clone(), id, leave })
    }

    /// Tells all to go, spread over some time: others must take them in.
    pub(super) async fn send_away(&self) {
        let all: Vec<_> = self.lock().open.values().cloned().collect();
        let ticks = limits::spread(all.len()).as_millis() / TICK.as_millis() + 1;
        let at_once = all.len().div_ceil(usize::try_from(ticks).unwrap_or(1)).max(1);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for some in all.chunks(at_once) {
            tick.tick().await;
            some.iter().for_each(|leave| leave.ask());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.all.lock().open.remove(&self.id);
        self.all.counters.connections_open.decrement();
    }
}
