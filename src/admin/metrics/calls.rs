//! The metrics of clients' calls.
//!
//! In: the sums of what clients report. Out: a metric family for each kind of sum, with a line
//! for each service.

use std::fmt;

use prometheus_client::metrics::MetricType;

use crate::load::{Calls, Ledger};

use super::{Page, Total, counter};

const CALLS: [Total<Calls>; 5] = [
    (
        "client_calls_started",
        "Calls that began, as clients report; grpc-go counts a call when it has finished",
        |c| c.started,
    ),
    ("client_calls_finished", "Calls that ended, including dropped ones", |c| c.finished),
    (
        "client_calls_failed_to_send",
        "Calls that ended without reaching a backend, without dropped ones",
        |c| c.failed_to_send,
    ),
    ("client_calls_known_received", "Calls that ended with any answer of a backend", |c| {
        c.known_received
    }),
    (
        "client_calls_dropped",
        "Calls that ended because the list told the client to drop them",
        |c| c.dropped,
    ),
];

pub(super) fn write(ledger: &Ledger, page: &mut Page<'_>) -> fmt::Result {
    let totals = ledger.totals();
    for (name, help, total) in &CALLS {
        let mut family = page.family(name, help, MetricType::Counter)?;
        for (service, calls) in &totals {
            let labels = [("service", service.as_str())];
            counter(&mut family.encode_family(&labels)?, total(calls))?;
        }
    }
    Ok(())
}
