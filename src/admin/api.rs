//! `/api/v1`: what the balancer knows, as JSON.
//!
//! In: requests. Out: the types of `json`, or a `Problem` that says what to do
//! about it. Nothing is concluded before the registry has been read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::{State, json};
use crate::catalog::{Input, Known, ServiceSnapshot};
use crate::model::{Class, Endpoint, Selector, ServiceName, Target};
use crate::policy;
use crate::telemetry::ClientView;

/// An answer that is no success: always JSON.
#[derive(Debug)]
pub(super) struct Problem(pub(super) StatusCode, pub(super) String);

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    limit: Option<usize>,
}

/// Which clients are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientsPart {
    service: Option<String>,
    limit: Option<usize>,
}

type Answer<T> = Result<Json<T>, Problem>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// Where services are asked for by name.
pub(super) const SERVICES: &str = "/api/v1/services/";
/// Rejected keys in an answer that is not asked for more: whole prefixes of
/// another program's keys can be unreadable.
const REJECTED_DEFAULT: usize = 1_000;
/// What follows a service's name to let go what it holds.
pub(super) const RELEASE: &str = "/release";
/// Headers that only browsers send.
const BROWSERS: [&str; 2] = ["origin", "sec-fetch-site"];
/// The catalog takes inputs in within microseconds.
const INPUT_TIMEOUT: Duration = Duration::from_secs(1);
const UNREAD: &str = "the registry has not been read yet: ask again when /readyz answers 200";

pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Json<json::Status> {
    Json(json::Status {
        version: state.version.to_owned(),
        zone: state.zone.to_string(),
        uptime_seconds: json::seconds(state.started.elapsed()),
        ready: state.readiness.ready(),
        missing: state.readiness.missing(),
        registry: registry_of(&state),
    })
}

pub(super) async fn registry(Shared(state): Shared<Arc<State>>) -> Json<json::Registry> {
    Json(registry_of(&state))
}

pub(super) async fn services(
    Shared(state): Shared<Arc<State>>,
    part: Asked<Part>,
) -> Answer<json::Services> {
    let Query(Part { limit }) = part?;
    read(&state)?;
    let all = state.catalog.services();
    let doubts = state.catalog.doubts();
    let clients = (state.clients)();
    let clients = clients_by_service(&clients);
    let calls: HashMap<_, _> = state.ledger.totals().into_iter().collect();
    let service = |snapshot: &Arc<ServiceSnapshot>| json::Service {
        name: snapshot.name.to_string(),
        dns_name: dns_name(&state, &snapshot.name),
        endpoints: snapshot.endpoints.len(),
        held: doubts.held_in(&snapshot.name),
        guarded: doubts.guarded.contains(&snapshot.name),
        revision: snapshot.revision,
        clients: clients.get(&snapshot.name).copied().unwrap_or(0),
        calls: calls.get(&snapshot.name).copied().unwrap_or_default().into(),
    };
    let services = all.iter().take(limit.unwrap_or(usize::MAX)).map(service).collect();
    Ok(Json(json::Services { total: all.len(), services }))
}

pub(super) async fn service(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> Answer<json::ServiceDetail> {
    let (snapshot, selectors) = find(&state, &typed(uri.path())?)?;
    let name = &snapshot.name;
    let calls = state.ledger.totals().into_iter().find(|(service, _)| service == name);
    Ok(Json(json::ServiceDetail {
        name: name.to_string(),
        dns_name: dns_name(&state, name),
        revision: snapshot.revision,
        clients: clients_by_service(&(state.clients)()).get(name).copied().unwrap_or(0),
        calls: calls.map(|(_, calls)| calls).unwrap_or_default().into(),
        guarded: state.catalog.doubts().guarded.contains(name),
        endpoints: endpoints(&state, &snapshot, &selectors),
        selectors: selectors
            .into_iter()
            .map(|Selector { key, value }| json::Selector { key, value })
            .collect(),
    }))
}

/// Lets go what a service lists without registration.
pub(super) async fn release(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<json::Released> {
    // A browser says where its request comes from whenever it changes
    // something, and no page has any business with this.
    if BROWSERS.iter().any(|name| headers.contains_key(*name)) {
        let error = "this is not for browsers: use `lookaside release`, or curl".to_owned();
        return Err(Problem(StatusCode::FORBIDDEN, error));
    }
    let path = uri.path().strip_suffix(RELEASE).unwrap_or_default();
    let (snapshot, _) = find(&state, &typed(path)?)?;
    let name = &snapshot.name;
    let released = state.catalog.doubts().held_in(name);
    let said = state.inputs.send_timeout(Input::Release(name.clone()), INPUT_TIMEOUT).await;
    said.map_err(|_| Problem(StatusCode::SERVICE_UNAVAILABLE, "try again".to_owned()))?;
    tracing::info!(service = %name, released, "operator releases what is held");
    Ok(Json(json::Released { service: name.to_string(), released }))
}

pub(super) async fn clients(
    Shared(state): Shared<Arc<State>>,
    part: Asked<ClientsPart>,
) -> Answer<json::Clients> {
    let Query(ClientsPart { service, limit }) = part?;
    let mut all = (state.clients)();
    if let Some(service) = service {
        let wanted = Target::parse(&service, &state.zone)
            .map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = match state.catalog.lookup(&wanted) {
            Known::Present(snapshot) => snapshot.name.canonical(),
            _ => wanted.canonical(),
        };
        all.retain(|view| canonical(&state, view).as_ref() == Some(&wanted));
    }
    all.sort_unstable_by(|a, b| (&a.name, a.peer).cmp(&(&b.name, b.peer)));
    let clients = all.iter().take(limit.unwrap_or(usize::MAX)).map(json::Client::from).collect();
    Ok(Json(json::Clients { total: all.len(), clients }))
}

pub(super) async fn rejected(
    Shared(state): Shared<Arc<State>>,
    part: Asked<Part>,
) -> Answer<json::RejectedKeys> {
    let Query(Part { limit }) = part?;
    read(&state)?;
    let all = state.catalog.rejected();
    let odd = state.catalog.remarks();
    let limit = limit.unwrap_or(REJECTED_DEFAULT);
    Ok(Json(json::RejectedKeys {
        total: all.len(),
        rejected: all.iter().take(limit).map(json::Rejected::from).collect(),
        remarks_total: odd.len(),
        remarks: odd.iter().take(limit).map(json::Remarked::from).collect(),
    }))
}

/// The name in a path below [`SERVICES`].
fn typed(path: &str) -> Result<Cow<'_, str>, Problem> {
    let raw = path.strip_prefix(SERVICES).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().map_err(|_| {
        Problem(StatusCode::BAD_REQUEST, format!("the name {raw:?} is no UTF-8: encode it as such"))
    })
}

/// The service that a name means to a client that types it. Registered names
/// that no client can type (a client's port, say, is dropped) are found as
/// they stand, so that whatever is listed can be looked at.
fn find(state: &State, typed: &str) -> Result<(Arc<ServiceSnapshot>, Vec<Selector>), Problem> {
    let target = Target::parse(typed, &state.zone);
    if let Ok(target) = &target {
        match state.catalog.lookup(target) {
            Known::Syncing => return Err(unread()),
            Known::Present(snapshot) => {
                let selectors = target.selectors_for(&snapshot.name).to_vec();
                return Ok((snapshot, selectors));
            }
            Known::Absent => {}
        }
    }
    let as_it_stands = Target::exactly(typed);
    match (state.catalog.lookup(&as_it_stands), target) {
        (Known::Present(snapshot), _) if snapshot.name.as_str() == typed => {
            Ok((snapshot, Vec::new()))
        }
        (_, Err(error)) => Err(Problem(StatusCode::BAD_REQUEST, error.to_string())),
        (_, Ok(target)) => {
            let name = target.name;
            let error = format!(
                "no backend of {name:?} is registered: /api/v1/services lists what is, and \
                 /api/v1/rejected the keys that could not be read"
            );
            Err(Problem(StatusCode::NOT_FOUND, error))
        }
    }
}

fn endpoints(
    state: &State,
    snapshot: &ServiceSnapshot,
    selectors: &[Selector],
) -> Vec<json::Endpoint> {
    let mut turns = vec![0; snapshot.endpoints.len()];
    let chosen = policy::choose(snapshot, &Class::new(selectors));
    for index in policy::assign(snapshot, &chosen).0 {
        turns[index] += 1;
    }
    let doubts = state.catalog.doubts();
    let down = doubts.down.get(&snapshot.name).map_or(&[][..], Vec::as_slice);
    let endpoint = |endpoint: &Endpoint, turns, down| json::Endpoint {
        id: endpoint.id.to_string(),
        address: endpoint.addr.to_string(),
        weight: endpoint.weight.0,
        turns,
        token: (state.tokens)(&snapshot.name, endpoint.addr),
        meta: (*endpoint.meta).clone(),
        held: doubts.held(&snapshot.name, endpoint.addr).map(json::Held::from),
        down,
    };
    let listed = snapshot.endpoints.iter().zip(turns);
    let listed = listed.map(|(one, turns)| endpoint(one, turns, false));
    listed.chain(down.iter().map(|one| endpoint(one, 0, true))).collect()
}

fn registry_of(state: &State) -> json::Registry {
    let (services, rejected) = (state.catalog.services().len(), state.catalog.rejected_len());
    json::Registry::new(&state.catalog.status(), services, rejected)
}

fn dns_name(state: &State, service: &ServiceName) -> String {
    format!("{}.{}", service.dns_name(), state.zone)
}

fn clients_by_service(clients: &[ClientView]) -> HashMap<&ServiceName, usize> {
    let mut counts = HashMap::new();
    for service in clients.iter().filter_map(|view| view.service.as_ref()) {
        *counts.entry(service).or_default() += 1;
    }
    counts
}

/// What a client's name means, be it registered or waited for.
fn canonical(state: &State, view: &ClientView) -> Option<String> {
    match &view.service {
        Some(service) => Some(service.canonical()),
        None => Target::parse(&view.name, &state.zone).ok().map(|target| target.canonical()),
    }
}

fn read(state: &State) -> Result<(), Problem> {
    if state.catalog.status().synced { Ok(()) } else { Err(unread()) }
}

fn unread() -> Problem {
    Problem(StatusCode::SERVICE_UNAVAILABLE, UNREAD.to_owned())
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(json::Failure { error })).into_response()
    }
}
