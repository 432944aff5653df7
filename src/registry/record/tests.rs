//! Tests of literal keys and values, and what they register.

use proptest::prelude::*;

use super::*;

/// Decodes a key and shows it as `SERVICE ID ADDRESS [weight=N] [key=value…]`, with
/// `!REMARK` for each remark, or shows why it was rejected.
pub(super) fn read(prefix: &str, key: &str, value: &[u8]) -> String {
    let prefix = Prefix::parse(prefix).unwrap();
    match prefix.decode(key.as_bytes(), value) {
        Ok(found) if found.registrations.is_empty() => "nothing".to_owned(),
        Ok(found) => {
            let shown = found.registrations.iter().map(show).collect::<Vec<_>>().join(" | ");
            found.remarks.iter().fold(shown, |shown, remark| format!("{shown} !{remark}"))
        }
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
        "hello a a:1 !the weight \"-1\" is below 0: 1 counts",
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
    let megabytes = vec![b'x'; 2 << 20];
    let rejected = prefix.decode(key.as_bytes(), &megabytes).unwrap_err();
    assert_eq!(rejected.reason, "the value has 2097152 bytes: at most 1572864 are read");
    assert!(rejected.value.len() < 200);
}

#[test]
fn keys_without_a_name_for_everything_are_rejected_in_every_format() {
    for (name, format) in NAMED {
        // Its prefix does not end in a slash.
        if format == Format::Jupiter {
            continue;
        }
        let path = "/p/";
        let prefix = Prefix { path: path.to_owned(), format };
        for below in ["/a", "a//b", "a/", "a/ /b", "//", "a/b/", " ", "a//providers/b/c"] {
            let key = format!("{path}{below}");
            for value in ["10.0.0.1:1", r#"{"Addr":"10.0.0.1:1","addr":"10.0.0.1:1"}"#] {
                let reason = prefix.decode(key.as_bytes(), value.as_bytes()).unwrap_err().reason;
                assert_eq!(reason, decoder::BLANK, "{name} {key}");
            }
        }
    }
    check(
        P,
        "/etcd3_naming/../a",
        "a:1",
        "rejected: the service \"..\" has an empty label, so no client can ask for it: give every part a name",
    );
}

#[test]
fn odd_fields_of_the_json_formats_cost_nothing() {
    let key = "/p/s/1";
    let qsf = |metadata: &str| format!(r#"{{"addr":"10.0.0.1:1","metadata":{metadata}}}"#);
    check("/p=qsf", key, &qsf("[1]"), "s 1 10.0.0.1:1 !\"metadata\" is [1], no object: ignored");
    check("/p=qsf", key, &qsf(r#""{\"zone\":\"a\"}""#), "s 1 10.0.0.1:1 zone=a");
    let odd = qsf(r#"{"id":{},"weight":"high","zone":7}"#);
    let remarks = "!the weight \"high\" is no number: 1 counts !the id {} is no text: ignored";
    check("/p=qsf", key, &odd, &format!("s 1 10.0.0.1:1 zone=7 {remarks}"));
    let naming =
        |metadata: &str| format!(r#"{{"Op":"x","Addr":"10.0.0.1:1","Metadata":{metadata}}}"#);
    for silent in ["true", "[1]", "null", "\"\"", "\" \""] {
        check("/p", key, &naming(silent), "s 1 10.0.0.1:1");
    }
    let long = format!("\"{}\"", "x".repeat(5_000));
    check("/p", key, &naming(&long), "s 1 10.0.0.1:1 !the id has 5000 bytes: the key's id is used");
    let half = "s 1 10.0.0.1:1 weight=3 !the weight 2.5 is no whole number: 3 counts";
    check("/p", key, &naming(r#"{"weight":2.5}"#), half);
}

#[test]
fn what_is_no_utf8_is_replaced_where_it_does_no_harm() {
    let value = b"{\"Addr\":\"10.0.0.1:1\",\"Metadata\":{\"team\":\"\xff\"}}";
    let expected =
        "s 1 10.0.0.1:1 team=\u{fffd} !the value is not UTF-8 text: invalid bytes are replaced";
    assert_eq!(read("/p", "/p/s/1", value), expected);
}

/// The kept part of a large value is bounded; the backend is listed.
#[test]
fn large_values_cost_only_what_is_too_much_of_them() {
    let metadata = |size: usize| {
        format!(r#"{{"addr":"10.0.0.1:1","metadata":{{"big":"{}","zone":"a"}}}}"#, "x".repeat(size))
    };
    let kept = read("/p", "/p/s/1", metadata(60_000).as_bytes());
    assert!(kept.len() > 60_000 && kept.ends_with(" zone=a"));
    let over = "s 1 10.0.0.1:1 zone=a !metadata is kept up to 65536 bytes: \"big\" left out";
    for size in [66_000, 1_500_000] {
        check("/p", "/p/s/1", &metadata(size), over);
        let naming = metadata(size).replace("addr", "Addr").replace("metadata", "Metadata");
        check("/p", "/p/s/1", &naming, over);
    }
    // Fields of the whole value are looked at for each endpoint, so only so many are.
    let fields: Vec<_> = (0..3_000).map(|n| format!(r#""f{n:04}":"{}""#, "x".repeat(35))).collect();
    let many = format!(r#"{{"addr":"10.0.0.1:1","metadata":{{{}}}}}"#, fields.join(","));
    let many = read("/p", "/p/s/1", many.as_bytes());
    assert!(many.ends_with(r#": "f1638" and at least 99 more left out"#), "{}", many.len());
    // The API of a service with 40 methods of 20 fields, as go-micro writes it.
    let fields: Vec<_> = (0..20)
        .map(|f| format!(r#"{{"name":"field_{f}","type":"string","values":null}}"#))
        .collect();
    let message =
        format!(r#"{{"name":"Request","type":"Request","values":[{}]}}"#, fields.join(","));
    let method = format!(
        r#"{{"name":"Api.Call","request":{message},"response":{message},"metadata":{{}}}}"#
    );
    let methods = vec![method; 40].join(",");
    let value = format!(
        r#"{{"name":"s","version":"v1","metadata":null,"endpoints":[{methods}],"nodes":[{{"id":"s-1","address":"10.0.0.1:1","metadata":{{"protocol":"grpc"}}}}]}}"#
    );
    assert!(value.len() > 80_000, "{}", value.len());
    for prefix in ["/micro/registry=go-micro", "/micro/registry"] {
        check(prefix, "/micro/registry/s/s-1", &value, "s s-1 10.0.0.1:1 version=v1");
    }
}

/// Endpoints share the metadata of the whole value, and their own metadata is bounded
/// together: the cost of a value depends on its size only.
#[test]
fn many_endpoints_do_not_multiply_metadata() {
    let big = "x".repeat(60_000);
    let urls: Vec<_> =
        (0..2_000).map(|i| format!(r#""grpc://10.0.{}.{}:1""#, i / 250, i % 250)).collect();
    let value = format!(r#"{{"endpoints":[{}],"metadata":{{"big":"{big}"}}}}"#, urls.join(","));
    let kratos = Prefix::parse("/p=kratos").unwrap().decode(b"/p/s/1", value.as_bytes()).unwrap();
    assert_eq!(kratos.registrations.len(), 2_000);
    let first = &kratos.registrations[0].meta;
    assert!(kratos.registrations.iter().all(|one| std::sync::Arc::ptr_eq(&one.meta, first)));

    let node = |i: usize| {
        format!(
            r#"{{"id":"{i}","address":"10.0.{}.{}:1","metadata":{{"protocol":"grpc"}}}}"#,
            i / 250,
            i % 250
        )
    };
    let nodes: Vec<_> = (0..2_000).map(node).collect();
    let value = format!(r#"{{"metadata":{{"big":"{big}"}},"nodes":[{}]}}"#, nodes.join(","));
    let micro = Prefix::parse("/p=go-micro").unwrap().decode(b"/p/s/1", value.as_bytes()).unwrap();
    let bytes: usize =
        micro.registrations.iter().flat_map(|one| one.meta.values()).map(String::len).sum();
    assert!(bytes <= 1 << 20, "{bytes}");
    assert_eq!((micro.registrations.len(), micro.remarks.len()), (2_000, 1));

    let nodes =
        vec![r#"{"address":"10.0.0.1:1","metadata":{"protocol":"grpc"}}"#; 20_000].join(",");
    let value = format!(r#"{{"nodes":[{nodes}]}}"#);
    check(
        "/p=go-micro",
        "/p/s/1",
        &value,
        "s 1 10.0.0.1:1 !of 20000 endpoints the first 10000 are read !the address 10.0.0.1:1 occurs more than once",
    );
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
