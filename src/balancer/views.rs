//! The view of each target, shared by its streams.
//!
//! In: targets, snapshots and clients' addresses. Out: for each target one subscription, and
//! for each of its streams the list of its class, which streams of other targets may share. A
//! target has more than one class only where clients are split, prefer their own zone, or get a
//! part of the backends. It holds nothing for targets that no stream asks for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::catalog::{Catalog, Known, Service, Subscriber, Subscription};
use crate::load::Calls;
use crate::model::{Class, Subset, Target};
use crate::placements::{CellMember, KeyMember, Placements};
use crate::policy;
use crate::policy::zones::client_zone;
use crate::streams::admission::{Admission, Admitted};
use crate::streams::demand::{Demands, Member};
use crate::streams::rates::{RateMember, Rates};
use crate::telemetry::Counters;

use super::lists::{ListToSend, Lists, StreamList};

/// The views in use.
pub(super) struct Views {
    catalog: Catalog,
    lists: Arc<Lists>,
    admission: Arc<Admission>,
    demands: Arc<Demands>,
    placements: Arc<Placements>,
    rates: Arc<Rates>,
    in_use: Mutex<HashMap<Target, Weak<View>>>,
}

/// The view of one target, shared by its streams.
pub(super) struct View {
    target: Target,
    subscription: Subscription,
    owner: Arc<Views>,
}

/// A stream's hold of what it shares with others.
pub(super) struct StreamView {
    view: Arc<View>,
    list: Option<StreamList>,
    /// Given back when the stream ends.
    admitted: Option<Box<Admitted>>,
    /// Set while the service has zones or cells, bounds keys, or sheds calls by overload.
    member: Option<Box<Membership>>,
}

/// What the balancer counts of a stream's client. Each part is in a box, so that a stream pays
/// only for what counts.
struct Membership {
    /// Set while the service has zones.
    demand: Option<Box<Member>>,
    /// Set while the client gets a part of the service's backends.
    cell: Option<Box<CellMember>>,
    /// Set while the client has a key, and the service bounds what a backend gets of the keys.
    key: Option<Box<KeyMember>>,
    /// Set while the service sheds calls by overload.
    rate: Option<Box<RateMember>>,
}

impl Views {
    pub(super) fn new(catalog: Catalog, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            lists: Lists::new(counters),
            admission: Arc::default(),
            demands: Arc::default(),
            placements: Arc::default(),
            rates: Arc::default(),
            in_use: Mutex::default(),
        })
    }

    /// Returns the demand of the clients of services with zones.
    pub(super) fn demands(&self) -> &Arc<Demands> {
        &self.demands
    }

    /// Returns which cells the clients of services with cells use.
    pub(super) fn placements(&self) -> &Arc<Placements> {
        &self.placements
    }

    /// Returns the calls of clients of services that shed calls by overload.
    pub(super) fn rates(&self) -> &Arc<Rates> {
        &self.rates
    }

    /// Returns the catalog.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns how far over its share the most favoured backend of any list is.
    pub(super) fn excess(&self) -> f32 {
        self.lists.excess()
    }

    /// Returns the view of a target; `None` if the catalog has closed.
    pub(super) fn view(self: &Arc<Self>, target: &Target) -> Option<Arc<View>> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = in_use.get(target).and_then(Weak::upgrade) {
            return Some(view);
        }
        let subscription = self.catalog.subscribe(target)?;
        let view = Arc::new(View { target: target.clone(), subscription, owner: self.clone() });
        in_use.insert(target.clone(), Arc::downgrade(&view));
        Some(view)
    }
}

impl View {
    /// Returns what the target means now.
    pub(super) fn known(&self) -> Known {
        self.subscription.known()
    }

    /// Returns the number of the newest meaning.
    pub(super) fn version(&self) -> u64 {
        self.subscription.version()
    }

    /// Returns whether the catalog has closed, so that no further meaning will come.
    pub(super) fn has_closed(&self) -> bool {
        self.subscription.has_closed()
    }

    /// Admits one more stream of a connection. Returns `None` if the lists of classes
    /// with selectors are as large as they may be.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, known: &Known) -> Option<StreamView> {
        let view = self.clone();
        let mut stream_view = StreamView { view, list: None, admitted: None, member: None };
        let admission = &self.owner.admission;
        if let Known::Present(service) = known {
            let class = policy::class(service, &self.target, Some(peer.ip()));
            stream_view.member = self.member(service, &class, peer.ip());
            let class = stream_view.placed(service, class);
            let list = self.owner.lists.join(&service.name, &class);
            if !class.is_whole() {
                let most = policy::most(service, &class);
                stream_view.admitted =
                    Some(Box::new(admission.admit(peer, most, list.others())?));
                list.reserve(most);
            }
            stream_view.list = Some(list);
        } else if !self.target.selectors.is_empty() {
            // There is no list yet, and its length is unknown.
            stream_view.admitted = Some(Box::new(admission.admit(peer, 0, 0)?));
        }
        Some(stream_view)
    }

    /// Returns the membership of one more client of this class; `None` if nothing of it
    /// counts.
    fn member(&self, service: &Service, class: &Class, client: IpAddr) -> Option<Box<Membership>> {
        let demand = service.facts.zones.as_ref().map(|_| {
            let interval = service.settings.report_interval;
            Box::new(self.owner.demands.join(&service.name, class.zone(), interval))
        });
        let cell = policy::subset::divides(service, class)
            .then(|| Box::new(self.owner.placements.join(service, class.zone(), client)));
        let key = policy::bounds_keys(service, class)
            .then(|| Box::new(self.owner.placements.join_key(service, class)));
        let shed = service.settings.shed.is_on();
        let rate = shed.then(|| Box::new(self.owner.rates.join(&service.name)));
        let counts = demand.is_some() || cell.is_some() || key.is_some() || rate.is_some();
        counts.then(|| Box::new(Membership { demand, cell, key, rate }))
    }

    /// Returns the zone of a client at this address; `None` if it is unknown or does not
    /// matter.
    pub(super) fn client_zone(&self, address: IpAddr) -> Option<Arc<str>> {
        match self.known() {
            Known::Present(service) => client_zone(&service, &self.target, Some(address), None),
            Known::Absent(_) | Known::Syncing => None,
        }
    }
}

impl StreamView {
    /// Returns a listener for what the target means.
    pub(super) fn listen(&self) -> Subscriber {
        self.view.subscription.listen()
    }

    /// Returns the list to send to a client, one for all streams of its class; no list if no
    /// backend can be listed. A change of a split, or of zones, may put the client into
    /// another class.
    pub(super) fn list(&mut self, known: &Known, client: IpAddr) -> ListToSend {
        let Known::Present(service) = known else {
            (self.list, self.member) = (None, None);
            return ListToSend::default();
        };
        match (&self.list, counts(service), &self.member) {
            // Else only a split can change the class of a name.
            (Some(list), false, None)
                if list.is_of(&service.name)
                    && list.class().part() == policy::part(service, list.class(), client, true) =>
            {
                list.get(service)
            }
            _ => self.list_anew(service, client),
        }
    }

    /// Joins the list, the demand and the cells of the class that the client has now.
    #[inline(never)]
    fn list_anew(&mut self, service: &Arc<Service>, client: IpAddr) -> ListToSend {
        let view = self.view.clone();
        let class = policy::class(service, &view.target, Some(client));
        let stays = match &self.member {
            Some(member) => member.is_of(service, &class),
            None => !counts(service),
        };
        if !stays {
            // The former membership ends first.
            self.member = None;
            self.member = view.member(service, &class, client);
        }
        let class = self.placed(service, class);
        match &self.list {
            Some(list) if list.is_for(&service.name, &class) => list.get(service),
            former => {
                let list = view.owner.lists.join(&service.name, &class);
                former.iter().for_each(|former| list.follow(former));
                self.list.insert(list).get(service)
            }
        }
    }

    /// Returns the class with the subset of the backends that the client uses now, and the
    /// backend of its key.
    fn placed(&self, service: &Service, class: Class) -> Class {
        let Some(member) = &self.member else { return class };
        let subset = member.cell.as_ref().and_then(|cell| cell.subset(service));
        let backend = member.key.as_ref().and_then(|key| key.backend(service));
        class.with_subset(subset).with_backend(backend)
    }

    /// Returns the canonical name that the target means, registered or not.
    pub(super) fn canonical(&self) -> String {
        self.view.target.canonical()
    }

    /// Returns the subset of the backends that the client's list has; `None`: all.
    pub(super) fn subset(&self) -> Option<Subset> {
        self.list.as_ref()?.class().subset()
    }

    /// Counts the calls that the client reports, if they matter.
    pub(super) fn report(&mut self, calls: Calls) {
        if let Some(member) = &mut self.member {
            if let Some(demand) = &mut member.demand {
                demand.report(calls.started);
            }
            if let Some(cell) = &member.cell {
                cell.report(calls.started);
            }
            if let Some(key) = &member.key {
                key.report(calls.started);
            }
            if let Some(rate) = &mut member.rate {
                rate.report(calls);
            }
        }
    }
}

impl Membership {
    /// Returns whether the client still counts where it does.
    fn is_of(&self, service: &Service, class: &Class) -> bool {
        let (name, zone) = (&service.name, class.zone());
        let demand = match &self.demand {
            Some(demand) => service.facts.zones.is_some() && demand.is_of(name, zone),
            None => service.facts.zones.is_none(),
        };
        let divides = policy::subset::divides(service, class);
        let cell = match &self.cell {
            Some(cell) => divides && cell.is_of(name, zone),
            None => !divides,
        };
        let bounds = policy::bounds_keys(service, class);
        let key = match &self.key {
            Some(key) => bounds && key.is_of(service, class),
            None => !bounds,
        };
        let rate = match &self.rate {
            Some(rate) => service.settings.shed.is_on() && rate.is_of(name),
            None => !service.settings.shed.is_on(),
        };
        demand && cell && key && rate
    }
}

/// Returns whether something of the clients of a service may count: their zones, their cells,
/// their keys or their calls.
fn counts(service: &Service) -> bool {
    let by_settings = service.settings.shed.is_on() || service.settings.hash_balance > 0;
    service.facts.zones.is_some() || service.facts.cells.is_some() || by_settings
}

impl Drop for View {
    fn drop(&mut self) {
        let mut in_use = self.owner.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        // Another view may have replaced this one since its last stream left.
        if in_use.get(&self.target).is_some_and(|view| view.strong_count() == 0) {
            in_use.remove(&self.target);
        }
    }
}
