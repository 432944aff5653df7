//! Asks backends for reports of their load, for the services whose settings ask for it.
//!
//! In: the backends to ask. Out: an [`Input::Loaded`] for each report, and an
//! [`Input::LoadSilent`] where a report fails or a backend cannot be asked. It asks by ORCA's
//! out-of-band reports (gRFC A51), over one connection to each backend, of which there is a
//! bounded number. It decides nothing. A backend that does not report is asked again after
//! a pause that grows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use imbl::ordset::DiffItem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::backend_channel::tls::{TlsConfigs, name_or_address};
use crate::backend_channel::{self, Tls};
use crate::catalog::{Input, LoadTarget, LoadTargets};
use crate::clock;
use crate::facts::capacity::Report;
use crate::seed;
use crate::telemetry::Counters;

/// ORCA's protobuf types.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
mod pb {
    pub mod data {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.data.orca.v3");
            }
        }
    }
    pub mod service {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.service.orca.v3");
            }
        }
    }
}

use pb::data::orca::v3::OrcaLoadReport;
use pb::service::orca::v3::OrcaLoadReportRequest;
use pb::service::orca::v3::open_rca_service_client::OpenRcaServiceClient;

/// The reports that a backend streams.
type Reports = Streaming<OrcaLoadReport>;

/// What is known of a backend.
#[derive(Debug, Default)]
struct Known {
    /// Set while it is asked. Dropping it ends that.
    asked: Option<oneshot::Sender<()>>,
    /// When it is asked next.
    due: Option<Instant>,
    /// How often in a row it did not report.
    failures: u32,
}

/// What a backend that was asked did.
enum Done {
    /// It takes the connection.
    Opened(LoadTarget, Channel, oneshot::Receiver<()>),
    /// It reports.
    Report(LoadTarget, Box<Reports>, oneshot::Receiver<()>, OrcaLoadReport),
    /// It does not report, or no more. `true`: it has no such service.
    Failed(LoadTarget, bool),
    /// It is not wanted any more.
    Ended,
}

/// The most backends that are asked. Each costs a descriptor and some ten kilobytes.
const BACKENDS_MAX: usize = 2_000;
/// The most connections that are being opened at a time.
const OPENING_MAX: usize = 64;
/// How long it may take until a backend has taken the connection; and until it has taken the
/// question, beside the interval: grpc-js sends nothing before its first report.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a backend that takes the question may be silent, beside the interval: servers
/// have a longest rate, which is a report in 30 seconds by default in grpc-go and grpc-java.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// The first pause before a backend is asked again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The pause before a backend that has no such service is asked again: another version of
/// it may have.
const PAUSE_WITHOUT: Duration = Duration::from_secs(300);

/// The pause before a backend beyond [`BACKENDS_MAX`] is tried again.
const PAUSE_BEYOND: Duration = Duration::from_secs(60);

/// Asks backends, which it reaches with `connect`. Returns when the sender of `targets` or
/// the receiver of `inputs` is dropped.
pub async fn run<S>(
    targets: watch::Receiver<LoadTargets>,
    inputs: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    connect: impl AsyncFn(SocketAddr) -> io::Result<S>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    run_up_to(BACKENDS_MAX, targets, inputs, counters, connect).await;
}

/// Asks at most `most` backends at a time.
async fn run_up_to<S>(
    most: usize,
    mut targets: watch::Receiver<LoadTargets>,
    inputs: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    connect: impl AsyncFn(SocketAddr) -> io::Result<S>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut wanted = LoadTargets::default();
    let mut known: BTreeMap<LoadTarget, Known> = BTreeMap::new();
    let mut due: BTreeSet<(Instant, LoadTarget)> = BTreeSet::new();
    let mut tls = TlsConfigs::default();
    let mut jobs = FuturesUnordered::new();
    let (mut opening, mut asked) = (0, 0);
    targets.mark_changed();
    loop {
        while (opening < OPENING_MAX || asked >= most)
            && due.first().is_some_and(|(at, _)| *at <= clock::now())
            && let Some((_, target)) = due.pop_first()
        {
            let Some(one) = known.get_mut(&target) else { continue };
            one.due = None;
            if asked >= most {
                plan(&mut due, &target, one, clock::now() + PAUSE_BEYOND + part(PAUSE_BEYOND));
                if inputs.send(Input::LoadSilent(target)).await.is_err() {
                    return;
                }
                continue;
            }
            let config = match &target.tls {
                None => None,
                Some(wants) => match tls.get(wants.ca.as_ref()).await {
                    Some(config) => Some(config),
                    None => {
                        one.failures = one.failures.saturating_add(1);
                        plan(&mut due, &target, one, clock::now() + pause(one.failures));
                        counters.load_report_failures.increment();
                        if inputs.send(Input::LoadSilent(target)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                },
            };
            let (asked_tx, ended) = oneshot::channel();
            one.asked = Some(asked_tx);
            (opening, asked) = (opening + 1, asked + 1);
            jobs.push(work(Job::Open(target, config, ended), &connect));
        }
        let wake = due.first().map(|(at, _)| *at);
        let may_ask = opening < OPENING_MAX || asked >= most;
        tokio::select! {
            // Targets may change without end, so reports come first; their rate is bounded.
            biased;
            Some((was_opening, done)) = jobs.next() => {
                opening -= usize::from(was_opening);
                match done {
                    // It waits for reports where it keeps no other from being opened.
                    Done::Opened(target, channel, ended) => {
                        jobs.push(work(Job::Ask(target, channel, ended), &connect));
                    }
                    Done::Report(target, reports, ended, report) => {
                        let Some(one) = known.get_mut(&target) else {
                            asked -= 1;
                            continue;
                        };
                        one.failures = 0;
                        jobs.push(work(Job::Next(target.clone(), reports, ended), &connect));
                        let Some(report) = meaning(&report) else {
                            counters.load_reports_empty.increment();
                            continue;
                        };
                        counters.load_reports.increment();
                        if inputs.send(Input::Loaded(target, report)).await.is_err() {
                            return;
                        }
                    }
                    Done::Failed(target, without) => {
                        asked -= 1;
                        counters.load_report_failures.increment();
                        let Some(one) = known.get_mut(&target) else { continue };
                        one.asked = None;
                        one.failures = one.failures.saturating_add(1);
                        let pause = if without { PAUSE_WITHOUT } else { pause(one.failures) };
                        plan(&mut due, &target, one, clock::now() + pause);
                        if inputs.send(Input::LoadSilent(target)).await.is_err() {
                            return;
                        }
                    }
                    Done::Ended => asked -= 1,
                }
            }
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                let new = targets.borrow_and_update().clone();
                for change in wanted.diff(&new) {
                    match change {
                        DiffItem::Add(target) => {
                            let one = known.entry(target.clone()).or_default();
                            // Many are added at once, so they are spread.
                            let at = clock::now() + part(target.interval);
                            plan(&mut due, target, one, at);
                        }
                        DiffItem::Remove(target) => {
                            if let Some(one) = known.remove(target) {
                                one.due.map(|at| due.remove(&(at, target.clone())));
                            }
                        }
                    }
                }
                if wanted.len() <= most && new.len() > most {
                    let backends = new.len();
                    tracing::warn!(
                        backends,
                        asked = most,
                        "too many backends to ask all for their load: those that are not asked keep \
                         their registered shares, and so do all of a service of which less than \
                         half is asked"
                    );
                }
                wanted = new;
            }
            () = sleep_until(wake.unwrap_or_else(clock::now).into()), if wake.is_some() && may_ask => {}
            () = inputs.closed() => return,
        }
    }
}

/// One thing to wait for.
enum Job {
    Open(LoadTarget, Option<Arc<ClientConfig>>, oneshot::Receiver<()>),
    Ask(LoadTarget, Channel, oneshot::Receiver<()>),
    Next(LoadTarget, Box<Reports>, oneshot::Receiver<()>),
}

/// Returns what a job brought, and whether it had to open a connection.
async fn work<S>(job: Job, connect: &impl AsyncFn(SocketAddr) -> io::Result<S>) -> (bool, Done)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match job {
        Job::Open(target, config, mut ended) => {
            let opened = tokio::select! {
                biased;
                _ = &mut ended => return (true, Done::Ended),
                opened = timeout(OPEN_TIMEOUT, open(&target, config, connect)) => opened,
            };
            let done = match opened {
                Ok(Ok(channel)) => Done::Opened(target, channel, ended),
                Ok(Err(_)) | Err(_) => Done::Failed(target, false),
            };
            (true, done)
        }
        Job::Ask(target, channel, mut ended) => {
            let asked = tokio::select! {
                biased;
                _ = &mut ended => return (false, Done::Ended),
                asked = timeout(target.interval + OPEN_TIMEOUT, ask(&target, channel)) => asked,
            };
            let done = match asked {
                Ok(Ok(reports)) => next(target, Box::new(reports), ended).await,
                Ok(Err(without)) => Done::Failed(target, without),
                Err(_) => Done::Failed(target, false),
            };
            (false, done)
        }
        Job::Next(target, reports, ended) => (false, next(target, reports, ended).await),
    }
}

/// Waits for the next report.
async fn next(
    target: LoadTarget,
    mut reports: Box<Reports>,
    mut ended: oneshot::Receiver<()>,
) -> Done {
    let silent = target.interval + SILENT_MAX;
    let next = tokio::select! {
        biased;
        _ = &mut ended => return Done::Ended,
        next = timeout(silent, reports.message()) => next,
    };
    match next {
        Ok(Ok(Some(report))) => Done::Report(target, reports, ended, report),
        Ok(Err(status)) => Done::Failed(target, is_without(status.code())),
        Ok(Ok(None)) | Err(_) => Done::Failed(target, false),
    }
}

/// Opens a connection.
async fn open<S>(
    target: &LoadTarget,
    config: Option<Arc<ClientConfig>>,
    connect: &impl AsyncFn(SocketAddr) -> io::Result<S>,
) -> io::Result<Channel>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = connect(target.addr.socket_addr()).await?;
    let name = target.tls.as_ref().and_then(|tls| tls.name.as_deref());
    let tls = match config {
        None => None,
        Some(config) => {
            let name = name_or_address(name, target.addr.ip()).map_err(io::Error::other)?;
            Some(Tls { config, name })
        }
    };
    let authority = name.map_or_else(|| target.addr.to_string(), str::to_owned);
    backend_channel::open(io, tls, &authority).await.map_err(io::Error::other)
}

/// Asks for reports. The error says whether the backend has no such service.
async fn ask(target: &LoadTarget, channel: Channel) -> Result<Reports, bool> {
    let report_interval = Some(prost_types::Duration {
        seconds: i64::try_from(target.interval.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(target.interval.subsec_nanos()).unwrap_or_default(),
    });
    let request = OrcaLoadReportRequest { report_interval };
    let answer = OpenRcaServiceClient::new(channel).stream_core_metrics(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| is_without(status.code()))
}

fn is_without(code: Code) -> bool {
    matches!(code, Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied)
}

/// Returns what a report means; `None` if it has no calls or no utilisation, as that of an
/// idle backend (gRFC A58 ignores such reports too).
fn meaning(report: &OrcaLoadReport) -> Option<Report> {
    let calls = match report.rps_fractional {
        0.0 => report.rps as f64,
        calls => calls,
    };
    let utilisation = match report.application_utilization {
        0.0 => report.cpu_utilization,
        utilisation => utilisation,
    };
    let sane = |value: f64| value.is_finite() && value > 0.0;
    let errors = if report.eps.is_finite() { report.eps.max(0.0) } else { 0.0 };
    let means = sane(calls) && sane(utilisation);
    means.then(|| Report { calls: (calls - errors).max(0.0), utilisation })
}

/// Returns the pause after so many failures in a row, with jitter.
fn pause(failures: u32) -> Duration {
    let (least, most) = PAUSE;
    let doubled = least.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(most) + part(least)
}

/// Returns a random part of a time.
fn part(time: Duration) -> Duration {
    time * u32::try_from(seed::random() % 1_000).unwrap_or(0) / 1_000
}

fn plan(
    due: &mut BTreeSet<(Instant, LoadTarget)>,
    target: &LoadTarget,
    one: &mut Known,
    at: Instant,
) {
    one.due.replace(at).map(|former| due.remove(&(former, target.clone())));
    due.insert((at, target.clone()));
}

#[cfg(test)]
mod tests;
