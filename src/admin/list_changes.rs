//! Compares the lists of services by the settings in force with those by proposed settings.
//!
//! In: the catalog's values, the open streams, and both settings. Out: the lists that would
//! change. It changes nothing and holds nothing up: it works on values of its own, lets other
//! tasks run after each `SLICE` of work, and ends after `WORK_MAX`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::client_class::class_of;
use super::{State, json};
use crate::catalog::{Liveness, Preview, Proposal, Service, Unknown, preview};
use crate::clock;
use crate::model::{Class, ClientIdentity, Part, Target};
use crate::policy::difference::{Difference, between};
use crate::policy::{self, Decision};
use crate::settings::{ServiceSettings, Settings};
use crate::telemetry::ClientView;

/// The most services in an answer.
const SERVICES_MAX: usize = 50;
/// The most classes of one service that are compared: a name may select anything, so there
/// may be as many as there are clients.
const CLASSES_MAX: usize = 8;
/// The most backends in the change of one list, and in an answer.
const SHARES_MAX: usize = 10;
const ALL_SHARES_MAX: usize = 500;
/// How many endpoints and streams are looked at before other tasks run: less than a
/// millisecond.
const SLICE: usize = 5_000;
/// The work of comparing the patterns with one name, as a number of endpoints.
const MATCHING: usize = 20;
/// How many endpoints are looked at for one document: some seconds of one core, and far more
/// than a registry has.
const WORK_MAX: usize = 20_000_000;

/// The work that is left.
struct Budget {
    left: usize,
    slice: usize,
}

/// A service whose settings or zones would change.
struct Affected {
    /// Its name as registered; without a backend, the canonical name that streams ask for.
    name: String,
    now: Option<Arc<Service>>,
    before: Arc<ServiceSettings>,
    after: Arc<ServiceSettings>,
}

/// What a comparison needs beside a service.
struct Context<'a> {
    state: &'a State,
    settings: &'a Settings,
    liveness: Arc<Liveness>,
    /// Whether held backends may leave now.
    may_expire: bool,
}

/// Returns the lists that would change with the settings `after` in force.
pub(super) async fn compare(
    state: &State,
    before: &Settings,
    after: &Settings,
) -> json::ListChanges {
    let mut budget = Budget { left: WORK_MAX, slice: 0 };
    let affected = affected(state, before, after, &mut budget).await;
    let mut clients = clients(state, &affected, &mut budget).await;
    let status = state.catalog.status();
    let context = Context {
        state,
        settings: after,
        liveness: state.catalog.liveness(),
        may_expire: status.stale.is_none() && status.restored.is_none(),
    };
    let mut all = json::ListChanges {
        services: affected.len(),
        registrants: before.registrants() != after.registrants(),
        ..json::ListChanges::default()
    };
    let mut unchanged = Vec::new();
    let mut shares = ALL_SHARES_MAX;
    for one in affected {
        if budget.left == 0 {
            all.not_compared += 1;
            continue;
        }
        let views = clients.remove(&one.name).unwrap_or_default();
        let lists = context.compare(&one, &views, &mut budget, &mut shares).await;
        if lists.lists.is_empty() && lists.denied == 0 {
            unchanged.push(lists);
        } else {
            all.changed += 1;
            all.first.push(lists);
        }
        all.first.truncate(SERVICES_MAX);
        unchanged.truncate(SERVICES_MAX);
    }
    all.first.append(&mut unchanged);
    all.first.truncate(SERVICES_MAX);
    all
}

/// Returns the services with backends, and the names without, whose settings or zones would
/// change.
async fn affected(
    state: &State,
    before: &Settings,
    after: &Settings,
    budget: &mut Budget,
) -> Vec<Affected> {
    let mut all = Vec::new();
    let moved = before.zones() != after.zones();
    for service in state.catalog.services() {
        budget.spend(MATCHING).await;
        let (now, new) = (service.settings.clone(), after.for_service(&service.name));
        if now != new || (moved && new.zones.are_on()) {
            let name = service.name.to_string();
            all.push(Affected { name, now: Some(service), before: now, after: new });
        }
    }
    for empty in state.catalog.empty_services() {
        budget.spend(MATCHING).await;
        let [now, new] = [before, after].map(|all| all.for_canonical(&empty.canonical));
        if now != new {
            let name = empty.canonical;
            all.push(Affected { name, now: None, before: now, after: new });
        }
    }
    all
}

/// Returns the open streams of these services, by the name of each service.
async fn clients(
    state: &State,
    affected: &[Affected],
    budget: &mut Budget,
) -> HashMap<String, Vec<ClientView>> {
    let mut found: HashMap<String, Vec<ClientView>> =
        affected.iter().map(|one| (one.name.clone(), Vec::new())).collect();
    if found.is_empty() {
        return found;
    }
    for view in (state.clients)() {
        budget.spend(1).await;
        let name = match &view.service {
            Some(service) => service.to_string(),
            None => match Target::parse(&view.name, &state.zone) {
                Ok(target) => target.canonical(),
                Err(_) => continue,
            },
        };
        if let Some(views) = found.get_mut(&name) {
            views.push(view);
        }
    }
    found
}

impl Context<'_> {
    async fn compare(
        &self,
        one: &Affected,
        views: &[ClientView],
        budget: &mut Budget,
        shares: &mut usize,
    ) -> json::ServiceLists {
        let denied = |view: &&ClientView| {
            let client = ClientIdentity { addr: view.peer, certificate: view.certificate.clone() };
            one.before.clients.may_ask(&client) && !one.after.clients.may_ask(&client)
        };
        let mut lists = json::ServiceLists {
            service: one.name.clone(),
            clients: views.len(),
            denied: views.iter().filter(denied).count(),
            lists: Vec::new(),
            more_classes: 0,
            unknown: Vec::new(),
        };
        let preview = one.now.as_ref().map(|now| self.preview(now, one));
        let unknown = preview.as_ref().map_or(&[][..], |preview| &preview.unknown);
        lists.unknown = unknown.iter().map(ToString::to_string).collect();
        let (old, new) =
            (one.now.as_deref(), preview.as_ref().and_then(|one| one.service.as_ref()));
        // Only the balancer can tell which cell a client would get.
        let placed = !unknown.contains(&Unknown::Cells);
        let mut classes: BTreeMap<[Class; 2], usize> = BTreeMap::new();
        for view in views {
            budget.spend(1).await;
            let class = |service: Option<&Service>| match service {
                Some(service) => {
                    let subset = view.subset.filter(|_| placed && service.facts.cells.is_some());
                    self.class(service, view).with_subset(subset)
                }
                None => Class::default(),
            };
            *classes.entry([class(old), class(new)]).or_default() += 1;
        }
        let plain = classes.remove(&<[Class; 2]>::default()).unwrap_or(0);
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|one| std::cmp::Reverse(one.1));
        classes.insert(0, (Default::default(), plain));
        lists.more_classes = classes.len().saturating_sub(CLASSES_MAX);
        for ([before, after], clients) in classes.into_iter().take(CLASSES_MAX) {
            budget.spend(2 * old.map_or(0, |old| old.endpoints.len())).await;
            let decide = |service: Option<&Service>, class| {
                service.map(|service| policy::decide(service, class))
            };
            let (old_picks, new_picks) = (decide(old, &before), decide(new, &after));
            let difference = between(side(old, &old_picks), side(new, &new_picks));
            let class = match [&before, &after].map(label) {
                [before, after] if before == after => before,
                [before, after] => format!("{before} -> {after}"),
            };
            lists.lists.extend(list_change(class, clients, &difference, one, shares));
        }
        lists
    }

    fn preview(&self, service: &Service, one: &Affected) -> Preview {
        let proposal = Proposal {
            settings: one.after.clone(),
            zones: self.settings.zones(),
            liveness: &self.liveness,
            may_expire: self.may_expire,
            now: clock::now(),
            wall: clock::wall(),
        };
        preview(service, &proposal)
    }

    /// Returns the class of a client of a service, besides its subset.
    fn class(&self, service: &Service, view: &ClientView) -> Class {
        let target = Target::parse(&view.name, &self.state.zone);
        class_of(service, &target.unwrap_or_else(|_| Target::exactly(&view.name)), view)
    }
}

fn side<'a>(
    service: Option<&'a Service>,
    decision: &'a Option<Decision>,
) -> Option<(&'a Service, &'a Decision)> {
    service.zip(decision.as_ref())
}

/// Returns what would change for the clients of a class, if anything would.
fn list_change(
    class: String,
    clients: usize,
    difference: &Difference,
    one: &Affected,
    shares: &mut usize,
) -> Option<json::ListChange> {
    let instead = |empty: bool, settings: &ServiceSettings| {
        empty.then(|| settings.when_empty.as_str().to_owned())
    };
    let (before, after) = difference.is_empty;
    let (before, after) = (instead(before, &one.before), instead(after, &one.after));
    let when_empty = (before != after).then_some(json::FromTo { before, after });
    if difference.is_none() && when_empty.is_none() {
        return None;
    }
    let joins = difference.shares.iter().filter(|one| one.joins()).count();
    let leaves = difference.shares.iter().filter(|one| one.leaves()).count();
    let shown = difference.shares.len().min(SHARES_MAX).min(*shares);
    *shares -= shown;
    let first = difference.shares.iter().take(shown);
    Some(json::ListChange {
        class,
        clients,
        joins,
        leaves,
        moves: difference.shares.len() - joins - leaves,
        shares: first
            .map(|one| json::ShareChange {
                backend: one.backend.to_string(),
                before: one.before,
                after: one.after,
            })
            .collect(),
        drops: difference.drop_percent.map(|(before, after)| json::FromTo { before, after }),
        when_empty,
    })
}

/// Returns a class as text for people.
fn label(class: &Class) -> String {
    let selectors = class.selectors().iter().map(|one| format!("{}={}", one.key, one.value));
    let mut parts: Vec<String> = selectors.collect();
    parts.extend(class.key().map(|key| format!("hash={key}")));
    parts.extend(class.zone().map(|zone| format!("zone {zone}")));
    parts.extend(match class.part() {
        Part::Both => None,
        Part::Canaries => Some("canaries only".to_owned()),
        Part::Others => Some("no canaries".to_owned()),
    });
    parts.extend(class.subset().map(|subset| format!("cells {subset}")));
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

impl Budget {
    /// Counts work, and lets other tasks run after each slice.
    async fn spend(&mut self, work: usize) {
        self.left = self.left.saturating_sub(work);
        self.slice += work;
        if self.slice >= SLICE {
            self.slice = 0;
            tokio::task::yield_now().await;
        }
    }
}
