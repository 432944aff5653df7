//! The cells of a service's backends, and which backends each cell lists now.
//!
//! In: the group and the cell of each backend, and the weights of those that may be listed.
//! Out: the backends of a subset with their weights, and the weight of each cell. Pure.
//!
//! Backends form groups, such as zones, and each group has its own number of cells. A subset
//! begins at the same relative place in each group. Every group keeps its share of the calls,
//! although its cells may be heavier or lighter than those of another group.

use std::ops::Range;
use std::sync::Arc;

use crate::model::Subset;

use super::factor::{self, Factor};

/// What the backends of a group have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellGroup {
    /// Their zone, if it is large and zones matter.
    pub zone: Option<Arc<str>>,
    /// Whether they are canaries.
    pub canary: bool,
}

/// The cells of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    groups: Vec<Group>,
    /// The group and the cell of each backend.
    places: Box<[(u8, u16)]>,
}

/// A backend that may be listed, and its weight.
pub type Listed = (u32, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    of: CellGroup,
    bits: u32,
    /// The backends that may be listed, by cell.
    listed: Vec<(u16, Listed)>,
    /// The sum of their weights.
    weight: u64,
}

impl Cells {
    /// Makes the cells. `groups` has each group with the number of bits of its cells,
    /// `places` the group and the cell of each backend, and `listed` the backends that may be
    /// listed, ascending.
    #[must_use]
    pub fn new(groups: Vec<(CellGroup, u32)>, places: Box<[(u8, u16)]>, listed: &[Listed]) -> Self {
        let group = |(of, bits)| Group { of, bits, listed: Vec::new(), weight: 0 };
        let mut groups: Vec<Group> = groups.into_iter().map(group).collect();
        for &(backend, weight) in listed {
            let Some(&(at, cell)) = places.get(backend as usize) else { continue };
            let Some(group) = groups.get_mut(usize::from(at)) else { continue };
            group.listed.push((cell, (backend, weight)));
            group.weight += u64::from(weight);
        }
        groups.iter_mut().for_each(|group| group.listed.sort_unstable());
        Self { groups, places }
    }

    /// Returns the number of cells of each group.
    pub fn counts(&self) -> impl Iterator<Item = (&CellGroup, usize)> {
        self.groups.iter().map(|group| (&group.of, 1 << group.bits))
    }

    /// Returns the number of bits of the cells that clients in a zone are placed on, and the
    /// weight of each that may be listed. These are the cells of the zone, or of all groups
    /// if the zone is not among them.
    #[must_use]
    pub fn weights(&self, zone: Option<&Arc<str>>) -> (u32, Vec<u64>) {
        let is_near = |group: &&Group| zone.is_some() && group.of.zone.as_ref() == zone;
        let near: Vec<&Group> = self.groups.iter().filter(is_near).collect();
        let groups = if near.is_empty() { self.groups.iter().collect() } else { near };
        let bits = groups.iter().map(|group| group.bits).max().unwrap_or(0);
        // In millionths of a weight, because the cells of some groups are divided further.
        let mut weights = vec![0_u64; 1 << bits];
        for group in groups {
            let further = bits - group.bits;
            for &(cell, (_, weight)) in &group.listed {
                let part = (u64::from(weight) * 1_000_000) >> further;
                let first = usize::from(cell) << further;
                weights[first..first + (1 << further)].iter_mut().for_each(|sum| *sum += part);
            }
        }
        (bits, weights)
    }

    /// Returns the backends of a subset, ascending, with weights that give each group its
    /// share. A group without a backend in the subset adds those of the smallest larger one.
    #[must_use]
    pub fn listed(&self, subset: Option<Subset>) -> Vec<Listed> {
        let parts = self.groups.iter().filter(|group| group.weight > 0);
        let parts: Vec<_> = parts.map(|group| (group.weight, group.part(subset))).collect();
        let sum = |part: &[(u16, Listed)]| part.iter().map(|one| u64::from(one.1.1)).sum::<u64>();
        // How much heavier a group is than its part; all are divided by the largest.
        let ratios: Vec<(u64, u64)> =
            parts.iter().map(|(whole, part)| (*whole, sum(part).max(1))).collect();
        let larger = |a: &&(u64, u64), b: &&(u64, u64)| {
            (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
        };
        let Some(&largest) = ratios.iter().max_by(larger) else { return Vec::new() };
        let (mut all, mut factors) = (Vec::new(), Vec::new());
        for ((_, part), ratio) in parts.iter().zip(&ratios) {
            all.extend(part.iter().map(|one| one.1));
            factors.resize(all.len(), quotient(*ratio, largest));
        }
        // One group needs no factor.
        if ratios.len() > 1 {
            let weights: Vec<u32> = all.iter().map(|one| one.1).collect();
            for (listed, weight) in all.iter_mut().zip(factor::apply(&weights, &factors)) {
                listed.1 = weight;
            }
        }
        all.sort_unstable();
        all
    }

    /// Returns how many backends [`Self::listed`] returns for a subset.
    #[must_use]
    pub fn count(&self, subset: Option<Subset>) -> usize {
        self.groups.iter().map(|group| group.part(subset).len()).sum()
    }

    /// Returns the smallest subset of which a backend is; `None` if its group has one cell.
    #[must_use]
    pub fn subset_of(&self, backend: usize) -> Option<Subset> {
        let (group, cell) = self.place(backend)?;
        Subset::new(group.bits, u32::from(cell))
    }

    fn place(&self, backend: usize) -> Option<(&Group, u16)> {
        let &(at, cell) = self.places.get(backend)?;
        Some((self.groups.get(usize::from(at))?, cell))
    }
}

impl Group {
    /// Returns how many bits the cells of a subset share in this group: fewer if no backend
    /// would be left. `None` if the group has no backend.
    fn shared_bits(&self, subset: Option<Subset>) -> Option<u32> {
        let most = subset.map_or(0, |subset| subset.bits().min(self.bits));
        let has = |bits: &u32| !self.range(subset, *bits).is_empty();
        (0..=most).rev().find(has)
    }

    fn part(&self, subset: Option<Subset>) -> &[(u16, Listed)] {
        let bits = self.shared_bits(subset).unwrap_or(0);
        &self.listed[self.range(subset, bits)]
    }

    /// Returns where the backends are whose cells begin with these bits of a subset.
    fn range(&self, subset: Option<Subset>, bits: u32) -> Range<usize> {
        let index = subset.map_or(0, |subset| subset.index() >> (subset.bits() - bits));
        let at = |index: u32| {
            let cell = index << (self.bits - bits);
            self.listed.partition_point(|one| u32::from(one.0) < cell)
        };
        at(index)..at(index + 1)
    }
}

/// Returns a ratio divided by the largest ratio.
fn quotient(ratio: (u64, u64), largest: (u64, u64)) -> Factor {
    let part = u128::from(ratio.0) * u128::from(largest.1) * 1_000_000;
    let whole = u128::from(ratio.1) * u128::from(largest.0);
    let millionths = (part + whole / 2) / whole.max(1);
    Factor::millionths(u32::try_from(millionths).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(zone: &str, bits: u32) -> (CellGroup, u32) {
        (CellGroup { zone: Some(zone.into()), canary: false }, bits)
    }

    fn subset(bits: u32, index: u32) -> Option<Subset> {
        Subset::new(bits, index)
    }

    #[test]
    fn a_subset_has_the_same_part_of_each_group() {
        // Zone a has four cells of one backend, zone b two.
        let groups = vec![group("a", 2), group("b", 1)];
        let places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)];
        let all: Vec<Listed> = (0..6).map(|backend| (backend, 1)).collect();
        let cells = Cells::new(groups, places.into(), &all);
        // Zone a has two thirds of the weight in each subset.
        assert_eq!(cells.listed(subset(2, 3)), [(3, 2), (5, 1)]);
        assert_eq!(cells.listed(subset(1, 1)), [(2, 1), (3, 1), (5, 1)]);
        assert_eq!(cells.listed(None), all);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!(cells.weights(Some(&a)), (2, vec![1_000_000; 4]));
        assert_eq!(cells.weights(Some(&b)), (1, vec![1_000_000; 2]));
        assert_eq!(cells.weights(None), (2, vec![1_500_000; 4]));
        assert_eq!(cells.subset_of(5), subset(1, 1));
        let counts: Vec<_> = cells.counts().map(|one| one.1).collect();
        assert_eq!(counts, [4, 2]);
        // A client of the cell of a backend that is not listed gets its neighbour's.
        let left = Cells::new(vec![group("a", 2)], [(0, 0), (0, 3)].into(), &[(0, 7)]);
        assert_eq!(left.listed(subset(2, 1)), [(0, 7)]);
        assert_eq!(left.listed(subset(2, 3)), [(0, 7)]);
        assert!(Cells::new(vec![], [].into(), &[]).listed(None).is_empty());
    }

    proptest! {
        /// Every backend is in one subset of each size, no subset is empty, and groups keep
        /// their shares.
        #[test]
        fn subsets_cover_all_and_groups_keep_their_shares(
            bits in (0..4_u32, 0..4_u32), backends in proptest::collection::vec((0..2_u8, 0..16_u16, 0..9_u32), 1..60),
        ) {
            let all_bits = [bits.0, bits.1];
            let place = |&(group, cell, _): &(u8, u16, u32)| (group, cell % (1 << all_bits[usize::from(group)]));
            let places: Box<[_]> = backends.iter().map(place).collect();
            let listed = (0..).zip(&backends).map(|(at, one)| (at, one.2)).filter(|one| one.1 > 0);
            let listed: Vec<Listed> = listed.collect();
            let cells = Cells::new(vec![group("a", bits.0), group("b", bits.1)], places, &listed);
            let share = |of: &[Listed]| {
                let sum = |group: u8| -> f64 {
                    of.iter().filter(|one| backends[one.0 as usize].0 == group).map(|one| f64::from(one.1)).sum()
                };
                sum(0) / (sum(0) + sum(1)).max(1.0)
            };
            for level in 0..=4_u32 {
                let mut seen = vec![0; backends.len()];
                for index in 0..1 << level {
                    let part = cells.listed(Subset::new(level, index));
                    prop_assert_eq!(part.is_empty(), listed.is_empty());
                    prop_assert_eq!(part.len(), cells.count(Subset::new(level, index)));
                    prop_assert!((share(&part) - share(&listed)).abs() < 1e-3);
                    for (backend, weight) in part {
                        prop_assert!(weight > 0);
                        seen[backend as usize] += 1;
                    }
                }
                prop_assert!(listed.iter().all(|one| seen[one.0 as usize] >= 1));
            }
        }
    }
}
