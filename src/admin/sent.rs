//! `/api/v1/clients/{id}`: what one client was sent last.
//!
//! In: the id of a stream, or the address of a client with one stream. Out: the types of `json`,
//! or a `Problem` with its remedy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::api::{Json, JsonResult, Problem};
use super::query::{self, Parameters};
use super::{State, json};
use crate::telemetry::{ClientView, FindSent, Protocol, SentList, SentResources, WantedNames};

/// Returns what a stream was sent, by its protocol and number.
#[derive(Clone)]
pub struct Sent {
    /// Of a BalanceLoad stream.
    pub grpclb: FindSent<SentList>,
    /// Of an xDS stream.
    pub xds: FindSent<SentResources>,
}

/// The path below which streams are asked for by id.
const CLIENTS: &str = "/api/v1/clients/";
/// How many names of a stream are shown without `limit`. A Node.js process may have 10,000.
const NAMES_DEFAULT: usize = 100;

pub(super) async fn client(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::ClientSent> {
    let Parameters { limit, service, .. } = query::parse(uri.query(), &["limit", "service"])?;
    let raw = uri.path().strip_prefix(CLIENTS).unwrap_or_default();
    let typed = percent_decode_str(raw).decode_utf8_lossy();
    let wanted = WantedNames { limit: Some(limit.unwrap_or(NAMES_DEFAULT)), name: service };
    let mut rows = (state.clients)();
    let (protocol, number) = stream(&mut rows, &typed)?;
    let total = rows.len();
    rows.retain(|row| wanted.name.as_ref().is_none_or(|name| **name == *row.name));
    rows.truncate(wanted.limit.unwrap_or(usize::MAX));
    let clients = rows.iter().map(json::Client::from).collect();
    let answer =
        json::ClientSent { total, clients, list: None, types: Vec::new(), names: Vec::new() };
    let gone = || no_stream(&typed);
    Ok(Json(match protocol {
        Protocol::Grpclb | Protocol::Dns => {
            let SentList { entries } = (state.sent.grpclb)(number, &wanted).ok_or_else(gone)?;
            let entries = entries.map(|all| all.iter().map(json::SentEntry::from).collect());
            json::ClientSent { list: entries, ..answer }
        }
        Protocol::Xds => {
            let sent = (state.sent.xds)(number, &wanted).ok_or_else(gone)?;
            json::ClientSent {
                total: sent.total,
                types: sent.types.iter().map(json::SentType::from).collect(),
                names: sent.names.iter().map(json::SentName::from).collect(),
                ..answer
            }
        }
    }))
}

/// Returns the protocol and the number of the stream that a text names, and keeps its rows
/// only.
fn stream(rows: &mut Vec<ClientView>, typed: &str) -> Result<(Protocol, u64), Problem> {
    let peer: Option<SocketAddr> = typed.parse().ok();
    rows.retain(|row| peer.map_or_else(|| json::stream_id(row) == typed, |peer| row.peer == peer));
    let streams: BTreeSet<_> = rows.iter().map(json::stream_id).collect();
    if streams.len() > 1 {
        let streams = streams.into_iter().collect::<Vec<_>>().join(", ");
        let error = format!("the client {typed:?} has several streams: name one of {streams}");
        return Err(Problem(StatusCode::BAD_REQUEST, error));
    }
    rows.first().map(|row| (row.protocol(), row.stream)).ok_or_else(|| no_stream(typed))
}

fn no_stream(typed: &str) -> Problem {
    let error = format!(
        "no stream {typed:?} is open: /api/v1/clients lists the open ones, with the id of each"
    );
    Problem(StatusCode::NOT_FOUND, error)
}
