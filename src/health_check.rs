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
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::backend_channel::tls::TlsConfigs;
use crate::catalog::{HealthAnswer, HealthTarget, HealthTargets, Input};
use crate::clock;
use crate::load::Ledger;
use crate::model::ServiceName;
use crate::telemetry::Counters;

pub mod ask;
mod probe;
mod schedule;

use ask::{HealthConnection, Reply, Watch};
use probe::{Ability, Probe, Probed, probe};
use schedule::Schedule;

/// What is known of a target between two checks.
#[derive(Debug, Default)]
struct Known {
    ability: Ability,
    session: Option<Session>,
    /// When a good answer was passed on last.
    rose: Option<Instant>,
}

/// The kept connection of a backend that pushes its states. Dropping it ends the watch.
#[derive(Debug)]
struct Session {
    connection: HealthConnection,
    _ended: oneshot::Sender<()>,
    began: Instant,
}

/// A kept connection on which a state is awaited.
struct Listening {
    target: HealthTarget,
    watch: Watch,
    /// Is ready once the session was dropped.
    ended: oneshot::Receiver<()>,
}

/// One thing to wait for.
enum Job {
    Probe(Box<Probe>),
    Listen(Box<Listening>),
}

/// What a job brought.
enum Done {
    Probed(HealthTarget, Box<Probed>),
    Heard(Box<Listening>, Reply),
    /// The session was dropped.
    Ended,
}

/// All checks.
struct Checks {
    schedule: Schedule<Known>,
    /// How many checks are being made.
    probing: usize,
    /// How many connections are kept.
    listening: usize,
    counters: Arc<Counters>,
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
    let mut checks = Checks::new(counters);
    let mut wanted = HealthTargets::default();
    let mut tls = TlsConfigs::default();
    let mut jobs = FuturesUnordered::new();
    let mut reports = interval(REPORT_EVERY);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    targets.mark_changed();
    loop {
        while let Some(target) = checks.next() {
            if let Some(probe) = checks.probe(target, &mut tls).await {
                jobs.push(work(Job::Probe(Box::new(probe)), &connect));
            }
        }
        let wake = checks.due();
        let input = tokio::select! {
            // Targets may change without end, so answers come first; their rate is bounded.
            biased;
            Some(done) = jobs.next() => {
                let (job, input) = match done {
                    Done::Probed(target, probed) => checks.probed(target, *probed),
                    Done::Heard(heard, reply) => checks.heard(heard, &reply),
                    Done::Ended => checks.ended(),
                };
                jobs.extend(job.map(|job| work(job, &connect)));
                input
            }
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                wanted = targets.borrow_and_update().clone();
                checks.schedule.want(&wanted.all, clock::now());
                None
            }
            _ = reports.tick(), if !wanted.in_question.is_empty() => {
                let calls = |service: &ServiceName| (service.clone(), ledger.service(service));
                Some(Input::Reported(wanted.in_question.iter().map(calls).collect()))
            }
            () = sleep_until(wake.unwrap_or_else(clock::now).into()), if wake.is_some() => None,
            () = inputs.closed() => return,
        };
        if let Some(input) = input
            && inputs.send(input).await.is_err()
        {
            return;
        }
    }
}

impl Checks {
    fn new(counters: Arc<Counters>) -> Self {
        Self { schedule: Schedule::default(), probing: 0, listening: 0, counters }
    }

    /// Returns a target that is due, if it may be asked now.
    fn next(&mut self) -> Option<HealthTarget> {
        (self.probing < PROBES_MAX).then(|| self.schedule.next(clock::now())).flatten()
    }

    /// Returns when the next target is due, if it may be asked then.
    fn due(&self) -> Option<Instant> {
        self.schedule.due().filter(|_| self.probing < PROBES_MAX)
    }

    /// Prepares the check of a target. Returns `None` if it cannot be made here.
    async fn probe(&mut self, target: HealthTarget, tls: &mut TlsConfigs) -> Option<Probe> {
        let config = match &target.check.tls {
            None => None,
            Some(wants) => {
                let config = tls.get(wants.ca.as_ref()).await;
                if config.is_none() {
                    self.count(None);
                    self.schedule.done(&target, clock::now());
                    return None;
                }
                config
            }
        };
        let known = self.schedule.value(&target)?;
        let kept = known.session.as_ref().map(|session| session.connection.clone());
        let ability = known.ability.now(clock::now());
        let may_watch = kept.is_some() || self.listening + self.probing < WATCHES_MAX;
        self.probing += 1;
        Some(Probe { target, config, kept, ability, may_watch })
    }

    /// Takes the result of a check.
    fn probed(&mut self, target: HealthTarget, probed: Probed) -> (Option<Job>, Option<Input>) {
        let Probed { answer, ability, keep, lost } = probed;
        let now = clock::now();
        self.probing -= 1;
        self.count(answer);
        self.schedule.done(&target, now);
        let Some(known) = self.schedule.value(&target) else { return (None, None) };
        known.ability = ability;
        if lost {
            known.session = None;
        }
        if answer.is_some_and(HealthAnswer::is_healthy) {
            known.rose = Some(now);
        }
        let listen = keep.map(|(connection, watch)| {
            let (ended_tx, ended) = oneshot::channel();
            known.session = Some(Session { connection, _ended: ended_tx, began: now });
            self.listening += 1;
            self.counters.health_watches.increment();
            Job::Listen(Box::new(Listening { target: target.clone(), watch, ended }))
        });
        (listen, answer.map(|answer| Input::HealthChecked(target, answer)))
    }

    /// Takes a state that a backend pushed.
    fn heard(&mut self, heard: Box<Listening>, reply: &Reply) -> (Option<Job>, Option<Input>) {
        let now = clock::now();
        let target = heard.target.clone();
        let Some(known) = self.schedule.value(&target) else { return self.ended() };
        let Some(answer) = reply.as_state() else {
            // Servers close connections for many reasons, so this says nothing about the
            // backend. A check over a new connection does.
            let session = known.session.take();
            if session.is_some_and(|one| now - one.began < target.check.interval) {
                known.ability = Ability::check_since(now);
            }
            self.schedule.hasten(&target, now);
            return self.ended();
        };
        let listen = Some(Job::Listen(heard));
        if answer.is_healthy() {
            // A backend that changes its mind all the time costs its clients one list a
            // second, so the way back is not passed on at once.
            if known.rose.is_some_and(|at| now - at < schedule::APART) {
                self.schedule.hasten(&target, now);
                return (listen, None);
            }
            known.rose = Some(now);
        }
        self.count(Some(answer));
        (listen, Some(Input::HealthChecked(target, answer)))
    }

    /// Notes that a kept connection has ended.
    fn ended(&mut self) -> (Option<Job>, Option<Input>) {
        self.listening -= 1;
        self.counters.health_watches.decrement();
        (None, None)
    }

    fn count(&self, answer: Option<HealthAnswer>) {
        let counter = match answer {
            None => &self.counters.checks_not_made,
            Some(answer) if answer.is_healthy() => &self.counters.checks_healthy,
            Some(answer) if answer.is_explicit() => &self.counters.checks_not_serving,
            Some(_) => &self.counters.checks_failed,
        };
        counter.increment();
    }
}

async fn work<S>(job: Job, connect: &impl AsyncFn(SocketAddr) -> io::Result<S>) -> Done
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match job {
        Job::Probe(one) => {
            let target = one.target.clone();
            Done::Probed(target, Box::new(probe(*one, connect).await))
        }
        Job::Listen(mut listening) => {
            let heard = async {
                sleep(PUSHES_APART).await;
                listening.watch.next().await
            };
            tokio::select! {
                biased;
                _ = &mut listening.ended => Done::Ended,
                reply = heard => Done::Heard(listening, reply),
            }
        }
    }
}
