//! A stream's hold of a name that it wants.
//!
//! In: what the name means, and what is known of the stream's client. Out: the newest assignment
//! of the client's class, when it is new for the stream. It counts the client among those of
//! the service, where anything is counted of them.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use crate::catalog::{Known, Service, Subscriber};
use crate::clock;
use crate::load::Calls;
use crate::model::{ServiceName, Subset};
use crate::policy;
use crate::settings::{ServiceSettings, WhenEmpty};
use crate::streams::admission::Admitted;
use crate::telemetry::Protocol;
use crate::xds::assignment::Assignment;
use crate::xds::assignments::{SharedAssignment, ToSend};
use crate::xds::clients::Peer;
use crate::xds::members::{XdsMember, counts};
use crate::xds::resources::for_client;

use super::Watch;

/// A stream's hold of a name that it wants.
pub(in crate::xds) enum StreamWatch {
    Watched(Box<Watched>),
    /// The name has no backends for this stream. It holds what the client gets in place of
    /// them, until the client has got it.
    Hopeless(Option<Arc<Assignment>>),
    /// The catalog has closed.
    Closed,
}

/// A stream's hold of a name that can mean a service.
pub(in crate::xds) struct Watched {
    watch: Arc<Watch>,
    listener: Subscriber,
    shared: Option<Arc<SharedAssignment>>,
    /// Set while something is counted of the service's clients.
    member: Option<Box<XdsMember>>,
    /// The calls that the client has reported of the name, once it has been counted: they stay
    /// when it is counted otherwise, or no longer.
    calls: Option<Arc<Mutex<Calls>>>,
    /// Whether the client may not ask for what the name means.
    denied: bool,
    /// The settings of what the name means, as the stream knows them.
    settings: Option<Arc<ServiceSettings>>,
    /// Given back when the stream no longer wants the name.
    _admitted: Option<Box<Admitted>>,
}

/// What a name means now.
pub(in crate::xds) struct News {
    pub(in crate::xds) assignment: Arc<Assignment>,
    /// The number of this meaning.
    pub(in crate::xds) version: u64,
    /// The settings of what it means, if the stream does not know them.
    pub(in crate::xds) settings: Option<Arc<ServiceSettings>>,
    /// The service that it means, and the revision of its content.
    pub(in crate::xds) service: Option<(ServiceName, i64)>,
    /// How many endpoints were looked at and encoded.
    pub(in crate::xds) work: usize,
}

impl StreamWatch {
    /// Returns what the stream shares with others.
    pub(in crate::xds) fn shared(&self) -> Option<&Arc<Watch>> {
        match self {
            Self::Watched(watched) => Some(&watched.watch),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns the subset of the backends that the stream's client uses; `None`: all.
    pub(in crate::xds) fn subset(&self) -> Option<Subset> {
        match self {
            Self::Watched(watched) => watched.shared.as_ref()?.class().subset(),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns the calls that the stream's client has reported of the name.
    pub(in crate::xds) fn calls(&self) -> Option<&Arc<Mutex<Calls>>> {
        match self {
            Self::Watched(watched) => watched.calls.as_ref(),
            Self::Hopeless(_) | Self::Closed => None,
        }
    }

    /// Returns what the name means for a client, if that is newer than the last answer;
    /// `None` once the catalog has closed.
    pub(in crate::xds) fn poll_news(
        &mut self,
        client: &Peer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<News>> {
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
    pub(super) fn new(watch: Arc<Watch>, admitted: Option<Box<Admitted>>) -> Self {
        Self {
            listener: watch.subscription.listen(),
            watch,
            shared: None,
            member: None,
            calls: None,
            denied: false,
            settings: None,
            _admitted: admitted,
        }
    }

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
            self.member = None;
            let (name, addr) = (&self.watch.name, client.identity.addr);
            let calls = self.calls.clone().unwrap_or_default();
            let member = owner.members.join(service, &class, addr, name, calls.clone());
            if member.is_some() {
                self.calls = Some(calls);
            }
            self.member = member.map(Box::new);
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
