//! What happened in a run: what etcd held, what was done, what clients were told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::plan::{Host, Step};

/// Backends by address.
pub type Set = BTreeSet<SocketAddr>;

/// One thing that happened, in milliseconds of the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub at: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// etcd holds these for a service from here on.
    Holds {
        revision: i64,
        service: usize,
        set: Set,
    },
    /// A key is about to be deleted, by its owner or by mistake: from here on it
    /// may go, and nobody will miss it.
    Asked {
        service: usize,
        addr: SocketAddr,
    },
    /// A key's owner deleted it, and etcd said so.
    Deregistered {
        service: usize,
        addr: SocketAddr,
    },
    /// A process listens, or no longer.
    Listens(SocketAddr),
    Deaf(SocketAddr),
    Started(Host),
    Crashed(Host),
    /// A client has a connection and has said its name on it.
    Opened {
        stream: usize,
        client: usize,
        balancer: usize,
    },
    /// The initial response.
    Greeted {
        stream: usize,
    },
    /// A list; without addresses, the word that there is nobody.
    Told {
        stream: usize,
        list: Set,
        /// Whether every call is to fail.
        drops: bool,
    },
    /// A status, and nothing else.
    Refused {
        stream: usize,
        code: String,
    },
    /// The end of a stream, and with which status if it was the balancer's.
    Ended {
        stream: usize,
        status: Option<String>,
    },
    /// So many of a balancer's crowd have not read a value long after it came.
    Missed {
        balancer: usize,
        service: usize,
        missed: usize,
        of: usize,
    },
    /// The operator has all go that is in doubt.
    Released,
    /// An operator's word is written into etcd.
    Said(Step),
}

/// Shared by all that runs in one simulation.
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

/// What etcd held, service by service, one entry for each change.
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

    /// All that it held of a service, from nothing on.
    pub fn service(&self, service: usize) -> &[Held] {
        self.services.get(&service).map_or(&[], Vec::as_slice)
    }
}
