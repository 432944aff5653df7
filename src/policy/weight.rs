//! Weights as turns: grpclb has no weights, only repeats.
//!
//! In: weights. Out: whose turn it is, over one cycle. Clients walk a list in
//! plain cyclic order, so the turns are spread as evenly as they can be.

/// The most turns that weights may ask for. C-core builds a child policy per
/// entry (1,000 entries take it 0.04 CPU-seconds), so a cycle stays short; the
/// shares then err by less than one turn in each backend's favour.
const TURNS_MAX: u64 = 1_000;

/// Backends with equal weights take their turns as one class, one after the
/// other. Classes are few, so the cost is turns × classes.
struct Class {
    /// Turns in a cycle that all of its members take together.
    share: i64,
    /// Smooth weighted round robin: who has waited longest for its due.
    credit: i64,
    members: Vec<usize>,
    next: usize,
}

/// One cycle of turns over these weights, by smooth weighted round robin.
/// Weights must not be 0.
pub(super) fn interleave(weights: &[u32]) -> Vec<usize> {
    let turns = reduce(weights);
    let mut classes: Vec<Class> = Vec::new();
    for (index, &turns) in turns.iter().enumerate() {
        // All members of a class have the same number of turns.
        let alike = |class: &&mut Class| turns_of(class) == turns;
        match classes.iter_mut().find(alike) {
            Some(class) => {
                class.share += turns;
                class.members.push(index);
            }
            None => {
                classes.push(Class { share: turns, credit: 0, members: vec![index], next: 0 });
            }
        }
    }
    let cycle: i64 = turns.iter().sum();
    (0..cycle).filter_map(|_| take_turn(&mut classes, cycle)).collect()
}

fn turns_of(class: &Class) -> i64 {
    class.share / i64::try_from(class.members.len()).unwrap_or(i64::MAX)
}

fn take_turn(classes: &mut [Class], cycle: i64) -> Option<usize> {
    classes.iter_mut().for_each(|class| class.credit += class.share);
    // The first of the best, for a stable order.
    let best = classes.iter_mut().rev().max_by_key(|class| class.credit)?;
    best.credit -= cycle;
    let member = best.members[best.next];
    best.next = (best.next + 1) % best.members.len();
    Some(member)
}

/// The smallest whole numbers in the same proportion, or nearly so where the
/// cycle would be too long; nobody's becomes 0.
fn reduce(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, u64::from(b))).max(1);
    let exact = weights.iter().map(|&weight| u64::from(weight) / divisor);
    let total: u64 = exact.clone().sum();
    let capped = |turns: u64| {
        if total <= TURNS_MAX { turns } else { (turns * TURNS_MAX / total).max(1) }
    };
    let reduced: Vec<u64> = exact.map(capped).collect();
    // Capping may have made them all alike.
    let divisor = reduced.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    reduced.into_iter().map(|turns| i64::try_from(turns / divisor).unwrap_or(1)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(turns: &[usize], of: usize) -> usize {
        turns.iter().filter(|&&turn| turn == of).count()
    }

    #[test]
    fn long_cycles_are_shortened() {
        let turns = interleave(&[1_000_000, 1]);
        assert_eq!((count(&turns, 0), count(&turns, 1)), (999, 1));
        let many = interleave(&[7; 5_000]);
        assert_eq!(many, (0..5_000).collect::<Vec<_>>());
        let mut mixed = vec![1; 5_000];
        mixed[0] = 2;
        assert_eq!(interleave(&mixed).len(), 5_000);
        assert_eq!(interleave(&[]), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn shares_are_exact_while_the_cycle_is_short(weights in proptest::collection::vec(1..20_u32, 1..12)) {
            let turns = interleave(&weights);
            let cycle = u64::try_from(turns.len()).unwrap();
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            for (index, &weight) in weights.iter().enumerate() {
                let count = u64::try_from(count(&turns, index)).unwrap();
                prop_assert_eq!(count * total, u64::from(weight) * cycle);
            }
        }

        /// At no point of the cycle is a backend ahead of, or behind, its due
        /// by as much as it would be if its turns came in a row.
        #[test]
        fn turns_are_spread(weights in proptest::collection::vec(1..10_u32, 2..6)) {
            let turns = interleave(&weights);
            let total = f64::from(weights.iter().sum::<u32>());
            for (index, &weight) in weights.iter().enumerate() {
                let mut taken = 0.0;
                for (at, &turn) in turns.iter().enumerate() {
                    if turn == index { taken += 1.0; }
                    let due = f64::from(u32::try_from(at).unwrap() + 1) * f64::from(weight) / total;
                    prop_assert!((taken - due).abs() < 2.0 + 1e-9, "{:?} {:?}", weights, turns);
                }
            }
        }

        #[test]
        fn cycles_are_bounded(weights in proptest::collection::vec(1..1_000_000_u32, 1..40)) {
            let turns = interleave(&weights);
            prop_assert!(turns.len() <= 1_000 + weights.len());
            for index in 0..weights.len() {
                prop_assert!(count(&turns, index) >= 1);
            }
        }
    }
}
