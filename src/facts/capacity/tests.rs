//! Tests of estimates, and of when they are published.

use proptest::prelude::*;

use super::*;

fn estimate(reports: impl IntoIterator<Item = (f64, f64)>) -> Estimate {
    let mut estimate = Estimate::new(0);
    for (at, (calls, utilisation)) in reports.into_iter().enumerate() {
        estimate.add(Report { calls, utilisation }, 0.0, 10_000 * (at as u64 + 1));
    }
    estimate
}

fn member(estimate: &Estimate) -> Member<'_> {
    Member { weight: 1, published: Factor::ONE, estimate: Some(estimate) }
}

#[test]
fn calls_by_utilisation_is_the_capacity() {
    let capacity = |reports: &[(f64, f64)]| estimate(reports.iter().copied()).capacity();
    assert_eq!(capacity(&[]), None);
    assert_eq!(capacity(&[(50.0, 0.5), (100.0, 1.0)]), Some(100.0));
    assert_eq!(capacity(&[(f64::NAN, 0.5), (50.0, -1.0)]), None);
    let mut cold = Estimate::new(0);
    cold.add(Report { calls: 1.0, utilisation: 1.0 }, 0.0, BLACKOUT - 1);
    assert_eq!(cold.capacity(), None);
    cold.add(Report { calls: 30.0, utilisation: 0.8 }, 0.2, BLACKOUT);
    assert!((cold.capacity().unwrap() - 50.0).abs() < 1e-9, "idle work is not the calls'");
}

#[test]
fn two_reports_in_a_row_tell_a_changed_machine_from_noise() {
    let steady = [(50.0, 0.5); 20];
    let with =
        |more: &[(f64, f64)]| estimate(steady.iter().chain(more).copied()).capacity().unwrap();
    assert!(with(&[(50.0, 0.8)]) > 90.0);
    assert!(with(&[(50.0, 0.8), (50.0, 0.4)]) > 90.0, "one above, one below");
    assert!((60.0..72.0).contains(&with(&[(50.0, 0.8), (50.0, 0.8), (50.0, 0.8)])));
}

#[test]
fn factors_are_published_in_steps_that_matter() {
    let (full, slow) = (estimate([(50.0, 0.5); 9]), estimate([(50.0, 1.0); 9]));
    let all = [&full, &full, &full, &slow].map(member);
    let now = 90_000;
    let half = Factor::millionths(500_000);
    let expected = vec![Factor::ONE, Factor::ONE, Factor::ONE, half];
    assert_eq!(publish(&all, None, 10_000, now), Some(expected.clone()));
    assert_eq!(publish(&all, Some(now - 9_999), 10_000, now), None, "too early");
    let published = all.map(|one| Member {
        published: if one.estimate == Some(&slow) { half } else { Factor::ONE },
        ..one
    });
    assert_eq!(publish(&published, None, 10_000, now), None, "nothing new");
    // Half of the backends stop reporting, then the others stop too.
    assert_eq!(publish(&all, None, 10_000, now + 30_000), None);
    let silent = Member { estimate: None, ..all[0] };
    assert_eq!(publish(&[silent, silent, silent, all[3]], None, 10_000, now), None);
    let idle = estimate([(1.0, 0.03); 9]);
    assert_eq!(publish(&[&idle, &full].map(member)[..1], None, 10_000, now), None);
}

#[test]
fn a_rough_estimate_is_published_again_once_it_has_settled() {
    let (even, slow) = (estimate([(50.0, 0.5); 9]), estimate([(50.0, 0.521); 9]));
    let all = [&even, &even, &slow].map(member);
    // The estimates began at 10 s, and the factors of 20 s differ from them by 3 %.
    assert_eq!(publish(&all, Some(20_000), 10_000, 69_999), None, "too soon");
    assert!(publish(&all, Some(20_000), 10_000, 70_000).is_some(), "six times as old");
    assert_eq!(publish(&all, Some(75_000), 20_000, 135_000), None, "less than twice as old");
    // An older estimate has the usual band.
    assert_eq!(publish(&all, Some(20_000), 150_000, 211_000), None);
}

/// Reports that are wrong by up to 10 %: each mean of a few of them is wrong too.
#[test]
fn noise_alone_changes_no_factor() {
    let off = [1.0, 0.9, 1.1, 1.1, 0.9, 1.0, 0.9, 1.1];
    let noisy = |calls: f64, from: usize, count: usize| {
        let off = off.into_iter().cycle().skip(from).take(count);
        estimate(off.map(|off| (calls, 0.5 * off)))
    };
    for count in 3..40 {
        let equal: Vec<_> = (0..8).map(|from| noisy(50.0, from, count)).collect();
        let slow = noisy(25.0, 0, count);
        let all: Vec<_> = equal.iter().chain([&slow]).map(member).collect();
        let found = factors(&all, 10_000 * count as u64);
        assert!(found[..8].iter().all(|factor| *factor == Factor::ONE), "{count}: {found:?}");
        let slow = found[8].as_fraction();
        assert!((0.4..0.62).contains(&slow), "{count}: a large difference counts: {slow}");
    }
}

#[test]
fn an_old_estimate_fades() {
    let (full, slow) = (estimate([(50.0, 0.5); 9]), estimate([(50.0, 1.0); 9]));
    let all = [&full, &full, &slow].map(member);
    let factor = |now| factors(&all, now)[2].as_millionths();
    let end = 90_000 + FRESH;
    assert_eq!(
        [factor(end), factor(end + 30_000), factor(end + 60_000)],
        [500_000, 750_000, 1_000_000]
    );
}

fn reports() -> impl Strategy<Value = Vec<(f64, f64)>> {
    proptest::collection::vec((0.0..1e4_f64, 0.0..1.5_f64), 1..30)
}

proptest! {
    #[test]
    fn factors_stay_in_their_range(
        all in proptest::collection::vec((1..9_u32, reports()), 1..12), later in 0..400_000_u64,
    ) {
        let all: Vec<_> = all.into_iter().map(|(w, reports)| (w, estimate(reports))).collect();
        let members: Vec<_> = all
            .iter()
            .map(|(weight, estimate)| Member { weight: *weight, ..member(estimate) })
            .collect();
        let found = factors(&members, 300_000 + later);
        let range = (LEAST * 1e6) as u32..=(MOST * 1e6) as u32;
        prop_assert!(found.iter().all(|factor| range.contains(&factor.as_millionths())));
        let turned: Vec<_> = members.iter().rev().copied().collect();
        let mut turned = factors(&turned, 300_000 + later);
        turned.reverse();
        prop_assert_eq!(found, turned);
    }

    /// With equal reports, the estimate is calls divided by utilisation at any load.
    #[test]
    fn the_estimate_does_not_depend_on_the_load(
        loads in proptest::collection::vec(0.1..1.0_f64, 1..60), capacity in 10.0..1e4_f64,
    ) {
        let found = estimate(loads.iter().map(|load| (load * capacity, *load))).capacity().unwrap();
        prop_assert!((found / capacity - 1.0).abs() < 1e-9);
    }
}
