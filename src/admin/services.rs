//! `/api/v1/services`: every service, its state, and its problems.
//!
//! In: requests. Out: the types of `json`.
//! A service that lost all its backends stays listed for a while. No service is called
//! absent before the registry has been read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};

use super::api::{self, Json, JsonResult, Problem};
use super::json::ByProtocol;
use super::query::{self, Parameters};
use super::shares::{self, Share};
use super::{State, cells, json, marks, zones};
use crate::catalog::{EmptyService, Liveness, Service, ServiceSnapshot};
use crate::clock;
use crate::facts::factor::Factor;
use crate::load::Calls;
use crate::model::{Class, Endpoint, ServiceName};
use crate::policy;
use crate::settings::HealthKind;
use crate::telemetry::{ClientView, Protocol};

/// The sources of the rows.
struct Rows<'a> {
    state: &'a State,
    liveness: Arc<Liveness>,
    /// How many backends are not listed because their host names do not resolve.
    unresolved: BTreeMap<ServiceName, usize>,
    clients: HashMap<ServiceName, ByProtocol>,
    /// The clients of services without backends, by canonical name.
    waiting: HashMap<String, ByProtocol>,
    calls: HashMap<ServiceName, Calls>,
}

/// The most problems, and names that were never registered, in one answer. No operator
/// reads more.
const PROBLEMS_MAX: usize = 100;

pub(super) async fn services(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::Services> {
    let Parameters { limit, .. } = query::parse(uri.query(), &["limit"])?;
    api::read(&state)?;
    let (empty, unknown): (Vec<_>, Vec<_>) =
        state.catalog.empty_services().into_iter().partition(|empty| empty.name.is_some());
    let clients = (state.clients)();
    let rows = Rows {
        state: &state,
        liveness: state.catalog.liveness(),
        unresolved: unresolved(&state),
        waiting: waiting(&state, &clients),
        clients: clients_by_service(&clients),
        calls: state.ledger.totals().into_iter().collect(),
    };
    let present = state.catalog.services();
    let present = present.iter().map(|snapshot| rows.present(snapshot));
    let empty = empty.iter().filter_map(|empty| rows.empty(empty));
    let mut services: Vec<_> = present.chain(empty).collect();
    let listed: HashSet<_> = services.iter().map(|service| service.name.clone()).collect();
    let unlisted = rows.unresolved.keys().filter(|name| !listed.contains(name.as_str()));
    services.extend(unlisted.map(|name| rows.without_backends(name)));
    services.sort_by(|a, b| a.name.cmp(&b.name));
    // Streams that ask for an unresolved service count in that service's row.
    let known: HashSet<_> = rows.unresolved.keys().map(ServiceName::canonical).collect();
    let mut unknown = unknown;
    unknown.retain(|empty| {
        let row = services.iter_mut().find(|service| {
            known.contains(&empty.canonical) && canonical(&service.name) == empty.canonical
        });
        row.map(|row| {
            row.clients = empty.streams;
            row.clients_by_protocol = rows.waiting(&empty.canonical);
        })
        .is_none()
    });
    let total = services.len();
    let mut problems: Vec<_> =
        services.iter().filter(|service| service.state != json::State::Ok).cloned().collect();
    // Services whose clients' calls fail come first.
    problems.sort_by_key(|service| (!service.suffers(), service.state));
    let problems_total = problems.len();
    problems.truncate(PROBLEMS_MAX);
    services.truncate(limit.unwrap_or(usize::MAX));
    let unknown_total = unknown.len();
    let unknown = unknown.into_iter().take(PROBLEMS_MAX).map(|empty| json::Unknown {
        name: empty.canonical,
        clients: empty.streams,
        since_seconds: json::seconds(empty.since.elapsed()),
    });
    Ok(Json(json::Services {
        total,
        services,
        problems_total,
        problems,
        unknown_total,
        unknown: unknown.collect(),
    }))
}

pub(super) async fn service(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::ServiceDetail> {
    let (snapshot, target) = api::find(&state, &api::typed(uri.path())?)?;
    let class = policy::class(&snapshot, &target, None);
    let name = &snapshot.name;
    let clients = clients_by_service(&(state.clients)()).get(name).copied().unwrap_or_default();
    let calls = state.ledger.totals().into_iter().find(|(service, _)| service == name);
    Ok(Json(json::ServiceDetail {
        name: name.to_string(),
        dns_name: dns_name(&state, name),
        revision: snapshot.revision,
        clients: clients.grpclb + clients.xds,
        clients_by_protocol: clients,
        calls: calls.map(|(_, calls)| calls).unwrap_or_default().into(),
        guarded: state.catalog.liveness().guarded.contains(name),
        panic: snapshot.facts.health.as_ref().is_some_and(|health| health.panic),
        split: snapshot.split().map(|split| json::Split {
            select: format!("{}={}", split.select.key, split.select.value),
            by: split.by.as_str().to_owned(),
            share: split.share.as_fraction(),
        }),
        endpoints: endpoints(&state, &snapshot, &class),
        selectors: class.selectors().iter().map(json::Selector::from).collect(),
        zone: class.zone().map(ToString::to_string),
        zones: zones::of(&state, &snapshot),
        cells: cells::of(&state, &snapshot),
        overload_shed: policy::overload_shed(&snapshot, &class).unwrap_or(0),
    }))
}

/// Returns the answer for a name that has no backend, with the reason.
pub(super) fn absent(state: &State, canonical: &str, name: &str) -> Problem {
    let empty = state.catalog.empty_services();
    let empty = empty.into_iter().find(|empty| empty.canonical == canonical);
    let error = match empty {
        Some(EmptyService { name: Some(name), since, streams, .. }) => format!(
            "no backend of {:?} is registered any more: the last one went {:.0} s ago, and \
             {streams} streams ask for it",
            name.as_str(),
            since.elapsed().as_secs_f64()
        ),
        _ => format!(
            "no backend of {name:?} is registered: /api/v1/services lists what is, and \
             /api/v1/rejected the keys that could not be read"
        ),
    };
    Problem(StatusCode::NOT_FOUND, error)
}

impl Rows<'_> {
    fn present(&self, service: &Service) -> json::Service {
        let Service { snapshot, .. } = service;
        let ServiceSnapshot { name, revision, endpoints, .. } = &**snapshot;
        let held = self.liveness.held.get(name);
        let guarded = self.liveness.guarded.contains(name);
        let down = self.liveness.down.get(name).map_or(0, Vec::len);
        let unresolved = self.unresolved.get(name).copied().unwrap_or(0);
        let drained = marks::drained(service);
        let overload_shed = policy::overload_shed(service, &Class::default()).unwrap_or(0);
        let shed = service.marks.most_shed().max(overload_shed);
        let fallback = service.marks.fallback().is_some();
        let unhealthy = service.facts.health.as_ref().map_or(0, |health| health.unhealthy.len());
        let panic = service.facts.health.as_ref().is_some_and(|health| health.panic);
        // Where health is only observed, it changes nothing for clients.
        let acts = service.settings.health.kind != HealthKind::Observe;
        let state = match (guarded, held.is_some_and(|held| !held.is_empty())) {
            _ if !policy::has_picks(service) => json::State::Unusable,
            _ if panic && acts => json::State::Panic,
            (true, _) => json::State::Guarded,
            (_, true) => json::State::Held,
            _ if down > 0 => json::State::Down,
            _ if unhealthy > 0 && acts => json::State::Unhealthy,
            _ if unresolved > 0 => json::State::Unresolved,
            _ if shed > 0 => json::State::Shedding,
            _ if fallback => json::State::Fallback,
            _ if drained > 0 => json::State::Drained,
            _ => json::State::Ok,
        };
        let clients = self.clients.get(name).copied().unwrap_or_default();
        let since = held.and_then(|held| held.values().map(|held| held.since).min());
        json::Service {
            name: name.to_string(),
            dns_name: dns_name(self.state, name),
            endpoints: endpoints.len(),
            held: self.liveness.held_in(name),
            guarded,
            down,
            unresolved,
            drained,
            shed,
            overload_shed,
            load_silent: self.state.catalog.load_silent().get(name).copied().unwrap_or(0),
            fallback,
            unhealthy,
            panic,
            state,
            since_seconds: since.map(|since| json::seconds(since.elapsed())),
            revision: *revision,
            clients: clients.grpclb + clients.xds,
            clients_by_protocol: clients,
            calls: self.calls.get(name).copied().unwrap_or_default().into(),
        }
    }

    fn empty(&self, empty: &EmptyService) -> Option<json::Service> {
        let row = self.without_backends(empty.name.as_ref()?);
        let since_seconds = Some(json::seconds(empty.since.elapsed()));
        let clients_by_protocol = self.waiting(&empty.canonical);
        Some(json::Service { since_seconds, clients: empty.streams, clients_by_protocol, ..row })
    }

    fn waiting(&self, canonical: &str) -> ByProtocol {
        self.waiting.get(canonical).copied().unwrap_or_default()
    }

    fn without_backends(&self, name: &ServiceName) -> json::Service {
        let unresolved = self.unresolved.get(name).copied().unwrap_or(0);
        json::Service {
            name: name.to_string(),
            dns_name: dns_name(self.state, name),
            endpoints: 0,
            held: 0,
            guarded: false,
            down: self.liveness.down.get(name).map_or(0, Vec::len),
            unresolved,
            drained: 0,
            shed: 0,
            overload_shed: 0,
            load_silent: 0,
            fallback: false,
            unhealthy: 0,
            panic: false,
            state: if unresolved > 0 { json::State::Unresolved } else { json::State::Empty },
            since_seconds: None,
            revision: 0,
            clients: 0,
            clients_by_protocol: ByProtocol::default(),
            calls: self.calls.get(name).copied().unwrap_or_default().into(),
        }
    }
}

fn endpoints(state: &State, snapshot: &Service, class: &Class) -> Vec<json::Endpoint> {
    let shares = shares::of(state, snapshot, class);
    let liveness = state.catalog.liveness();
    let reported = state.ledger.backends(&snapshot.name);
    let down = liveness.down.get(&snapshot.name).map_or(&[][..], Vec::as_slice);
    let findings = policy::explain(snapshot, class);
    let endpoint = |endpoint: &Endpoint, Share { entries, due, share, .. }, down| json::Endpoint {
        id: endpoint.id.to_string(),
        address: endpoint.addr.to_string(),
        weight: endpoint.weight.0,
        turns: entries,
        due,
        share,
        token: (state.tokens)(&snapshot.name, endpoint.addr),
        meta: (*endpoint.meta).clone(),
        held: liveness.held(&snapshot.name, endpoint.addr).map(json::Held::from),
        down,
        drained: snapshot.marks.drain(endpoint).map(|mark| json::Mark::new(mark, "in force", 1)),
        delayed_seconds: snapshot
            .delayed(endpoint)
            .map(|until| until.saturating_duration_since(clock::now()).as_secs_f64()),
        slow_start: Some(findings.slow_start(endpoint))
            .filter(|factor| entries > 0 && *factor != Factor::ONE)
            .map(|factor| f64::from(factor.as_millionths()) / 1e6),
        load_factor: Some(snapshot.load_factor(endpoint))
            .filter(|factor| *factor != Factor::ONE)
            .map(|factor| f64::from(factor.as_millionths()) / 1e6),
        reported: reported.get(&endpoint.addr.socket_addr()).copied().map(Into::into),
        unhealthy: snapshot.unhealthy(endpoint).map(|answer| answer.as_str().to_owned()),
    };
    let listed = snapshot.endpoints.iter().zip(shares);
    let listed = listed.map(|(one, share)| endpoint(one, share, false));
    listed.chain(down.iter().map(|one| endpoint(one, Share::default(), true))).collect()
}

/// Returns how many backends of each service are not listed because their host names do
/// not resolve.
fn unresolved(state: &State) -> BTreeMap<ServiceName, usize> {
    let mut counts = BTreeMap::new();
    for one in state.catalog.unresolved().iter().filter(|one| one.kept == 0) {
        *counts.entry(one.service.clone()).or_default() += 1;
    }
    counts
}

fn canonical(name: &str) -> String {
    ServiceName::new(name).map(|name| name.canonical()).unwrap_or_default()
}

fn dns_name(state: &State, service: &ServiceName) -> String {
    format!("{}.{}", service.dns_name(), state.zone)
}

/// Returns how many clients each service has.
pub(super) fn clients_by_service(clients: &[ClientView]) -> HashMap<ServiceName, ByProtocol> {
    let mut counts = HashMap::new();
    for view in clients {
        if let Some(service) = &view.service {
            count(view, counts.entry(service.clone()).or_default());
        }
    }
    counts
}

/// Returns how many clients wait for each name that means no service now.
pub(super) fn waiting(state: &State, clients: &[ClientView]) -> HashMap<String, ByProtocol> {
    let mut counts = HashMap::new();
    for view in clients.iter().filter(|view| view.service.is_none()) {
        if let Some(name) = api::canonical(state, view) {
            count(view, counts.entry(name).or_default());
        }
    }
    counts
}

fn count(view: &ClientView, counts: &mut ByProtocol) {
    match view.protocol() {
        Protocol::Xds => counts.xds += 1,
        Protocol::Grpclb | Protocol::Dns => counts.grpclb += 1,
    }
}
