//! From literal keys and values to what they register.

use proptest::prelude::*;

use super::*;

/// `SERVICE ID ADDRESS [weight=N] [key=value…]`, or why not.
pub(super) fn read(prefix: &str, key: &str, value: &[u8]) -> String {
    let prefix = Prefix::parse(prefix).unwrap();
    match prefix.decode(key.as_bytes(), value) {
        Ok(found) if found.registrations.is_empty() => "nothing".to_owned(),
        Ok(found) => found.registrations.iter().map(show).collect::<Vec<_>>().join(" | "),
        Err(rejected) => format!("rejected: {}", rejected.reason),
    }
}

fn show(r: &Registration) -> String {
    let mut text = format!("{} {} {}", r.service, r.id, r.address);
    if r.weight != Weight::DEFAULT {
        text.push_str(&format!(" weight={}", r.weight.0));
    }
    r.meta.iter().for_each(|(key, value)| text.push_str(&format!(" {key}={value}")));
    text
}

#[track_caller]
pub(super) fn check(prefix: &str, key: &str, value: &str, expected: &str) {
    assert_eq!(read(prefix, key, value.as_bytes()), expected, "{prefix} {key} {value}");
}

const P: &str = "/etcd3_naming/";

#[test]
fn plain_as_the_2017_articles_register() {
    let hello = "hello_service 127.0.0.1:50001 127.0.0.1:50001";
    check(P, "/etcd3_naming/hello_service/127.0.0.1:50001", "127.0.0.1:50001", hello);
    let key = "etcd3_naming/hello_service/127.0.0.1:50001";
    check("etcd3_naming=plain", key, "127.0.0.1:50001\n", hello);
    check(P, "/etcd3_naming/dev/game/7", "[2001:db8::1]:80", "dev/game 7 [2001:db8::1]:80");
    check(P, "/etcd3_naming/hello/a", "backend-1.local:80", "hello a backend-1.local:80");
    check(
        "greet.rpc",
        "greet.rpc/7587874813701447054",
        "10.0.0.1:80",
        "greet.rpc 7587874813701447054 10.0.0.1:80",
    );
}

#[test]
fn qsf_json() {
    let p = "/exampleservice.v1";
    let key = "/exampleservice.v1/example/node3";
    let value = r#"{"addr":"127.0.0.1:50053","metadata":null}"#;
    check(p, key, value, "example node3 127.0.0.1:50053");
    check("/exampleservice.v1=qsf", key, value, "example node3 127.0.0.1:50053");
    let value = r#"{"addr":"127.0.0.1:50053","metadata":{"zone":"a","weight":"3"}}"#;
    check(p, key, value, "example node3 127.0.0.1:50053 weight=3 zone=a");
    let value = r#"{"addr":"127.0.0.1:500053","metadata":null}"#;
    check(
        p,
        key,
        value,
        r#"rejected: "127.0.0.1:500053" has the port "500053": expected a number from 1 to 65535"#,
    );
}

#[test]
fn etcd_naming_json() {
    let key = "discovery/dev/game/10.0.0.5:9000";
    let value = r#"{"Op":0,"Addr":"10.0.0.5:9000","Metadata":null}"#;
    check("discovery", key, value, "dev/game 10.0.0.5:9000 10.0.0.5:9000");
    check("discovery=etcd-naming", key, value, "dev/game 10.0.0.5:9000 10.0.0.5:9000");
    let with_id = r#"{"Addr":"10.0.0.5:9000","Metadata":"7"}"#;
    check("discovery", key, with_id, "dev/game 7 10.0.0.5:9000");
    let number = r#"{"Addr":"10.0.0.5:9000","Metadata":7}"#;
    check("discovery", key, number, "dev/game 7 10.0.0.5:9000");
    let object = r#"{"Addr":"10.0.0.5:9000","Metadata":{"zone":"a","weight":0,"x":null}}"#;
    check("discovery", key, object, "dev/game 10.0.0.5:9000 10.0.0.5:9000 weight=0 zone=a");
    let text = r#"{"Op":0,"Addr":"10.0.0.5:9000","Metadata":"{\"name\":\"host1\"}"}"#;
    check("discovery", key, text, "dev/game 10.0.0.5:9000 10.0.0.5:9000 name=host1");
    check("discovery", key, r#"{"Op":1,"Addr":"10.0.0.5:9000"}"#, "nothing");
}

#[test]
fn what_cannot_be_read_says_why() {
    let key = "/etcd3_naming/hello/a";
    check(P, key, "", "rejected: the address is empty: expected host:port");
    check(
        P,
        key,
        "{",
        "rejected: the value is no JSON: EOF while parsing an object at line 1 column 1",
    );
    check(
        P,
        key,
        r#"{"host":"a"}"#,
        "rejected: the JSON tells no format: name it with --prefix PREFIX=FORMAT",
    );
    check(P, key, r#"{"Addr":7}"#, "rejected: \"Addr\" is no text: expected \"host:port\"");
    check("/etcd3_naming/=qsf", key, "[]", "rejected: the value is JSON but no object");
    check("/etcd3_naming/=qsf", key, "{}", "rejected: \"addr\" is missing: expected \"host:port\"");
    check(
        P,
        key,
        r#"{"Addr":"a:1","Metadata":{"weight":"-1"}}"#,
        "rejected: the weight \"-1\" is no whole number from 0 to 1000000",
    );
    check(
        P,
        "/etcd3_naming/hello/",
        "a:1",
        "rejected: the key has an empty segment: expected SERVICE/INSTANCE",
    );
    check(
        P,
        "/etcd3_naming//a",
        "a:1",
        "rejected: the key has an empty segment: expected SERVICE/INSTANCE",
    );
    check(
        P,
        "/etcd3_naming/a//b",
        "a:1",
        "rejected: the key has an empty segment: expected SERVICE/INSTANCE",
    );
    let prefix = Prefix::parse(P).unwrap();
    let reason = |key: &[u8], value: &[u8]| prefix.decode(key, value).unwrap_err().reason;
    assert_eq!(reason(key.as_bytes(), b"\xff"), "the value is not UTF-8 text");
    let bad_key = b"/etcd3_naming/\xff/a";
    assert_eq!(reason(bad_key, b"a:1"), "the key is not UTF-8 text: expected SERVICE/INSTANCE");
    let megabyte = vec![b'x'; 1 << 20];
    let rejected = prefix.decode(key.as_bytes(), &megabyte).unwrap_err();
    assert_eq!(rejected.reason, "the value has 1048576 bytes: at most 65536 are read");
    assert!(rejected.value.len() < 200);
}

#[test]
fn directories_are_nothing() {
    check(P, "/etcd3_naming/", "", "nothing");
    check(P, "/etcd3_naming/hello/", "", "nothing");
}

#[test]
fn prefixes_end_at_a_segment() {
    assert_eq!(Prefix::parse("foo").unwrap().path, "foo/");
    assert_eq!(
        Prefix::parse("/a/b//=plain").unwrap(),
        Prefix { path: "/a/b/".into(), format: Format::Plain }
    );
    assert_eq!(Prefix::parse("/"), Err(PrefixError::Empty("/".into())));
    assert_eq!(Prefix::parse(""), Err(PrefixError::Empty(String::new())));
    assert_eq!(Prefix::parse("/a/=xml"), Err(PrefixError::Format("xml".into())));
}

proptest! {
    #[test]
    fn no_input_panics(key in proptest::collection::vec(any::<u8>(), 0..40),
                       value in proptest::collection::vec(any::<u8>(), 0..60)) {
        for (_, format) in NAMED {
            let prefix = Prefix { path: "/p/".into(), format };
            let _ = prefix.decode(&key, &value);
            let _ = prefix.decode(&[b"/p/".as_slice(), &key].concat(), &value);
        }
    }

    #[test]
    fn no_json_panics(value in r#"\{("(Addr|addr|Op|Metadata|metadata)":(null|7|-1|"[^"]{0,12}"|\{"weight":"?[0-9a-z]{0,9}"?\}),?){0,3}\}"#) {
        let _ = Prefix { path: "/p/".into(), format: Format::Auto }.decode(b"/p/a/b", value.as_bytes());
    }
}
