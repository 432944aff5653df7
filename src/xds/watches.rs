//! What each name means, shared by the streams that ask for it.
//!
//! In: names as clients type them, and the catalog. Out: for each name one subscription, and
//! the assignments of its class, which streams of other names may share. It holds nothing
//! for names that no stream asks for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::catalog::{Catalog, Known, Service, Subscription};
use crate::clock;
use crate::model::{Class, ClientKind, Target, Zone};
use crate::policy;
use crate::policy::zones::client_zone;
use crate::settings::ServiceSettings;
use crate::streams::admission::{Admission, Admitted};
use crate::telemetry::Counters;
use crate::warning_limit::WarningLimit;

use super::assignment::Assignment;
use super::assignments::Assignments;
use super::clients::Peer;
use super::members::Members;
use super::name_room::{NameRooms, OneName};
use super::resources::{for_client, plain_name};

mod stream_watch;

use stream_watch::Watched;
pub(super) use stream_watch::{News, StreamWatch};

/// A stream with at most so many names takes no room of its connection for those that select
/// nothing. Most streams have one name.
const FEW: usize = 2;

/// The names in use.
pub(super) struct Watches {
    zone: Zone,
    catalog: Catalog,
    assignments: Arc<Assignments>,
    admission: Arc<Admission>,
    names: Arc<NameRooms>,
    members: Arc<Members>,
    counters: Arc<Counters>,
    warnings: Mutex<WarningLimit>,
    in_use: Mutex<HashMap<Arc<str>, Weak<Watch>>>,
}

/// One name, shared by its streams.
pub(super) struct Watch {
    name: Arc<str>,
    target: Target,
    subscription: Subscription,
    owner: Arc<Watches>,
    _room: OneName,
}

/// Why a name cannot be watched.
enum NoWatch {
    /// The catalog has closed.
    Closed,
    /// Too many names are.
    Room,
}

impl Watches {
    pub(super) fn new(
        zone: Zone,
        catalog: Catalog,
        members: Arc<Members>,
        names: &Arc<NameRooms>,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone,
            catalog,
            assignments: Assignments::new(counters.clone()),
            admission: Arc::default(),
            names: names.clone(),
            members,
            counters: counters.clone(),
            warnings: Mutex::default(),
            in_use: Mutex::default(),
        })
    }

    /// Returns the settings of what a name means, as a client must be told them. A name that
    /// can mean no service has those of a service without any: a client that got no listener
    /// would wait for one, some for ever.
    pub(super) fn settings(&self, name: &str, client: ClientKind) -> Arc<ServiceSettings> {
        let Ok(target) = self.target(name) else {
            return for_client(&self.catalog.settings().for_canonical(""), client);
        };
        let known = match self.find(name) {
            Some(watch) => watch.subscription.known(),
            None => self.catalog.lookup(&target),
        };
        let unread = || self.catalog.settings().for_canonical(&target.canonical());
        let settings = known.settings().cloned().unwrap_or_else(unread);
        for_client(&settings, client)
    }

    /// Returns what a name gets that can mean no service; `None` for any other name.
    pub(super) fn invalid(&self, name: &str, client: ClientKind) -> Option<Assignment> {
        self.target(name).err().map(|reason| Assignment::invalid(&reason, client))
    }

    fn target(&self, name: &str) -> Result<Target, String> {
        Target::parse(plain_name(name), &self.zone).map_err(|error| error.to_string())
    }

    fn find(&self, name: &str) -> Option<Arc<Watch>> {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.get(name).and_then(Weak::upgrade)
    }

    /// Returns one more stream's hold of a name, of which the stream has so many.
    pub(super) fn watch(
        self: &Arc<Self>,
        name: &Arc<str>,
        client: &Peer,
        names: usize,
    ) -> StreamWatch {
        let hopeless = |assignment| StreamWatch::Hopeless(Some(Arc::new(assignment)));
        let target = match self.target(name) {
            Ok(target) => target,
            Err(reason) => return hopeless(Assignment::invalid(&reason, client.kind)),
        };
        let addr = client.identity.addr;
        let watch = match self.shared(name, target, addr.ip()) {
            Ok(watch) => watch,
            Err(NoWatch::Closed) => return StreamWatch::Closed,
            Err(NoWatch::Room) => {
                self.refuse(1, addr);
                return hopeless(Assignment::none());
            }
        };
        let Some(admitted) = self.admit(&watch, client, names) else {
            self.refuse(1, addr);
            return hopeless(Assignment::none());
        };
        StreamWatch::Watched(Box::new(Watched::new(watch, admitted)))
    }

    /// Counts names for which there is no room, and logs them at most once a minute.
    pub(super) fn refuse(&self, names: usize, peer: SocketAddr) {
        if names == 0 {
            return;
        }
        self.counters.xds_names_refused.add(names);
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warnings.count(names, clock::now());
        drop(warnings);
        if let Some(names) = due {
            tracing::warn!(%peer, names, "xds clients ask for too many names or selections: these get no backends");
        }
    }

    /// Returns what streams share of a name. Its room is taken for the first of them.
    fn shared(
        self: &Arc<Self>,
        name: &Arc<str>,
        target: Target,
        ip: IpAddr,
    ) -> Result<Arc<Watch>, NoWatch> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = in_use.get(name).and_then(Weak::upgrade) {
            return Ok(watch);
        }
        let room = self.names.name(ip).ok_or(NoWatch::Room)?;
        let subscription = self.catalog.subscribe(&target).ok_or(NoWatch::Closed)?;
        let (name, owner) = (name.clone(), self.clone());
        let watch = Arc::new(Watch { name, target, subscription, owner, _room: room });
        in_use.insert(watch.name.clone(), Arc::downgrade(&watch));
        Ok(watch)
    }

    /// Returns what a name takes of its connection's room; `None` inside if that is nothing.
    /// Returns `None` if there is too little.
    fn admit(&self, watch: &Watch, client: &Peer, names: usize) -> Option<Option<Box<Admitted>>> {
        let mut most = 0;
        if let Known::Present(service) = watch.subscription.known() {
            let class = watch.class(&service, client);
            // The assignment of a whole service is shared by all its clients.
            most = if class.is_whole() { 0 } else { policy::most(&service, &class) };
        }
        if most == 0 && names <= FEW {
            return Some(None);
        }
        Some(Some(Box::new(self.admission.admit(client.identity.addr, most, 0)?)))
    }
}

impl Watch {
    /// Returns the number of the newest meaning.
    pub(super) fn version(&self) -> u64 {
        self.subscription.version()
    }

    /// Returns the zone in which a client is; `None` if it is unknown or does not matter.
    pub(super) fn client_zone(&self, client: &Peer) -> Option<Arc<str>> {
        match self.subscription.known() {
            Known::Present(service) => client_zone(
                &service,
                &self.target,
                Some(client.identity.addr.ip()),
                client.zone.as_deref(),
            ),
            Known::Absent(_) | Known::Syncing => None,
        }
    }

    /// Returns the class of one of the name's clients. It depends on the service that the
    /// name turns out to mean.
    fn class(&self, service: &Service, client: &Peer) -> Class {
        let (address, zone) = (client.identity.addr.ip(), client.zone.as_deref());
        policy::class_with_zone(service, &self.target, address, zone, client.kind.obeys_weights())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut in_use = self.owner.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        // Another watch may have replaced this one since its last stream left.
        if in_use.get(&self.name).is_some_and(|watch| watch.strong_count() == 0) {
            in_use.remove(&self.name);
        }
    }
}
