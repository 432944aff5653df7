//! Tests which lost backends stay listed, which leave, and when.

use std::sync::Arc;
use std::time::Duration;

use std::collections::HashSet;

use imbl::OrdMap;
use proptest::prelude::*;

use super::*;
use crate::model::Weight;

const KEEP: Duration = Duration::from_secs(600);

fn addr(n: usize) -> BackendAddr {
    BackendAddr::new([127, 0, 0, 1].into(), u16::try_from(n + 1).unwrap()).unwrap()
}

fn name() -> ServiceName {
    ServiceName::new("hello").unwrap()
}

fn key(n: usize) -> Key {
    Key::new(n.to_string().as_bytes())
}

fn endpoint(n: usize) -> Endpoint {
    Endpoint { id: n.to_string().into(), addr: addr(n), weight: Weight(1), meta: Arc::default() }
}

/// Makes the losses of these backends of a service of `of` backends, all at once.
fn losses(gone: std::ops::Range<usize>, of: usize, since: Instant) -> Losses {
    let loss = |n| Loss { key: Some(key(n)), endpoint: endpoint(n), why: LossReason::LeaseLost };
    Losses { since, length_before: (of, since), all: gone.map(loss).collect() }
}

/// Makes a guard that holds the lost backends `gone` of a service of `of` backends.
fn lost(gone: std::ops::Range<usize>, of: usize, now: Instant) -> Guard {
    let mut guard =
        Guard::new(Rules { keep_lost: KEEP, guard: 50, probe_unleased: Duration::ZERO }.into());
    for n in gone {
        guard.lose(losses(n..n + 1, of, now), &name(), now).unwrap();
    }
    guard
}

/// Returns the numbers of the held backends while those in `registered` are registered.
fn kept(guard: &mut Guard, registered: std::ops::Range<usize>) -> Vec<String> {
    registered.clone().for_each(|n| guard.forget_address(&name(), addr(n)));
    guard.evict(&name(), registered.len());
    guard.list(&name()).map(|endpoint| endpoint.id.to_string()).collect()
}

/// Returns the services in which a backend's time is over.
fn expire(guard: &mut Guard, now: Instant) -> Vec<ServiceName> {
    guard.expire(now).into_iter().map(|(service, _)| service).collect()
}

#[test]
fn what_answers_stays_until_its_time_is_over() {
    let now = Instant::now();
    let mut guard = lost(0..1, 4, now);
    assert_eq!(kept(&mut guard, 1..4), ["0"], "unprobed");
    guard.probed(addr(0), ProbeResult::Takes);
    assert_eq!(kept(&mut guard, 1..4), ["0"]);
    assert_eq!(guard.due(), Some(now + KEEP));
    assert!(expire(&mut guard, now + KEEP - Duration::from_millis(1)).is_empty());
    assert_eq!(expire(&mut guard, now + KEEP), [name()]);
    assert!(kept(&mut guard, 1..4).is_empty());
    assert_eq!(guard.due(), None);
}

#[test]
fn one_refusal_is_certain_and_silence_counts_three_times() {
    let now = Instant::now();
    let mut guard = lost(0..2, 6, now);
    assert_eq!(guard.probed(addr(0), ProbeResult::Refuses), [name()]);
    assert_eq!(kept(&mut guard, 2..6), ["1"]);
    for answer in [
        ProbeResult::Silent,
        ProbeResult::Silent,
        ProbeResult::Takes,
        ProbeResult::Silent,
        ProbeResult::Silent,
    ] {
        guard.probed(addr(1), answer);
        assert_eq!(kept(&mut guard, 2..6), ["1"]);
    }
    guard.probed(addr(1), ProbeResult::Silent);
    assert!(kept(&mut guard, 2..6).is_empty());
    // Another process may have its address by now.
    assert!(guard.probed(addr(1), ProbeResult::Takes).is_empty());
    assert!(kept(&mut guard, 2..6).is_empty());
}

#[test]
fn who_registers_again_is_in_doubt_no_more() {
    let now = Instant::now();
    let mut guard = lost(0..2, 2, now);
    // No longer held, because its key is back, whatever its address is now.
    let settled = guard.forget_key(&key(0));
    assert_eq!(settled, [(name(), Some(endpoint(0)))]);
    assert_eq!(kept(&mut guard, 0..0), ["1"]);
    // No longer held, because its address is registered, under another key.
    assert!(kept(&mut guard, 1..2).is_empty());
    assert_eq!(guard.due(), None);
    assert!(guard.forget_key(&key(1)).is_empty());
}

#[test]
fn half_stays_even_if_nothing_answers_and_the_dead_go_before_the_living() {
    let now = Instant::now();
    let mut guard = lost(0..9, 10, now);
    guard.probed(addr(8), ProbeResult::Takes);
    for n in 0..8 {
        guard.probed(addr(n), ProbeResult::Refuses);
    }
    assert_eq!(kept(&mut guard, 9..10), ["5", "6", "7", "8"], "and the registered one");
    let mut liveness = Liveness::default();
    guard.copy_into(&mut liveness);
    assert!(liveness.guarded.contains(&name()));
    // Backends that return let dead ones leave.
    assert_eq!(kept(&mut guard, 20..24), ["8"], "four and one are half");
    assert_eq!(guard.release(&name(), now).len(), 1);
    assert!(kept(&mut guard, 20..24).is_empty());
    assert!(guard.release(&name(), now).is_empty());
}

#[test]
fn successive_generations_are_not_added_up() {
    let now = Instant::now();
    // Four servers, replaced twice within the time: there were never more than four.
    let mut guard = lost(0..8, 4, now);
    for n in 0..8 {
        guard.probed(addr(n), ProbeResult::Refuses);
    }
    assert!(kept(&mut guard, 8..12).is_empty());
}

#[test]
fn a_removed_backend_is_missing_for_a_minute_and_a_held_one_for_its_time() {
    let now = Instant::now();
    let mut guard = lost(0..2, 2, now);
    (0..2).for_each(|n| drop(guard.probed(addr(n), ProbeResult::Refuses)));
    assert_eq!(kept(&mut guard, 0..0), ["1"]);
    assert_eq!(guard.due(), Some(now + MISSING_FOR));
    assert_eq!(expire(&mut guard, now + MISSING_FOR), [name()]);
    assert_eq!(kept(&mut guard, 0..0), ["1"]);
    assert_eq!(guard.due(), Some(now + KEEP));
    // A loss long afterwards belongs to another incident.
    let mut guard = lost(0..1, 2, now);
    guard.probed(addr(0), ProbeResult::Refuses);
    assert!(kept(&mut guard, 1..2).is_empty());
    assert_eq!(guard.length_before(&name(), now), Some((2, now)));
    guard.expire(now + MISSING_FOR);
    assert_eq!(guard.length_before(&name(), now), None);
}

#[test]
fn the_only_backend_of_a_service_is_no_mass() {
    let mut guard = lost(0..1, 1, Instant::now());
    guard.probed(addr(0), ProbeResult::Refuses);
    assert!(kept(&mut guard, 0..0).is_empty());
}

#[test]
fn who_left_on_purpose_is_not_missed() {
    let mut guard = lost(0..4, 10, Instant::now());
    (0..6).for_each(|_| guard.note_deregistered(&name()));
    (0..4).for_each(|n| drop(guard.probed(addr(n), ProbeResult::Refuses)));
    assert_eq!(kept(&mut guard, 0..0).len(), 2, "half of the four that did not leave");
}

#[test]
fn with_no_time_nothing_is_held() {
    let now = Instant::now();
    let mut guard = Guard::new(Rules::OFF.into());
    let refused = guard.lose(losses(0..2, 10, now), &name(), now).unwrap_err();
    assert_eq!(refused.all.len(), 2);
    assert!(kept(&mut guard, 0..0).is_empty());
}

#[test]
fn what_was_restored_stays_whole_until_the_registry_is_read() {
    let now = Instant::now();
    let mut guard = lost(0..0, 0, now);
    guard.restore(now);
    guard.lose(losses(0..4, 4, now), &name(), now).unwrap();
    assert!(guard.probed(addr(0), ProbeResult::Refuses).is_empty());
    assert!(expire(&mut guard, now + KEEP * 2).is_empty());
    assert_eq!(kept(&mut guard, 0..0).len(), 4);
    let mut liveness = Liveness::default();
    guard.copy_into(&mut liveness);
    assert_eq!(liveness, Liveness::default(), "nobody is probed");
    assert_eq!(guard.note_registry_read(now + KEEP * 2), [name()]);
    assert_eq!(kept(&mut guard, 0..1), ["1", "2", "3"]);
    assert_eq!(guard.due(), Some(now + KEEP * 3), "the registry may have had it until now");
}

proptest! {
    /// For any losses and answers in any order: registered and held backends together are
    /// never under half of the last good list; a backend that answers never leaves;
    /// nothing is left when the time of all is over.
    #[test]
    fn never_below_half(of in 2..40_usize, lost_n in 1..40_usize,
                        answers in proptest::collection::vec((0..40_usize, 0..3_u8), 0..200)) {
        let lost_n = lost_n.min(of);
        let now = Instant::now();
        let mut guard = lost(0..lost_n, of, now);
        let mut dead = HashSet::new();
        for (n, answer) in answers {
            let answer = [ProbeResult::Takes, ProbeResult::Refuses, ProbeResult::Silent][usize::from(answer)];
            guard.probed(addr(n % lost_n), answer);
            prop_assert!(guard.is_consistent());
            if answer != ProbeResult::Takes { dead.insert(n % lost_n); }
            let kept = kept(&mut guard, lost_n..of);
            prop_assert!((kept.len() + of - lost_n) * 2 >= of);
            for n in (0..lost_n).filter(|n| !dead.contains(n)) {
                prop_assert!(kept.contains(&n.to_string()));
            }
        }
        guard.expire(now + KEEP);
        prop_assert!(guard.services.is_empty() && guard.keys.is_empty());
        prop_assert!(guard.addresses.is_empty() && guard.due().is_none());
    }
}

/// Backends that are lost together are held in the same way as single ones.
#[test]
fn backends_that_go_together_are_held_like_single_ones() {
    let now = Instant::now();
    let mut guard =
        Guard::new(Rules { keep_lost: KEEP, guard: 50, probe_unleased: Duration::ZERO }.into());
    let mut all = losses(0..6, 6, now);
    // Neither sorted nor each address once. Of two keys with one address the later
    // counts.
    all.all.reverse();
    let again = Loss { key: Some(key(9)), endpoint: endpoint(3), why: LossReason::Swept };
    all.all.push(again);
    guard.lose(all, &name(), now).unwrap();
    assert!(guard.is_consistent());
    assert_eq!(kept(&mut guard, 0..0), ["0", "1", "2", "3", "4", "5"]);
    assert!(guard.forget_key(&key(3)).is_empty());
    assert_eq!(guard.forget_key(&key(9)), [(name(), Some(endpoint(3)))]);
    (0..6).for_each(|n| drop(guard.probed(addr(n), ProbeResult::Refuses)));
    assert_eq!(kept(&mut guard, 0..0), ["2", "4", "5"], "half of what there was");
    assert!(guard.is_consistent());
    assert_eq!(expire(&mut guard, now + KEEP).len(), 5);
    assert!(guard.is_consistent() && guard.due().is_none());
}

impl Guard {
    /// Returns whether the values that are kept up to date equal freshly computed ones.
    fn is_consistent(&self) -> bool {
        let held = |lost: &LostBackends| {
            let listed = lost.all().filter(|(_, backend)| !backend.unlisted);
            listed.map(|(addr, backend)| (addr, backend.held())).collect::<OrdMap<_, _>>()
        };
        let services = self.services.iter().filter(|(_, lost)| lost.held() > 0);
        let held: OrdMap<_, OrdMap<_, _>> =
            services.map(|(name, lost)| (name.clone(), held(lost))).collect();
        let mut held_maps = Liveness::default();
        self.copy_into(&mut held_maps);
        let held_addresses = held.values().flat_map(|held| held.keys().copied()).collect();
        let held_len = held.values().map(OrdMap::len).sum::<usize>();
        let expected = Liveness { held, held_addresses, held_len, ..held_maps.clone() };
        let takes = |lost: &LostBackends| {
            lost.answering()
                == lost
                    .all()
                    .filter(|(_, one)| {
                        !one.unlisted && one.held().answer == Some(ProbeResult::Takes)
                    })
                    .count()
        };
        held_maps == expected && self.services.values().all(takes)
    }
}
