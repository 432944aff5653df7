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
use crate::model::{Class, ServiceName, Target, Zone};
use crate::policy;
use crate::policy::zones::client_zone;
use crate::settings::WhenEmpty;
use crate::streams::admission::{Admission, Admitted};
use crate::streams::demand::{Demands, Member};
use crate::telemetry::Counters;
use crate::warning_limit::WarningLimit;

use super::assignment::Assignment;
use super::assignments::{Assignments, SharedAssignment, ToSend};
use super::clients::Peer;

/// The names in use.
pub(super) struct Watches {
    zone: Zone,
    catalog: Catalog,
    assignments: Arc<Assignments>,
    admission: Arc<Admission>,
    demands: Arc<Demands>,
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
    /// The name has no backends for this stream. `told` once it was.
    Hopeless {
        told: bool,
    },
    /// The catalog has closed.
    Closed,
}

/// A stream's hold of a name that can mean a service.
pub(super) struct Watched {
    watch: Arc<Watch>,
    listener: Subscriber,
    shared: Option<Arc<SharedAssignment>>,
    /// Set while the service has zones.
    member: Option<Box<Member>>,
    /// Given back when the stream no longer wants the name.
    _admitted: Admitted,
}

/// What a name means now.
pub(super) struct News {
    pub(super) assignment: Arc<Assignment>,
    /// The number of this meaning.
    pub(super) version: u64,
    /// The service that it means, and the revision of its content.
    pub(super) service: Option<(ServiceName, i64)>,
    /// How many endpoints were looked at and encoded.
    pub(super) work: usize,
}

impl Watches {
    pub(super) fn new(
        zone: Zone,
        catalog: Catalog,
        demands: Arc<Demands>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone,
            catalog,
            assignments: Assignments::new(counters.clone()),
            admission: Arc::default(),
            demands,
            counters,
            warnings: Mutex::default(),
            in_use: Mutex::default(),
        })
    }

    /// Returns why a name can mean no service.
    pub(super) fn problem(&self, name: &str) -> Option<String> {
        if name.starts_with("xdstp:") {
            return Some("names with an authority (xdstp://) are not supported".to_owned());
        }
        Target::parse(name, &self.zone).err().map(|error| error.to_string())
    }

    /// Returns one more stream's hold of a name.
    pub(super) fn watch(self: &Arc<Self>, name: &Arc<str>, client: &Peer) -> StreamWatch {
        let hopeless = StreamWatch::Hopeless { told: false };
        let Ok(target) = Target::parse(name, &self.zone) else { return hopeless };
        let Some(watch) = self.shared(name, target) else { return StreamWatch::Closed };
        let Some(admitted) = self.admit(&watch, client) else {
            self.refuse(1, client.addr);
            return hopeless;
        };
        let listener = watch.subscription.listen();
        let watched = Watched { watch, listener, shared: None, member: None, _admitted: admitted };
        StreamWatch::Watched(Box::new(watched))
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

    fn admit(&self, watch: &Watch, client: &Peer) -> Option<Admitted> {
        let mut most = 0;
        if let Known::Present(service) = watch.subscription.known() {
            let class = watch.class(&service, client);
            // The assignment of a whole service is shared by all its clients.
            most = if class.is_whole() { 0 } else { policy::most(&service, &class) };
        }
        self.admission.admit(client.addr, most, 0)
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
            Known::Present(service) => {
                client_zone(&service, &self.target, Some(client.addr.ip()), client.zone.as_deref())
            }
            Known::Absent(_) | Known::Syncing => None,
        }
    }

    /// Returns the class of one of the name's clients. It depends on the service that the
    /// name turns out to mean.
    fn class(&self, service: &Service, client: &Peer) -> Class {
        let address = Some(client.addr.ip());
        policy::class_with_zone(service, &self.target, address, client.zone.as_deref())
    }
}

impl StreamWatch {
    /// Returns what the stream shares with others.
    pub(super) fn shared(&self) -> Option<&Arc<Watch>> {
        match self {
            Self::Watched(watched) => Some(&watched.watch),
            Self::Hopeless { .. } | Self::Closed => None,
        }
    }

    /// Returns what the name means for a client, if that is newer than the last answer;
    /// `None` once the catalog has closed.
    pub(super) fn poll_news(&mut self, client: &Peer, cx: &mut Context<'_>) -> Poll<Option<News>> {
        match self {
            Self::Watched(watched) => watched.poll_news(client, cx),
            Self::Hopeless { told: true } => Poll::Pending,
            Self::Hopeless { told } => {
                *told = true;
                let assignment = Arc::new(Assignment::none());
                Poll::Ready(Some(News { assignment, version: 0, service: None, work: 1 }))
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
            let when_empty = settings.when_empty;
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
                Some(ToSend { assignment: Some(assignment), .. }) => assignment,
                to_send => {
                    let drops = to_send.is_some_and(|to_send| to_send.drops_all);
                    let when_empty = if drops { WhenEmpty::Drop } else { when_empty };
                    Arc::new(Assignment::without_backends(when_empty, client.kind))
                }
            };
            return Poll::Ready(Some(News { assignment, version, service, work }));
        }
    }

    /// Returns what a client gets. A change of a split, or of zones, may put it into another
    /// class.
    fn get(&mut self, service: &Arc<Service>, client: &Peer) -> ToSend {
        match (&self.shared, &service.facts.zones, &self.member) {
            // Without zones, only a split can change the class of a name.
            (Some(shared), None, None)
                if shared.is_of(&service.name)
                    && shared.class().part()
                        == policy::part(service, shared.class(), client.addr.ip()) =>
            {
                shared.get(service)
            }
            _ => self.join_and_get(service, client),
        }
    }

    /// Joins the assignment and the demand of the class that the client has now.
    #[inline(never)]
    fn join_and_get(&mut self, service: &Arc<Service>, client: &Peer) -> ToSend {
        let (class, owner) = (self.watch.class(service, client), &self.watch.owner);
        let has_zones = service.facts.zones.is_some();
        let is_same = |member: &Member| member.is_of(&service.name, class.zone());
        if !has_zones || !self.member.as_deref().is_some_and(is_same) {
            // The former membership ends first.
            self.member = None;
            // Its client never reports, so it counts as the mean of those that do.
            let interval = service.settings.report_interval;
            self.member = has_zones
                .then(|| Box::new(owner.demands.join(&service.name, class.zone(), interval)));
        }
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
