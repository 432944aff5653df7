//! `/api/v1/settings`: the settings in force for each service, and what a document would
//! change, in settings and in lists.
//!
//! In: requests; for a comparison, a document. Out: the types of `json`, or a `Problem`.
//! It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::api::{self, Json, JsonResult, Problem};
use super::query::{self, Parameters};
use super::{State, json, list_changes};
use crate::model::Target;
use crate::settings::source::SourceReport;
use crate::settings::{DOCUMENT_MAX, Document, Layer, Origin, Settings};

/// The path that compares a document with the settings in force.
pub(super) const DIFF: &str = "/api/v1/settings/diff";
/// The most changes in an answer, so that it counts as a short one.
const CHANGES_MAX: usize = 200;
/// How many names are compared with the patterns before other tasks run.
const NAMES_AT_ONCE: usize = 250;

pub(super) async fn in_force(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::Settings> {
    let Parameters { limit, service, .. } = query::parse(uri.query(), &["limit", "service"])?;
    let settings = state.catalog.settings();
    let mut names = names(&state);
    let canonical: Vec<String> = names.iter().map(|(_, canonical)| canonical.clone()).collect();
    if let Some(service) = service {
        let wanted = Target::parse(&service, &state.zone)
            .map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = wanted.canonical();
        names.retain(|(_, canonical)| *canonical == wanted);
        // A service that is asked for by name need not exist.
        if names.is_empty() {
            names.push((service, wanted));
        }
    }
    let one = |(service, canonical): &(String, String)| {
        let settings = in_force_for(&settings, canonical);
        json::ServiceSettings { service: service.clone(), settings }
    };
    let services = names.iter().take(limit.unwrap_or(usize::MAX)).map(one).collect();
    let unmatched = settings.unmatched(&canonical).into_iter().map(|(layer, pattern)| {
        let source = layer.as_str().to_owned();
        json::Unmatched { source, pattern }
    });
    Ok(Json(json::Settings {
        sources: sources(&state),
        total: names.len(),
        services,
        unmatched: unmatched.collect(),
        networks: texts(settings.zones().networks()),
        zone_aliases: texts(settings.zones().aliases()),
    }))
}

/// Returns the settings in force for a service by its canonical name, and what set each.
pub(super) fn in_force_for(
    settings: &Settings,
    canonical: &str,
) -> BTreeMap<String, json::InForce> {
    settings.explain(canonical).iter().map(|one| (key(one), json::InForce::from(one))).collect()
}

/// Compares a document with the settings in force, as if it were in etcd.
pub(super) async fn diff(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Body,
) -> JsonResult<json::Diff> {
    api::no_browser(&headers, "lookaside settings diff")?;
    api::read(&state)?;
    let body = to_bytes(body, DOCUMENT_MAX).await.map_err(|_| {
        let error = format!("the document is longer than {DOCUMENT_MAX} bytes, or broke off");
        Problem(StatusCode::PAYLOAD_TOO_LARGE, error)
    })?;
    let bad = |error: String| Problem(StatusCode::BAD_REQUEST, error);
    let text = std::str::from_utf8(&body).map_err(|_| bad("it is no UTF-8 text".to_owned()))?;
    let document = Document::parse(text).map_err(|problems| {
        bad(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let before = state.catalog.settings();
    let file = before.document(Layer::File).cloned();
    let after = before.with(file, Some(Arc::new(document)));
    let names = names(&state);
    let (mut total, mut changes) = (0, Vec::new());
    for (at, (service, canonical)) in names.iter().enumerate() {
        if at % NAMES_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        if before.for_canonical(canonical) == after.for_canonical(canonical) {
            continue;
        }
        for (old, new) in before.explain(canonical).iter().zip(&after.explain(canonical)) {
            if old.setting == new.setting {
                continue;
            }
            total += 1;
            if changes.len() < CHANGES_MAX {
                let (service, key) = (service.clone(), key(old));
                changes.push(json::Changed { service, key, before: old.into(), after: new.into() });
            }
        }
    }
    let canonical: Vec<String> = names.into_iter().map(|(_, canonical)| canonical).collect();
    let unmatched = after.document(Layer::Store).map(|document| document.unmatched(&canonical));
    let mut unmatched = unmatched.unwrap_or_default();
    unmatched.truncate(CHANGES_MAX);
    let revision = state.sources.borrow().store.revision;
    let differing = |old: BTreeMap<_, _>, new: BTreeMap<_, _>| {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        names.into_iter().filter(|name| old.get(*name) != new.get(*name)).count()
    };
    let (old, new) = (before.zones(), after.zones());
    let zones = differing(texts(old.networks()), texts(new.networks()))
        + differing(texts(old.aliases()), texts(new.aliases()));
    let lists = Some(list_changes::compare(&state, &before, &after).await);
    Ok(Json(json::Diff { revision, total, zones, changes, unmatched, lists }))
}

/// Returns the services with backends and the names that streams ask for, each with its
/// canonical name.
fn names(state: &State) -> Vec<(String, String)> {
    let services = state.catalog.services();
    let present = services.iter().map(|one| (one.name.to_string(), one.name.canonical()));
    let empty = state.catalog.empty_services().into_iter().map(|one| {
        let name = one.name.map_or_else(|| one.canonical.clone(), |name| name.to_string());
        (name, one.canonical)
    });
    let mut all: Vec<_> = present.chain(empty).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn texts(all: impl Iterator<Item = (impl ToString, impl ToString)>) -> BTreeMap<String, String> {
    all.map(|(name, zone)| (name.to_string(), zone.to_string())).collect()
}

/// Returns the sources of settings, the strongest first.
pub(super) fn sources(state: &State) -> Vec<json::Source> {
    let report = state.sources.borrow().clone();
    let source = |layer: Layer, of: SourceReport| json::Source {
        source: layer.as_str().to_owned(),
        place: Some(of.place),
        tables: of.tables,
        revision: of.revision,
        refused_seconds: of.refused.as_ref().map(|(since, _)| json::seconds(since.elapsed())),
        refused: of.refused.map(|(_, why)| why),
        unheard: of.outage,
    };
    let flags = json::Source {
        source: Layer::Flags.as_str().to_owned(),
        place: None,
        tables: 0,
        revision: None,
        refused_seconds: None,
        refused: None,
        unheard: None,
    };
    let mut all = vec![source(Layer::Store, report.store)];
    all.extend(report.file.map(|file| source(Layer::File, file)));
    all.push(flags);
    all
}

fn key(origin: &Origin) -> String {
    origin.setting.key().as_str().to_owned()
}

impl From<&Origin> for json::InForce {
    fn from(origin: &Origin) -> Self {
        let Origin { setting, layer, pattern } = origin;
        let source = layer.as_str().to_owned();
        Self { value: setting.to_string(), source, pattern: pattern.clone() }
    }
}
