//! Sets and ends the marks about clients: sheds and fallbacks.
//!
//! In: requests. Out: the types of `json`, and keys in etcd, which every balancer of the
//! zone follows. It refuses an order that would do nothing.

use std::sync::Arc;

use axum::http::StatusCode;

use super::api::{Json, JsonResult, Problem};
use super::marks::{OrderScope, Request, bad, resolve_scope, unconfirmed};
use super::{State, json};
use crate::marks::report::MarkStatus;
use crate::marks::{Clients, Mark, MarkKey};
use crate::model::ServiceName;

/// The ends of the paths that set and end these marks, after a service's name.
pub(super) const SHED: &str = "/shed";
pub(super) const UNSHED: &str = "/unshed";
pub(super) const FALLBACK: &str = "/fallback";
pub(super) const UNFALLBACK: &str = "/unfallback";

/// Sheds calls: sets a mark by which clients drop a part of them.
pub(super) async fn shed(state: &State, request: Request) -> JsonResult<json::ClientMarkAnswer> {
    let (typed, order) = request.read("lookaside shed", SHED).await?;
    if order.percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
        let percent = order.percent.unwrap_or_default();
        let error = format!("percent is {percent}: expected 1 to 100; unshed ends it");
        return Err(bad(&error));
    }
    let clients = clients(&order)?.unwrap_or(Clients::All);
    let OrderScope { scope, services } = resolve_scope(state, &typed, order.anyway)?;
    let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
    set(state, &typed, MarkKey::Shed(scope, clients), order, &names).await
}

/// Sends clients to the addresses that they have from DNS.
pub(super) async fn fallback(
    state: &State,
    request: Request,
) -> JsonResult<json::ClientMarkAnswer> {
    let (typed, order) = request.read("lookaside fallback", FALLBACK).await?;
    let OrderScope { scope, services } = resolve_scope(state, &typed, order.anyway)?;
    let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
    set(state, &typed, MarkKey::Fallback(scope), order, &names).await
}

/// Ends sheds of a service: all, or those for some clients.
pub(super) async fn unshed(state: &State, request: Request) -> JsonResult<json::UndrainAnswer> {
    let (typed, order) = request.read("lookaside unshed", UNSHED).await?;
    let wanted = clients(&order)?;
    let OrderScope { scope, .. } = resolve_scope(state, &typed, true)?;
    let is_meant = |key: &MarkKey| match key {
        MarkKey::Shed(of, clients) => {
            *of == scope && wanted.as_ref().is_none_or(|wanted| wanted == clients)
        }
        _ => false,
    };
    end(state, &typed, "sheds calls", is_meant, &order).await
}

/// Ends the fallback of a service.
pub(super) async fn unfallback(state: &State, request: Request) -> JsonResult<json::UndrainAnswer> {
    let (typed, order) = request.read("lookaside unfallback", UNFALLBACK).await?;
    let OrderScope { scope, .. } = resolve_scope(state, &typed, true)?;
    let is_meant = |key: &MarkKey| *key == MarkKey::Fallback(scope.clone());
    end(state, &typed, "sends clients to their fallback", is_meant, &order).await
}

fn clients(order: &json::Order) -> Result<Option<Clients>, Problem> {
    order.clients.as_deref().map(Clients::parse).transpose().map_err(|error| bad(&error))
}

async fn set(
    state: &State,
    typed: &str,
    key: MarkKey,
    order: json::Order,
    services: &[ServiceName],
) -> JsonResult<json::ClientMarkAnswer> {
    if order.backends.is_some() {
        return Err(bad("backends has no meaning here: the mark is about clients"));
    }
    let mark = state.mark(key, order)?;
    state.accepts(&mark, typed)?;
    state.audit("sets", &mark);
    state.writer()?.set(&mark).await.map_err(|trouble| unconfirmed(&trouble, &[]))?;
    let obeyed = state.obeys(|all| all.all().any(|one| **one == mark)).await;
    let asks = |name: Option<&ServiceName>| name.is_some_and(|name| services.contains(name));
    let streams = (state.clients)().iter().filter(|view| asks(view.service.as_ref())).count();
    let mark = json::Mark::new(&mark, "in force", 0);
    Ok(Json(json::ClientMarkAnswer { mark, streams, obeyed }))
}

/// Ends the marks that are meant. `does` says what they do, for the error if there is none.
async fn end(
    state: &State,
    typed: &str,
    does: &str,
    is_meant: impl Fn(&MarkKey) -> bool,
    order: &json::Order,
) -> JsonResult<json::UndrainAnswer> {
    let all = state.marks.report.borrow().marks.clone();
    let in_force = all.iter().filter(|shown| shown.is_in_force() && is_meant(&shown.mark.key));
    let meant: Vec<Arc<Mark>> = in_force.map(|MarkStatus { mark, .. }| mark.clone()).collect();
    if meant.is_empty() {
        let error = format!("no mark of {typed:?} itself {does}: lookaside marks lists all");
        return Err(Problem(StatusCode::NOT_FOUND, error));
    }
    let obeyed = state.end(&meant, order).await?;
    let ended = meant.iter().map(|mark| json::Mark::new(mark, "over", 0)).collect();
    Ok(Json(json::UndrainAnswer { ended, obeyed, still: Vec::new() }))
}
