//! Events of etcd, and the addresses that a DNS answer then has.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::super::hosts::BalancerHosts;
use super::super::record::{self, PREFIX};
use super::*;
use crate::registry::{Cause, Entry};

const OWN: &str = "10.0.0.2:1";
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment some milliseconds after the begin.
fn moment(millis: u64, streams: u64) -> Moment {
    Moment { at: *BEGIN + Duration::from_millis(millis), streams }
}

fn address(text: &str) -> HostPort {
    HostPort::parse(text).unwrap()
}

fn own(state: State) -> Own {
    Own {
        address: Some(address(OWN)),
        host_only: false,
        key: Some(Key::new(b"own")),
        state,
        zone: None,
        streams: 0,
        revision: 1,
    }
}

fn entry(id: &str, value: &str) -> Entry<Decoded> {
    let key = Key::new(format!("{PREFIX}zone/{id}").as_bytes());
    let hosts = BalancerHosts::default();
    let decoded = record::decode(id.as_bytes(), value.as_bytes(), true, &hosts);
    Entry { key, decoded, leased: true }
}

fn alone(address: &str) -> Entry<Decoded> {
    entry(address, address)
}

fn recorded(address: &str, state: State, change: impl Fn(&mut Record)) -> Entry<Decoded> {
    let mut record = Record {
        address: self::address(address),
        host_only: false,
        state,
        zone: None,
        version: "1".to_owned(),
        streams: 0,
        revision: 1,
        started: 1,
    };
    change(&mut record);
    entry(&format!("{address}/{}", record.started), &record.value())
}

fn reset(all: Vec<Entry<Decoded>>) -> Event<Decoded> {
    Event::Reset { revision: 1, all, went_back: false }
}

fn stale() -> Event<Decoded> {
    Event::Stale { since: Instant::now(), reason: String::new() }
}

/// Returns the addresses of an answer, sorted.
fn named(known: &Known, own: &Own) -> Vec<String> {
    let replicas = known.replicas(own, "1", Announced::Yes, *BEGIN);
    let names = replicas.in_dns(own.address.clone(), false, 0);
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn check(events: Vec<Event<Decoded>>, state: State, expected: &[&str]) {
    let mut known = Known::default();
    events.into_iter().for_each(|event| known.apply(event, moment(0, 0)));
    assert_eq!(named(&known, &own(state)), expected);
}

#[test]
fn own_is_always_there_and_trouble_takes_nobody_out() {
    let mut known = Known::default();
    let mut check = |event: Option<Event<Decoded>>, expected: &[&str]| {
        event.into_iter().for_each(|event| known.apply(event, moment(0, 0)));
        assert_eq!(named(&known, &own(State::Ready)), expected);
    };
    check(None, &[OWN]);
    let all = vec![alone("10.0.0.3:1"), alone("10.0.0.1:1"), alone("nonsense")];
    let three = ["10.0.0.1:1", OWN, "10.0.0.3:1"];
    check(Some(reset(all)), &three);
    check(Some(stale()), &three);
    let changes =
        vec![Change::Delete(alone("10.0.0.3:1").key, Cause::InDoubt), Change::Put(alone(OWN))];
    check(Some(Event::Apply { revision: 2, changes }), &three[..2]);
    check(Some(reset(vec![])), &[OWN]);
}

#[test]
fn a_balancer_that_drains_names_the_others() {
    let draining = State::Draining;
    check(vec![reset(vec![alone("10.0.0.1:1"), alone(OWN)])], draining, &["10.0.0.1:1"]);
    check(vec![reset(vec![alone(OWN)])], draining, &[OWN]);
    check(vec![reset(vec![])], draining, &[OWN]);
    check(vec![], draining, &[]);
    // Even one that has not read the registry is a better place to go to.
    let starting = recorded("10.0.0.1:1", State::Starting, |_| {});
    check(vec![reset(vec![starting])], draining, &["10.0.0.1:1"]);
}

#[test]
fn only_the_best_state_is_named() {
    let one = |address, state| recorded(address, state, |_| {});
    let others = || {
        reset(vec![
            one("10.0.0.1:1", State::Ready),
            one("10.0.0.3:1", State::Starting),
            one("10.0.0.4:1", State::Stale),
            one("10.0.0.5:1", State::Draining),
        ])
    };
    check(vec![others()], State::Ready, &["10.0.0.1:1", OWN]);
    for state in [State::Stale, State::Starting, State::Draining] {
        check(vec![others()], state, &["10.0.0.1:1"]);
    }
    let worse = vec![one("10.0.0.3:1", State::Starting), one("10.0.0.4:1", State::Stale)];
    check(vec![reset(worse)], State::Starting, &["10.0.0.4:1"]);
    check(
        vec![reset(vec![one("10.0.0.3:1", State::Starting)])],
        State::Starting,
        &[OWN, "10.0.0.3:1"],
    );
}

#[test]
fn while_etcd_is_away_stale_balancers_are_named_like_ready_ones() {
    let ready = || reset(vec![recorded("10.0.0.1:1", State::Ready, |_| {})]);
    check(vec![ready(), stale()], State::Stale, &["10.0.0.1:1", OWN]);
    check(vec![ready(), stale(), ready()], State::Stale, &["10.0.0.1:1"]);
}

#[test]
fn a_record_outweighs_an_address_alone_and_a_later_record_an_earlier_one() {
    let at = |state, started| recorded("10.0.0.1:1", state, |record| record.started = started);
    let starting = vec![alone("10.0.0.1:1"), at(State::Starting, 2), at(State::Ready, 1)];
    check(vec![reset(starting)], State::Ready, &[OWN]);
    let ready = vec![at(State::Ready, 2), at(State::Draining, 1)];
    check(vec![reset(ready)], State::Ready, &["10.0.0.1:1", OWN]);
}

#[test]
fn addresses_of_another_host_alone_are_named_to_that_host_only() {
    let mut known = Known::default();
    known.apply(
        reset(vec![recorded("127.0.0.1:1", State::Ready, |one| one.host_only = true)]),
        moment(0, 0),
    );
    let replicas = known.replicas(&own(State::Ready), "1", Announced::Yes, *BEGIN);
    let named = |on_host| replicas.in_dns(Some(address(OWN)), on_host, 0).len();
    assert_eq!((named(false), named(true)), (1, 2));
}

#[test]
fn balancers_of_the_own_zone_come_first() {
    let zone = |zone: &str| Some(zone.to_owned());
    let other = |address, name| recorded(address, State::Ready, |one| one.zone = zone(name));
    let mut known = Known::default();
    known.apply(reset(vec![other("10.0.0.1:1", "b"), other("10.0.0.3:1", "a")]), moment(0, 0));
    let own = Own { zone: zone("a"), ..own(State::Ready) };
    let replicas = known.replicas(&own, "1", Announced::Yes, *BEGIN);
    for seed in 0..32 {
        let names = replicas.in_dns(own.address.clone(), false, seed);
        assert_eq!((names.len(), names[2].to_string()), (3, "10.0.0.1:1".to_owned()));
    }
}

#[test]
fn loads_are_those_of_balancers_that_take_clients_of_the_same_place() {
    let zone = |zone: &str| Some(zone.to_owned());
    let other = |address, state, streams, name: &str| {
        recorded(address, state, |one| (one.streams, one.zone) = (streams, zone(name)))
    };
    let all = || {
        vec![
            other("10.0.0.1:1", State::Ready, 7, "a"),
            other("10.0.0.3:1", State::Starting, 8, "a"),
            other("10.0.0.4:1", State::Ready, 9, "b"),
            recorded("127.0.0.1:1", State::Ready, |one| one.host_only = true),
        ]
    };
    let replicas = |events: Vec<Event<Decoded>>, own: Own| {
        let mut known = Known::default();
        events.into_iter().for_each(|event| known.apply(event, moment(0, 0)));
        known.replicas(&own, "1", Announced::Yes, *BEGIN)
    };
    let loads = |events, own| replicas(events, own).loads();
    let own = |state, zone| Own { streams: 5, zone, ..own(state) };
    assert_eq!(loads(vec![reset(all())], own(State::Ready, None)), Some((5, vec![7, 9])));
    assert_eq!(loads(vec![reset(all())], own(State::Ready, zone("a"))), Some((5, vec![7])));
    // Nobody is asked to move by numbers that are old, or by a balancer that may be at fault.
    assert_eq!(loads(vec![reset(all())], own(State::Stale, None)), None);
    assert_eq!(loads(vec![reset(all()), stale()], own(State::Ready, None)), None);
    // The former version does not say its streams.
    let mixed = [all(), vec![alone("10.0.0.5:1")]].concat();
    assert_eq!(loads(vec![reset(mixed)], own(State::Ready, None)), None);
    // The part of all streams is 1 while it is not known.
    let part = |own| replicas(vec![reset(all())], own).part();
    assert!((part(own(State::Ready, zone("a"))) - 5.0 / 12.0).abs() < 1e-9);
    let idle = Own { streams: 0, ..own(State::Ready, None) };
    assert_eq!([own(State::Stale, None), idle].map(part), [1.0, 1.0]);
}

#[test]
fn rows_say_what_is_known_and_rejected_keys_say_why() {
    let mut known = Known::default();
    let record = recorded("10.0.0.1:1", State::Stale, |one| one.streams = 7);
    known.apply(reset(vec![record, alone("10.0.0.3:1"), alone("nonsense")]), moment(0, 0));
    let replicas = known.replicas(&own(State::Ready), "2", Announced::Yes, *BEGIN);
    let rows: Vec<_> = replicas.rows.iter().map(|row| (row.own, row.state, row.streams)).collect();
    let expected = [
        (true, State::Ready, Some(0)),
        (false, State::Stale, Some(7)),
        (false, State::Ready, None),
    ];
    assert_eq!(rows, expected);
    assert_eq!(replicas.rows[0].version.as_deref(), Some("2"));
    assert_eq!(replicas.rejected.len(), 1);
    assert!(replicas.rejected[0].0.to_string().ends_with("nonsense"));
}

/// Clients start at a steady pace, and each asks one of three balancers, which write their
/// numbers in turn, so that each knows the others by numbers of other ages.
#[test]
fn many_clients_at_once_spread_evenly_whenever_the_balancers_write() {
    const BALANCERS: usize = 3;
    const EVERY: u64 = 5_000;
    let addresses: Vec<String> = (1..=BALANCERS).map(|one| format!("10.0.0.{one}:1")).collect();
    for (clients, millis) in [(10_000_u64, 5_000_u64), (10_000, 1_000), (3_000, 20_000)] {
        for phases in [[0, 0, 0], [500, 4_500, 4_800], [100, 2_500, 4_900], [4_000, 100, 200]] {
            let mut known: Vec<_> = (0..BALANCERS).map(|_| Known::default()).collect();
            let mut streams = [0_u64; BALANCERS];
            let (mut seed, mut started) = (1_u64, 0);
            for now in 0..=millis {
                for writer in 0..BALANCERS {
                    let written = streams[writer];
                    let first = now == 0;
                    if !first && now % EVERY != phases[writer] {
                        continue;
                    }
                    for reader in 0..BALANCERS {
                        let entry = recorded(&addresses[writer], State::Ready, |one| {
                            one.streams = written;
                        });
                        let changes = vec![Change::Put(entry)];
                        let event = Event::Apply { revision: 1, changes };
                        known[reader].apply(event, moment(now, streams[reader]));
                    }
                }
                while started * millis < now * clients {
                    started += 1;
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let asked = (seed >> 60) as usize % BALANCERS;
                    let own = Own {
                        address: Some(address(&addresses[asked])),
                        streams: streams[asked],
                        ..own(State::Ready)
                    };
                    let at = moment(now, 0).at;
                    let replicas = known[asked].replicas(&own, "1", Announced::Yes, at);
                    let first =
                        replicas.in_dns(own.address, false, (seed >> 33) as usize)[0].to_string();
                    let chosen = addresses.iter().position(|one| *one == first).unwrap();
                    streams[chosen] += 1;
                }
            }
            let mean = clients / BALANCERS as u64;
            for one in streams {
                assert!(one.abs_diff(mean) * 10 <= mean, "{phases:?} in {millis} ms: {streams:?}");
            }
        }
    }
}

#[test]
fn an_old_record_says_how_many_streams_there_are() {
    let record = recorded("10.0.0.1:1", State::Ready, |one| one.streams = 100);
    let mut known = Known::default();
    known.apply(reset(vec![record]), moment(0, 10));
    let expected = |streams, millis| {
        let own = Own { streams, ..own(State::Ready) };
        let replicas = known.replicas(&own, "1", Announced::Yes, moment(millis, 0).at);
        replicas.rows[1].expected
    };
    assert_eq!(expected(60, 5_000), Some(150));
    assert_eq!(
        expected(3, 5_000),
        Some(100),
        "a balancer that loses streams says nothing of others"
    );
    assert_eq!(expected(60, 8_000), Some(100));
}
