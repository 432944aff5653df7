//! Hundreds of listeners of one service inside a balancer, so many that a round over
//! them has several slices. They only read, so they cost little.
//!
//! In: the plan's crowd, and chance. Out: a breach if listeners miss a value. When a
//! listener reads a value, it sometimes leaves and sometimes others join, in the
//! middle of the round that woke it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use lookaside::catalog::Catalog;
use lookaside::model::{Target, Zone};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use crate::balancer::ZONE;
use crate::history::{History, What};
use crate::plan::Crowd as Plan;
use crate::rng::Rng;

/// How long after a value all listeners have been woken: the longest wait for a round,
/// and a tick of the network.
const ROUND: Duration = Duration::from_millis(200);
/// How many times the crowd is checked before all listeners leave and others come.
const LOOKS: u64 = 8;

/// A crowd. It exists until its host crashes.
#[derive(Clone)]
pub struct Crowd(Rc<Inner>);

struct Inner {
    balancer: usize,
    plan: Plan,
    target: Target,
    catalog: Catalog,
    history: History,
    members: RefCell<BTreeMap<u64, Member>>,
    next: Cell<u64>,
}

struct Member {
    /// The newest version that it has read.
    seen: Rc<Cell<u64>>,
    task: AbortHandle,
}

/// Runs a crowd: listeners join, are checked and leave, again and again.
pub async fn run(balancer: usize, plan: Plan, catalog: Catalog, history: History) {
    // Clients use another spelling, so no listener of this one stays when all leave.
    let name = format!("S{}.{ZONE}", plan.service);
    let target = Target::parse(&name, &Zone::new(ZONE).expect("a zone")).expect("a name");
    let (members, next) = (RefCell::default(), Cell::default());
    let crowd = Crowd(Rc::new(Inner { balancer, plan, target, catalog, history, members, next }));
    let rng = &mut Rng::new(plan.seed);
    loop {
        let size = plan.places - rng.between(1, 60);
        (0..size).for_each(|_| crowd.join());
        let mut before = 0;
        for _ in 0..LOOKS {
            sleep(ROUND).await;
            let version = crowd.version();
            if version == before {
                crowd.look(version);
            }
            before = version;
        }
        for (_, member) in std::mem::take(&mut *crowd.0.members.borrow_mut()) {
            member.task.abort();
        }
        // The next listeners come after all have left.
        sleep(Duration::from_millis(rng.between(1, 300))).await;
    }
}

impl Crowd {
    fn join(&self) {
        let id = self.0.next.replace(self.0.next.get() + 1);
        let seen: Rc<Cell<u64>> = Rc::default();
        let task = spawn_local(listen(self.clone(), id, seen.clone())).abort_handle();
        self.0.members.borrow_mut().insert(id, Member { seen, task });
    }

    /// Returns the number of the newest value.
    fn version(&self) -> u64 {
        let subscription = self.0.catalog.subscribe(&self.0.target);
        subscription.map_or(0, |subscription| subscription.version())
    }

    /// Records how many listeners have not read the newest value, if any.
    fn look(&self, version: u64) {
        let members = self.0.members.borrow();
        let missed = members.values().filter(|member| member.seen.get() != version).count();
        if missed > 0 {
            let (balancer, service, of) = (self.0.balancer, self.0.plan.service, members.len());
            self.0.history.note(What::Missed { balancer, service, missed, of });
        }
    }

    /// Acts for a member that has read a value: others may join. Returns whether it leaves.
    fn react(&self, id: u64, version: u64) -> bool {
        // One sequence for all members would depend on the order in which they are woken.
        let rng = &mut Rng::new(self.0.plan.seed ^ (id << 32) ^ version);
        if rng.percent(4) && (self.0.members.borrow().len() as u64) < 2 * self.0.plan.places {
            (0..rng.between(1, 4)).for_each(|_| self.join());
        }
        let leaves = rng.percent(4);
        if leaves {
            self.0.members.borrow_mut().remove(&id);
        }
        leaves
    }
}

async fn listen(crowd: Crowd, id: u64, seen: Rc<Cell<u64>>) {
    let Some(subscription) = crowd.0.catalog.subscribe(&crowd.0.target) else { return };
    let mut listener = subscription.listen();
    loop {
        let Some((version, _)) = poll_fn(|cx| listener.poll_known(cx)).await else { return };
        let first = seen.replace(version) == 0;
        if !first && crowd.react(id, version) {
            return;
        }
    }
}
