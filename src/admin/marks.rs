//! Shows marks, and sets and ends those about backends: drains and releases.
//!
//! In: requests. Out: the types of `json`, and keys in etcd, which every balancer of the
//! zone follows.
//! It refuses an order that would do nothing, or would leave a service without a backend,
//! unless the order says `anyway`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;

use super::api::{self, Json, JsonResult, Problem};
use super::query::{self, Parameters};
use super::{State, json};
use crate::catalog::{self, Input, Service};
use crate::marks::report::{MarkStatus, Report};
use crate::marks::source::KEYS_MAX;
use crate::marks::{
    Backends, Kind, LASTS_MAX, Mark, MarkKey, MarkWriter, Marks, Scope, TEXT_MAX, Value,
};
use crate::model::{Class, Endpoint, Selector, Target};
use crate::policy;
use crate::registry::etcd::{EtcdError, is_denial};

/// The ends of the paths that set and end marks, after a service's name.
pub(super) const DRAIN: &str = "/drain";
pub(super) const UNDRAIN: &str = "/undrain";
pub(super) const RELEASE: &str = "/release";
/// The longest order, in bytes. Its texts are bounded.
const ORDER_MAX: usize = 16 * 1024;
/// How long an answer waits for this balancer to read the mark from etcd.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);
/// How long a release lasts. It acts only on backends that are held when it is made, and no
/// backend is held for longer than a day.
const RELEASE_LASTS: Duration = Duration::from_secs(24 * 3600);

/// A request that changes something.
pub(super) struct Request {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// The scope and the services of an order.
pub(super) struct OrderScope {
    pub(super) scope: Scope,
    pub(super) services: Vec<Arc<Service>>,
}

pub(super) async fn marks(Shared(state): Shared<Arc<State>>, uri: Uri) -> JsonResult<json::Marks> {
    let Parameters { limit, service, .. } = query::parse(uri.query(), &["limit", "service"])?;
    let report = state.marks.report.borrow().clone();
    let mut shown = report.marks;
    if let Some(service) = service {
        let wanted = Target::parse(&service, &state.zone)
            .map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = wanted.canonical();
        shown.retain(|shown| ["*", &wanted].contains(&shown.mark.key.service()));
    }
    let kept_out = kept_out(&state);
    let limit = limit.unwrap_or(usize::MAX);
    let one = |shown: &MarkStatus| {
        let keeps_out = kept_out.get(&shown.mark.key).copied().unwrap_or(0);
        json::Mark::new(&shown.mark, shown.state.as_str(), keeps_out)
    };
    let refused = report.refused.iter().take(limit).map(|(key, reason)| {
        let (key, reason) = (key.to_string(), reason.clone());
        json::RefusedMark { key, reason }
    });
    Ok(Json(json::Marks {
        total: shown.len(),
        marks: shown.iter().take(limit).map(one).collect(),
        refused_total: report.refused.len() + report.beyond,
        refused: refused.collect(),
        unheard: report.outage,
    }))
}

/// Drains backends: sets a mark that keeps them out of the lists.
pub(super) async fn drain(state: &State, request: Request) -> JsonResult<json::DrainAnswer> {
    let (typed, order) = request.read("lookaside drain", DRAIN).await?;
    // One drain at a time: each must see the effect of the previous one.
    let _lock = state.marks.drain_lock.acquire().await;
    let anyway = order.anyway;
    let Some(text) = &order.backends else {
        return Err(bad("which backends? Say so, as in {\"backends\":\"10.0.0.9:50051\"}"));
    };
    let backends = Backends::parse(text).map_err(|error| bad(&error.to_string()))?;
    let OrderScope { scope, services } = resolve_scope(state, &typed, anyway)?;
    let mark = state.mark(MarkKey::Drain(scope, backends.clone()), order)?;
    state.accepts(&mark, &typed)?;
    let concerned: Vec<_> = services
        .iter()
        .map(|service| {
            (service, service.endpoints.iter().filter(|one| backends.contains(one)).count())
        })
        .filter(|(_, matched)| *matched > 0)
        .collect();
    let matched = concerned.iter().map(|(_, matched)| matched).sum();
    if matched == 0 && !anyway {
        let error = format!(
            "no backend of {typed:?} is {backends}: `lookaside services` and explain show what is \
             there; --anyway drains what may come"
        );
        return Err(Problem(StatusCode::NOT_FOUND, error));
    }
    let liveness = state.catalog.liveness();
    let mut left = 0;
    for (service, _) in concerned {
        let whole = Class::default();
        let eligible = policy::eligible(service, &whole);
        let answers = |endpoint: &Endpoint| {
            let held = liveness.held(&service.name, endpoint.addr);
            held.and_then(|held| held.answer)
                .is_none_or(|answer| answer == catalog::ProbeResult::Takes)
        };
        let stays = |pick: &&policy::Pick| {
            let endpoint = &service.endpoints[pick.endpoint as usize];
            !backends.contains(endpoint) && answers(endpoint)
        };
        let stay = eligible.iter().filter(stays).count();
        if stay == 0 && !eligible.is_empty() && !anyway {
            let error = format!(
                "this would leave {:?} without a backend: --anyway does it, and clients see what \
                 when-empty says",
                service.name.as_str()
            );
            return Err(Problem(StatusCode::CONFLICT, error));
        }
        left += stay;
    }
    state.audit("sets", &mark);
    state.writer()?.set(&mark).await.map_err(|trouble| unconfirmed(&trouble, &[]))?;
    let obeyed = state.obeys(|all| all.all().any(|one| **one == mark)).await;
    let mark = json::Mark::new(&mark, "in force", matched);
    Ok(Json(json::DrainAnswer { mark, matched, left, obeyed }))
}

/// Undrains backends: ends the marks that keep them out of the lists.
pub(super) async fn undrain(state: &State, request: Request) -> JsonResult<json::UndrainAnswer> {
    let (typed, order) = request.read("lookaside undrain", UNDRAIN).await?;
    let OrderScope { scope, .. } = resolve_scope(state, &typed, true)?;
    let wanted = order.backends.as_deref().map(Backends::parse).transpose();
    let wanted = wanted.map_err(|error| bad(&error.to_string()))?;
    let all = state.marks.report.borrow().marks.clone();
    let is_meant = |shown: &&MarkStatus| match &shown.mark.key {
        _ if !shown.is_in_force() => false,
        MarkKey::Drain(of, backends) => {
            *of == scope && wanted.as_ref().is_none_or(|wanted| wanted == backends)
        }
        _ => false,
    };
    let meant: Vec<_> = all.iter().filter(is_meant).map(|shown| shown.mark.clone()).collect();
    if meant.is_empty() {
        let error = match &wanted {
            Some(backends) => {
                format!("no mark of {typed:?} itself drains {backends}: lookaside marks lists all")
            }
            None => format!("no mark drains backends of {typed:?}: lookaside marks lists all"),
        };
        return Err(Problem(StatusCode::NOT_FOUND, error));
    }
    let obeyed = state.end(&meant, &order).await?;
    let ended = meant.iter().map(|mark| json::Mark::new(mark, "over", 0)).collect();
    Ok(Json(json::UndrainAnswer { ended, obeyed, still: still_drained(state, &meant) }))
}

/// Returns other marks that still keep out the backends of the ended marks.
fn still_drained(state: &State, ended: &[Arc<Mark>]) -> Vec<json::Mark> {
    let ended = Marks::new(ended.iter().cloned());
    let mut others = BTreeMap::new();
    for service in state.catalog.services() {
        let ended = ended.for_service(&service.name);
        for endpoint in service.endpoints.iter().filter(|one| ended.drain(one).is_some()) {
            if let Some(mark) = service.marks.drain(endpoint) {
                others.entry(mark.key.clone()).or_insert((mark.clone(), 0)).1 += 1;
            }
        }
    }
    let others = others.into_values();
    others.map(|(mark, kept_out)| json::Mark::new(&mark, "in force", kept_out)).collect()
}

/// Drops a service's held backends, here and at every replica.
pub(super) async fn release(state: &State, request: Request) -> JsonResult<json::Released> {
    let (typed, order) = request.read("lookaside release", RELEASE).await?;
    let (snapshot, _) = api::find(state, &typed)?;
    let name = &snapshot.name;
    let released = state.catalog.liveness().held_in(name);
    let order = json::Order { lasts: None, ..order };
    let mut mark = state.mark(MarkKey::Release(name.canonical()), order)?;
    mark.value.until = mark.value.set.map(|set| set.after(RELEASE_LASTS));
    state.audit("sets", &mark);
    let written = match &state.marks.writer {
        Some(writer) => writer.set(&mark).await.map_err(|EtcdError(reason)| reason),
        None => Err("there is no etcd".to_owned()),
    };
    let untold = match written {
        Ok(()) => None,
        Err(reason) => {
            // Without etcd, the release acts here: backends are often held because etcd
            // failed.
            let input = Input::Release(name.canonical(), Duration::ZERO);
            let said = state.inputs.send_timeout(input, api::INPUT_TIMEOUT).await;
            said.map_err(|_| Problem(StatusCode::SERVICE_UNAVAILABLE, "try again".to_owned()))?;
            Some(reason)
        }
    };
    let Value { by, why, .. } = &mark.value;
    tracing::info!(service = %name, released, by, why, untold, "operator releases held backends");
    Ok(Json(json::Released { service: name.to_string(), released, untold }))
}

/// Returns how many backends each mark keeps out.
pub(super) fn kept_out(state: &State) -> BTreeMap<MarkKey, usize> {
    let mut counts = BTreeMap::new();
    for service in state.catalog.services().iter().filter(|one| !one.marks.drains_nothing()) {
        for mark in service.endpoints.iter().filter_map(|one| service.marks.drain(one)) {
            *counts.entry(mark.key.clone()).or_default() += 1;
        }
    }
    counts
}

/// Returns how many backends of a service are drained, by marks or by themselves.
pub(super) fn drained(service: &Service) -> usize {
    let is_drained = |one: &&Endpoint| one.is_lame_duck() || service.marks.drain(one).is_some();
    service.endpoints.iter().filter(is_drained).count()
}

/// Returns the service of a name, or all services for `*`. With `anyway`, the service
/// need not be registered.
pub(super) fn resolve_scope(
    state: &State,
    typed: &str,
    anyway: bool,
) -> Result<OrderScope, Problem> {
    api::read(state)?;
    if typed == "*" {
        return Ok(OrderScope { scope: Scope::Everywhere, services: state.catalog.services() });
    }
    match api::find(state, typed) {
        Ok((service, target)) if !target.selectors_for(&service.name).is_empty() => {
            let Selector { key, value } = &target.selectors_for(&service.name)[0];
            let error = format!(
                "{typed:?} selects backends: name the service alone, and the backends as {key}={value}"
            );
            Err(bad(&error))
        }
        Ok((service, _)) => {
            let scope = Scope::Service(service.name.canonical());
            Ok(OrderScope { scope, services: vec![service] })
        }
        Err(Problem(StatusCode::NOT_FOUND, error)) => match Target::parse(typed, &state.zone) {
            Ok(target) if anyway => {
                let scope = Scope::Service(target.canonical());
                Ok(OrderScope { scope, services: Vec::new() })
            }
            _ => Err(Problem(StatusCode::NOT_FOUND, error)),
        },
        Err(problem) => Err(problem),
    }
}

impl Request {
    /// Returns the service's name and the order.
    pub(super) async fn read(
        self,
        command: &str,
        end: &str,
    ) -> Result<(String, json::Order), Problem> {
        api::no_browser(&self.headers, command)?;
        let path = self.uri.path().strip_suffix(end).unwrap_or_default();
        let typed = api::typed(path)?.into_owned();
        let body = to_bytes(self.body, ORDER_MAX).await.map_err(|_| {
            let error = format!("the order is longer than {ORDER_MAX} bytes, or broke off");
            Problem(StatusCode::PAYLOAD_TOO_LARGE, error)
        })?;
        if body.trim_ascii().is_empty() {
            return Ok((typed, json::Order::default()));
        }
        // Only an object: serde would also read an array, field by field.
        let order = serde_json::from_slice::<serde_json::Map<_, _>>(&body);
        let order =
            order.and_then(|order| json::Order::deserialize(serde_json::Value::Object(order)));
        Ok((typed, order.map_err(|error| bad(&format!("the order is no JSON of one: {error}")))?))
    }
}

impl State {
    /// Makes a mark from an order.
    pub(super) fn mark(&self, key: MarkKey, order: json::Order) -> Result<Mark, Problem> {
        let json::Order { lasts, by, why, percent, .. } = order;
        for (name, text) in [("by", &by), ("why", &why)] {
            if text.len() > TEXT_MAX {
                let length = text.len();
                return Err(bad(&format!(
                    "{name} has {length} bytes: at most {TEXT_MAX} are kept"
                )));
            }
        }
        let now = (self.marks.now)();
        let until = match lasts {
            None => None,
            Some(text) => {
                let lasts = humantime::parse_duration(&text).ok();
                let lasts =
                    lasts.filter(|lasts| (1..=LASTS_MAX.as_secs()).contains(&lasts.as_secs()));
                let lasts = lasts.ok_or_else(|| {
                    bad(&format!("for is {text:?}: expected 1s to 366days, as in 30m or 2h"))
                })?;
                Some(now.after(lasts))
            }
        };
        Ok(Mark { key, value: Value { by, why, set: Some(now), until, percent } })
    }

    /// Checks that a mark can be written.
    pub(super) fn accepts(&self, mark: &Mark, typed: &str) -> Result<(), Problem> {
        if MarkKey::parse(&mark.key.to_string()).as_ref() != Ok(&mark.key) {
            return Err(bad(&format!("{typed:?} can be no part of a mark's key")));
        }
        if self.marks.report.borrow().marks.len() >= KEYS_MAX {
            let error = format!("there are {KEYS_MAX} marks: delete keys below /lookaside/marks/");
            return Err(Problem(StatusCode::CONFLICT, error));
        }
        Ok(())
    }

    pub(super) fn writer(&self) -> Result<&MarkWriter, Problem> {
        let none = || Problem(StatusCode::SERVICE_UNAVAILABLE, "there is no etcd".to_owned());
        self.marks.writer.as_ref().ok_or_else(none)
    }

    /// Ends marks. Returns whether this balancer has read that they are over.
    pub(super) async fn end(
        &self,
        meant: &[Arc<Mark>],
        order: &json::Order,
    ) -> Result<bool, Problem> {
        let writer = self.writer()?;
        let mut done = Vec::new();
        for mark in meant {
            let word = self.mark(mark.key.clone(), order.clone())?;
            let ended = Mark { key: mark.key.clone(), value: word.value.clone() };
            self.audit("ends", &ended);
            if let Err(trouble) = writer.end(&mark.key, word.value).await {
                return Err(unconfirmed(&trouble, &done));
            }
            done.push(mark.key.to_string());
        }
        let by_key: BTreeMap<_, _> = meant.iter().map(|mark| (&mark.key, mark)).collect();
        let is_over = |one: &Arc<Mark>| by_key.get(&one.key).is_none_or(|mark| *mark != one);
        Ok(self.obeys(|all| all.all().all(is_over)).await)
    }

    /// Waits at most [`OBEYED_WITHIN`] until `is` holds for the marks in force here.
    pub(super) async fn obeys(&self, is: impl Fn(&Marks) -> bool) -> bool {
        let mut marks = self.catalog.watch_marks();
        let obeyed = marks.wait_for(|marks| is(marks));
        tokio::time::timeout(OBEYED_WITHIN, obeyed).await.is_ok_and(|obeyed| obeyed.is_ok())
    }
}

/// Returns how many marks of each kind are in force, for the metrics.
pub(super) fn counts(report: &Report) -> [(Kind, usize); Kind::ALL.len()] {
    Kind::ALL.map(|kind| {
        let of_kind = |shown: &&MarkStatus| shown.mark.key.kind() == kind && shown.is_in_force();
        (kind, report.marks.iter().filter(of_kind).count())
    })
}

/// Returns the answer after a failed call. The call may still have had its effect, unless
/// etcd denied it.
pub(super) fn unconfirmed(EtcdError(reason): &EtcdError, done: &[String]) -> Problem {
    let done = match done {
        [] => String::new(),
        done => format!("; ended: {}", done.join(", ")),
    };
    let error = match is_denial(reason) {
        true => format!(
            "nothing more is changed: the user that lookaside logs in to etcd with needs the \
             right to write below /lookaside/marks/: {reason}{done}"
        ),
        false => format!(
            "etcd does not confirm the mark, so it may be set or not: look at `lookaside marks`, \
             and try again: {reason}{done}"
        ),
    };
    Problem(StatusCode::SERVICE_UNAVAILABLE, error)
}

pub(super) fn bad(error: &str) -> Problem {
    Problem(StatusCode::BAD_REQUEST, error.to_owned())
}
