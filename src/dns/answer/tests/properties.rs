//! Properties that hold for any bytes and any name.

use proptest::prelude::*;

use super::*;

fn bound(message: &Message) -> usize {
    let payload = message.edns.as_ref().map_or(UDP_PLAIN, Edns::max_payload);
    usize::from(payload.clamp(UDP_PLAIN, UDP_MAX))
}

fn crowded() -> Fixture {
    let balancers: Vec<_> = (1..=90).map(|i| format!("10.9.0.{i}:{i}")).collect();
    let mut world = fixture(Some(&balancers.iter().map(String::as_str).collect::<Vec<_>>()));
    crowd(&mut world, 250);
    world
}

proptest! {
    #[test]
    fn any_bytes_get_a_bounded_answer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let world = crowded();
        match world.answer(&bytes, Transport::Udp) {
            Reply::Silence => {}
            Reply::Answer(reply) | Reply::Rejection(reply) => {
                prop_assert!(reply.len() <= usize::from(UDP_MAX));
                prop_assert!(Message::from_vec(&reply).is_ok());
            }
        }
    }

    /// Nearly valid questions get further into the code than noise does.
    #[test]
    fn damaged_questions_get_a_bounded_answer_or_none(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        kind in prop::sample::select(vec!["A", "AAAA", "SRV", "TXT", "ANY", "SOA", "NS"]),
        name in prop::sample::select(vec!["big", "_grpclb._tcp.big", "_grpc_config.big", "grpclb", "x.y"]),
        payload in prop::option::of(any::<u16>()),
    ) {
        let world = crowded();
        let plain = query(&format!("{name}.lookaside.internal."), kind);
        let message = payload.map_or(plain.clone(), |payload| with_edns(plain, payload));
        let mut bytes = message.to_vec().unwrap();
        let damaged = !flips.is_empty();
        flips.into_iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = value);
        match world.answer(&bytes, Transport::Udp) {
            Reply::Silence => prop_assert!(damaged),
            Reply::Answer(reply) | Reply::Rejection(reply) => {
                let limit = if damaged { usize::from(UDP_MAX) } else { bound(&message) };
                prop_assert!(reply.len() <= limit);
                let parsed = Message::from_vec(&reply);
                prop_assert!(parsed.is_ok());
                if !damaged {
                    prop_assert_eq!(&parsed.unwrap().queries, &message.queries);
                }
            }
        }
    }

    /// RFC 8020: no name exists below one that does not exist.
    #[test]
    fn nothing_exists_below_what_does_not_exist(
        labels in prop::collection::vec("(_grpclb|_tcp|_grpc_config|_?[a-c%.2e -]{1,4}|id--1|xn--a|grpclb)", 1..5),
    ) {
        let world = fixture(Some(ONE_PORT));
        let mut exists = true;
        for depth in 1..=labels.len() {
            let tail = labels[labels.len() - depth..].iter().map(String::as_bytes);
            let zone = ["lookaside", "internal"].map(str::as_bytes);
            let mut message = query("x", "A");
            message.queries[0].name = Name::from_labels(tail.chain(zone)).unwrap();
            let reply = parsed(&world.answer(&message.to_vec().unwrap(), Transport::Tcp));
            let found = reply.metadata.response_code != Code::NXDomain;
            prop_assert!(exists || !found, "{}", message.queries[0].name);
            exists = found;
        }
    }
}
