//! `/metrics`: metrics for Prometheus.
//!
//! In: the state at the moment of the scrape. Out: names that begin with `lookaside_`,
//! each with a help text. It keeps nothing between scrapes.

use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use self::text::Format;
use super::answer_memory::AnswerMemory;
use super::api::Problem;
use super::{State, balancers, marks, zones};
use crate::marks::report::State as MarkState;
use crate::model::ClientKind;
use crate::telemetry::{ClientView, Counters};

const KINDS: [ClientKind; 4] =
    [ClientKind::Go, ClientKind::Java, ClientKind::Core, ClientKind::Other];

mod calls;
mod credentials;
mod denials;
mod large;
mod text;
mod xds;

/// A total: its name (without `_total`), its help text, and how to read it.
type Total<T> = (&'static str, &'static str, fn(&T) -> u64);

const TOTALS: [Total<Counters>; 26] = [
    ("connections", "TCP connections accepted on the gRPC port", |c| c.connections.total()),
    (
        "connections_failed",
        "Connections that ended before they spoke HTTP/2: silent, or TLS failed",
        |c| c.connections_failed.total(),
    ),
    ("connections_refused", "Connections closed at once because the limit was reached", |c| {
        c.connections_refused.total()
    }),
    ("connections_spread", "Connections asked to move to balancers with fewer streams", |c| {
        c.connections_spread.total()
    }),
    ("connections_replaced", "Connections told to leave because others needed their places", |c| {
        c.connections_replaced.total()
    }),
    (
        "connections_ended",
        "Connections told to leave for their age or their certificate's end",
        |c| c.connections_ended.total(),
    ),
    (
        "connections_revoked",
        "Connections told to leave because changed files refuse their client's certificate",
        |c| c.connections_revoked.total(),
    ),
    ("accept_errors", "Times when a connection could not be accepted", |c| c.accept_errors.total()),
    ("streams_opened", "BalanceLoad streams that got their first list", |c| c.streams.total()),
    ("streams_refused", "BalanceLoad streams refused before their first list", |c| {
        c.streams_refused.total()
    }),
    ("streams_stalled", "BalanceLoad streams ended because their clients do not read", |c| {
        c.streams_stalled.total()
    }),
    ("lists_sent", "Server lists sent, including first ones", |c| c.lists_sent.total()),
    (
        "lists_suppressed",
        "Server lists not sent because the client already has an equal one",
        |c| c.lists_suppressed.total(),
    ),
    ("lists_encoded", "Server lists encoded; streams share an encoded list", |c| {
        c.lists_encoded.total()
    }),
    ("fallbacks_sent", "Fallback responses sent", |c| c.fallbacks_sent.total()),
    ("reports", "Load reports read", |c| c.reports.total()),
    ("reports_rejected", "Load reports and other messages of clients that were invalid", |c| {
        c.reports_rejected.total()
    }),
    ("backend_reports", "Reports of load that backends sent", |c| c.load_reports.total()),
    (
        "backend_reports_empty",
        "Reports of backends without calls or without utilisation, which count for nothing",
        |c| c.load_reports_empty.total(),
    ),
    ("backend_report_failures", "Times a backend did not report its load, or stopped", |c| {
        c.load_report_failures.total()
    }),
    ("dns_answers", "DNS questions answered", |c| c.dns_answers.total()),
    ("dns_rejected", "DNS questions refused, and messages that were no questions", |c| {
        c.dns_rejected.total()
    }),
    ("dns_transfers", "Times a secondary DNS server asked for the zone, and got it", |c| {
        c.dns_transfers.total()
    }),
    ("dns_notices_failed", "Notices of a changed zone that no secondary acknowledged", |c| {
        c.dns_notices_failed.total()
    }),
    ("states_saved", "Times the state was saved, or was found saved already", |c| {
        c.states_saved.total()
    }),
    ("states_failed", "Times the state could not be saved", |c| c.states_failed.total()),
];

/// The state of one scrape.
struct Scrape(Arc<State>, AnswerMemory);

/// Writes one metric family after the other.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

pub(super) async fn scrape(
    Shared(state): Shared<Arc<State>>,
    Extension(memory): Extension<AnswerMemory>,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let format = Format::wanted(&accept.collect::<Vec<_>>().join(","));
    let mut registry = Registry::with_prefix("lookaside");
    registry.register_collector(Box::new(Scrape(state, memory)));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
            (headers, format.write(text)).into_response()
        }
        Err(error) => Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.registry(&mut page)?;
        self.services(&mut page)?;
        for (name, help, total) in &TOTALS {
            let mut family = page.family(name, help, MetricType::Counter)?;
            counter(&mut family, total(&self.0.counters))?;
        }
        denials::write(&self.0.counters.denials, &mut page)?;
        self.health_checks(&mut page)?;
        calls::write(&self.0.ledger, &mut page)?;
        self.settings(&mut page)?;
        self.marks(&mut page)?;
        balancers::write(&self.0.replicas.borrow(), &mut page)?;
        credentials::write(&self.0.counters, &mut page)
    }
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let state = &self.0;
        let help = "Always 1; the label has the version of the program";
        page.family("build_info", help, MetricType::Gauge)?
            .encode_family(&[("version", state.version)])?
            .encode_gauge(&1_i64)?;
        let uptime = state.started.elapsed().as_secs_f64();
        page.gauge("uptime_seconds", "Seconds since the process started", uptime)?;
        page.gauge("ready", "Whether /readyz answers 200", flag(state.readiness.ready()))?;
        let help = "Bytes of long answers of the admin server that are in memory";
        page.gauge("admin_answer_bytes", help, float(self.1.used()))?;
        let help = "Bytes of all encoded lists, including old ones that clients have not read";
        let bytes = usize::try_from(state.counters.list_bytes.now()).unwrap_or(usize::MAX);
        page.gauge("list_bytes", help, float(bytes))?;
        let help = "Records for CoreDNS that this balancer keeps in etcd";
        let records = usize::try_from(state.counters.skydns_keys.now()).unwrap_or(usize::MAX);
        page.gauge("skydns_records", help, float(records))?;
        let help = "Open BalanceLoad streams, by the gRPC implementation of the client";
        let classes = "Server lists in memory: one per service and class of clients";
        let kept = usize::try_from(state.counters.list_classes.now()).unwrap_or(usize::MAX);
        page.gauge("list_classes", classes, float(kept))?;
        let excess = "How far over its share the most favoured backend of any list is, as \
                      entries are whole; 0.05 means 5 % over";
        page.gauge("list_share_excess_ratio", excess, f64::from((state.excess)()))?;
        let mut family = page.family("streams_open", help, MetricType::Gauge)?;
        let clients = (state.clients)();
        for kind in KINDS {
            let open = |view: &&ClientView| view.xds.is_none() && view.kind == kind;
            let open = clients.iter().filter(open).count();
            family.encode_family(&[("client_kind", kind.as_str())])?.encode_gauge(&float(open))?;
        }
        xds::write(state, &clients, page)
    }

    fn registry(&self, page: &mut Page<'_>) -> fmt::Result {
        let catalog = &self.0.catalog;
        let status = catalog.status();
        let help = "Whether the registry has been read completely, at least once";
        page.gauge("registry_synced", help, flag(status.synced))?;
        let help = "The newest known revision of the registry";
        page.family("registry_revision", help, MetricType::Gauge)?
            .encode_gauge(&status.revision)?;
        let help = "Seconds since the registry last answered, or since the start if it never did";
        let heard = status.last_answer.unwrap_or(self.0.started);
        page.gauge("registry_silent_seconds", help, heard.elapsed().as_secs_f64())?;
        let help = "Whether the registry is stale; the last reading, if any, is served";
        page.gauge("registry_stale", help, flag(status.stale.is_some()))?;
        let help = "Whether the registry is unread and the saved state is served";
        page.gauge("registry_restored", help, flag(status.restored.is_some()))?;
        let help = "Keys in the registry, including rejected ones";
        page.gauge("registry_keys", help, float(status.keys))?;
        let help = "Keys that cannot be decoded: /api/v1/rejected says why";
        page.gauge("registry_rejected_keys", help, float(catalog.rejected_len()))?;
        let help = "Keys with remarks, read although something is odd: /api/v1/rejected lists them";
        page.gauge("registry_remarked_keys", help, float(catalog.remarks_len()))?;
        let help = "Backends whose host names do not resolve: /api/v1/rejected lists them";
        page.gauge("registry_unresolved_backends", help, float(catalog.unresolved().len()))
    }

    fn services(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = self.0.catalog.services();
        let endpoints = all.iter().map(|service| service.endpoints.len()).sum();
        page.gauge("services", "Services that have a backend", float(all.len()))?;
        page.gauge("endpoints", "Backends of all services", float(endpoints))?;
        let help = "Backends that marks keep out of the lists, or that drain themselves";
        let drained = all.iter().map(|service| marks::drained(service)).sum();
        page.gauge("endpoints_drained", help, float(drained))?;
        let newcomers: Vec<_> =
            all.iter().filter_map(|service| service.facts.newcomers.as_ref()).collect();
        let help = "Backends that get less than their share for now, by slow start";
        let starting = newcomers.iter().map(|all| all.starting.len()).sum();
        page.gauge("endpoints_starting", help, float(starting))?;
        let help = "Backends that are not listed for now, because they came and went too often";
        let delayed = newcomers.iter().map(|all| all.delayed.len()).sum();
        page.gauge("endpoints_delayed", help, float(delayed))?;
        let help = "Backends whose share the load that they report changes";
        let loads = all.iter().filter_map(|service| service.facts.load.as_ref());
        let loaded = loads.map(|all| all.0.len()).sum();
        page.gauge("endpoints_load_adjusted", help, float(loaded))?;
        let help = "Backends that are asked for their load and do not report it";
        let silent = self.0.catalog.load_silent().values().sum();
        page.gauge("endpoints_load_silent", help, float(silent))?;
        let health: Vec<_> =
            all.iter().filter_map(|service| service.facts.health.as_ref()).collect();
        let help = "Backends that health checks find unhealthy, listed or not";
        let unhealthy = health.iter().map(|health| health.unhealthy.len()).sum();
        page.gauge("endpoints_unhealthy", help, float(unhealthy))?;
        let help = "Backends that this balancer cannot reach and that stay listed, because \
                    clients report that calls are answered";
        let unconfirmed = health.iter().map(|health| health.unconfirmed.len()).sum();
        page.gauge("endpoints_unconfirmed", help, float(unconfirmed))?;
        let help = "Services of which too little is healthy, so that unhealthy backends are \
                    listed too";
        let panic = health.iter().filter(|health| health.panic).count();
        page.gauge("services_in_panic", help, float(panic))?;
        let liveness = self.0.catalog.liveness();
        let help = "Backends that are listed although their registrations are gone";
        page.gauge("endpoints_held", help, float(liveness.held_len()))?;
        let help = "Services that keep backends that do not answer, because too few would be left";
        page.gauge("services_guarded", help, float(liveness.guarded.len()))?;
        let help = "Backends without a lease that refuse connections and are not listed";
        let down = liveness.down.values().map(Vec::len).sum();
        page.gauge("endpoints_down", help, float(down))?;
        let empty = self.0.catalog.empty_services();
        let named = empty.iter().filter_map(|empty| empty.name.as_ref());
        let help = "Services that lost all their backends a short time ago, or are still asked for";
        page.gauge("services_empty", help, float(named.clone().count()))?;
        let help = "Open BalanceLoad streams that ask for a name without any backend";
        let waiting = empty.iter().map(|empty| empty.streams).sum();
        page.gauge("streams_waiting", help, float(waiting))?;
        let help = "The part of a service's calls that crosses zones, as its clients report; only \
                    services whose settings ask for zones";
        let mut family = page.family("service_zone_crossing_ratio", help, MetricType::Gauge)?;
        for service in &all {
            let Some(crossing) = zones::crossing(&self.0, service) else { continue };
            let labels = [("service", service.name.as_str())];
            family.encode_family(&labels)?.encode_gauge(&crossing)?;
        }
        let help = "Backends of each service; 0 for a while after a service lost all of them";
        let mut family = page.family("service_endpoints", help, MetricType::Gauge)?;
        let present = all.iter().map(|service| (&service.name, service.endpoints.len()));
        for (service, endpoints) in present.chain(named.map(|name| (name, 0))) {
            let labels = [("service", service.as_str())];
            family.encode_family(&labels)?.encode_gauge(&float(endpoints))?;
        }
        let help =
            "The share of the calls or of the clients that the canaries of a service are to get";
        let mut family = page.family("split_share_ratio", help, MetricType::Gauge)?;
        for service in &all {
            let Some(split) = service.split() else { continue };
            let labels = [("service", service.name.as_str()), ("by", split.by.as_str())];
            family.encode_family(&labels)?.encode_gauge(&split.share.as_fraction())?;
        }
        large::write(&self.0, &all, page)
    }

    fn health_checks(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "Health checks of backends by result; not_made counts against no backend";
        let mut family = page.family("health_checks", help, MetricType::Counter)?;
        let counters = &self.0.counters;
        for (result, count) in [
            ("healthy", &counters.checks_healthy),
            ("not_serving", &counters.checks_not_serving),
            ("failed", &counters.checks_failed),
            ("not_made", &counters.checks_not_made),
        ] {
            counter(&mut family.encode_family(&[("result", result)])?, count.total())?;
        }
        let help = "Connections that are kept so that backends can push their health";
        let watches = usize::try_from(counters.health_watches.now()).unwrap_or(usize::MAX);
        page.gauge("health_watches", help, float(watches))
    }

    fn settings(&self, page: &mut Page<'_>) -> fmt::Result {
        let report = self.0.sources.borrow().clone();
        let help = "Whether the newest per-service settings are refused and the former ones are in \
                    force: /api/v1/settings says why";
        let mut family = page.family("settings_refused", help, MetricType::Gauge)?;
        let file = report.file.iter().map(|file| ("file", file));
        for (source, of) in file.chain([("etcd", &report.store)]) {
            let refused = flag(of.refused.is_some());
            family.encode_family(&[("source", source)])?.encode_gauge(&refused)?;
        }
        Ok(())
    }

    fn marks(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "Operators' marks that are in force, by kind: /api/v1/marks lists them";
        let mut family = page.family("marks", help, MetricType::Gauge)?;
        let report = self.0.marks.report.borrow();
        for (kind, count) in marks::counts(&report) {
            family.encode_family(&[("kind", kind.as_str())])?.encode_gauge(&float(count))?;
        }
        let help = "Keys of marks that cannot be read or exceed the limit; former marks stay in \
                    force: /api/v1/marks says why";
        page.gauge("marks_refused", help, float(report.refused.len() + report.beyond))?;
        let help = "Marks in force that etcd has lost: set or end them again";
        let kept = report.marks.iter().filter(|shown| shown.state == MarkState::Kept).count();
        page.gauge("marks_kept", help, float(kept))?;
        let help = "Whether marks in etcd cannot be read; known marks stay in force";
        page.gauge("marks_stale", help, flag(report.outage.is_some()))
    }
}

impl Page<'_> {
    pub(super) fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

fn counter(encoder: &mut MetricEncoder<'_>, total: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, u64>(&total, None)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Exact for all counts that occur here.
fn float(count: usize) -> f64 {
    count as f64
}
