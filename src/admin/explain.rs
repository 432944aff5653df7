//! `/api/v1/explain`: why a backend is in a client's list, or is not.
//!
//! In: a name, a client, a backend. Out: what each pass found, from the key that
//! registers the backend to the entry in the list.
//! The policy explains its own passes. This file adds the passes before it, from the
//! catalog's state.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};
use tokio::sync::oneshot;

use super::api::{self, Json, JsonResult, Problem};
use super::client_class::class_of;
use super::query::{self, Parameters};
use super::shares::{self, Share};
use super::{State, json, settings};
use crate::catalog::{Input, Origin, OriginsQuery, Service};
use crate::model::{BackendAddr, Class, Endpoint, ServiceName, Target};
use crate::policy::{self, Finding};
use crate::telemetry::ClientView;

/// The backends that are asked for.
enum Wanted {
    All,
    /// One backend: by name, by IP address, or by address and port.
    One {
        text: String,
        ip: Option<IpAddr>,
        addr: Option<SocketAddr>,
    },
}

/// The most backends and streams in one answer. No operator reads more.
const SHOWN_MAX: usize = 1_000;

pub(super) async fn explain(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
) -> JsonResult<json::Explanation> {
    let Parameters { service, client, backend, .. } =
        query::parse(uri.query(), &["service", "client", "backend"])?;
    let Some(typed) = service else {
        let error = "which service? Ask as in ?service=NAME&client=IP:PORT&backend=IP:PORT; \
                     client and backend may be left out";
        return Err(Problem(StatusCode::BAD_REQUEST, error.to_owned()));
    };
    api::read(&state)?;
    let found = match api::find(&state, &typed) {
        Ok((snapshot, _)) => Ok(snapshot),
        Err(Problem(StatusCode::NOT_FOUND, why)) => Err(why),
        Err(problem) => return Err(problem),
    };
    let clients = clients(&state, &typed, found.as_deref().ok(), client.as_deref());
    // The client's own name may have other selectors.
    let name = clients.first().map_or_else(|| typed.clone(), |client| client.name.to_string());
    let no_client = client.filter(|_| clients.is_empty()).map(|client| {
        format!(
            "no stream of {client} that asks for {typed:?} is open here: it may be at another \
             replica, or not connected; what any client gets is explained{}",
            denied(&state, &typed)
        )
    });
    let wanted = Wanted::new(backend);
    let canonical = match &found {
        Ok(snapshot) => Some(snapshot.name.canonical()),
        Err(_) => Target::parse(&typed, &state.zone).ok().map(|name| name.canonical()),
    };
    let settings = state.catalog.settings();
    let settings = canonical.as_ref().map(|name| settings::in_force_for(&settings, name));
    let status = state.catalog.status();
    let mut explanation = json::Explanation {
        name: name.clone(),
        service: None,
        absent: None,
        selectors: Vec::new(),
        zone: None,
        subset: None,
        overload_shed: 0,
        settings: settings.unwrap_or_default(),
        revision: status.revision,
        silent_seconds: status.last_answer.map(|heard| json::seconds(heard.elapsed())),
        clients: clients.iter().take(SHOWN_MAX).map(json::Client::from).collect(),
        no_client,
        marks: Vec::new(),
        listed: false,
        backends: Vec::new(),
    };
    match found {
        Ok(snapshot) => {
            // The client counts where clients are split, or prefer their own zone.
            let class = |target: Target| match clients.first() {
                Some(client) => class_of(&snapshot, &target, client),
                None => policy::class(&snapshot, &target, None),
            };
            let class = Target::parse(&name, &state.zone).map(class).unwrap_or_default();
            // Only the stream itself knows the part of the backends that it was given.
            let subset = clients.first().and_then(|client| client.subset);
            let all = policy::keys_of(&snapshot, &class);
            let backend =
                class.key().and_then(|key| (state.key_backend)(&snapshot.name, &all, key));
            let class = class.with_subset(subset).with_backend(backend);
            explanation.revision = snapshot.revision;
            explanation.service = Some(snapshot.name.to_string());
            let marks = policy::shed(&snapshot, &class).into_iter();
            let marks = marks.chain(snapshot.marks.fallback());
            explanation.marks = marks.map(|mark| json::Mark::new(mark, "in force", 0)).collect();
            explanation.backends = backends(&state, &snapshot, &class, &wanted).await;
            explanation.selectors = class.selectors().iter().map(json::Selector::from).collect();
            explanation.zone = class.zone().map(ToString::to_string);
            explanation.subset = class.subset().map(|subset| subset.to_string());
            explanation.overload_shed = policy::overload_shed(&snapshot, &class).unwrap_or(0);
        }
        Err(why) => {
            explanation.absent = Some(why);
            let of = |service: &ServiceName| Some(service.canonical()) == canonical;
            explanation.backends = unlisted(&state, of, &wanted);
        }
    }
    let all = &explanation.backends;
    explanation.listed = !all.is_empty() && all.iter().all(|backend| backend.listed);
    Ok(Json(explanation))
}

/// Returns the newest denial of a name, as the end of a sentence.
fn denied(state: &State, typed: &str) -> String {
    let target = Target::parse(typed, &state.zone).ok();
    let denied = target.and_then(|target| state.counters.denials.of(&target.canonical()));
    denied.map_or_else(String::new, |denied| {
        format!(
            "; clients were denied this name {} times, the last was {}, {} s ago: the setting \
             `clients` does not name it",
            denied.times,
            denied.client,
            denied.last.elapsed().as_secs()
        )
    })
}

/// Returns the open streams of a client that ask for the service, the newest first.
fn clients(
    state: &State,
    typed: &str,
    service: Option<&Service>,
    client: Option<&str>,
) -> Vec<ClientView> {
    let Some(client) = client else { return Vec::new() };
    let mut all = (state.clients)();
    all.retain(|view| {
        let asks = match service {
            Some(snapshot) => view.service.as_ref() == Some(&snapshot.name),
            None => *view.name == *typed,
        };
        asks && (view.peer.to_string() == client || view.peer.ip().to_string() == client)
    });
    all.sort_unstable_by_key(|view| std::cmp::Reverse(view.opened));
    all
}

async fn backends(
    state: &State,
    snapshot: &Service,
    class: &Class,
    wanted: &Wanted,
) -> Vec<json::Explained> {
    let shares = shares::of(state, snapshot, class);
    let findings = policy::explain(snapshot, class);
    let meant = snapshot.endpoints.iter().zip(shares).enumerate();
    let meant = meant.filter(|(_, (endpoint, _))| wanted.means(endpoint)).take(SHOWN_MAX);
    let meant: Vec<_> = meant.collect();
    // For all backends at once, the keys would be too long to read.
    let origins = match wanted {
        Wanted::All => HashMap::new(),
        Wanted::One { .. } => {
            let backends = meant.iter().map(|(_, (endpoint, _))| endpoint.addr).collect();
            origins(state, &snapshot.name, backends).await
        }
    };
    let mut explained: Vec<_> = meant
        .into_iter()
        .map(|(place, (endpoint, share))| {
            let origins = origins.get(&endpoint.addr).map_or(&[][..], Vec::as_slice);
            listed(state, snapshot, endpoint, &findings.of(place), share, origins)
        })
        .collect();
    // A held backend may have the name of a key that is not listed.
    if explained.is_empty() || matches!(wanted, Wanted::All) {
        let of = |service: &ServiceName| *service == snapshot.name;
        explained.extend(unlisted(state, of, wanted));
    }
    explained
}

/// Explains a backend of the snapshot, registered or held, with the findings of the
/// policy.
fn listed(
    state: &State,
    service: &Service,
    endpoint: &Endpoint,
    findings: &[Finding<'_>],
    Share { entries, cycle, due, share }: Share,
    origins: &[Origin],
) -> json::Explained {
    let liveness = state.catalog.liveness();
    let held = liveness.held(&service.name, endpoint.addr);
    let registered = match held {
        Some(held) => format!("its registration is gone, and it is kept: {}", held.why.as_str()),
        None if origins.is_empty() => "it is registered".to_owned(),
        None => origins.iter().map(origin).collect::<Vec<_>>().join("; "),
    };
    let mut passes = vec![pass("registered", true, registered)];
    if let Some(host) = origins.iter().find_map(|origin| origin.host.as_deref()) {
        passes.push(pass(
            "resolved",
            true,
            format!("{host} has the address {}", endpoint.addr.ip()),
        ));
    }
    if let Some(answer) = held.and_then(|held| held.answer) {
        passes.push(pass("answers", true, format!("it {}", answer.as_str())));
    }
    passes.extend(
        findings
            .iter()
            .map(|finding| pass(&finding.pass.to_string(), finding.kept, finding.to_string())),
    );
    json::Explained {
        id: endpoint.id.to_string(),
        address: Some(endpoint.addr.to_string()),
        listed: passes.iter().all(|pass| pass.kept),
        passes,
        held: held.map(json::Held::from),
        turns: entries,
        cycle,
        due,
        share,
    }
}

/// Explains backends that are in no list of the service.
fn unlisted(
    state: &State,
    of: impl Fn(&ServiceName) -> bool,
    wanted: &Wanted,
) -> Vec<json::Explained> {
    let mut explained = Vec::new();
    let liveness = state.catalog.liveness();
    for endpoint in liveness.down.iter().filter(|(service, _)| of(service)).flat_map(|(_, all)| all)
    {
        if wanted.means(endpoint) {
            let registered = pass("registered", true, "by a key without a lease".to_owned());
            let why =
                "it refuses connections, and without a lease nothing else tells whether it lives";
            let passes = vec![registered, pass("answers", false, why.to_owned())];
            explained.push(without_share(&endpoint.id, Some(endpoint.addr), passes));
        }
    }
    for one in state.catalog.unresolved().iter().filter(|one| of(&one.service) && one.kept == 0) {
        if wanted.is_called(&one.id) || wanted.is_called(&one.host) {
            let registered = pass("registered", true, format!("by {}", one.key));
            let why = format!("the host name {} does not resolve: {}", one.host, one.error);
            explained.push(without_share(
                &one.id,
                None,
                vec![registered, pass("resolved", false, why)],
            ));
        }
    }
    if let (Wanted::One { text, .. }, true) = (wanted, explained.is_empty()) {
        let passes = vec![pass("registered", false, unregistered(state, wanted, text))];
        explained.push(without_share(text, None, passes));
    }
    explained.truncate(SHOWN_MAX);
    explained
}

/// Returns why no key registers a backend, as far as is known.
fn unregistered(state: &State, wanted: &Wanted, text: &str) -> String {
    let rejected = state.catalog.rejected();
    let speaks_of = |key: &str, value: &str| key.contains(text) || value.contains(text);
    if let Some((key, rejected)) =
        rejected.iter().find(|(key, rejected)| speaks_of(&key.to_string(), &rejected.value))
    {
        return format!("the key {key} cannot be read: {}", rejected.reason);
    }
    let services = state.catalog.services();
    let elsewhere = services
        .iter()
        .filter(|snapshot| snapshot.endpoints.iter().any(|one| wanted.means(one)))
        .map(|snapshot| snapshot.name.as_str())
        .take(3)
        .collect::<Vec<_>>();
    match elsewhere.as_slice() {
        [] => "no key registers it, for this service or any other: is it running, does it \
               register, and below one of the prefixes that are followed?"
            .to_owned(),
        some => format!("it is registered for another service: {}", some.join(", ")),
    }
}

fn without_share(id: &str, addr: Option<BackendAddr>, passes: Vec<json::Pass>) -> json::Explained {
    json::Explained {
        id: id.to_owned(),
        address: addr.map(|addr| addr.to_string()),
        listed: false,
        passes,
        held: None,
        turns: 0,
        cycle: 0,
        due: 0.0,
        share: 0.0,
    }
}

fn pass(name: &str, kept: bool, why: String) -> json::Pass {
    json::Pass { pass: name.to_owned(), kept, why }
}

fn origin(Origin { key, leased, rejected, remarks, .. }: &Origin) -> String {
    let lease = if *leased { "with a lease" } else { "without a lease" };
    let mut text = format!("by {key}, {lease}");
    if let Some(rejected) = rejected {
        text += &format!(
            "; its newest value cannot be read, so the one before counts: {}",
            rejected.reason
        );
    }
    for remark in remarks {
        text += &format!("; {remark}");
    }
    text
}

/// Asks the catalog which keys register these backends; only its one writer knows.
async fn origins(
    state: &State,
    service: &ServiceName,
    backends: HashSet<BackendAddr>,
) -> HashMap<BackendAddr, Vec<Origin>> {
    let (answer, answered) = oneshot::channel();
    let ask = OriginsQuery { service: service.clone(), backends, answer };
    let mut origins: HashMap<_, Vec<_>> = HashMap::new();
    if state.inputs.send_timeout(Input::Origins(ask), api::INPUT_TIMEOUT).await.is_ok() {
        for (addr, origin) in answered.await.unwrap_or_default() {
            let all = origins.entry(addr).or_default();
            // A key may name an address twice.
            if !all.contains(&origin) {
                all.push(origin);
            }
        }
    }
    origins
}

impl Wanted {
    fn new(backend: Option<String>) -> Self {
        match backend {
            None => Self::All,
            Some(text) => Self::One { ip: text.parse().ok(), addr: text.parse().ok(), text },
        }
    }

    /// Returns whether an endpoint is asked for.
    fn means(&self, endpoint: &Endpoint) -> bool {
        let at = endpoint.addr.socket_addr();
        match self {
            Self::All => true,
            Self::One { ip, addr, .. } => {
                self.is_called(&endpoint.id) || *ip == Some(at.ip()) || *addr == Some(at)
            }
        }
    }

    /// Returns whether a backend of this name is asked for.
    fn is_called(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::One { text, .. } => text == name,
        }
    }
}
