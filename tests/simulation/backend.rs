//! A machine that runs backends. Each backend listens, and holds its registration in
//! one of the ways that real services use.
//!
//! In: the plan's backends and the states they shall be in. Out: keys in etcd, and
//! records in the history.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error, PutOptions};
use lookaside::model::{HostPort, ServiceName, Weight};
use lookaside::register::{self, Held};
use lookaside::registry::Registration;
use lookaside::registry::etcd::{CALL_TIMEOUT, EtcdError, bounded};
use lookaside::registry::record::Format;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpListener;

use crate::answers::{Mood, answer};
use crate::etcd;
use crate::history::{History, What};
use crate::plan::{Backend, By, Want};
use crate::policies::Act;

/// The pause after a failure, as real registrants make it.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a backend still serves after it deregistered.
const LAST_CALLS: Duration = Duration::from_millis(300);
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What the plan says about one backend, as it changes.
#[derive(Clone)]
pub struct Orders {
    pub plan: Backend,
    pub want: watch::Receiver<Want>,
    pub mood: Mood,
}

/// A backend's process.
struct Process {
    plan: Backend,
    mood: Mood,
    ttl: i64,
    client: Client,
    history: History,
    /// The port of its registration. It listens there, unless it refuses connections.
    port: Option<u16>,
    listens: Option<Listens>,
    holds: Option<Holds>,
    lease: Rc<Cell<i64>>,
}

/// The holder of a registration.
enum Holds {
    /// A task that acts like other registrants. Its lease is known.
    Task(AbortHandle),
    /// Our own `register`.
    Keeper(Held),
}

struct Listens {
    port: u16,
    task: AbortHandle,
}

pub async fn machine(backends: Vec<Orders>, ttl: i64, history: History) -> turmoil::Result {
    for Orders { plan, want, mood } in backends {
        let client = etcd::connect().client(0).await.map_err(|fault| fault.to_string())?;
        let (history, lease) = (history.clone(), Rc::default());
        let (port, listens, holds) = (None, None, None);
        let process = Process { plan, mood, ttl, client, history, port, listens, holds, lease };
        spawn_local(process.run(want));
    }
    std::future::pending().await
}

impl Process {
    async fn run(mut self, mut want: watch::Receiver<Want>) {
        let mut acts = self.mood.act.clone();
        loop {
            acts.mark_unchanged();
            let now = *want.borrow_and_update();
            self.do_it(now).await;
            let changed = tokio::select! {
                biased;
                changed = want.changed() => changed,
                changed = acts.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn do_it(&mut self, want: Want) {
        match want {
            Want::Up { port, renews } => {
                let port = self.plan.ports[port];
                if self.port.is_some_and(|former| former != port) {
                    self.stop();
                }
                self.port = Some(port);
                let refuses = *self.mood.act.borrow() == Act::Refuses;
                match (refuses, self.listens.is_some()) {
                    (true, true) => self.close(),
                    (false, false) => self.listen(port).await,
                    _ => {}
                }
                match (renews, &self.holds) {
                    (false, Some(Holds::Task(_))) => self.let_go(),
                    (true, None) => self.hold(port).await,
                    _ => {}
                }
            }
            Want::Leaves(by) => {
                match self.holds.take() {
                    Some(Holds::Keeper(held)) => self.withdraw(held).await,
                    _ if self.port.is_none() => {}
                    held => {
                        let _ = timeout(LEAVE_WITHIN, self.leave(by, held)).await;
                        sleep(LAST_CALLS).await;
                    }
                }
                self.stop();
            }
            Want::Dead => self.stop(),
        }
    }

    async fn listen(&mut self, port: u16) {
        let listener = loop {
            match TcpListener::bind(("0.0.0.0", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mood = self.mood.clone();
        let task = spawn_local(async move {
            let mut answers = JoinSet::new();
            loop {
                if let Ok((io, _)) = listener.accept().await {
                    answers.spawn_local(answer(io, mood.clone()));
                }
            }
        });
        self.listens = Some(Listens { port, task: task.abort_handle() });
        self.history.note(What::Listens(self.addr(port)));
    }

    fn stop(&mut self) {
        self.let_go();
        self.close();
        self.port = None;
    }

    /// Stops listening, and ends every connection.
    fn close(&mut self) {
        if let Some(Listens { port, task }) = self.listens.take() {
            task.abort();
            self.history.note(What::Deaf(self.addr(port)));
        }
    }

    /// Stops holding the registration, where possible as if the process had crashed.
    fn let_go(&mut self) {
        match self.holds.take() {
            Some(Holds::Task(task)) => task.abort(),
            // Dropping it deletes the key.
            Some(Holds::Keeper(held)) => {
                self.asks();
                drop(held);
            }
            None => {}
        }
    }

    async fn hold(&mut self, port: u16) {
        if self.plan.keeper {
            let registration = Registration {
                service: ServiceName::new(&format!("s{}", self.plan.service)).expect("a name"),
                id: self.plan.id.as_str().into(),
                address: HostPort::parse(&self.addr(port).to_string()).expect("an address"),
                weight: Weight::DEFAULT,
                meta: Arc::default(),
            };
            let held = register::hold(register::Options {
                connect: etcd::connect(),
                prefix: etcd::PREFIX.to_owned(),
                registration,
                ttl: Duration::from_secs(self.ttl.unsigned_abs()),
                format: Format::Plain,
            });
            self.holds = Some(Holds::Keeper(held.await.expect("it can be registered")));
            return;
        }
        let (client, key, value) = (self.client.clone(), self.key(), self.addr(port).to_string());
        let (ttl, leased, lease) = (self.ttl, self.plan.leased, self.lease.clone());
        let task = spawn_local(async move {
            loop {
                let held = hold(client.clone(), &key, &value, leased.then_some(ttl), &lease).await;
                if held.is_ok() {
                    return;
                }
                sleep(AGAIN).await;
            }
        });
        self.holds = Some(Holds::Task(task.abort_handle()));
    }

    /// Deregisters through `register`, which says whether that succeeded.
    async fn withdraw(&mut self, held: Held) {
        let registered = *held.status().borrow() == register::Status::Registered;
        self.asks();
        let withdrawn = held.withdraw().await.is_ok();
        if let Some(port) = self.port
            && registered
            && withdrawn
        {
            let (service, addr) = (self.plan.service, self.addr(port));
            self.history.note(What::Deregistered { service, addr });
        }
        sleep(LAST_CALLS).await;
    }

    /// Deregisters as other registrants do. A registration that was not `held` may have a
    /// lease that ends just when the key is deleted, and both look alike.
    async fn leave(&mut self, by: By, held: Option<Holds>) {
        let Some(port) = self.port else { return };
        let (service, addr) = (self.plan.service, self.addr(port));
        if let Some(Holds::Task(task)) = &held {
            task.abort();
        }
        // A revoked lease looks like an accident to a balancer.
        if by == By::Delete {
            self.asks();
        }
        loop {
            let removed = match (by, self.lease.get()) {
                (By::Revoke, lease @ 1..) => {
                    bounded(CALL_TIMEOUT, self.client.lease_revoke(lease)).await.map(|_| 0)
                }
                (By::Revoke, _) => return,
                (By::Delete, _) => {
                    let call = self.client.delete(self.key(), None);
                    bounded(CALL_TIMEOUT, call).await.map(|answer| answer.deleted())
                }
            };
            match removed {
                Ok(1..) if held.is_some() => {
                    return self.history.note(What::Deregistered { service, addr });
                }
                Ok(_) => return,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    fn asks(&self) {
        if let Some(port) = self.port {
            let (service, addr) = (self.plan.service, self.addr(port));
            self.history.note(What::Asked { service, addr });
        }
    }

    fn key(&self) -> String {
        let Backend { service, id, .. } = &self.plan;
        format!("{}s{service}/{id}", etcd::PREFIX)
    }

    fn addr(&self, port: u16) -> std::net::SocketAddr {
        let machine = crate::plan::Host::Machine(self.plan.machine);
        (turmoil::lookup(machine.to_string()), port).into()
    }
}

/// Registers, and renews the lease until that fails. Without a lease, returns once the
/// key is written.
async fn hold(
    mut client: Client,
    key: &str,
    value: &str,
    ttl: Option<i64>,
    lease: &Cell<i64>,
) -> Result<(), EtcdError> {
    let Some(ttl) = ttl else {
        call(client.put(key, value, None)).await?;
        return Ok(());
    };
    let granted = call(client.lease_grant(ttl, None)).await?;
    lease.set(granted.id());
    let options = PutOptions::new().with_lease(granted.id());
    call(client.put(key, value, Some(options))).await?;
    let (mut keeper, mut answers) = call(client.lease_keep_alive(granted.id())).await?;
    let beat = Duration::from_secs(ttl.unsigned_abs()) / 3;
    loop {
        sleep(beat).await;
        call(keeper.keep_alive()).await?;
        let answer = call(answers.message()).await?;
        if answer.is_none_or(|answer| answer.ttl() == 0) {
            return Err(EtcdError("the lease is gone".into()));
        }
    }
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, EtcdError> {
    bounded(CALL_TIMEOUT, call).await
}
