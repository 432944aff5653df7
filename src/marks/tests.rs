//! Tests of the keys and values of marks, and of the backends that they are about.

use std::sync::Arc;

use super::*;
use crate::model::{Meta, Weight, Zone};

fn mark(below: &str, by: &str) -> Arc<Mark> {
    let value = Value { by: by.to_owned(), ..Value::default() };
    Arc::new(Mark { key: MarkKey::parse(below).unwrap(), value })
}

fn endpoint(id: &str, addr: &str, meta: &[(&str, &str)]) -> Endpoint {
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    let meta: Meta = meta.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Endpoint {
        id: id.into(),
        addr: BackendAddr::new(addr.ip(), addr.port()).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::new(meta),
    }
}

#[test]
fn keys_are_written_as_they_are_read() {
    assert_eq!(prefix(&Zone::new("z.test").unwrap()), "/lookaside/marks/z.test/");
    for same in [
        "drain/hello/10.0.0.9:50051",
        "drain/game.dev/[2001:db8::1]:50051",
        "drain/*/10.0.0.9",
        "drain/*/2001:db8::1",
        "drain/hello/zone=a",
        "drain/hello/node/7 of 9",
        "release/game.dev",
        "shed/hello",
        "shed/*",
        "shed/game.dev/zone=a",
        "fallback/game.dev",
        "fallback/*",
    ] {
        assert_eq!(MarkKey::parse(same).unwrap().to_string(), same);
    }
    let folded = |text: &str| MarkKey::parse(text).unwrap().to_string();
    assert_eq!(folded("drain/Game.Dev/x=a=b"), "drain/game.dev/x=a=b");
    assert_eq!(folded("drain/a/[2001:db8::1]"), "drain/a/2001:db8::1");
    assert_eq!(folded("drain/a/::ffff:10.0.0.1"), "drain/a/10.0.0.1");
    for (wrong, expected) in [
        ("", "is no mark that this lookaside knows"),
        ("freeze/hello", "\"freeze\" is no mark"),
        ("drain/hello", "names no backends"),
        ("drain/hello/", "names no backends"),
        ("drain//10.0.0.1:1", "holds no service"),
        ("drain/hello/10.0.0.1:0", "names no backends"),
        ("drain/hello/=a", "names no backends"),
        ("drain/hello/zone=", "names no backends"),
        ("drain/hello/a\u{1b}b", "names no backends"),
        ("shed/hello/zone", "names no clients: expected KEY=VALUE"),
        ("shed/hello/", "names no clients"),
        ("shed/", "holds no service"),
        ("fallback/a/b", "holds a slash"),
        ("release/*", "needs the name of one service"),
        ("release/dev/game", "holds a slash"),
        ("release/a..b", "has an empty label"),
    ] {
        let error = MarkKey::parse(wrong).unwrap_err();
        assert!(error.contains(expected), "{wrong}: {error}");
    }
    assert!(Backends::parse(&"x".repeat(1025)).is_err());
}

#[test]
fn values_are_written_as_they_are_read() {
    let full = Value {
        by: "me@here".to_owned(),
        why: "kernel \"update\"".to_owned(),
        set: Some(Timestamp(1_795_861_800)),
        until: Some(Timestamp(1_795_861_860)),
        percent: Some(30),
    };
    assert_eq!(Value::parse(full.to_json().as_bytes()), Ok(full));
    assert_eq!(Value::parse(b" \n"), Ok(Value::default()));
    assert_eq!(Value::parse(Value::default().to_json().as_bytes()), Ok(Value::default()));
    // Fields that later versions add are ignored.
    assert_eq!(Value::parse(br#"{"ticket":7}"#), Ok(Value::default()));
    for (wrong, expected) in [
        (r"[]", "no JSON object"),
        (r#"{"version":2}"#, "version is 2: this lookaside reads version 1"),
        (r#"{"until":"soon"}"#, "until is \"soon\": expected a moment in UTC"),
        (r#"{"set":7}"#, "no JSON object"),
        (r#"{"percent":0}"#, "percent is 0: expected 1 to 100"),
    ] {
        let error = Value::parse(wrong.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{wrong}: {error}");
    }
    let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(1025));
    assert!(Value::parse(long.as_bytes()).unwrap_err().contains("why has 1025 bytes"));
    assert!(Value::parse(&[b' '; 40_000]).unwrap_err().contains("at most 32768"));
}

#[test]
fn marks_find_the_backends_they_name() {
    let one = endpoint("i-1", "10.0.0.1:1", &[("zone", "a")]);
    let other = endpoint("i-2", "10.0.0.2:1", &[("zone", "b"), ("rack", "7")]);
    let check = |below: &str, service: &str, expected: (bool, bool)| {
        let drained = Marks::new([mark(below, "")]).for_canonical(service);
        let found = (drained.drain(&one).is_some(), drained.drain(&other).is_some());
        assert_eq!(found, expected, "{below}");
        // Each mark alone must agree with all marks together.
        if let MarkKey::Drain(Scope::Service(of), backends) = MarkKey::parse(below).unwrap()
            && of == service
        {
            assert_eq!((backends.contains(&one), backends.contains(&other)), expected, "{below}");
        }
    };
    check("drain/hello/10.0.0.1:1", "hello", (true, false));
    check("drain/hello/10.0.0.1:2", "hello", (false, false));
    check("drain/hello/10.0.0.2", "hello", (false, true));
    check("drain/hello/i-2", "hello", (false, true));
    check("drain/hello/zone=a", "hello", (true, false));
    check("drain/hello/rack=7", "hello", (false, true));
    check("drain/hello/i-1", "other", (false, false));
    check("drain/*/zone=b", "other", (false, true));
    check("release/hello", "hello", (false, false));
    let marks = ["drain/*/10.0.0.1", "drain/hello/zone=a", "drain/hello/i-1"];
    let all = Marks::new(marks.map(|below| mark(below, below)));
    let by =
        |service: &str| all.for_canonical(service).drain(&one).map(|mark| mark.value.by.clone());
    assert_eq!(by("hello").as_deref(), Some("drain/hello/i-1"), "the most specific counts");
    assert_eq!(by("other").as_deref(), Some("drain/*/10.0.0.1"));
    assert!(
        Marks::default().for_canonical("hello").is_empty()
            && !all.for_canonical("other").is_empty()
    );
}

#[test]
fn a_difference_names_the_services_it_is_about() {
    let marks = |all: &[(&str, &str)]| Marks::new(all.iter().map(|(below, by)| mark(below, by)));
    let before = marks(&[("drain/a/1", ""), ("drain/b/1", ""), ("release/x", "")]);
    let some =
        |names: &[&str]| Differing::Some(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(before.differing(&before.clone()), some(&[]));
    let after = marks(&[("drain/a/1", ""), ("drain/b/1", "me"), ("drain/c/1", "")]);
    assert_eq!(before.differing(&after), some(&["b", "c"]));
    assert_eq!(after.differing(&before), some(&["b", "c"]));
    assert_eq!(before.differing(&marks(&[("drain/a/1", ""), ("drain/*/1", "")])), Differing::All);
}
