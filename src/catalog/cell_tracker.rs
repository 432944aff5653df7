//! Follows the number of backends of services that are divided into cells.
//!
//! In: services with their settings, and the time. Out: the [`CellSizes`] of a service, and when they may change without an input.
//! Pure. A service whose settings do not ask for cells costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::cell_count::{CellCount, Span};
use crate::facts::cells::CellGroup;
use crate::model::{Endpoint, ServiceName};
use crate::settings::{ServiceSettings, SubsetMode};

use super::cells::{CellSize, CellSizes, cell_groups};
use super::due_times::DueTimes;
use super::zones::Zones;

/// The cells of all services, followed by the catalog's writer.
#[derive(Debug)]
pub(super) struct CellTracker {
    services: BTreeMap<ServiceName, Followed>,
    due: DueTimes<Instant>,
    wall: fn() -> Duration,
}

#[derive(Debug, Default)]
struct Followed {
    groups: BTreeMap<CellGroup, CellCount>,
    least: u32,
    due: Option<Instant>,
}

/// The shortest time until the next look at the wall clock, which may be set.
const LOOK_AFTER: Duration = Duration::from_secs(1);

impl CellTracker {
    /// Makes a tracker. `wall` returns the time since 1970.
    pub(super) fn new(wall: fn() -> Duration) -> Self {
        Self { services: BTreeMap::new(), due: DueTimes::default(), wall }
    }

    /// Returns whether [`Self::update`] must be called for a service.
    pub(super) fn follows(&self, service: &ServiceName, settings: &ServiceSettings) -> bool {
        settings.subset.mode != SubsetMode::Off || self.services.contains_key(service)
    }

    /// Applies a change of a service or of its settings. Returns its cells; `None` if it is
    /// not divided.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        endpoints: &[Endpoint],
        settings: &ServiceSettings,
        zones: Option<&Zones>,
        now: Instant,
    ) -> Option<Arc<CellSizes>> {
        let mut followed = self.services.remove(service).unwrap_or_default();
        if let Some(due) = followed.due.take() {
            self.due.remove(service, due);
        }
        if endpoints.is_empty() || settings.subset.mode == SubsetMode::Off {
            return None;
        }
        let least = settings.subset.least;
        if followed.least != least {
            // Another size begins anew.
            (followed.least, followed.groups) = (least, BTreeMap::new());
        }
        let least = usize::try_from(least).unwrap_or(usize::MAX);
        let mut former = std::mem::take(&mut followed.groups);
        let (span, left) = Span::of((self.wall)());
        let turn = service.as_str().bytes().fold(0, |turn, byte| turn + u64::from(byte));
        for (group, backends) in sized_groups(endpoints, settings, zones) {
            let count = match former.remove(&group) {
                None => CellCount::new(backends, least, span),
                Some(mut count) => {
                    count.update(backends, least, span, turn);
                    count
                }
            };
            followed.groups.insert(group, count);
        }
        let due = now + left.max(LOOK_AFTER);
        self.due.add(service, due);
        followed.due = Some(due);
        let cells = followed.sizes();
        self.services.insert(service.clone(), followed);
        cells
    }

    /// Returns the services whose cells may change at this moment.
    pub(super) fn ready(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let mut ready = BTreeSet::new();
        while let Some(service) = self.due.pop(now) {
            if let Some(followed) = self.services.get_mut(&service) {
                followed.due = None;
            }
            ready.insert(service);
        }
        ready
    }

    /// Returns when [`Self::ready`] must be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first()
    }

    /// Returns every service that is followed.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }
}

/// Returns the cells of a service that is divided for the first time; `None` if it is not
/// divided.
pub(super) fn divide(
    endpoints: &[Endpoint],
    settings: &ServiceSettings,
    zones: Option<&Zones>,
    span: Span,
) -> Option<Arc<CellSizes>> {
    if settings.subset.mode == SubsetMode::Off {
        return None;
    }
    let least = usize::try_from(settings.subset.least).unwrap_or(usize::MAX);
    let groups = sized_groups(endpoints, settings, zones);
    let count = |(group, backends)| (group, CellCount::new(backends, least, span));
    Followed { groups: groups.map(count).collect(), ..Followed::default() }.sizes()
}

/// Returns the groups of a service's backends, each with its number of backends.
fn sized_groups(
    endpoints: &[Endpoint],
    settings: &ServiceSettings,
    zones: Option<&Zones>,
) -> impl Iterator<Item = (CellGroup, usize)> {
    let (groups, places) = cell_groups(endpoints, settings, zones);
    let mut sizes = vec![0; groups.len()];
    places.iter().for_each(|&place| sizes[usize::from(place)] += 1);
    groups.into_iter().zip(sizes)
}

impl Followed {
    fn sizes(&self) -> Option<Arc<CellSizes>> {
        if self.groups.values().all(|count| count.bits() == 0) {
            return None;
        }
        let size = |(group, count): (&CellGroup, &CellCount)| {
            (group.clone(), CellSize { bits: count.bits(), peak: count.peak() })
        };
        let groups = self.groups.iter().map(size).collect();
        Some(Arc::new(CellSizes { groups }))
    }
}
