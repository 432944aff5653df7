//! A machine with backends on it: each listens, and holds its registration in
//! one of the ways in which services do.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, Error, PutOptions};
use lookaside::registry::etcd::{CALL_TIMEOUT, Trouble, bounded};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpListener;

use crate::etcd;
use crate::history::{History, What};
use crate::plan::{Backend, By, Want};

/// After a failure, as registrants do.
const AGAIN: Duration = Duration::from_millis(500);
/// More for each backend: who fails together must not come back together, for
/// the order of that depends on more than the seed (tokio numbers its tasks
/// throughout the process, and drops them by number).
const APART: Duration = Duration::from_millis(7);
/// How long after taking itself back a server still serves.
const LAST_CALLS: Duration = Duration::from_millis(300);
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A backend's process.
struct Process {
    plan: Backend,
    ttl: i64,
    client: Client,
    history: History,
    listens: Option<Listens>,
    /// The task that holds the registration, and its lease.
    holds: Option<AbortHandle>,
    lease: Rc<Cell<i64>>,
}

struct Listens {
    port: u16,
    task: AbortHandle,
}

pub async fn machine(
    backends: Vec<(Backend, watch::Receiver<Want>)>,
    ttl: i64,
    history: History,
) -> turmoil::Result {
    for (plan, want) in backends {
        let client = etcd::connect().client(0).await.map_err(|trouble| trouble.to_string())?;
        let (history, lease) = (history.clone(), Rc::default());
        let process = Process { plan, ttl, client, history, listens: None, holds: None, lease };
        spawn_local(process.run(want));
    }
    std::future::pending().await
}

impl Process {
    async fn run(mut self, mut want: watch::Receiver<Want>) {
        loop {
            let now = *want.borrow_and_update();
            self.do_it(now).await;
            if want.changed().await.is_err() {
                return;
            }
        }
    }

    async fn do_it(&mut self, want: Want) {
        match want {
            Want::Up { port, renews } => {
                let port = self.plan.ports[port];
                let moved = self.listens.as_ref().is_none_or(|listens| listens.port != port);
                if moved {
                    self.stop();
                    self.listen(port).await;
                }
                if !renews {
                    self.holds.take().iter().for_each(AbortHandle::abort);
                } else if self.holds.is_none() {
                    self.hold(port);
                }
            }
            Want::Leaves(by) => {
                self.holds.take().iter().for_each(AbortHandle::abort);
                if self.listens.is_some() {
                    let _ = timeout(LEAVE_WITHIN, self.leave(by)).await;
                    sleep(LAST_CALLS).await;
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
        let task = spawn_local(async move {
            loop {
                let _ = listener.accept().await;
            }
        });
        self.listens = Some(Listens { port, task: task.abort_handle() });
        self.history.note(What::Listens(self.addr(port)));
    }

    fn stop(&mut self) {
        self.holds.take().iter().for_each(AbortHandle::abort);
        if let Some(Listens { port, task }) = self.listens.take() {
            task.abort();
            self.history.note(What::Deaf(self.addr(port)));
        }
    }

    fn hold(&mut self, port: u16) {
        let (client, key, value) = (self.client.clone(), self.key(), self.addr(port).to_string());
        let (ttl, leased, lease) = (self.ttl, self.plan.leased, self.lease.clone());
        let again = AGAIN + APART * u32::from(self.plan.ports[0] % 1_000);
        let task = spawn_local(async move {
            loop {
                let held = hold(client.clone(), &key, &value, leased.then_some(ttl), &lease).await;
                if held.is_ok() {
                    return;
                }
                sleep(again).await;
            }
        });
        self.holds = Some(task.abort_handle());
    }

    async fn leave(&mut self, by: By) {
        let Some(Listens { port, .. }) = self.listens else { return };
        let (service, addr) = (self.plan.service, self.addr(port));
        match by {
            By::Delete => self.history.note(What::Asked { service, addr }),
            // Which looks like an accident.
            By::Revoke => {}
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
                Ok(1..) => return self.history.note(What::Deregistered { service, addr }),
                Ok(_) => return,
                Err(_) => sleep(AGAIN).await,
            }
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

/// Registers, and holds it for as long as that goes well; without a lease, that
/// is done at once.
async fn hold(
    mut client: Client,
    key: &str,
    value: &str,
    ttl: Option<i64>,
    lease: &Cell<i64>,
) -> Result<(), Trouble> {
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
            return Err(Trouble("the lease is gone".into()));
        }
    }
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
    bounded(CALL_TIMEOUT, call).await
}
