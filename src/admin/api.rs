//! `/api/v1`: the balancer's state as JSON.
//!
//! In: requests. Out: the types of `json`, or a `Problem` with its remedy.
//! No service is called absent before the registry has been read.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::query::{self, Parameters};
use super::{State, XdsClients, json, services, settings};
use crate::catalog::{Known, Service};
use crate::model::{Target, text};
use crate::reload;
use crate::settings::HealthKind;
use crate::telemetry::ClientView;

/// An error answer. It is always JSON.
#[derive(Debug)]
pub(super) struct Problem(pub(super) StatusCode, pub(super) String);

/// An answer as JSON, without characters that control a terminal.
pub(super) struct Json<T>(pub(super) T);

pub(super) type JsonResult<T> = Result<Json<T>, Problem>;

/// The path below which services are asked for by name.
pub(super) const SERVICES: &str = "/api/v1/services/";
/// How many rejected keys an answer has without `limit`. All keys of another program may
/// be rejected.
const REJECTED_DEFAULT: usize = 1_000;
/// Headers that only browsers send.
const BROWSERS: [&str; 2] = ["origin", "sec-fetch-site"];
/// How long to wait until the catalog takes an input, which it does within microseconds.
pub(super) const INPUT_TIMEOUT: Duration = Duration::from_secs(1);
const UNREAD: &str = "the registry has not been read yet: ask again when /readyz answers 200";

pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Json<json::Status> {
    let credentials = state.counters.credentials.all();
    let now = (state.marks.now)();
    let certificate = |&(used_for, end): &(&'static str, i64)| {
        let left = end.saturating_sub(i64::try_from(now.0).unwrap_or(i64::MAX));
        let used_for = used_for.to_owned();
        let ends_soon = reload::ends_soon(left);
        // A date this far away is exact enough.
        json::Certificate { used_for, ends_in_seconds: left as f64, ends_soon }
    };
    let broken = credentials.iter().filter(|one| one.broken);
    Json(json::Status {
        certificates: credentials.iter().flat_map(|one| &one.expiries).map(certificate).collect(),
        credentials_broken: broken.map(|one| one.used_for.to_owned()).collect(),
        settings_refused: settings::sources(&state)
            .into_iter()
            .filter(|source| source.refused.is_some())
            .collect(),
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

pub(super) async fn clients(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::Clients> {
    let Parameters { limit, service, .. } = query::parse(uri.query(), &["limit", "service"])?;
    let mut all = (state.clients)();
    if let Some(service) = service {
        let wanted = Target::parse(&service, &state.zone)
            .map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = match state.catalog.lookup(&wanted) {
            Known::Present(service) => service.name.canonical(),
            _ => wanted.canonical(),
        };
        all.retain(|view| canonical(&state, view).as_ref() == Some(&wanted));
    }
    all.sort_unstable_by(|a, b| (&a.name, a.peer).cmp(&(&b.name, b.peer)));
    let clients = all.iter().take(limit.unwrap_or(usize::MAX)).map(json::Client::from).collect();
    Ok(Json(json::Clients { total: all.len(), clients }))
}

pub(super) async fn denied(Shared(state): Shared<Arc<State>>) -> Json<json::DeniedClients> {
    let denials = &state.counters.denials;
    let total = denials.grpclb.total() + denials.xds.total() + denials.dns.total();
    Json(json::DeniedClients {
        total,
        denied: denials.all().iter().map(json::Denied::from).collect(),
    })
}

pub(super) async fn xds_bootstrap(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let known = ["zone", "server", "ca", "cert", "key", "refresh"];
    let asked = query::parse(uri.query(), &known)?;
    let Parameters { zone, server, ca, cert, key, refresh, .. } = asked;
    let file = (state.xds_bootstrap)(XdsClients { server, zone, ca, cert, key, refresh });
    let file = file.map_err(|problem| Problem(StatusCode::BAD_REQUEST, problem))?;
    Ok(([(CONTENT_TYPE, "application/json")], file).into_response())
}

pub(super) async fn rejected(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::RejectedKeys> {
    let Parameters { limit, .. } = query::parse(uri.query(), &["limit"])?;
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

/// Returns the name in a path below [`SERVICES`].
pub(super) fn typed(path: &str) -> Result<Cow<'_, str>, Problem> {
    let raw = path.strip_prefix(SERVICES).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().map_err(|_| {
        Problem(StatusCode::BAD_REQUEST, format!("the name {raw:?} is no UTF-8: encode it as such"))
    })
}

/// Returns the service that a name means to a client, and the name as it is read. It also
/// finds registered names that no client can type, by their exact spelling, so that every
/// listed service can be shown. For example, a client's port is dropped from its name.
pub(super) fn find(state: &State, typed: &str) -> Result<(Arc<Service>, Target), Problem> {
    let target = Target::parse(typed, &state.zone);
    if let Ok(target) = &target {
        match state.catalog.lookup(target) {
            Known::Syncing => return Err(unread(state)),
            Known::Present(snapshot) => return Ok((snapshot, target.clone())),
            Known::Absent(_) => {}
        }
    }
    let as_it_stands = Target::exactly(typed);
    match (state.catalog.lookup(&as_it_stands), target) {
        (Known::Present(snapshot), _) if snapshot.name.as_str() == typed => {
            Ok((snapshot, as_it_stands))
        }
        (_, Err(error)) => Err(Problem(StatusCode::BAD_REQUEST, error.to_string())),
        (_, Ok(target)) => Err(services::absent(state, &target.canonical(), &target.name)),
    }
}

/// Refuses requests of browsers. A browser adds its origin to a request that changes
/// something, and no page has a reason to send one.
pub(super) fn no_browser(headers: &HeaderMap, command: &str) -> Result<(), Problem> {
    if BROWSERS.iter().any(|name| headers.contains_key(*name)) {
        let error = format!("this is not for browsers: use `{command}`, or curl");
        return Err(Problem(StatusCode::FORBIDDEN, error));
    }
    Ok(())
}

fn registry_of(state: &State) -> json::Registry {
    let catalog = &state.catalog;
    let (empty, liveness) = (catalog.empty_services(), catalog.liveness());
    let named = empty.iter().filter(|empty| empty.name.is_some());
    let services = catalog.services();
    // Observed health changes nothing for clients.
    let acting = |service: &&Arc<Service>| service.settings.health.kind != HealthKind::Observe;
    let acting = services.iter().filter(acting).filter_map(|service| service.facts.health.as_ref());
    let counts = json::Counts {
        services: services.len(),
        panic: acting.clone().filter(|health| health.panic).count(),
        unhealthy: acting.map(|health| health.unhealthy.len()).sum(),
        rejected: catalog.rejected_len(),
        empty: named.count(),
        waiting: empty.iter().map(|empty| empty.streams).sum(),
        held: liveness.held_len(),
        guarded: liveness.guarded.len(),
        down: liveness.down.values().map(Vec::len).sum(),
        unresolved: catalog.unresolved().len(),
        remarks: catalog.remarks_len(),
    };
    json::Registry::new(&catalog.status(), counts)
}

/// Returns the canonical name of the service that a client asks for, registered or not.
pub(super) fn canonical(state: &State, view: &ClientView) -> Option<String> {
    match &view.service {
        Some(service) => Some(service.canonical()),
        None => Target::parse(&view.name, &state.zone).ok().map(|target| target.canonical()),
    }
}

pub(super) fn read(state: &State) -> Result<(), Problem> {
    if state.catalog.status().synced { Ok(()) } else { Err(unread(state)) }
}

fn unread(state: &State) -> Problem {
    let why = state.catalog.status().stale.map(|(since, reason)| {
        format!(": it has not been heard for {} s ({reason})", since.elapsed().as_secs())
    });
    let error = format!("{UNREAD}{}", why.unwrap_or_default());
    Problem(StatusCode::SERVICE_UNAVAILABLE, error)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        // These types hold only text and numbers, which can always be written.
        let json = serde_json::to_string(&self.0).unwrap_or_default();
        ([(CONTENT_TYPE, "application/json")], text::shown_json(&json)).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(json::Failure { error })).into_response()
    }
}
