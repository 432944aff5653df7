//! The metrics of xDS streams.
//!
//! In: counters, and the names on open streams. Out: metric families.

use std::fmt;

use prometheus_client::metrics::MetricType;

use crate::model::ClientKind;
use crate::telemetry::{ClientView, Counter, Counters, XdsCounters};

use super::super::{State, services};
use super::{Page, Total, counter, float};

const KINDS: [ClientKind; 6] = [
    ClientKind::Go,
    ClientKind::Java,
    ClientKind::Core,
    ClientKind::Node,
    ClientKind::Rust,
    ClientKind::Other,
];

const TOTALS: [Total<Counters>; 6] = [
    ("xds_streams_opened", "xDS streams that were opened", |c| c.xds_streams.total()),
    ("xds_streams_refused", "xDS streams refused before their first response", |c| {
        c.xds_streams_refused.total()
    }),
    ("xds_streams_stalled", "xDS streams ended because their clients do not read", |c| {
        c.xds_streams_stalled.total()
    }),
    (
        "xds_requests_rejected",
        "xDS requests that are invalid or of a type that is not served",
        |c| c.xds_requests_rejected.total(),
    ),
    (
        "xds_names_refused",
        "names on xDS streams that get no backends, because there are too many",
        |c| c.xds_names_refused.total(),
    ),
    ("assignments_encoded", "xDS assignments encoded; streams share an encoded assignment", |c| {
        c.assignments_encoded.total()
    }),
];

/// A total of each type of resource: its name, its help text, and the counter.
type ByType = (&'static str, &'static str, fn(&XdsCounters) -> &Counter);

const BY_TYPE: [ByType; 3] = [
    ("xds_responses_sent", "xDS responses sent, by type of resource", |c| &c.sent),
    ("xds_responses_accepted", "xDS responses that clients accepted (ACK)", |c| &c.accepted),
    (
        "xds_responses_refused",
        "xDS responses that clients refused (NACK): the log and /api/v1/clients say why",
        |c| &c.refused,
    ),
];

/// Writes the metrics.
pub(super) fn write(state: &State, clients: &[ClientView], page: &mut Page<'_>) -> fmt::Result {
    let counters = &state.counters;
    for (name, help, total) in &TOTALS {
        let mut family = page.family(name, help, MetricType::Counter)?;
        counter(&mut family, total(counters))?;
    }
    let types = [
        ("listener", &counters.xds_listeners),
        ("cluster", &counters.xds_clusters),
        ("endpoints", &counters.xds_endpoints),
    ];
    for (name, help, total) in &BY_TYPE {
        let mut family = page.family(name, help, MetricType::Counter)?;
        for (kind, of) in types {
            counter(&mut family.encode_family(&[("type", kind)])?, total(of).total())?;
        }
    }
    let help =
        "Bytes of all encoded xDS assignments, including old ones that clients have not read";
    let bytes = usize::try_from(counters.assignment_bytes.now()).unwrap_or(usize::MAX);
    page.gauge("assignment_bytes", help, float(bytes))?;
    let help = "Names on open xDS streams, by the gRPC implementation of the client";
    let mut family = page.family("xds_names_open", help, MetricType::Gauge)?;
    for kind in KINDS {
        let open = clients.iter().filter(|view| view.xds.is_some() && view.kind == kind).count();
        family.encode_family(&[("client_kind", kind.as_str())])?.encode_gauge(&float(open))?;
    }
    by_service(state, clients, page)
}

/// Writes the clients of each service by protocol. Names that clients make up have no line.
fn by_service(state: &State, clients: &[ClientView], page: &mut Page<'_>) -> fmt::Result {
    let help = "Open streams of each service's clients by protocol; of an xDS stream, each name";
    let mut family = page.family("service_clients", help, MetricType::Gauge)?;
    let (counts, waiting) =
        (services::clients_by_service(clients), services::waiting(state, clients));
    let present = state.catalog.services();
    let present = present.iter().map(|service| (service.name.clone(), counts.get(&service.name)));
    let empty = state.catalog.empty_services().into_iter();
    let empty = empty.filter_map(|empty| Some((empty.name?, waiting.get(&empty.canonical))));
    for (service, counts) in present.chain(empty) {
        let counts = counts.copied().unwrap_or_default();
        for (protocol, count) in [("grpclb", counts.grpclb), ("xds", counts.xds)] {
            let labels = [("service", service.as_str()), ("protocol", protocol)];
            family.encode_family(&labels)?.encode_gauge(&float(count))?;
        }
    }
    Ok(())
}
