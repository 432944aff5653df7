//! Tests what is sent to a client, and above all what is not sent twice.

use bytes::Buf;
use prost::Message;

use super::*;

fn messages(push: Option<Push>) -> Vec<String> {
    let Some(push) = push else { return vec!["nothing".to_owned()] };
    let mut bytes = push.message.to_bytes();
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        bytes.advance(1);
        let length = bytes.get_u32() as usize;
        let message = pb::LoadBalanceResponse::decode(bytes.split_to(length)).unwrap();
        messages.push(match message.load_balance_response_type.unwrap() {
            Kind::InitialResponse(initial) => match initial.client_stats_report_interval {
                Some(interval) => format!("initial {}s", interval.seconds),
                None => "initial".to_owned(),
            },
            Kind::FallbackResponse(_) => "fallback".to_owned(),
            Kind::ServerList(list) => {
                let tokens = list.servers.iter().map(|server| server.load_balance_token.as_str());
                format!("list {}", tokens.collect::<Vec<_>>().join(" "))
            }
        });
    }
    messages
}

fn session() -> Session {
    Session::new(Duration::ZERO, 0)
}

/// Makes a list that is easy to recognise: its one entry is a drop entry.
fn list() -> Directive {
    Directive::List(Arc::new(EncodedList::drop_all()))
}

#[test]
fn the_first_answer_is_the_initial_response_and_a_unique_list() {
    assert_eq!(
        messages(session().next_push(list(), StreamRank::default())),
        ["initial", "list drop~00000001"]
    );
    assert_eq!(
        messages(session().next_push(Directive::Empty, StreamRank::default())),
        ["initial", "list "]
    );
    assert_eq!(
        messages(session().next_push(Directive::Drop, StreamRank::default())),
        ["initial", "list drop~00000001"]
    );
    assert_eq!(
        messages(session().next_push(Directive::Fallback, StreamRank::default())),
        ["initial", "fallback"]
    );
    let mut other = Session::new(Duration::from_secs(7), 0xabcd_0000_0000);
    assert_eq!(
        messages(other.next_push(list(), StreamRank::default())),
        ["initial 7s", "list drop~0000abce"]
    );
}

#[test]
fn later_lists_come_alone_and_plain() {
    let mut session = session();
    session.next_push(Directive::Empty, StreamRank::default());
    assert_eq!(messages(session.next_push(list(), StreamRank::default())), ["list drop"]);
    assert_eq!(messages(session.next_push(Directive::Drop, StreamRank::default())), ["list drop"]);
    assert_eq!(messages(session.next_push(Directive::Empty, StreamRank::default())), ["list "]);
}

#[test]
fn no_list_is_pushed_twice() {
    let mut session = session();
    let first = list();
    session.next_push(first.clone(), StreamRank::default());
    assert_eq!(messages(session.next_push(first, StreamRank::default())), ["nothing"]);
    use Directive::{Drop, Empty, Fallback, Unreachable};
    for directive in [Empty, Unreachable, Drop, Fallback] {
        session.next_push(directive.clone(), StreamRank::default());
        assert_eq!(messages(session.next_push(directive, StreamRank::default())), ["nothing"]);
    }
}

#[test]
fn a_pushed_list_is_held_by_its_message_alone() {
    let mut session = session();
    let Directive::List(list) = list() else { panic!() };
    let held = Arc::downgrade(&list);
    let push = session.next_push(Directive::List(list.clone()), StreamRank::default()).unwrap();
    assert_eq!(
        messages(session.next_push(Directive::List(list), StreamRank::default())),
        ["nothing"]
    );
    assert!(held.upgrade().is_none());
    assert_eq!(messages(Some(push)).len(), 2);
}

#[test]
fn the_list_after_a_fallback_is_unlike_the_one_before_it() {
    let mut session = session();
    let list = list();
    session.next_push(list.clone(), StreamRank::default());
    assert_eq!(
        messages(session.next_push(Directive::Fallback, StreamRank::default())),
        ["fallback"]
    );
    assert_eq!(
        messages(session.next_push(list.clone(), StreamRank::default())),
        ["list drop~00000002"]
    );
    session.next_push(Directive::Fallback, StreamRank::default());
    assert_eq!(messages(session.next_push(list, StreamRank::default())), ["list drop~00000003"]);
}

#[test]
fn without_backends_each_kind_of_client_gets_what_it_understands() {
    use ClientKind::{Core, Go, Java, Other};
    let check = |when_empty, kind, expected: &str| {
        let push =
            session().next_push(directive(None, when_empty, kind), StreamRank::default()).unwrap();
        assert_eq!(push.told.as_str(), expected, "{when_empty:?} {kind:?}");
    };
    check(WhenEmpty::Wait, Go, "unreachable");
    check(WhenEmpty::Drop, Go, "unreachable");
    check(WhenEmpty::Fallback, Go, "fallback");
    for kind in [Core, Java, Other] {
        check(WhenEmpty::Wait, kind, "empty");
        check(WhenEmpty::Drop, kind, "drop");
        check(WhenEmpty::Fallback, kind, "fallback");
    }
}

#[test]
fn reports_are_spread_and_never_closer_than_asked() {
    for seed in 0..2_000 {
        let interval = jittered(Duration::from_secs(10), seed);
        assert!((10_000..11_000).contains(&interval.as_millis()), "{interval:?}");
    }
    assert_eq!(jittered(Duration::ZERO, 7), Duration::ZERO);
    assert_ne!(jittered(Duration::from_secs(10), 1), jittered(Duration::from_secs(10), 2));
}
