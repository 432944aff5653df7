//! Checks the health of backends for the services whose settings ask for it.
//!
//! In: the backends to check, and what clients report. Out: an [`Input::HealthChecked`]
//! for each answer, and an [`Input::Reported`] each second while the catalog needs it.
//! It only asks, at a bounded rate and over a bounded number of connections. It decides
//! nothing, and a failure on its own side (no descriptor, no port, no authority's file)
//! never counts against a backend.
//!
//! A backend that has `Watch` keeps one connection, pushes its states, and is asked over it
//! once an interval, because a process that hangs pushes nothing. Any other backend is asked
//! over a new connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::catalog::{HealthAnswer, HealthTarget, HealthTargets, Input};
use crate::clock;
use crate::load::Ledger;
use crate::telemetry::Counters;

pub mod ask;
mod probe;
mod schedule;
pub mod tls;

use ask::{HealthConnection, Reply, Watch};
use probe::{Ability, Probe, Probed, probe};
use schedule::Schedule;
use tls::TlsConfigs;

/// What is known of a target between two checks.
#[derive(Debug, Default)]
struct Known {
    ability: Ability,
    session: Option<Session>,
    /// When a good answer was passed on last.
    rose: Option<std::time::Instant>,
}

/// The kept connection of a backend that pushes its states. Dropping it ends the watch.
#[derive(Debug)]
struct Session {
    connection: HealthConnection,
    _ended: oneshot::Sender<()>,
    began: std::time::Instant,
}

/// One thing to wait for.
enum Job {
    Probe(Probe),
    Listen(HealthTarget, Watch, oneshot::Receiver<()>),
}

/// What a job brought.
enum Done {
    Probed(HealthTarget, Box<Probed>),
    Heard(HealthTarget, Watch, oneshot::Receiver<()>, Reply),
    /// The session was dropped.
    Ended,
}

/// The most checks at a time. Each may hold a descriptor.
const PROBES_MAX: usize = 256;
/// The most connections that are kept for watching. Each holds a descriptor and some ten
/// kilobytes. Backends beyond it are asked over new connections.
const WATCHES_MAX: usize = 1_000;
/// The pause after each state that a backend pushes, before the next is read.
const PUSHES_APART: Duration = Duration::from_millis(100);
/// How often the catalog gets what clients report, while it needs it.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Checks backends, which it reaches with `connect`. Returns when the sender of `targets` or
/// the receiver of `inputs` is dropped.
pub async fn run<S>(
    mut targets: watch::Receiver<HealthTargets>,
    inputs: mpsc::Sender<Input>,
    ledger: Arc<Ledger>,
    counters: Arc<Counters>,
    connect: impl AsyncFn(SocketAddr) -> io::Result<S>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut schedule = Schedule::<Known>::default();
    let mut wanted = HealthTargets::default();
    let mut tls = TlsConfigs::default();
    let mut jobs = FuturesUnordered::new();
    let (mut probing, mut listening) = (0, 0);
    let mut reports = interval(REPORT_EVERY);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    targets.mark_changed();
    loop {
        while probing < PROBES_MAX
            && let Some(target) = schedule.next(clock::now())
        {
            let config = match &target.check.tls {
                None => None,
                Some(wants) => match tls.get(wants.ca.as_ref()).await {
                    Some(config) => Some(config),
                    None => {
                        counters.checks_not_made.increment();
                        schedule.done(&target, clock::now());
                        continue;
                    }
                },
            };
            let Some(known) = schedule.value(&target) else { continue };
            let kept = known.session.as_ref().map(|session| session.connection.clone());
            let may_watch = kept.is_some() || listening + probing < WATCHES_MAX;
            let ability = known.ability.now(clock::now());
            jobs.push(work(
                Job::Probe(Probe { target, config, kept, ability, may_watch }),
                &connect,
            ));
            probing += 1;
        }
        let wake = schedule.due();
        tokio::select! {
            // Targets may change without end, so answers come first; their rate is bounded.
            biased;
            Some(done) = jobs.next() => match done {
                Done::Probed(target, probed) => {
                    probing -= 1;
                    let now = clock::now();
                    schedule.done(&target, now);
                    let Probed { answer, ability, keep, lost } = *probed;
                    count(&counters, answer);
                    if let Some(known) = schedule.value(&target) {
                        known.ability = ability;
                        if lost {
                            known.session = None;
                        }
                        if answer.is_some_and(HealthAnswer::is_healthy) {
                            known.rose = Some(now);
                        }
                        if let Some((connection, watch)) = keep {
                            let (ended_tx, ended_rx) = oneshot::channel();
                            known.session =
                                Some(Session { connection, _ended: ended_tx, began: now });
                            listening += 1;
                            counters.health_watches.increment();
                            jobs.push(work(Job::Listen(target.clone(), watch, ended_rx), &connect));
                        }
                        if let Some(answer) = answer
                            && inputs.send(Input::HealthChecked(target, answer)).await.is_err()
                        {
                            return;
                        }
                    }
                }
                Done::Heard(target, watch, ended, reply) => {
                    let now = clock::now();
                    let Some(known) = schedule.value(&target) else {
                        listening -= 1;
                        counters.health_watches.decrement();
                        continue;
                    };
                    let answer = match reply {
                        Reply::Serving => HealthAnswer::Serving,
                        Reply::NotServing(_) => HealthAnswer::NotServing,
                        Reply::UnknownName => HealthAnswer::UnknownName,
                        Reply::Nothing | Reply::Failed(_) | Reply::Lost(_) => {
                            // Servers close connections for many reasons, so this says nothing
                            // about the backend. A check over a new connection does.
                            let session = known.session.take();
                            let short = session.is_some_and(|s| now - s.began < target.check.interval);
                            if short {
                                known.ability = Ability::check_since(now);
                            }
                            listening -= 1;
                            counters.health_watches.decrement();
                            schedule.hasten(&target, now);
                            continue;
                        }
                    };
                    jobs.push(work(Job::Listen(target.clone(), watch, ended), &connect));
                    // A backend that changes its mind all the time costs its clients one list
                    // a second, so the way back is not passed on at once.
                    if answer.is_healthy() && known.rose.is_some_and(|at| now - at < schedule::APART) {
                        schedule.hasten(&target, now);
                        continue;
                    }
                    if answer.is_healthy() {
                        known.rose = Some(now);
                    }
                    count(&counters, Some(answer));
                    if inputs.send(Input::HealthChecked(target, answer)).await.is_err() {
                        return;
                    }
                }
                Done::Ended => {
                    listening -= 1;
                    counters.health_watches.decrement();
                }
            },
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                wanted = targets.borrow_and_update().clone();
                schedule.want(&wanted.all, clock::now());
            }
            _ = reports.tick(), if !wanted.in_question.is_empty() => {
                let total = |service: &_| (Clone::clone(service), ledger.total(service));
                let totals = wanted.in_question.iter().map(total).collect();
                if inputs.send(Input::Reported(totals)).await.is_err() {
                    return;
                }
            }
            () = sleep_until(wake.unwrap_or_else(clock::now).into()),
                if wake.is_some() && probing < PROBES_MAX => {}
            () = inputs.closed() => return,
        }
    }
}

async fn work<S>(job: Job, connect: &impl AsyncFn(SocketAddr) -> io::Result<S>) -> Done
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match job {
        Job::Probe(one) => {
            let target = one.target.clone();
            Done::Probed(target, Box::new(probe(one, connect).await))
        }
        Job::Listen(target, mut watch, mut ended) => {
            let heard = async {
                sleep(PUSHES_APART).await;
                watch.next().await
            };
            tokio::select! {
                biased;
                _ = &mut ended => Done::Ended,
                reply = heard => Done::Heard(target, watch, ended, reply),
            }
        }
    }
}

fn count(counters: &Counters, answer: Option<HealthAnswer>) {
    let counter = match answer {
        None => &counters.checks_not_made,
        Some(answer) if answer.is_healthy() => &counters.checks_healthy,
        Some(answer) if answer.is_explicit() => &counters.checks_not_serving,
        Some(_) => &counters.checks_failed,
    };
    counter.increment();
}
