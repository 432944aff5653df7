//! Zones: decides how many of a zone's calls stay in the zone.
//!
//! In: the weight of the backends and the demand of the clients of each zone. Out: the share
//! of each zone's calls that each zone's backends get, and whether the change is worth a new
//! list. Pure. Every backend gets the same load per unit of weight. Under that condition, as
//! few calls as possible cross zones.
//!
//! The rule is Envoy's zone-aware routing, applied to demand instead of hosts. Each replica
//! splits the demand of its own clients over all backends. So the sum over all replicas is
//! balanced, although they do not communicate. A replica must not take its own demand for
//! that of all replicas.

use super::factor::Factor;

/// A zone with fewer backends than this is *pooled*: it is too small to keep its own clients,
/// because an error in the estimated demand would overload it.
pub(super) const BACKENDS_MIN: usize = 3;
/// A zone with a smaller part of the weight or of the demand is pooled too. In percent.
const PART_MIN: u64 = 5;
/// The published split stays in force while the hottest zone has at most this many times its
/// share of the load, and `CROSS_BAND` holds.
const OVERLOAD_MAX: f64 = 1.05;
/// The published split stays in force while at most this part of the calls crosses zones
/// beyond what the best split needs. These two rules look at the effect of a split. Rules
/// that look at its entries need more changes for the same balance.
const CROSS_BAND: f64 = 0.05;

const MILLION: f64 = 1e6;

/// The load of a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZoneLoad {
    /// The number of its backends that may be listed.
    pub backends: usize,
    /// The sum of their weights.
    pub weight: u64,
    /// The calls that its clients start, dropped calls included, in thousandths of calls per
    /// second (or any other unit that all zones share). The caller smooths it over 90 s:
    /// over 60 s there are half as many changes again, and the balance is no better. A client
    /// that has not reported counts as the mean client.
    pub demand: u64,
}

impl ZoneLoad {
    pub(super) fn add(&mut self, weight: u32) {
        self.backends += 1;
        self.weight += u64::from(weight);
    }
}

/// Returns whether a zone's part of the weight or of the demand is too small for the zone to
/// keep its own clients.
pub(super) fn is_small(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 < u128::from(whole) * u128::from(PART_MIN) || part == 0
}

/// The share of each zone's calls that each zone's backends get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// By the client's zone, then by the backend's zone, in millionths.
    rows: Vec<Vec<u32>>,
    /// The shares of clients whose zone is unknown.
    even: Vec<u32>,
    /// The weight of each zone when the split was computed.
    weights: Vec<u64>,
}

impl Split {
    /// Returns the best split. `unknown` is the demand of clients whose zone is unknown;
    /// they use all zones evenly.
    #[must_use]
    pub fn best(zones: &[ZoneLoad], unknown: u64) -> Self {
        let weight: u64 = zones.iter().map(|zone| zone.weight).sum();
        let demand: u64 = zones.iter().map(|zone| zone.demand).sum();
        // Clients of pooled zones use all backends, and all clients use the backends of
        // pooled zones.
        let is_pooled = |zone: &ZoneLoad| {
            let few = zone.backends < BACKENDS_MIN;
            few || is_small(zone.weight, weight) || is_small(zone.demand, demand)
        };
        let pooled: Vec<bool> = zones.iter().map(is_pooled).collect();
        let part = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let sum = |value: fn(&ZoneLoad) -> u64| -> u64 {
            zones.iter().zip(&pooled).filter(|one| *one.1).map(|one| value(one.0)).sum()
        };
        let pooled_weight = part(sum(|zone| zone.weight), weight);
        let spread = part(sum(|zone| zone.demand) + unknown, demand + unknown);
        let even: Vec<f64> = zones.iter().map(|zone| part(zone.weight, weight)).collect();
        // The load that remains for zones that are not pooled, and their demand for it.
        let room = |at: usize| even[at] * (1.0 - spread);
        let wants = |at: usize| part(zones[at].demand, demand + unknown) * (1.0 - pooled_weight);
        let spare = |at: usize| if pooled[at] { 0.0 } else { (room(at) - wants(at)).max(0.0) };
        let mut spares: Vec<f64> = (0..zones.len()).map(spare).collect();
        // The sum must not depend on the order of the zones.
        spares.sort_unstable_by(f64::total_cmp);
        let all_spare: f64 = spares.iter().sum();
        let row = |from: usize| -> Vec<f64> {
            if pooled[from] {
                return even.clone();
            }
            let local = if all_spare > 0.0 { (room(from) / wants(from)).min(1.0) } else { 1.0 };
            let share = |to: usize| match to {
                _ if pooled[to] => even[to],
                _ if to == from => (1.0 - pooled_weight) * local,
                _ if all_spare > 0.0 => {
                    (1.0 - pooled_weight) * (1.0 - local) * spare(to) / all_spare
                }
                _ => 0.0,
            };
            (0..zones.len()).map(share).collect()
        };
        let round = |shares: Vec<f64>| -> Vec<u32> {
            shares.into_iter().map(|share| (share * MILLION).round() as u32).collect()
        };
        Self {
            rows: (0..zones.len()).map(row).map(round).collect(),
            even: round(even.clone()),
            weights: zones.iter().map(|zone| zone.weight).collect(),
        }
    }

    /// Returns the factors of the weights of each zone's backends, for the clients of a
    /// zone. If the zone is unknown (`None`), all are 1.
    #[must_use]
    pub fn factors(&self, client_zone: Option<usize>) -> Vec<Factor> {
        let row = client_zone.and_then(|zone| self.rows.get(zone));
        let Some(row) = row else { return vec![Factor::ONE; self.even.len()] };
        let total: u64 = self.weights.iter().sum();
        let factor = |((&share, &even), &weight): ((&u32, &u32), &u64)| {
            match (weight, share) {
                (0, _) => return Factor::ZERO,
                // Exact also where the share is too small for millionths.
                _ if share == even => return Factor::ONE,
                (_, 0) => return Factor::ZERO,
                _ => {}
            }
            let factor = f64::from(share) * total as f64 / weight as f64;
            Factor::millionths((factor as u32).max(1))
        };
        row.iter().zip(&self.even).zip(&self.weights).map(factor).collect()
    }

    /// Returns the share of a zone's calls that each zone's backends get, in millionths.
    #[must_use]
    pub fn row(&self, client_zone: usize) -> &[u32] {
        self.rows.get(client_zone).unwrap_or(&self.even)
    }

    /// Returns the load of the hottest zone under this demand, as a multiple of its share.
    #[must_use]
    pub fn overload(&self, zones: &[ZoneLoad], unknown: u64) -> f64 {
        let demand: u64 = zones.iter().map(|zone| zone.demand).sum::<u64>() + unknown;
        let weight: u64 = zones.iter().map(|zone| zone.weight).sum();
        let load = |to: usize| {
            // Integers, so that the sum does not depend on the order.
            let from = zones.iter().zip(&self.rows).map(|(zone, row)| part(zone.demand, row[to]));
            from.sum::<u128>() + part(unknown, self.even[to])
        };
        let over = |to: usize| {
            let due = zones[to].weight as f64 / weight as f64 * demand as f64 * MILLION;
            if due > 0.0 { load(to) as f64 / due } else { 0.0 }
        };
        (0..zones.len()).map(over).fold(0.0, f64::max)
    }

    /// Returns the part of the demand that crosses zones. Clients of unknown zones do not
    /// count.
    #[must_use]
    pub fn cross(&self, zones: &[ZoneLoad]) -> f64 {
        let demand: u64 = zones.iter().map(|zone| zone.demand).sum();
        let stays = |(at, zone): (usize, &ZoneLoad)| part(zone.demand, self.rows[at][at]);
        let stays: u128 = zones.iter().enumerate().map(stays).sum();
        if demand == 0 { 0.0 } else { 1.0 - stays as f64 / (demand as f64 * MILLION) }
    }
}

fn part(demand: u64, share: u32) -> u128 {
    u128::from(demand) * u128::from(share)
}

/// Returns the split to publish; `None` if `published` stays in force. A driver calls this
/// every 30 s, and at once when a weight changes. Both splits must have the same zones in the
/// same order.
#[must_use]
pub fn renew(published: Option<&Split>, zones: &[ZoneLoad], unknown: u64) -> Option<Split> {
    let best = Split::best(zones, unknown);
    let stands = published.is_some_and(|published| {
        published.weights == best.weights
            && published.overload(zones, unknown) <= OVERLOAD_MAX
            && published.cross(zones) <= best.cross(zones) + CROSS_BAND
    });
    (!stands && published != Some(&best)).then_some(best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zones(all: &[(u64, u64)]) -> Vec<ZoneLoad> {
        let zone =
            |&(weight, demand): &(u64, u64)| ZoneLoad { backends: weight as usize, weight, demand };
        all.iter().map(zone).collect()
    }

    #[test]
    fn only_the_excess_crosses() {
        let zones = zones(&[(30, 500), (40, 300), (30, 200)]);
        let split = Split::best(&zones, 0);
        assert_eq!(split.row(0), [600_000, 200_000, 200_000]);
        assert_eq!(split.row(1), [0, 1_000_000, 0]);
        assert!((split.cross(&zones) - 0.2).abs() < 1e-6);
        assert!((split.overload(&zones, 0) - 1.0).abs() < 1e-6);
        let factors: Vec<u32> =
            split.factors(Some(0)).iter().map(|factor| factor.as_millionths()).collect();
        assert_eq!(factors, [2_000_000, 500_000, 666_666]);
        assert_eq!(split.factors(None), [Factor::ONE; 3]);
    }

    #[test]
    fn small_zones_are_pooled() {
        let zones = zones(&[(2, 300), (50, 400), (48, 300)]);
        let split = Split::best(&zones, 0);
        assert_eq!(split.row(0), [20_000, 500_000, 480_000]);
        assert_eq!((split.row(1)[0], split.row(2)[0]), (20_000, 20_000));
        assert!((split.overload(&zones, 0) - 1.0).abs() < 1e-5);
        // A zone without clients and a zone without backends.
        let zones = self::zones(&[(30, 0), (0, 400), (30, 600)]);
        let split = Split::best(&zones, 0);
        assert_eq!(split.row(1), [500_000, 0, 500_000]);
        assert_eq!(split.row(2), [500_000, 0, 500_000]);
        assert_eq!(split.factors(Some(1))[1], Factor::ZERO);
    }

    #[test]
    fn the_split_stands_until_it_matters() {
        let of = |demand| zones(&[(30, demand), (40, 300), (30, 200)]);
        let split = renew(None, &of(500), 0).unwrap();
        assert_eq!(renew(Some(&split), &of(500), 0), None);
        assert_eq!(renew(Some(&split), &of(530), 0), None);
        assert_eq!(renew(Some(&split), &of(600), 0), Some(Split::best(&of(600), 0)));
        let fewer = zones(&[(30, 500), (39, 300), (30, 200)]);
        assert!(renew(Some(&split), &fewer, 0).is_some(), "the weights changed");
        assert_eq!(renew(Some(&Split::best(&[], 0)), &[], 0), None);
    }

    fn loads() -> impl Strategy<Value = Vec<ZoneLoad>> {
        let zone = (0..60_u64, 1..9_u64, 0..1_000_000_u64);
        proptest::collection::vec(zone, 1..8).prop_map(|all| {
            let zone = |(count, each, demand)| ZoneLoad {
                backends: count as usize,
                weight: count * each,
                demand,
            };
            all.into_iter().map(zone).collect()
        })
    }

    proptest! {
        /// With any demand, every zone gets its share of the load, and no more calls cross
        /// zones than with an even split.
        #[test]
        fn every_zone_gets_its_due(zones in loads(), unknown in 0..1_000_000_u64) {
            prop_assume!(zones.iter().any(|zone| zone.weight > 0));
            let split = Split::best(&zones, unknown);
            prop_assert!(split.overload(&zones, unknown) <= 1.001, "{:?}", split);
            for row in split.rows.iter().chain([&split.even]) {
                let sum: u32 = row.iter().sum();
                prop_assert!(sum.abs_diff(1_000_000) <= 8, "{:?}", row);
            }
            let even = Split { rows: vec![split.even.clone(); zones.len()], ..split.clone() };
            prop_assert!(split.cross(&zones) <= even.cross(&zones) + 1e-5);
        }

        #[test]
        fn the_order_of_zones_does_not_matter(zones in loads(), unknown in 0..1_000_000_u64) {
            let turned: Vec<ZoneLoad> = zones.iter().rev().copied().collect();
            let split = Split::best(&zones, unknown);
            let mut rows = Split::best(&turned, unknown).rows;
            rows.iter_mut().for_each(|row| row.reverse());
            rows.reverse();
            prop_assert_eq!(rows, split.rows);
        }
    }
}
