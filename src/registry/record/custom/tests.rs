//! Tests of formats that operators describe: what they decode, and which problems are
//! reported.

use std::sync::Arc;

use super::*;
use crate::registry::record::{Customs, Prefix};

/// Parses a table. Its beginning is place 1:1.
fn describe_text(text: &str) -> Result<Decoder, Vec<String>> {
    let (decoder, problems) = tables::parse(text, |toml, problems| {
        describe(&Name::new(0..0, "mine".into()), toml.root(), problems)
    });
    decoder.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
}

/// Compares the addresses and metadata, or the reason for a rejection.
#[track_caller]
fn check(format: &str, key: &str, value: &str, expected: &str) {
    let decoder = describe_text(format).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let customs = Customs::from([("mine".to_owned(), Arc::new(decoder))]);
    let prefix = Prefix::parse_with("/p/=custom:mine", &customs).unwrap();
    let found = match prefix.decode(key.as_bytes(), value.as_bytes()) {
        Err(rejected) => format!("rejected: {}", rejected.reason),
        Ok(all) => {
            let show = |r: &crate::registry::Registration| {
                format!("{} {} {} {} {:?}", r.service, r.id, r.address, r.weight.0, r.meta)
            };
            all.registrations.iter().map(show).collect::<Vec<_>>().join(" | ")
        }
    };
    assert_eq!(found, expected, "{format}");
}

#[test]
fn json_with_paths() {
    let format = r#"
        key = "{service...}/{id}"
        address = "/net/addr"
        weight = ["/w", "/weight"]
        default-weight = 5
        zone = "/loc/zone"
        labels = { rack = "/loc/rack" }
        enabled = "/on"
        meta = "/tags"
        ignore = "/tags/seen"
    "#;
    let value = r#"{"net":{"addr":"10.0.0.1:1"},"weight":7,"loc":{"zone":"z","rack":3},"on":true,"tags":{"a":"b","seen":123}}"#;
    check(format, "/p/x/y/i", value, r#"x/y i 10.0.0.1:1 7 {"a": "b", "rack": "3", "zone": "z"}"#);
    let off = r#"{"net":{"addr":"10.0.0.1:1"},"on":false}"#;
    check(format, "/p/x/i", off, r#"x i 10.0.0.1:1 0 {"status": "disabled"}"#);
    check(format, "/p/x/i", r#"{"net":{"addr":"10.0.0.1:1"}}"#, "x i 10.0.0.1:1 5 {}");
    check(format, "/p/x/i", "{}", r#"rejected: "/net/addr" is missing: expected host:port"#);
}

#[test]
fn host_and_port_and_endpoints() {
    let format = "key = '{env}/{service}/{*}'\nhost = '/ip'\nport = '/port'\nid = '/name'\n\
                  status = '/state'\nup = ['UP', 'STARTING']\n";
    let value = r#"{"ip":"2001:db8::1","port":80,"name":"n","state":"UP"}"#;
    check(format, "/p/prod/s/1", value, r#"s n [2001:db8::1]:80 1 {"env": "prod"}"#);
    let down = r#"{"ip":"h","port":"80","state":"DOWN"}"#;
    check(format, "/p/prod/s/1", down, r#"s h:80 h:80 0 {"env": "prod", "status": "DOWN"}"#);
    let format = "key = '{id}'\nservice = '/svc'\nendpoints = '/list'\naddress = '/at'\n\
                  protocol = '/kind'\nschemes = 'h2'\nskip = '{*}/config'\n";
    let value = r#"{"svc":"s","list":[{"at":"a:1","kind":"h2"},{"at":"b:1","kind":"h1"}]}"#;
    check(format, "/p/i", value, "s i a:1 1 {}");
    check(format, "/p/i/config", "anything", "");
    let shape = "rejected: the key has another shape: expected {id} below the prefix";
    check(format, "/p/i/else", value, shape);
}

#[test]
fn keys_that_say_it_all() {
    check("key = '{service}/{address}'\nvalue = 'none'", "/p/s/h:1", "x", "s h:1 h:1 1 {}");
    let list = "key = '{service}/{addresses}'\nvalue = 'none'";
    check(list, "/p/s/a:1,b:2", "", "s a:1 a:1 1 {} | s b:2 b:2 1 {}");
    let url = "key = '{service}/{url}'\nvalue = 'none'\nweight = '/query/w'";
    let key = "/p/s/grpc%3A%2F%2Fh%3A1%3Fw%3D3%26a%3Db";
    check(url, key, "", r#"s h:1 h:1 3 {"a": "b"}"#);
    check("key = '{service}/{id}'\nvalue = 'text'", "/p/s/i", "h:1", "s i h:1 1 {}");
    check(
        "key = '{service}/{id}'\nvalue = 'url'",
        "/p/s/i",
        "grpc://h:1?z=1",
        r#"s i h:1 1 {"z": "1"}"#,
    );
    check("key = '{service}/{id}'\nvalue = 'url'", "/p/s/i", "http://h:1?z=1", "");
    let query = "key = '{service}/{id}'\nvalue = 'query'\naddress = '/at'\nmeta = ''";
    check(query, "/p/s/i", "at=h:1&x=y", r#"s i h:1 1 {"x": "y"}"#);
}

/// The examples of `docs/formats.md`: for `SkyDNS` records without a label of their
/// own, and for upstreams within APISIX's routes.
#[test]
fn the_documented_examples() {
    let skydns = "key = '{service...}'\nhost = '/host'\nport = '/port'\n";
    let value = r#"{"host":"10.0.0.1","port":80}"#;
    check(skydns, "/p/local/skydns/a", value, "local/skydns/a 10.0.0.1:80 10.0.0.1:80 1 {}");
    let routes = "key = '{service}'\nendpoints = '/upstream/nodes'\nhost = '/host'\n\
                  port = '/port'\nweight = '/weight'\nprotocol = '/upstream/scheme'\n\
                  default-protocol = 'http'\n";
    let value = r#"{"uri":"/x","upstream":{"scheme":"grpc","nodes":{"10.0.0.1:80":2}}}"#;
    check(routes, "/p/1", value, "1 10.0.0.1:80 10.0.0.1:80 2 {}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = describe_text(
        "key = '{a'\nvalue = 'xml'\nhost = 'ip'\nweight = 7\ndefault-weight = -1\n\
         up = 'UP'\ncolour = 'red'\nlabels = 'x'\nskip = '{b}{c}'\n",
    )
    .unwrap_err();
    let expected = [
        "1:1: [format.mine]: key cannot be used: the pattern \"{a\" has a { without its }",
        "1:1: [format.mine]: port is missing: host needs it",
        "1:1: [format.mine]: status is missing: up and down need it",
        "2:1: [format.mine]: value is \"xml\": expected json, text, url, query or none",
        "3:1: [format.mine]: host is \"ip\", which is no JSON pointer: write \"/ip\"",
        "4:1: [format.mine]: weight is neither text nor a list of texts",
        "5:1: [format.mine]: default-weight is no whole number from 0 to 1000000",
        "7:1: [format.mine]: colour is no setting of a format",
        "8:1: [format.mine]: labels is no table of JSON pointers",
        "9:1: [format.mine]: skip cannot be used: the pattern \"{b}{c}\" has two names without text between them",
    ];
    assert_eq!(problems, expected);
    assert_eq!(describe_text("").unwrap_err().len(), 2);
    let status = describe_text("key = '{id}'\naddress = '/a'\nstatus = '/s'").unwrap_err();
    assert!(status[0].starts_with("3:1: [format.mine]: status needs up or down"), "{status:?}");
    let odd =
        "key = '{id}'\naddress = ['/a', 'b', 'c']\nlabels = { rack = 'x' }\ndefault-protocol = 7\n";
    let expected = [
        "2:1: [format.mine]: address is \"b\", which is no JSON pointer: write \"/b\"; is \"c\", \
         which is no JSON pointer: write \"/c\"",
        "3:1: [format.mine]: labels cannot be used: rack is \"x\", which is no JSON pointer: write \"/x\"",
        "4:1: [format.mine]: default-protocol is no text",
    ];
    assert_eq!(describe_text(odd).unwrap_err(), expected);
}
