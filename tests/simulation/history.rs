//! The history of a run.
//!
//! In: states of etcd, actions, and the lists that clients got, as they happen. Out:
//! all records in order, and the states of etcd by service.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::agreement::Digest;
use crate::plan::{Host, Step};
use crate::policies::Act;

/// Backends by address.
pub type Set = BTreeSet<SocketAddr>;

/// One thing that happened. `at` counts milliseconds from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub at: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// From here on, etcd holds this set for a service.
    Holds {
        revision: i64,
        service: usize,
        set: Set,
    },
    /// A key is about to be deleted, by its owner or by mistake: from here on the
    /// backend may leave the lists.
    Asked {
        service: usize,
        addr: SocketAddr,
    },
    /// A key's owner deleted it, and etcd confirmed that.
    Deregistered {
        service: usize,
        addr: SocketAddr,
    },
    /// A process listens at an address. `Deaf` says that it no longer does.
    Listens(SocketAddr),
    Deaf(SocketAddr),
    Started(Host),
    Crashed(Host),
    /// A client has connected and has asked for its service.
    Opened {
        stream: usize,
        client: usize,
        balancer: usize,
    },
    /// A client got the initial response.
    Greeted {
        stream: usize,
    },
    /// A client got a list. Without addresses, the service has no backends.
    ReceivedList {
        stream: usize,
        list: Set,
        /// The share of each backend of the list, in its order. Only proportions count.
        shares: Vec<u32>,
        /// The part of the calls that the client drops, in hundredths of a percent.
        drops: u32,
    },
    /// A client was told to use the addresses from DNS.
    ToldToFallBack {
        stream: usize,
    },
    /// A client got a status and nothing else.
    Refused {
        stream: usize,
        code: String,
    },
    /// A stream ended, with the balancer's status if the balancer ended it.
    Ended {
        stream: usize,
        status: Option<String>,
    },
    /// `missed` of a crowd's `of` listeners have not read a value long after it came.
    Missed {
        balancer: usize,
        service: usize,
        missed: usize,
        of: usize,
    },
    /// From here on, a backend's process is to do this with connections.
    Acts {
        backend: usize,
        act: Act,
    },
    /// From here on, a service gets more calls than it can serve, or no more.
    Busy {
        service: usize,
        busy: bool,
    },
    /// From here on, a balancer decides so about a service.
    Decides {
        balancer: usize,
        service: usize,
        digest: Digest,
    },
    /// The operator released all held backends.
    Released,
    /// An operator's mark or settings are written into etcd.
    Decided(Step),
}

/// The records of one simulation, shared by all its tasks.
#[derive(Clone, Default)]
pub struct History(Rc<RefCell<Vec<Record>>>);

impl History {
    pub fn note(&self, what: What) {
        let at = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64);
        self.note_at(at, what);
    }

    pub fn note_at(&self, at: u64, what: What) {
        self.0.borrow_mut().push(Record { at, what });
    }

    pub fn all(&self) -> Vec<Record> {
        self.0.borrow().clone()
    }
}

/// The sets that etcd held for each service, one entry for each change.
#[derive(Default)]
pub struct Truth {
    pub services: BTreeMap<usize, Vec<Held>>,
}

pub struct Held {
    pub at: u64,
    pub set: Set,
}

impl Truth {
    pub fn of(records: &[Record]) -> Self {
        let mut truth = Self::default();
        for Record { at, what } in records {
            if let What::Holds { service, set, .. } = what {
                let held = Held { at: *at, set: set.clone() };
                truth.services.entry(*service).or_default().push(held);
            }
        }
        truth
    }

    /// Returns the sets that etcd held for a service, in order.
    pub fn service(&self, service: usize) -> &[Held] {
        self.services.get(&service).map_or(&[], Vec::as_slice)
    }
}
