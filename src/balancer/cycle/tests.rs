//! Tests the shares and the evenness of cycles and of the windows of them.

use std::ops::Range;

use proptest::prelude::*;

use super::*;

fn count(cycle: &[u32], of: usize) -> usize {
    cycle.iter().filter(|&&entry| entry as usize == of).count()
}

#[track_caller]
fn check(weights: &[u32], expected: &str) {
    let letters = ["a", "b", "c", "d"];
    let found: String = cycle(weights).into_iter().map(|entry| letters[entry as usize]).collect();
    assert_eq!(found, expected, "{weights:?}");
}

#[test]
fn heavier_ones_come_more_often_spread_evenly() {
    check(&[], "");
    check(&[7], "a");
    check(&[1, 1, 1], "abc");
    check(&[100, 100], "ab");
    check(&[3, 1], "abaa");
    check(&[2, 4], "bab");
    check(&[5, 1, 1], "abaaaca");
}

#[test]
fn long_cycles_are_shortened_and_leave_nobody_out() {
    let entries = cycle(&[1_000_000, 1]);
    assert_eq!((count(&entries, 0), count(&entries, 1)), (39, 1));
    assert_eq!(cycle(&[7; 5_000]), (0..5_000).collect::<Vec<_>>());
    // Equal once they are rounded.
    let alike: Vec<u32> = (0..5_000).map(|at| 1_000_000 + at % 2).collect();
    assert_eq!(cycle(&alike).len(), 5_000);
    assert_eq!(counts(&[u32::MAX, u32::MAX - 1, 1]), [29, 29, 1]);
}

#[track_caller]
fn check_split(weights: &[u32], canaries: usize, hundredths: u32, expected: &[u32]) {
    let canaries = (0..weights.len()).map(|at| at < canaries).collect();
    let split = CallSplit { share: Factor::millionths(hundredths * 100), canaries };
    assert_eq!(split_counts(weights, &split), expected);
}

#[test]
fn canaries_together_get_their_exact_share() {
    check_split(&[7, 7], 1, 500, &[1, 19]);
    check_split(&[1, 1, 1], 1, 500, &[2, 19, 19]);
    check_split(&[1, 1], 1, 50, &[1, 199]);
    check_split(&[1, 1], 1, 1, &[1, 9_999]);
    check_split(&[1, 1, 1], 2, 9_000, &[9, 9, 2]);
    check_split(&[3, 1, 30, 10], 2, 2_000, &[3, 1, 12, 4]);
    // A canary in slow start gets a tenth of what the other canary gets.
    check_split(&[10, 1, 10, 10], 2, 5_000, &[20, 2, 11, 11]);
    check_split(&[1; 100], 10, 500, &[vec![9; 10], vec![19; 90]].concat());
}

proptest! {
    #[test]
    fn a_split_keeps_shares_and_proportions(
        weights in prop::collection::vec(1..30_u32, 2..40), canaries in 1..39_usize,
        hundredths in 1..10_000_u32,
    ) {
        let canaries = canaries.min(weights.len() - 1);
        let flags: Box<[bool]> = (0..weights.len()).map(|at| at < canaries).collect();
        let split = CallSplit { share: Factor::millionths(hundredths * 100), canaries: flags };
        let counts = split_counts(&weights, &split);
        let sum = |all: &[u32]| all.iter().map(|&one| u64::from(one)).sum::<u64>() as f64;
        let (share, total) = (f64::from(hundredths) / 1e4, sum(&counts));
        prop_assert!(total <= ENTRIES_MAX as f64 + 1.0);
        let off = (sum(&counts[..canaries]) - share * total).abs();
        let smaller = share.min(1.0 - share) * total;
        prop_assert!(off <= (smaller / 50.0).max(1.0), "{counts:?}");
        let group = if hundredths > 5_000 { 0..canaries } else { canaries..weights.len() };
        let (weights, counts) = (&weights[group.clone()], &counts[group.clone()]);
        // A backend whose share is less than one entry still has one, and does not count.
        let turn = sum(&super::counts(weights));
        for (&weight, &count) in weights.iter().zip(counts) {
            let due = f64::from(weight) / sum(weights);
            let over = f64::from(count) / sum(counts) / due - 1.0;
            prop_assert!(due * turn < 1.0 || over < 0.12, "{over}: {counts:?}");
        }
    }
}

#[test]
fn a_large_service_keeps_its_shares() {
    for backends in [300, 600, 1_000, 5_000] {
        let weights: Vec<u32> = (0..backends).map(|at| if at % 2 == 0 { 3 } else { 1 }).collect();
        let counts = counts(&weights);
        assert_eq!(counts[..4], [3, 1, 3, 1], "{backends}");
    }
    // Every tenth backend has a tenth of the weight of the others.
    let weights: Vec<u32> = (0..1_000).map(|at| if at % 10 == 0 { 100 } else { 1_000 }).collect();
    assert_eq!(counts(&weights)[..2], [1, 10]);
}

/// Returns how far over its share the most favoured backend is. A backend whose share is
/// less than one entry still has one, and does not count.
fn over(weights: &[u32], got: &[u64], cycle: usize) -> f64 {
    let weight: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let entries: u64 = got.iter().sum();
    let due = |weighs: u32| f64::from(weighs) / weight as f64;
    let counts = weights.iter().zip(got).filter(|&(&weighs, _)| due(weighs) * cycle as f64 >= 1.0);
    let over = |(&weighs, &got): (&u32, &u64)| got as f64 / entries as f64 / due(weighs) - 1.0;
    counts.map(over).fold(0.0, f64::max)
}

/// Returns how far over its share the most favoured backend is after `streams` streams
/// have each walked through these lists once. Each client makes equally many calls,
/// however long its list is.
fn over_of_windows(weights: &[u32], streams: u64, lists: Range<u64>) -> f64 {
    let cycle = cycle(weights);
    // For each entry of two cycles: how many windows begin there, less how many have ended.
    let mut steps = vec![0_i64; 2 * cycle.len() + 1];
    for (list, stream) in lists.flat_map(|list| (0..streams).map(move |stream| (list, stream))) {
        let rank = StreamRank { stream, streams: streams as usize };
        let (start, end) = Window::new(cycle.len(), weights.len(), list, rank).ends();
        steps[start] += 1;
        steps[end] -= 1;
    }
    let mut got = vec![0; weights.len()];
    let mut windows = 0;
    for (&entry, step) in cycle.iter().cycle().zip(&steps[..2 * cycle.len()]) {
        windows += step;
        got[entry as usize] += windows as u64;
    }
    over(weights, &got, cycle.len())
}

/// Makes weights of two to five classes.
fn class_weights(most: usize) -> impl Strategy<Value = Vec<u32>> {
    let classes = proptest::collection::vec(10..1_000_u32, 2..6);
    (classes, proptest::collection::vec(any::<proptest::sample::Index>(), 1..most))
        .prop_map(|(classes, members)| members.iter().map(|at| *at.get(&classes)).collect())
}

/// Makes weights from a half to one and a half, and weights that differ by orders of
/// magnitude.
fn any_weights(most: usize) -> impl Strategy<Value = Vec<u32>> {
    let even = proptest::collection::vec(500..1_500_u32, 1..most);
    let steep = proptest::collection::vec(0.0..4.0_f64, 1..most)
        .prop_map(|powers| powers.into_iter().map(|power| (50.0 * power.exp()) as u32).collect());
    prop_oneof![even, steep]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_exact_while_the_cycle_is_short(weights in proptest::collection::vec(1..20_u32, 1..12)) {
        let entries = cycle(&weights);
        let length = u64::try_from(entries.len()).unwrap();
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        prop_assume!(total <= 20 * weights.len() as u64);
        for (index, &weight) in weights.iter().enumerate() {
            let count = u64::try_from(count(&entries, index)).unwrap();
            prop_assert_eq!(count * total, u64::from(weight) * length);
        }
    }

    /// At no point of the cycle is a backend ahead of its share, or behind it, by as much
    /// as it would be if its entries came in a row.
    #[test]
    fn turns_are_spread(weights in proptest::collection::vec(1..10_u32, 2..6)) {
        let entries = cycle(&weights);
        let total = f64::from(weights.iter().sum::<u32>());
        for (index, &weight) in weights.iter().enumerate() {
            let mut taken = 0.0;
            for (at, &entry) in entries.iter().enumerate() {
                if entry as usize == index { taken += 1.0; }
                let due = f64::from(u32::try_from(at).unwrap() + 1) * f64::from(weight) / total;
                prop_assert!((taken - due).abs() < 2.0 + 1e-9, "{:?} {:?}", weights, entries);
            }
        }
    }

    #[test]
    fn no_backend_is_far_over_its_share_and_none_is_left_out(
        weights in prop_oneof![class_weights(5_000), any_weights(5_000)],
    ) {
        let counts = counts(&weights);
        prop_assert!(counts.iter().all(|&count| count > 0));
        let most = if weights.len() <= 1_024 { 1.0 / 19.0 } else { 1.0 / 9.0 };
        let got: Vec<u64> = counts.iter().map(|&count| count.into()).collect();
        let cycle = got.iter().sum::<u64>() as usize;
        let over = over(&weights, &got, cycle);
        prop_assert!(over <= most, "{:.3} over", over);
    }

    /// No backend is more than 5 % over its share where weights are those of classes, and
    /// 7 % for any weights, once 30 or more clients have had ten lists.
    #[test]
    fn windows_make_up_for_each_other(
        classes in class_weights(1_024), any in any_weights(1_024),
        streams in prop_oneof![Just(30_u64), 31..300_u64, Just(3_000)], first in 0..1_000_u64,
    ) {
        for (weights, most) in [(classes, 0.05), (any, 0.07)] {
            let over = over_of_windows(&weights, streams, first..first + 10);
            prop_assert!(over <= most, "{} backends: {:.3} over", weights.len(), over);
        }
    }

    /// Larger services have fewer entries per backend, and their windows are a smaller
    /// part of the cycle.
    #[test]
    fn windows_of_large_services_make_up_for_each_other(
        weights in prop_oneof![class_weights(5_000), any_weights(5_000)],
        streams in prop_oneof![Just(30_u64), Just(3_000)], first in 0..1_000_u64,
    ) {
        let over = over_of_windows(&weights, streams, first..first + 10);
        prop_assert!(over <= 0.1, "{} backends: {:.3} over", weights.len(), over);
    }

    #[test]
    fn cycles_are_bounded(weights in proptest::collection::vec(1..1_000_000_u32, 1..40)) {
        prop_assert!(cycle(&weights).len() <= 20 * weights.len());
    }
}

#[test]
fn a_light_backend_keeps_its_share() {
    // Each is a number of backends and their weight; the lightest comes first.
    let sets: [&[(usize, u32)]; 5] = [
        &[(1, 9), (9, 100)],
        &[(1, 12), (10, 100)],
        &[(1, 19), (36, 191)],
        &[(1, 7), (2, 100)],
        &[(2, 14), (3, 52), (4, 183), (3, 248)],
    ];
    for set in sets {
        let weights: Vec<u32> = set.iter().flat_map(|&(n, weight)| vec![weight; n]).collect();
        let first = |all: &[u32]| f64::from(all[0]) / f64::from(all.iter().sum::<u32>());
        let kept = first(&counts(&weights)) / first(&weights);
        assert!(kept > 0.6, "{set:?}: {kept}");
    }
}
