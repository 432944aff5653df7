//! How messages are read, refused and truncated.

use super::*;

#[test]
fn what_is_none_of_our_business_is_refused() {
    let world = fixture(Some(ONE_PORT));
    world.check("example.com.", "A", &["Refused"]);
    world.check("internal.", "NS", &["Refused"]);
    world.check("notlookaside.internal.", "A", &["Refused"]);
    world.check(".", "NS", &["Refused"]);
    world.check("lookaside.internal.", "AXFR", &["Refused"]);
    let mut message = query("lookaside.internal.", "AXFR");
    message.queries[0].query_type = RecordType::IXFR;
    assert_eq!(show(&world.answer(&message.to_vec().unwrap(), Transport::Tcp)), "Refused");
    for class in [DNSClass::CH, DNSClass::ANY, DNSClass::Unknown(77)] {
        let mut message = query("hello.lookaside.internal.", "A");
        message.queries[0].query_class = class;
        let reply = world.answer(&message.to_vec().unwrap(), Transport::Udp);
        assert!(matches!(reply, Reply::Rejection(_)));
        assert_eq!(show(&reply), "Refused");
    }
}

#[test]
fn malformed_queries() {
    let world = fixture(Some(ONE_PORT));
    let udp = |bytes: &[u8]| world.answer(bytes, Transport::Udp);
    let whole = query("hello.lookaside.internal.", "A").to_vec().unwrap();
    assert_eq!(udp(b""), Reply::Silence);
    assert_eq!(udp(&whole[..11]), Reply::Silence);
    assert_eq!(show(&udp(&whole[..12])), "FormErr");
    assert_eq!(show(&udp(&whole[..20])), "FormErr");

    let mut answer = whole.clone();
    answer[2] |= 0x80;
    assert_eq!(udp(&answer), Reply::Silence);
    let mut none = whole.clone();
    none[5] = 0;
    assert_eq!(show(&udp(&none)), "FormErr");
    let mut crowd = whole.clone();
    crowd[4..6].copy_from_slice(&[0xFF, 0xFF]);
    assert_eq!(show(&udp(&crowd)), "FormErr");
    let mut two = query("hello.lookaside.internal.", "A");
    two.add_query(two.queries[0].clone());
    assert_eq!(show(&udp(&two.to_vec().unwrap())), "FormErr");

    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut other = query("hello.lookaside.internal.", "SOA");
        other.metadata.op_code = opcode;
        let reply = udp(&other.to_vec().unwrap());
        assert_eq!(show(&reply), "NotImp");
        assert_eq!(parsed(&reply).metadata.op_code, opcode);
    }
    let mut long = whole;
    long.resize(QUERY_MAX + 1, 0);
    assert_eq!(show(&udp(&long)), "FormErr");
}

#[test]
fn edns_is_spoken_with_those_who_speak_it() {
    let world = fixture(Some(ONE_PORT));
    let udp = |message: Message| world.answer(&message.to_vec().unwrap(), Transport::Udp);
    let plain = query("hello.lookaside.internal.", "A");
    assert_eq!(parsed(&udp(plain.clone())).edns, None);
    let mut asked = with_edns(plain.clone(), 4096);
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let edns = parsed(&udp(asked)).edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, UDP_MAX, true));
    let mut newer = with_edns(plain, 1232);
    newer.edns.as_mut().unwrap().set_version(1);
    let reply = udp(newer);
    // 16, the code that also means BADSIG in other records.
    assert_eq!(u16::from(parsed(&reply).metadata.response_code), u16::from(Code::BADVERS));
    assert!(matches!(reply, Reply::Rejection(_)));
    let outside = parsed(&udp(with_edns(query("example.com.", "A"), 1232)));
    assert!(outside.edns.is_some());
}

#[test]
fn answers_too_large_are_cut_and_say_so() {
    let mut world = fixture(Some(ONE_PORT));
    crowd(&mut world, 100);
    #[track_caller]
    fn check(world: &Fixture, kind: &str, payload: Option<u16>, expected: (usize, bool)) {
        let plain = query("big.lookaside.internal.", kind);
        let message = payload.map_or(plain.clone(), |payload| with_edns(plain, payload));
        let reply = world.answer(&message.to_vec().unwrap(), Transport::Udp);
        let message = parsed(&reply);
        assert_eq!((message.answers.len(), message.metadata.truncation), expected, "{payload:?}");
        assert_eq!(message.edns.is_some(), payload.is_some());
    }
    check(&world, "A", None, (29, true));
    check(&world, "A", Some(100), (28, true));
    check(&world, "A", Some(1232), (73, true));
    check(&world, "A", Some(65_535), (73, true));
    check(&world, "AAAA", Some(1232), (42, true));
    let whole =
        world.answer(&query("big.lookaside.internal.", "A").to_vec().unwrap(), Transport::Tcp);
    assert_eq!(parsed(&whole).answers.len(), 100);
    assert!(!parsed(&whole).metadata.truncation);

    world.services.pop();
    crowd(&mut world, 200);
    let whole =
        world.answer(&query("big.lookaside.internal.", "A").to_vec().unwrap(), Transport::Tcp);
    assert_eq!(parsed(&whole).answers.len(), ADDRESSES_MAX);
}

#[test]
fn what_nobody_asked_for_is_left_out_first() {
    let balancers: Vec<_> = (1..=60).map(|i| format!("10.9.0.{i}:12000")).collect();
    let world = fixture(Some(&balancers.iter().map(String::as_str).collect::<Vec<_>>()));
    let asked = query("_grpclb._tcp.hello.lookaside.internal.", "SRV");
    let reply = world.answer(&asked.to_vec().unwrap(), Transport::Udp);
    let expected = "NoError aa\n_grpclb._tcp.hello.lookaside.internal. \
                    SRV 0 0 12000 grpclb.lookaside.internal.";
    assert_eq!(show(&reply), expected);
}
