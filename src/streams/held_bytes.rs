//! Counts the bytes of lists for as long as they are held.
//!
//! In: a list's bytes. Out: these bytes, counted for as long as anything holds a part of
//! them, and a handle that shows whether anything does. The handle itself holds nothing.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::telemetry::{Counters, Gauge};

/// A list's bytes and their count. It lives for as long as anything holds a part of them.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    pub(crate) bytes: Bytes,
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &Gauge,
}

/// A handle that shows whether a list's bytes are held.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeakHeldBytes(Weak<HeldBytes>);

struct Owner(Arc<HeldBytes>);

/// Counts the bytes from now on, in this gauge. Returns them and the handle.
pub(crate) fn count_held(
    bytes: Bytes,
    counters: &Arc<Counters>,
    gauge: fn(&Counters) -> &Gauge,
) -> (Bytes, WeakHeldBytes) {
    gauge(counters).add(bytes.len());
    let held = Arc::new(HeldBytes { bytes, counters: counters.clone(), gauge });
    let weak = WeakHeldBytes(Arc::downgrade(&held));
    (Bytes::from_owner(Owner(held)), weak)
}

impl WeakHeldBytes {
    /// Returns the bytes, if anything holds them.
    pub(crate) fn upgrade(&self) -> Option<Arc<HeldBytes>> {
        self.0.upgrade()
    }
}

/// All are equal, because different streams may hold equal lists.
impl PartialEq for WeakHeldBytes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for WeakHeldBytes {}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).take(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted_until_the_last_part_of_it_is_gone() {
        let counters: Arc<Counters> = Arc::default();
        let (bytes, held) =
            count_held(Bytes::from(vec![7; 1_000]), &counters, |all| &all.list_bytes);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(
            (held.upgrade().map(|held| held.bytes.len()), counters.list_bytes.now()),
            (Some(1_000), 1_000)
        );
        assert_eq!(part[..], [7; 10]);
        drop(part);
        assert_eq!((held.upgrade().is_none(), counters.list_bytes.now()), (true, 0));
    }
}
