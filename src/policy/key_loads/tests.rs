//! Tests that keys are bounded, and that they move only for a reason.

use proptest::prelude::*;

use super::super::hash::hash;
use super::*;

fn backends(weights: &[u32]) -> Arc<Vec<Candidate>> {
    let one = |(at, &weight): (usize, &u32)| Candidate {
        endpoint: 0,
        id: hash(format!("backend-{at}").as_bytes()),
        weight,
    };
    Arc::new(weights.iter().enumerate().map(one).filter(|one| one.weight > 0).collect())
}

fn key(at: usize) -> u64 {
    hash(format!("key-{at}").as_bytes())
}

fn loads(weights: &[u32], factor: u32) -> KeyLoads {
    let mut loads = KeyLoads::default();
    loads.update(&backends(weights), factor);
    loads
}

impl KeyLoads {
    /// Returns the backend of each key in use.
    fn places(&mut self) -> BTreeMap<u64, u64> {
        let keys: Vec<u64> = self.keys.keys().copied().collect();
        for &key in &keys {
            let first = choose(key, &self.backends).map(|at| self.backends[at].id);
            assert_eq!(self.backend(key) != first, self.is_moved(key));
        }
        keys.iter().map(|key| (*key, self.keys[key].backend)).collect()
    }

    /// Returns whether a key is in use, and not at its first choice.
    fn is_moved(&mut self, key: u64) -> bool {
        self.backend(key);
        self.keys.get(&key).is_some_and(|key| key.moved)
    }

    /// Returns whether a key's backend has room for it.
    fn fits(&self, key: u64) -> bool {
        let state = self.keys[&key];
        let at = self.places.get(&state.backend);
        at.is_some_and(|&at| self.has_room(at, self.loads[at] - state.load))
    }

    /// Rebalances until nothing moves.
    fn rest(&mut self) {
        assert!((0..20).any(|_| !self.rebalance()), "it comes to rest");
    }
}

#[test]
fn a_key_that_is_more_than_a_bound_stays_and_the_others_leave() {
    let mut loads = loads(&[1, 1, 1, 1], 125);
    (0..40).for_each(|at| loads.join(key(at), 1.0));
    loads.rest();
    let hot = (0..40).map(key).find(|&key| !loads.is_moved(key)).unwrap();
    let home = loads.places()[&hot];
    loads.add(hot, 60.0);
    assert!(loads.rebalance());
    loads.rest();
    let places = loads.places();
    assert!(places[&hot] == home && !loads.is_moved(hot));
    assert_eq!(places.values().filter(|&&at| at == home).count(), 1);
    // Once it is like the others, they come back.
    loads.add(hot, -60.0);
    loads.rest();
    let own = |key: &usize| choose(self::key(*key), &backends(&[1, 1, 1, 1]));
    let own = (0..40).filter(|key| own(key) == Some(loads.places[&home])).count();
    assert!(loads.places().values().filter(|&&at| at == home).count() >= own.min(11));
}

#[test]
fn a_key_comes_back_only_when_its_first_choice_is_well_below_the_bound() {
    let mut loads = loads(&[1, 1], 1_000);
    let two = loads.backends.clone();
    let of = |first: u64| {
        let two = two.clone();
        (0..).map(key).filter(move |&key| two[choose(key, &two).unwrap()].id == first)
    };
    let (a, b) = (two[0].id, two[1].id);
    let (a_keys, b_keys): (Vec<_>, Vec<_>) = (of(a).take(20).collect(), of(b).take(8).collect());
    b_keys.iter().for_each(|&key| loads.join(key, 1.0));
    a_keys.iter().for_each(|&key| loads.join(key, 1.0));
    loads.update(&two, 150);
    loads.rebalance();
    // Of 28 streams, `a` may have 150 % of 14.
    let moved = |loads: &mut KeyLoads| a_keys.iter().filter(|&&key| loads.is_moved(key)).count();
    assert_eq!(moved(&mut loads), 0);
    b_keys[..7].iter().for_each(|&key| loads.leave(key, 1.0));
    assert!(loads.rebalance());
    // Of 21, it may have 16: the one that would be the last has no room.
    assert_eq!(moved(&mut loads), 4);
    // At 15 of 20 it is below the bound, but not half-way down to its share.
    let stays: Vec<u64> = a_keys.iter().copied().filter(|&key| !loads.is_moved(key)).collect();
    loads.leave(stays[0], 1.0);
    assert!(!loads.rebalance());
    // At 11 of 16 neither: half-way is 10.
    stays[1..5].iter().for_each(|&key| loads.leave(key, 1.0));
    assert!(!loads.rebalance());
    // At 8 of 13 neither, and at 5 of 10 there is room half-way for one more.
    stays[5..8].iter().for_each(|&key| loads.leave(key, 1.0));
    assert!(!loads.rebalance());
    stays[8..11].iter().for_each(|&key| loads.leave(key, 1.0));
    assert!(loads.rebalance());
    assert_eq!(moved(&mut loads), 3);
}

#[test]
fn nothing_is_kept_of_keys_that_are_not_in_use() {
    let mut loads = loads(&[1, 2, 3], 125);
    for at in 0..10_000 {
        loads.join(key(at), 1.0);
        loads.leave(key(at), 1.0);
    }
    assert!(loads.keys.is_empty() && loads.mean().is_none() && loads.load.abs() < 1e-6);
    // Without backends there is nothing to choose.
    loads.update(&Arc::default(), 125);
    loads.join(key(1), 1.0);
    assert!(!loads.rebalance() && loads.backend(key(1)).is_none());
    loads.update(&backends(&[1]), 125);
    assert!(loads.backend(key(1)).is_some() && !loads.is_moved(key(1)));
}

/// A change of the keys in use or of the backends.
#[derive(Debug, Clone)]
enum Change {
    Join(usize),
    Leave(usize),
    Weigh(usize, u32),
    Rebalance,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        12 => (0..120_usize).prop_map(Change::Join),
        6 => (0..120_usize).prop_map(Change::Leave),
        1 => (0..8_usize, 0..4_u32).prop_map(|(at, weight)| Change::Weigh(at, weight)),
        2 => Just(Change::Rebalance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_backend_is_over_its_bound(
        weights in prop::collection::vec(1..9_u32, 1..20), keys in 1..400_usize,
        factor in 105..300_u32,
    ) {
        let mut loads = loads(&weights, factor);
        (0..keys).for_each(|at| loads.join(key(at), 1.0));
        loads.rebalance();
        let weight: u32 = weights.iter().sum();
        for (one, &load) in loads.backends.iter().zip(&loads.loads) {
            let due = keys as f64 * f64::from(one.weight) / f64::from(weight);
            prop_assert!(load < due * f64::from(factor) / 100.0 + 1.0 + 1e-6);
        }
        // A bound that nothing reaches moves nothing.
        loads.update(&loads.backends.clone(), 100_000);
        loads.rebalance();
        prop_assert!(!(0..keys).any(|at| loads.is_moved(key(at))));
    }

    #[test]
    fn keys_move_only_for_a_reason_and_come_to_rest(
        changes in prop::collection::vec(change(), 1..200),
    ) {
        let mut weights = [1, 1, 2, 1, 1, 3, 1, 0];
        let mut loads = loads(&weights, 125);
        for change in changes {
            let before = loads.places();
            match change {
                Change::Join(at) => loads.join(key(at), 1.0),
                Change::Leave(at) if loads.keys.contains_key(&key(at)) => loads.leave(key(at), 1.0),
                Change::Leave(_) => {}
                Change::Weigh(at, weight) => {
                    weights[at] = weight;
                    loads.update(&backends(&weights), 125);
                    loads.rebalance();
                    continue;
                }
                Change::Rebalance => {
                    loads.count();
                    let full: Vec<u64> =
                        before.keys().copied().filter(|&key| !loads.fits(key)).collect();
                    let guests: Vec<u64> =
                        before.keys().copied().filter(|&key| loads.keys[&key].moved).collect();
                    let moves = loads.rebalance();
                    let after = loads.places();
                    for (key, at) in &before {
                        let home = guests.contains(key) && !loads.is_moved(*key);
                        prop_assert!(after[key] == *at || full.contains(key) || home);
                    }
                    prop_assert!(moves || after == before);
                    loads.rest();
                    continue;
                }
            }
            // A stream that joins or leaves moves no other key.
            let after = loads.places();
            prop_assert!(before.iter().all(|(key, at)| after.get(key).is_none_or(|now| now == at)));
        }
    }
}
