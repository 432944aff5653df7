//! Zones: decides how many of a zone's calls stay in the zone.
//!
//! In: the weight of the backends and the demand of the clients of each zone. Out: the share
//! of each zone's calls that each zone's backends get, and whether the change is worth a new
//! list. Pure. Every backend gets the same load per unit of weight. Under that condition, as
//! few calls as possible cross zones.
//!
//! The rule is Envoy's zone-aware routing, applied to demand instead of hosts. It differs in
//! one point: zones that send calls away and zones that have room are matched in order, so
//! that a zone's clients call few other zones. Each replica
//! splits the demand of its own clients over all backends. So the sum over all replicas is
//! balanced, although they do not communicate. A replica must not take its own demand for
//! that of all replicas.

use super::factor::Factor;

/// A zone with fewer backends than this is *pooled*: it is too small to keep its own clients,
/// because an error in the estimated demand would overload it.
pub(super) const BACKENDS_MIN: usize = 3;
/// A zone with a smaller part of the weight or of the demand is pooled too. In percent.
const PART_MIN: u64 = 5;
/// The published split stays in force while the hottest zone has at most this part of its
/// share beyond it, and `CROSS_BAND` holds. It is that of a balancer without others.
const OVERLOAD: f64 = 0.05;
/// The most by which this is multiplied if there are others. If the demand of all clients moves
/// alike, the deviations of several balancers do not cancel each other out.
const WIDER_MAX: f64 = 1.5;
/// The published split stays in force while at most this part of the calls crosses zones
/// beyond what the best split needs. These two rules look at the effect of a split. Rules
/// that look at its entries need more changes for the same balance.
const CROSS_BAND: f64 = 0.05;
/// A zone keeps all of its calls if they are at most this many times its share of the load,
/// because a few calls that cross put all backends of other zones into the lists of its
/// clients.
const KEPT_MAX: f64 = 1.02;
/// A zone whose calls are below this part of its share has no need of other zones.
const ROOM_ENOUGH: f64 = 0.98;
/// Loads are matched as whole numbers, in this part of the whole load.
const UNIT: f64 = (1_u64 << 40) as f64;

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
    /// Which zones had more room than calls when the split was computed.
    roomy: Vec<bool>,
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
        let part_of_room = |at: usize| wants(at) / room(at);
        let amount = |at: usize, counts: bool, load: f64| match pooled[at] || !counts {
            true => 0,
            false => (load.max(0.0) * UNIT) as u64,
        };
        let all = || 0..zones.len();
        let excess = |at| amount(at, part_of_room(at) > KEPT_MAX, wants(at) - room(at));
        let excess: Vec<u64> = all().map(excess).collect();
        let spare: Vec<u64> = all().map(|at| amount(at, true, room(at) - wants(at))).collect();
        let moves = matched(&excess, &spare);
        let row = |from: usize| -> Vec<f64> {
            if pooled[from] {
                return even.clone();
            }
            let moves = &moves[from];
            let leaves: f64 = if moves.is_empty() { 0.0 } else { excess[from] as f64 };
            let own = |load: f64| (1.0 - pooled_weight) * load / UNIT / wants(from);
            let mut shares: Vec<f64> =
                all().map(|to| if pooled[to] { even[to] } else { 0.0 }).collect();
            shares[from] = 1.0 - pooled_weight;
            if leaves > 0.0 {
                shares[from] -= own(leaves);
            }
            for (to, load) in moves {
                shares[*to] += own(*load);
            }
            shares
        };
        let round = |shares: Vec<f64>| -> Vec<u32> {
            shares.into_iter().map(|share| (share * MILLION).round() as u32).collect()
        };
        Self {
            rows: (0..zones.len()).map(row).map(round).collect(),
            even: round(even.clone()),
            weights: zones.iter().map(|zone| zone.weight).collect(),
            roomy: all().map(|at| !pooled[at] && part_of_room(at) < ROOM_ENOUGH).collect(),
        }
    }

    /// Returns whether calls of a zone cross that has room for them by another split.
    fn crosses_needlessly(&self, best: &Self) -> bool {
        let mut zones = best.roomy.iter().enumerate().filter(|one| *one.1);
        zones.any(|(at, _)| self.row(at)[at] < best.row(at)[at])
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
/// every 10 s, and at once when a weight changes. Both splits must have the same zones in the
/// same order.
///
/// `part` is the part of all balancers' clients that this one has: 1 if there are no others.
/// The demand of fewer clients moves more, by the square root of their number. Mostly that
/// cancels out over several balancers, so each may let a zone have more.
#[must_use]
pub fn renew(
    published: Option<&Split>,
    zones: &[ZoneLoad],
    unknown: u64,
    part: f64,
) -> Option<Split> {
    let best = Split::best(zones, unknown);
    let wider = (1.0 / part).sqrt().clamp(1.0, WIDER_MAX);
    let most = 1.0 + wider * OVERLOAD;
    let stands = published.is_some_and(|published| {
        published.weights == best.weights
            && published.overload(zones, unknown) <= most
            && published.cross(zones) <= best.cross(zones) + CROSS_BAND
            && !published.crosses_needlessly(&best)
    });
    let differs =
        |published: &Split| published.rows != best.rows || published.weights != best.weights;
    (!stands && published.is_none_or(differs)).then_some(best)
}

/// Matches what zones send away with the room of others. Both are laid out in the order of the
/// zones, the rooms in proportion, so that both are equally long; where two overlap, calls of
/// the one zone go to the other. So hardly any zone sends to more than two or three. Returns
/// for each zone the zones to which it sends, and how much.
fn matched(excess: &[u64], spare: &[u64]) -> Vec<Vec<(usize, f64)>> {
    let sum = |all: &[u64]| all.iter().copied().map(u128::from).sum::<u128>();
    let (excess_sum, spare_sum) = (sum(excess), sum(spare));
    let mut moves = vec![Vec::new(); excess.len()];
    let (mut from_begins, mut first) = (0, (0, 0));
    for (from, &excess) in excess.iter().enumerate().filter(|one| *one.1 > 0) {
        let from_ends = from_begins + u128::from(excess) * spare_sum;
        let (mut to, mut to_begins) = first;
        while to < spare.len() && to_begins < from_ends {
            let to_ends = to_begins + u128::from(spare[to]) * excess_sum;
            let overlap = to_ends.min(from_ends).saturating_sub(to_begins.max(from_begins));
            if overlap > 0 {
                moves[from].push((to, overlap as f64 / spare_sum as f64));
            }
            if to_ends > from_ends {
                break;
            }
            (to, to_begins) = (to + 1, to_ends);
        }
        first = (to, to_begins);
        from_begins = from_ends;
    }
    moves
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
    fn a_few_calls_too_many_stay_and_zones_are_matched_in_order() {
        let mut all = vec![(20, 100); 16];
        (all[3].1, all[7].1, all[8].1, all[9].1) = (101, 120, 85, 94);
        let split = Split::best(&zones(&all), 0);
        let targets = |from: usize| split.row(from).iter().filter(|share| **share > 0).count();
        assert_eq!([3, 12, 0].map(targets), [1, 1, 1], "{:?}", split.row(3));
        assert_eq!((targets(7), split.row(7)[8] > 110_000), (3, true), "{:?}", split.row(7));
        assert!(split.overload(&zones(&all), 0) < KEPT_MAX);
        // Two zones that send, and three that have room.
        let all = zones(&[(30, 450), (30, 200), (30, 450), (30, 150), (30, 250)]);
        let split = Split::best(&all, 0);
        let crosses = |from: usize, to: usize| split.row(from)[to] > 0;
        assert!(crosses(0, 1) && crosses(0, 3) && !crosses(0, 4));
        assert!(crosses(2, 3) && crosses(2, 4) && !crosses(2, 1));
    }

    #[test]
    fn crossing_that_is_not_needed_any_more_ends() {
        let of = |a, b| zones(&[(30, a), (30, b), (30, 300)]);
        let split = renew(None, &of(310, 290), 0, 1.0).unwrap();
        assert!(split.row(0)[1] > 0);
        assert_eq!(renew(Some(&split), &of(299, 301), 0, 1.0), None, "it may be needed again soon");
        let less = renew(Some(&split), &of(289, 300), 0, 1.0).unwrap();
        assert_eq!((less.row(0)[0], less.row(1)[1]), (1_000_000, 1_000_000));
        assert_eq!(renew(Some(&less), &of(310, 290), 0, 1.0), None);
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
        let split = renew(None, &of(500), 0, 1.0).unwrap();
        assert_eq!(renew(Some(&split), &of(500), 0, 1.0), None);
        assert_eq!(renew(Some(&split), &of(530), 0, 1.0), None);
        assert_eq!(renew(Some(&split), &of(600), 0, 1.0), Some(Split::best(&of(600), 0)));
        // With several balancers, each has a wider band.
        assert_eq!(renew(Some(&split), &of(578), 0, 0.25), None);
        assert!(renew(Some(&split), &of(578), 0, 1.0).is_some());
        assert!(renew(Some(&split), &of(600), 0, 0.01).is_some());
        let fewer = zones(&[(30, 500), (39, 300), (30, 200)]);
        assert!(renew(Some(&split), &fewer, 0, 1.0).is_some(), "the weights changed");
        assert_eq!(renew(Some(&Split::best(&[], 0)), &[], 0, 1.0), None);
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
            let most = KEPT_MAX + 0.001;
            prop_assert!(split.overload(&zones, unknown) <= most, "{:?}", split);
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
