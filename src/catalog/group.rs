//! The services whose names have one canonical form, and the spellings clients ask for.
//!
//! In: services, from the catalog's writer. Out: what each spelling means, for its
//! subscribers. It decides what a spelling means and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::facts::demand::Demand;
use crate::facts::factor::Factor;
use crate::marks::ServiceMarks;
use crate::model::{ServiceName, name};
use crate::settings::{ServiceSettings, ZoneTable};

use super::empty::{EmptyService, EmptyState};
use super::topic::{Rounds, Topic, TurnGroup};
use super::urgency::Urgency;
use super::{Facts, Known, Service, Zones};

/// The services that share a canonical name (nearly always one), and the spellings of it
/// that clients ask for.
pub(super) struct Group {
    /// The settings of every service in the group: patterns are compared with the canonical
    /// name.
    settings: Arc<ServiceSettings>,
    /// The marks about every service in the group.
    marks: ServiceMarks,
    /// The services, sorted by name.
    pub(super) services: Vec<Arc<Service>>,
    topics: BTreeMap<Arc<str>, Spelling>,
    /// The turn group that all topics share, once there is a topic.
    turn_group: Option<Arc<TurnGroup<Known>>>,
    /// Set while there is no service.
    empty: Option<Box<EmptyState>>,
}

/// A spelling, and the number of its subscriptions.
struct Spelling {
    topic: Arc<Topic<Known>>,
    subscriptions: usize,
}

impl Group {
    pub(super) fn new(settings: Arc<ServiceSettings>, marks: ServiceMarks) -> Self {
        Self {
            settings,
            marks,
            services: Vec::new(),
            topics: BTreeMap::new(),
            turn_group: None,
            empty: None,
        }
    }

    /// Sets the settings and the table of zones. Returns whether they changed for the group;
    /// then each service gets a new value, numbered by `version`, with the `share` of its
    /// ramp.
    pub(super) fn set_settings(
        &mut self,
        settings: Arc<ServiceSettings>,
        table: &Arc<ZoneTable>,
        version: impl FnMut() -> u64,
        mut share: impl FnMut(&ServiceName, &ServiceSettings) -> Option<Factor>,
    ) -> bool {
        let moved = |service: &Arc<Service>| {
            let zones = &service.facts.zones;
            Zones::next(zones.as_ref(), &settings, table) != *zones
        };
        let changed = self.settings != settings || self.services.iter().any(moved);
        if changed {
            self.settings = settings.clone();
            self.renew(version, |service| Facts {
                ramp_share: share(&service.name, &settings),
                zones: Zones::next(service.facts.zones.as_ref(), &settings, table),
                ..service.facts.clone()
            });
        }
        changed
    }

    /// Sets the marks, as [`Self::set_settings`] sets the settings.
    pub(super) fn set_marks(&mut self, marks: ServiceMarks, version: impl FnMut() -> u64) -> bool {
        let changed = self.marks != marks;
        if changed {
            self.marks = marks;
            self.renew(version, |service| service.facts.clone());
        }
        changed
    }

    /// Sets the demand of a service's clients, if the service has zones. Returns whether it
    /// changed.
    pub(super) fn set_demand(
        &mut self,
        service: &ServiceName,
        demand: Arc<Demand>,
        mut version: impl FnMut() -> u64,
    ) -> bool {
        let Ok(at) = self.find(service) else { return false };
        let service = &mut self.services[at];
        let Some(zones) = service.facts.zones.clone().filter(|zones| zones.demand != demand) else {
            return false;
        };
        let zones = Some(Arc::new(Zones { demand, ..(*zones).clone() }));
        let new = (**service).clone().numbered(version());
        *service = Arc::new(new.with_facts(Facts { zones, ..service.facts.clone() }));
        true
    }

    fn renew(
        &mut self,
        mut version: impl FnMut() -> u64,
        mut facts: impl FnMut(&Service) -> Facts,
    ) {
        for service in &mut self.services {
            let (settings, marks) = (self.settings.clone(), self.marks.clone());
            let snapshot = service.snapshot.clone();
            let new = Service::new(version(), snapshot, settings).with_marks(marks);
            *service = Arc::new(new.with_facts(facts(service)));
        }
    }

    /// Returns the service that a spelling means: the best match, and among equal matches
    /// the first by name, so that every replica decides the same.
    pub(super) fn known(&self, typed: &str) -> Known {
        // If there is one service, each spelling of this group means it.
        if let [only] = &*self.services {
            return Known::Present(only.clone());
        }
        let rank = |service: &&Arc<Service>| name::matches(typed, &service.name);
        let matching = self.services.iter().filter(|service| rank(service).is_some());
        match matching.min_by_key(rank) {
            Some(service) => Known::Present(service.clone()),
            None => Known::Absent(self.settings.clone()),
        }
    }

    /// Subscribes to a spelling. A subscriber that is `served` has a service by another
    /// reading of its name.
    pub(super) fn subscribe(
        &mut self,
        typed: &Arc<str>,
        served: bool,
        synced: bool,
        now: Instant,
    ) -> Arc<Topic<Known>> {
        // The streams of all spellings are counted only if there may be a warning to log.
        let may_warn = self.empty.as_ref().is_some_and(|empty| empty.may_warn());
        let streams = if may_warn { self.streams() + usize::from(!served) } else { 0 };
        match &mut self.empty {
            Some(empty) => empty.warn(streams),
            // A name with selectors is hardly ever a service's own, so it is not shown as
            // empty.
            None if self.services.is_empty() && !name::selects(typed) => {
                self.empty = Some(Box::new(EmptyState::never_registered(now)));
            }
            None => {}
        }
        if !self.topics.contains_key(typed) {
            let now = if synced { self.known(typed) } else { Known::Syncing };
            let topic = Topic::new(self.turn_group.get_or_insert_default().clone(), now);
            self.topics.insert(typed.clone(), Spelling { topic, subscriptions: 0 });
        }
        let spelling = self.topics.get_mut(typed).expect("it is there or was put there");
        spelling.subscriptions += 1;
        spelling.topic.clone()
    }

    /// Removes one subscription to a spelling.
    pub(super) fn unsubscribe(&mut self, typed: &Arc<str>, now: Instant) {
        if let Some(spelling) = self.topics.get_mut(typed) {
            spelling.subscriptions -= 1;
            if spelling.subscriptions == 0 {
                self.topics.remove(typed);
            }
        }
        if let Some(empty) = &mut self.empty {
            empty.asked = now;
        }
    }

    /// Stores a service's newest value; `None` removes the service. Returns whether it is a
    /// change.
    pub(super) fn put(
        &mut self,
        service: &ServiceName,
        new: Option<Arc<Service>>,
        now: Instant,
    ) -> bool {
        let place = self.find(service);
        let Some(new) = new else {
            let Ok(at) = place else { return false };
            self.services.remove(at);
            if self.services.is_empty() {
                self.empty = Some(Box::new(EmptyState::lost_last_backend(service.clone(), now)));
                self.warn();
            }
            return true;
        };
        let same = |old: &Arc<Service>| {
            let same = old.settings == new.settings && old.marks == new.marks;
            same && old.facts == new.facts && old.endpoints == new.endpoints
        };
        match place {
            Ok(at) if same(&self.services[at]) => return false,
            Ok(at) => self.services[at] = new,
            Err(at) => self.services.insert(at, new),
        }
        if let Some(empty) = self.empty.take() {
            empty.end(now);
        }
        true
    }

    /// Returns a service.
    pub(super) fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.find(name).ok().map(|at| &self.services[at])
    }

    /// Returns the place of a service, or the place where it is missing.
    fn find(&self, name: &ServiceName) -> Result<usize, usize> {
        self.services.binary_search_by(|service| service.name.cmp(name))
    }

    /// Logs once that there is no service and that streams ask for it.
    fn warn(&mut self) {
        let streams = self.streams();
        if let Some(empty) = &mut self.empty {
            empty.warn(streams);
        }
    }

    /// Returns the group as an empty service, if it is empty and its time is not over.
    pub(super) fn shown_empty(&self, canonical: &str, now: Instant) -> Option<EmptyService> {
        let (empty, streams) = (self.empty.as_ref()?, self.streams());
        if streams == 0 && empty.is_over(now) {
            return None;
        }
        Some(EmptyService {
            canonical: canonical.to_owned(),
            name: empty.name.clone(),
            since: empty.since,
            streams,
        })
    }

    fn streams(&self) -> usize {
        self.topics.values().map(|spelling| spelling.topic.streams()).sum()
    }

    /// Publishes to each spelling what it means now.
    pub(super) fn announce(&self, rounds: &mut Rounds<Known>) {
        let mut urgency = Urgency::default();
        for (typed, spelling) in &self.topics {
            let new = self.known(typed);
            spelling.topic.publish(new, |old, new| urgency.is_urgent(old, new), rounds);
        }
    }

    /// Ends every subscription.
    pub(super) fn close(&mut self) {
        std::mem::take(&mut self.topics).values().for_each(|spelling| spelling.topic.close());
    }

    /// Returns whether the group can be removed.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        self.is_bare() && self.empty.as_ref().is_none_or(|empty| empty.is_over(now))
    }

    /// Returns whether the group has neither a service nor a subscription.
    pub(super) fn is_bare(&self) -> bool {
        self.services.is_empty() && self.topics.is_empty()
    }
}
