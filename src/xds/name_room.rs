//! Limits what the names of one connection take, on all of its streams.
//!
//! In: connections, and what the names of their streams cost. Out: how much more a stream may
//! take. It holds a number for each connection with many names.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the names of each connection cost.
#[derive(Default)]
pub(super) struct NameRooms(Mutex<HashMap<SocketAddr, usize>>);

/// A stream's part of its connection's names. It is given back when this is dropped.
pub(super) struct NameRoom {
    connection: SocketAddr,
    /// What its names cost beyond [`FREE`].
    cost: usize,
    owner: Arc<NameRooms>,
}

/// The most that the names of a connection may cost, in bytes: ten thousand listeners, as many
/// clusters and endpoints, with names of a hundred bytes.
pub(super) const ROOM: usize = 6 * 1024 * 1024;
/// What the names of each stream may cost beside, in bytes: those of one target. So nothing is
/// kept for most connections.
const FREE: usize = 512;

impl NameRooms {
    pub(super) fn stream(self: &Arc<Self>, connection: SocketAddr) -> NameRoom {
        NameRoom { connection, cost: 0, owner: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NameRoom {
    /// Returns what the names of this stream may cost together.
    pub(super) fn most(&self) -> usize {
        let all = self.owner.lock().get(&self.connection).copied().unwrap_or(0);
        FREE + ROOM.saturating_sub(all.saturating_sub(self.cost))
    }

    /// Records what the names of this stream cost.
    pub(super) fn set(&mut self, cost: usize) {
        let cost = cost.saturating_sub(FREE);
        if cost == self.cost {
            return;
        }
        let mut connections = self.owner.lock();
        let all = connections.get(&self.connection).copied().unwrap_or(0);
        match all.saturating_sub(self.cost) + cost {
            0 => connections.remove(&self.connection),
            all => connections.insert(self.connection, all),
        };
        self.cost = cost;
    }
}

impl Drop for NameRoom {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_a_connection_share_its_room() {
        let rooms = Arc::new(NameRooms::default());
        let connection = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let (mut one, mut other) = (rooms.stream(connection(1)), rooms.stream(connection(1)));
        let room = FREE + ROOM;
        one.set(FREE);
        assert!(rooms.lock().is_empty(), "one target costs nothing");
        one.set(room - 10);
        assert_eq!((one.most(), other.most()), (room, FREE + 10));
        other.set(FREE + 10);
        assert_eq!((one.most(), other.most()), (room - 10, FREE + 10));
        assert_eq!(rooms.stream(connection(2)).most(), room);
        drop(one);
        assert_eq!(other.most(), room);
        drop(other);
        assert!(rooms.lock().is_empty());
    }
}
