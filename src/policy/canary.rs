//! Canary by calls: gives a group of backends an exact share of all calls, in steps.
//!
//! In: the weights, the canaries, their share; or the steps of a ramp, and the time. Out:
//! weights that give the canaries their share; or the share at that time. Pure. For a canary
//! by clients see `rendezvous::is_in_share`.

use crate::facts::factor::Factor;

/// A step of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The canaries' share of all calls.
    pub share: Factor,
    /// How long it lasts, in milliseconds. The last step never ends.
    pub hold: u64,
}

/// A share that grows over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    /// When its first step begins, in milliseconds of the wall clock.
    pub begins: u64,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

impl Ramp {
    /// Returns the share at `now`: 0 before the first step.
    #[must_use]
    pub fn share(&self, now: u64) -> Factor {
        let at = self.position(now).checked_sub(1).and_then(|at| self.steps.get(at));
        at.map_or(Factor::ZERO, |step| step.share)
    }

    /// Returns the number of the step at `now`: 0 before the first, 1 for the first.
    #[must_use]
    pub fn position(&self, now: u64) -> usize {
        self.beginnings().take_while(|&begins| begins <= now).count()
    }

    /// Returns when the next step begins; `None` after the last.
    #[must_use]
    pub fn next(&self, now: u64) -> Option<u64> {
        self.beginnings().find(|&begins| begins > now)
    }

    fn beginnings(&self) -> impl Iterator<Item = u64> {
        let begins = |begins: &mut u64, step: &Step| {
            let own = *begins;
            *begins = own.saturating_add(step.hold);
            Some(own)
        };
        self.steps.iter().scan(self.begins, begins)
    }
}

/// A backend and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its weight before the split.
    pub weight: u32,
    /// Whether it is a canary.
    pub canary: bool,
}

/// Returns weights with which the canaries get `share` of all calls. Within each group the
/// calls are split by the members' own weights. The result is numbers of entries whose sum
/// is at most `entries`. If a cycle may be that long, it needs no further rounding, and the
/// share is exact to half an entry.
///
/// A group may have fewer entries than members. Then only some members get an entry, and
/// `turn` selects them: each next `turn` moves on to others, with a new list. If one group
/// is empty, the other gets all calls.
#[must_use]
pub fn split(members: &[Member], share: Factor, entries: usize, turn: u64) -> Vec<u32> {
    let group = |canary: bool| -> Vec<usize> {
        let is_in = |&at: &usize| members[at].canary == canary && members[at].weight > 0;
        (0..members.len()).filter(is_in).collect()
    };
    let (canaries, others) = (group(true), group(false));
    let million = u64::from(Factor::ONE.as_millionths());
    let share = u64::from(share.as_millionths()).min(million);
    let share = match (canaries.is_empty(), others.is_empty()) {
        (true, _) => 0,
        (_, true) => million,
        _ => share,
    };
    // The larger group is split first, because it has entries for all of its members.
    let (large, small, part) = if share * 2 <= million {
        (others, canaries, share)
    } else {
        (canaries, others, million - share)
    };
    let mut weights = vec![0; members.len()];
    let most = entries as u64 * (million - part) / million;
    let shared = whole_entries(members, &large, most);
    let sum: u64 = shared.iter().map(|&count| u64::from(count)).sum();
    large.iter().zip(shared).for_each(|(&at, count)| weights[at] = count);
    if part > 0 {
        // The remaining error is at most half an entry of the small group.
        let rest = million - part;
        let count = ((sum * part + rest / 2) / rest).max(1);
        let counts = exact_entries(members, &small, count, turn);
        small.iter().zip(counts).for_each(|(&at, count)| weights[at] = count);
    }
    weights
}

/// Returns the entries of a group's members in proportion to their weights. Equal weights
/// get equal numbers, and each member gets at least one entry. The sum is at most `most`, or
/// one for each member if that is more.
fn whole_entries(members: &[Member], group: &[usize], most: u64) -> Vec<u32> {
    // The entries per unit of weight: fractions of 2^64, up to 2^24.
    const BITS: u32 = u64::BITS + 24;
    let at_price = |price: u128| {
        let entries = move |&at: &usize| {
            let entries = (u128::from(members[at].weight) * price) >> u64::BITS;
            u32::try_from(entries).unwrap_or(u32::MAX).max(1)
        };
        group.iter().map(entries)
    };
    let fits = |price| at_price(price).map(u64::from).sum::<u64>() <= most;
    let bits = (0..BITS).rev().map(|bit| 1 << bit);
    let price = bits.fold(0, |price, bit| if fits(price | bit) { price | bit } else { price });
    at_price(price).collect()
}

/// Distributes exactly `count` entries over a group by weight. Members take turns with the
/// entries that cannot be shared evenly: `turn` selects who gets them.
fn exact_entries(members: &[Member], group: &[usize], count: u64, turn: u64) -> Vec<u32> {
    let size = group.len() as u64;
    let (mut entries, given) = if count < size {
        (vec![0; group.len()], 0)
    } else {
        let entries = whole_entries(members, group, count);
        let given = entries.iter().map(|&count| u64::from(count)).sum();
        (entries, given)
    };
    let rest = count.saturating_sub(given);
    for at in 0..rest {
        let place = (turn.wrapping_mul(rest).wrapping_add(at)) % size;
        entries[usize::try_from(place).unwrap_or(0)] += 1;
    }
    entries
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(canaries: usize, others: usize) -> Vec<Member> {
        (0..canaries + others).map(|at| Member { weight: 1, canary: at < canaries }).collect()
    }

    fn percent(percent: u32) -> Factor {
        Factor::millionths(percent * 10_000)
    }

    #[test]
    fn a_ramp_goes_through_its_steps() {
        let step = |share, hold| Step { share: percent(share), hold };
        let ramp = Ramp { begins: 100, steps: vec![step(1, 10), step(5, 20), step(100, 0)] };
        let shares = [99, 100, 109, 110, 129, 130, u64::MAX].map(|now| ramp.share(now));
        assert_eq!(shares, [0, 1, 1, 5, 5, 100, 100].map(percent));
        assert_eq!([0, 100, 110, 130].map(|now| ramp.position(now)), [0, 1, 2, 3]);
        let next = [0, 100, 110, 130].map(|now| ramp.next(now));
        assert_eq!(next, [Some(100), Some(110), Some(130), None]);
    }

    #[test]
    fn a_share_is_exact_whatever_the_numbers_are() {
        assert_eq!(split(&members(1, 9), percent(10), 200, 0), [20; 10]);
        let found = split(&members(1, 9), percent(1), 200, 0);
        assert_eq!((found[0], found[1]), (2, 22));
        // Ten canaries share one entry and take turns with it.
        let canaries =
            |turn| split(&members(10, 90), Factor::millionths(500), 2_000, turn)[..10].to_vec();
        assert_eq!(canaries(0), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(canaries(13), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(split(&members(1, 2), percent(0), 60, 0), [0, 30, 30]);
        assert_eq!(split(&members(1, 2), percent(100), 60, 0), [60, 0, 0]);
        assert_eq!(split(&members(0, 2), percent(50), 60, 0), [30, 30]);
        assert_eq!(split(&members(2, 0), percent(5), 60, 0), [30, 30]);
        assert_eq!(split(&[], percent(5), 60, 0), [0; 0]);
    }

    proptest! {
        #[test]
        fn the_share_is_exact_to_the_cycle(
            all in proptest::collection::vec((1..20_u32, any::<bool>()), 2..60),
            share in 0..=1_000_000_u32, turn in any::<u64>(),
        ) {
            let all: Vec<_> =
                all.into_iter().map(|(weight, canary)| Member { weight, canary }).collect();
            let entries = 20 * all.len();
            let found = split(&all, Factor::millionths(share), entries, turn);
            let sum = |canary| -> u64 {
                let all = all.iter().zip(&found).filter(|one| one.0.canary == canary);
                all.map(|one| u64::from(*one.1)).sum()
            };
            let (canaries, others) = (sum(true), sum(false));
            prop_assert!(canaries + others <= entries as u64);
            let both = all.iter().any(|one| one.canary) && all.iter().any(|one| !one.canary);
            if both {
                let total = (canaries + others) as f64;
                let error = canaries as f64 / total - f64::from(share) / 1e6;
                // Half an entry, or one: every share above 0 has at least one entry.
                prop_assert!(error.abs() * total <= 1.0, "{} of {}", canaries, others);
            }
            // In the group with the greater share, equal weights have equal entries.
            let large = canaries > others;
            for (a, x) in all.iter().zip(&found).filter(|one| one.0.canary == large) {
                let equal = |(b, y): (&Member, &u32)| a != b || x == y;
                prop_assert!(canaries == others || all.iter().zip(&found).all(equal));
            }
        }
    }
}
