//! The zones of a service's backends, and the split of its calls among them.
//!
//! In: backends with their zones and weights, and the demand of clients. Out: the split, and
//! whether another demand is worth a new one. Pure. However many zones backends name, at most
//! 20 count, so that a split stays small. `zones.rs` has the rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::demand::Demand;
use super::zones::{BACKENDS_MIN, Split, ZoneLoad, is_small, renew};

/// The zones of a service's backends, and the split of the calls of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneShares {
    /// The zones that are large enough to keep their own clients, sorted: at most 20.
    names: Vec<Arc<str>>,
    /// The place of each backend's zone in `names`. The place behind the last is the *pool*:
    /// all other zones, and backends without a zone.
    places: Box<[u8]>,
    /// The load of each zone, and of the pool.
    loads: Vec<ZoneLoad>,
    /// The demand of clients that are in none of these zones.
    unknown: u64,
    split: Split,
}

impl ZoneShares {
    /// Makes the split for backends, each with its zone and its weight. The weight of a
    /// backend that is not listed is 0.
    #[must_use]
    pub fn new(backends: &[(Option<Arc<str>>, u32)], demand: &Demand) -> Self {
        let mut zones: BTreeMap<&Arc<str>, ZoneLoad> = BTreeMap::new();
        let mut whole = 0;
        for (zone, weight) in backends.iter().filter(|one| one.1 > 0) {
            whole += u64::from(*weight);
            if let Some(zone) = zone {
                zones.entry(zone).or_default().add(*weight);
            }
        }
        let large = |(zone, load): (&&Arc<str>, &ZoneLoad)| {
            let is_large = load.backends >= BACKENDS_MIN && !is_small(load.weight, whole);
            is_large.then(|| (*zone).clone())
        };
        let names: Vec<Arc<str>> = zones.iter().filter_map(large).collect();
        let place = |zone: &Option<Arc<str>>| {
            let place = zone.as_ref().and_then(|zone| names.binary_search(zone).ok());
            u8::try_from(place.unwrap_or(names.len())).unwrap_or(u8::MAX)
        };
        let places: Box<[u8]> = backends.iter().map(|(zone, _)| place(zone)).collect();
        let weights = backends.iter().map(|one| one.1).enumerate();
        let loads = loads(&places, weights, names.len());
        let split = Split::best(&[], 0);
        let shares = Self { names, places, loads, unknown: 0, split };
        let (loads, unknown) = shares.loaded(demand);
        let split = Split::best(&loads, unknown);
        Self { loads, unknown, split, ..shares }
    }

    /// Returns the zones that are large enough to keep their own clients, sorted.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Returns the load of each zone, and last that of the pool.
    #[must_use]
    pub fn loads(&self) -> &[ZoneLoad] {
        &self.loads
    }

    /// Returns the split that is in force.
    #[must_use]
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Returns the split among some of the backends only, each with its place among all and
    /// its weight. The demand is taken to be spread like that for all.
    #[must_use]
    pub fn split_among(&self, chosen: impl Iterator<Item = (usize, u32)>) -> Split {
        let mut chosen = loads(&self.places, chosen, self.names.len());
        for (load, whole) in chosen.iter_mut().zip(&self.loads) {
            load.demand = whole.demand;
        }
        Split::best(&chosen, self.unknown)
    }

    /// Returns the place of a zone among the names.
    #[must_use]
    pub fn zone(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|zone| (**zone).cmp(name)).ok()
    }

    /// Returns the place of a backend's zone, by the backend's place among all.
    #[must_use]
    pub fn zone_of(&self, backend: usize) -> usize {
        self.places.get(backend).map_or(self.names.len(), |&place| usize::from(place))
    }

    /// Returns whether the split for this demand is so much better than the one in force that
    /// it is worth new lists. `part` is the part of all balancers' clients that this one has.
    #[must_use]
    pub fn must_renew(&self, demand: &Demand, part: f64) -> bool {
        let (loads, unknown) = self.loaded(demand);
        renew(Some(&self.split), &loads, unknown, part).is_some()
    }

    /// Returns the part of this demand that crosses zones with the split in force, from 0 to
    /// 1. Clients of unknown zones do not count.
    #[must_use]
    pub fn cross(&self, demand: &Demand) -> f64 {
        self.split.cross(&self.loaded(demand).0)
    }

    /// Returns the loads with this demand, and the demand of clients in none of the zones.
    fn loaded(&self, demand: &Demand) -> (Vec<ZoneLoad>, u64) {
        let mut loads = self.loads.clone();
        let mut unknown = demand.unknown;
        loads.iter_mut().for_each(|load| load.demand = 0);
        for (zone, more) in &demand.zones {
            match self.zone(zone) {
                Some(place) => loads[place].demand = *more,
                None => unknown = unknown.saturating_add(*more),
            }
        }
        (loads, unknown)
    }
}

/// Returns the load of each zone and of the pool, without demand.
fn loads(
    places: &[u8],
    backends: impl Iterator<Item = (usize, u32)>,
    zones: usize,
) -> Vec<ZoneLoad> {
    let mut loads = vec![ZoneLoad::default(); zones + 1];
    for (backend, weight) in backends.filter(|one| one.1 > 0) {
        let place = places.get(backend).map_or(zones, |&place| usize::from(place));
        loads[place].add(weight);
    }
    loads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::factor::Factor;
    use super::*;

    fn zoned(all: &[(&str, u32)]) -> Vec<(Option<Arc<str>>, u32)> {
        let zone = |name: &str| (!name.is_empty()).then(|| Arc::from(name));
        all.iter().map(|&(name, weight)| (zone(name), weight)).collect()
    }

    fn demand(zones: &[(&str, u64)], unknown: u64) -> Demand {
        Demand { zones: zones.iter().map(|&(zone, more)| (zone.into(), more)).collect(), unknown }
    }

    #[test]
    fn small_zones_and_backends_without_one_are_a_pool() {
        let backends = [("b", 1), ("a", 2), ("", 1), ("c", 1), ("b", 1), ("a", 2), ("c", 1)];
        let backends = [zoned(&backends), zoned(&[("a", 2), ("b", 2), ("c", 0)])].concat();
        let shares = ZoneShares::new(&backends, &demand(&[("a", 6), ("c", 2), ("x", 1)], 3));
        assert_eq!(shares.names(), [Arc::from("a"), Arc::from("b")]);
        let load = |backends, weight, demand| ZoneLoad { backends, weight, demand };
        assert_eq!(shares.loads(), [load(3, 6, 6), load(3, 4, 0), load(3, 3, 0)]);
        assert_eq!(shares.unknown, 6);
        let places: Vec<_> = (0..10).map(|backend| shares.zone_of(backend)).collect();
        assert_eq!(places, [1, 0, 2, 2, 1, 0, 2, 0, 1, 2]);
        assert_eq!((shares.zone("b"), shares.zone("c")), (Some(1), None));
        // A part of the backends has a split of its own.
        let among = shares.split_among([(1, 2), (5, 2), (7, 2)].into_iter());
        assert_eq!(among.row(0), [1_000_000, 0, 0]);
    }

    #[test]
    fn a_split_is_renewed_when_it_matters() {
        let backends = zoned(&["a", "b"].map(|zone| [(zone, 1); 3]).concat());
        let both = |a, b| demand(&[("a", a), ("b", b)], 0);
        let nothing = ZoneShares::new(&backends, &Demand::default());
        assert_eq!(nothing.split().row(0), [500_000, 500_000, 0]);
        assert!(!nothing.must_renew(&Demand::default(), 1.0));
        assert!(nothing.must_renew(&both(5, 5), 1.0) && nothing.cross(&both(5, 5)) > 0.49);
        let even = ZoneShares::new(&backends, &both(5, 5));
        assert!(!even.must_renew(&both(50, 52), 1.0) && even.must_renew(&both(5, 8), 1.0));
        assert!(even.cross(&both(5, 5)).abs() < 1e-9);
    }

    proptest! {
        /// Whatever zones backends name, at most 20 count, and every client of a zone has the
        /// backends of some.
        #[test]
        fn few_zones_count(
            backends in proptest::collection::vec((0..40_u8, 0..100_u32), 0..200),
            asked in proptest::collection::btree_map(0..40_u8, 0..1_000_u64, 0..40),
        ) {
            let zone = |zone: u8| -> Arc<str> { zone.to_string().into() };
            let zones = asked.into_iter().map(|(name, more)| (zone(name), more)).collect();
            let demand = Demand { zones, unknown: 7 };
            let backends: Vec<_> =
                backends.into_iter().map(|(name, weight)| (Some(zone(name)), weight)).collect();
            let shares = ZoneShares::new(&backends, &demand);
            prop_assert!(shares.names().len() <= 20);
            let weights: u64 = shares.loads().iter().map(|load| load.weight).sum();
            prop_assert_eq!(weights, backends.iter().map(|one| u64::from(one.1)).sum::<u64>());
            for at in 0..shares.names().len() {
                let factors = shares.split().factors(Some(at));
                let serves = |(factor, load): (&Factor, &ZoneLoad)| {
                    *factor != Factor::ZERO && load.weight > 0
                };
                prop_assert!(factors.iter().zip(shares.loads()).any(serves));
            }
            let mut turned = backends.clone();
            turned.reverse();
            let turned = ZoneShares::new(&turned, &demand);
            prop_assert_eq!(turned.split(), shares.split());
        }
    }
}
