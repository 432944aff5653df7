//! What each name means, shared by the streams that ask for it.
//!
//! In: names as clients type them, and the catalog. Out: for each name one subscription, and
//! the assignments of its class, which streams of other names may share. It holds nothing
//! for names that no stream asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use crate::catalog::{Catalog, Known, Service, Subscriber, Subscription};
use crate::clock;
use crate::load::Calls;
use crate::model::{Class, ClientKind, ServiceName, Subset, Target, Zone};
use crate::policy;
use crate::policy::zones::client_zone;
use crate::settings::{ServiceSettings, WhenEmpty};
use crate::streams::admission::{Admission, Admitted};
use crate::telemetry::{Counters, Protocol};
use crate::warning_limit::WarningLimit;

use super::assignment::Assignment;
use super::assignments::{Assignments, SharedAssignment, ToSend};
use super::clients::Peer;
use super::members::{Counted, Members, XdsMember, counts};
use super::resources::{for_client, plain_name};

/// A stream with at most so many names takes no room for those that select nothing, because
/// the number of streams is bounded. Most streams have one name.
const FEW: usize = 2;

/// The names in use.
pub(super) struct Watches {
    zone: Zone,
    catalog: Catalog,
    assignments: Arc<Assignments>,
    admission: Arc<Admission>,
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
}

/// A stream's hold of a name that it wants.
pub(super) enum StreamWatch {
    Watched(Box<Watched>),
    /// The name has no backends for this stream. It holds what the client gets in place of
    /// them, until the client has got it.
    Hopeless(Option<Arc<Assignment>>),
    /// The catalog has closed.
    Closed,
}

/// A stream's hold of a name that can mean a service.
pub(super) struct Watched {
    watch: Arc<Watch>,
    listener: Subscriber,
    shared: Option<Arc<SharedAssignment>>,
    /// Set while something is counted of the service's clients.
    member: Option<Box<XdsMember>>,
    /// The calls of a service that the client had reported when it was last counted anew.
    calls: Option<Box<(ServiceName, Calls)>>,
    /// Whether the client may not ask for what the name means.
    denied: bool,
    /// The settings of what the name means, as the stream knows them.
    settings: Option<Arc<ServiceSettings>>,
    /// Given back when the stream no longer wants the name.
    _admitted: Option<Box<Admitted>>,
}

/// What a name means now.
pub(super) struct News {
    pub(super) assignment: Arc<Assignment>,
    /// The number of this meaning.
    pub(super) version: u64,
    /// The settings of what it means, if the stream does not know them.
    pub(super) settings: Option<Arc<ServiceSettings>>,
    /// The service that it means, and the revision of its content.
    pub(super) service: Option<(ServiceName, i64)>,
    /// How many endpoints were looked at and encoded.
    pub(super) work: usize,
}

impl Watches {
    pub(super) fn new(
        zone: Zone,
        catalog: Catalog,
        members: Arc<Members>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone,
            catalog,
            assignments: Assignments::new(counters.clone()),
            admission: Arc::default(),
            members,
            counters,
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
        let Some(watch) = self.shared(name, target) else { return StreamWatch::Closed };
        let Some(admitted) = self.admit(&watch, client, names) else {
            self.refuse(1, client.identity.addr);
            return hopeless(Assignment::none());
        };
        let listener = watch.subscription.listen();
        StreamWatch::Watched(Box::new(Watched {
            watch,
            listener,
            shared: None,
            member: None,
            calls: None,
            denied: false,
            settings: None,
            _admitted: admitted,
        }))
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

    fn shared(self: &Arc<Self>, name: &Arc<str>, target: Target) -> Option<Arc<Watch>> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = in_use.get(name).and_then(Weak::upgrade) {
            return Some(watch);
        }
        let subscription = self.catalog.subscribe(&target)?;
        let watch =
            Arc::new(Watch { name: name.clone(), target, subscription, owner: self.clone() });
        in_use.insert(name.clone(), Arc::downgrade(&watch));
        Some(watch)
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

impl StreamWatch {
    /// Returns what the stream shares with others.
    pub(super) fn shared(&self) -> Option<&Arc<Watch>> {
        match self {
            Self::Watched(watched) => Some(&watched.watch),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns the subset of the backends that the stream's client uses; `None`: all.
    pub(super) fn subset(&self) -> Option<Subset> {
        match self {
            Self::Watched(watched) => watched.shared.as_ref()?.class().subset(),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns what is counted of the stream's client.
    pub(super) fn counted(&self) -> Option<&Arc<Mutex<Counted>>> {
        match self {
            Self::Watched(watched) => watched.member.as_ref().map(|member| member.counted()),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns what the name means for a client, if that is newer than the last answer;
    /// `None` once the catalog has closed.
    pub(super) fn poll_news(&mut self, client: &Peer, cx: &mut Context<'_>) -> Poll<Option<News>> {
        match self {
            Self::Watched(watched) => watched.poll_news(client, cx),
            Self::Hopeless(assignment) => {
                let Some(assignment) = assignment.take() else { return Poll::Pending };
                let (settings, service) = (None, None);
                Poll::Ready(Some(News { assignment, version: 0, settings, service, work: 1 }))
            }
            Self::Closed => Poll::Ready(None),
        }
    }
}

impl Watched {
    fn poll_news(&mut self, client: &Peer, cx: &mut Context<'_>) -> Poll<Option<News>> {
        loop {
            let Some((version, known)) = ready!(self.listener.poll_known(cx)) else {
                return Poll::Ready(None);
            };
            // An unread registry must not take away what a client has.
            let Some(settings) = known.settings() else { continue };
            if !settings.clients.may_ask(&client.identity) {
                return Poll::Ready(Some(self.deny(version, client)));
            }
            self.denied = false;
            let when_empty = settings.when_empty;
            // Most changes leave them as they are.
            let same = self.settings.as_ref().is_some_and(|old| Arc::ptr_eq(old, settings));
            let news =
                (!same).then(|| for_client(self.settings.insert(settings.clone()), client.kind));
            let (service, to_send) = match &known {
                Known::Present(service) => {
                    let about = (service.name.clone(), service.revision);
                    (Some(about), Some(self.get(service, client)))
                }
                Known::Absent(_) | Known::Syncing => {
                    (self.shared, self.member) = (None, None);
                    (None, None)
                }
            };
            let work = to_send.as_ref().map_or(0, |to_send| to_send.work).max(1);
            let assignment = match to_send {
                Some(ToSend { assignment: Some(assignment), drops_all, .. })
                    if !drops_all || client.kind.obeys_drops() =>
                {
                    assignment
                }
                to_send => {
                    let drops = to_send.is_some_and(|to_send| to_send.drops_all);
                    let when_empty = if drops { WhenEmpty::Drop } else { when_empty };
                    Arc::new(Assignment::without_backends(when_empty, client.kind))
                }
            };
            return Poll::Ready(Some(News { assignment, version, settings: news, service, work }));
        }
    }

    /// Returns what a client gets that may not ask for the name: the same for every name. It
    /// keeps its stream, because clients open another one at once, and is sent the backends
    /// as soon as it may have them.
    fn deny(&mut self, version: u64, client: &Peer) -> News {
        (self.shared, self.member) = (None, None);
        if !std::mem::replace(&mut self.denied, true) {
            let (denials, name) =
                (&self.watch.owner.counters.denials, self.watch.target.canonical());
            denials.add(Protocol::Xds, &name, &client.identity, clock::now());
        }
        let assignment = Arc::new(Assignment::denied(client.kind));
        News { assignment, version, settings: None, service: None, work: 1 }
    }

    /// Returns what a client gets. A change of a split, or of zones, may put it into another
    /// class.
    fn get(&mut self, service: &Arc<Service>, client: &Peer) -> ToSend {
        let part = |class| {
            let (address, weights) = (client.identity.addr.ip(), client.kind.obeys_weights());
            policy::part(service, class, address, weights)
        };
        match (&self.shared, counts(service), &self.member) {
            // Else only a split can change the class of a name.
            (Some(shared), false, None)
                if shared.is_of(&service.name) && shared.class().part() == part(shared.class()) =>
            {
                shared.get(service)
            }
            _ => self.join_and_get(service, client),
        }
    }

    /// Joins the assignment of the class that the client has now, and counts the client in it.
    #[inline(never)]
    fn join_and_get(&mut self, service: &Arc<Service>, client: &Peer) -> ToSend {
        let (class, owner) = (self.watch.class(service, client), &self.watch.owner);
        if !self.member.as_deref().is_some_and(|member| member.is_of(service, &class)) {
            // The former membership ends first.
            let calls = self.member.take().and_then(|member| member.calls(&service.name));
            if let Some(calls) = calls.filter(|calls| *calls != Calls::default()) {
                self.calls = Some(Box::new((service.name.clone(), calls)));
            }
            let calls = self.calls.as_deref().filter(|(of, _)| *of == service.name);
            let calls = calls.map(|(_, calls)| *calls).unwrap_or_default();
            let (name, addr) = (&self.watch.name, client.identity.addr);
            self.member = owner.members.join(service, &class, addr, name, calls).map(Box::new);
        }
        let class = match &self.member {
            Some(member) => member.placed(service, class),
            None => class,
        };
        match &self.shared {
            Some(shared) if shared.is_of(&service.name) && *shared.class() == class => {
                shared.get(service)
            }
            _ => self.shared.insert(owner.assignments.join(&service.name, &class)).get(service),
        }
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
