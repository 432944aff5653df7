//! Starts the tasks that ask backends: probes, health checks and reports of load.
//!
//! In: the catalog, which says whom to ask. Out: tasks that send its inputs.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::tasks::Tasks;
use crate::catalog::{Catalog, Input};
use crate::load::Ledger;
use crate::telemetry::Counters;
use crate::{health, health_check, load_reports};

/// Starts the tasks.
pub(super) fn ask(
    tasks: &mut Tasks,
    catalog: &Catalog,
    inputs: &mpsc::Sender<Input>,
    ledger: &Arc<Ledger>,
    counters: &Arc<Counters>,
) {
    let connect = TcpStream::connect::<SocketAddr>;
    let probes = health::run(catalog.watch_liveness(), inputs.clone(), connect);
    tasks.spawn("probes", probes);
    let (ledger, counters) = (Arc::clone(ledger), Arc::clone(counters));
    let targets = catalog.watch_health_targets();
    let checks = health_check::run(targets, inputs.clone(), ledger, counters.clone(), connect);
    tasks.spawn("health checks", checks);
    let targets = catalog.watch_load_targets();
    tasks.spawn("load reports", load_reports::run(targets, inputs.clone(), counters, connect));
}
