//! Tests of which formats are detected, and which must be named.

use crate::registry::record::presets::tests::SAMPLES;
use crate::registry::record::tests::{check, read};

#[test]
fn samples_are_read_alike_or_left_to_be_named() {
    let mut named = Vec::new();
    for (prefix, key, value) in SAMPLES {
        let (path, format) = prefix.rsplit_once('=').unwrap();
        let told = read(path, key, value.as_bytes());
        if told == read(prefix, key, value.as_bytes()) {
            continue;
        }
        assert!(told.starts_with("rejected: "), "{prefix} is read otherwise: {told}");
        named.push(format);
    }
    // rpcx's port speaks rpcx, unless the operator knows better.
    assert_eq!(named, ["rpcx"]);
}

#[test]
fn what_could_be_two_formats_is_left_to_be_named() {
    let untold = "rejected: the JSON tells no format: name it with --prefix PREFIX=FORMAT";
    for (key, value) in [
        // A host and a port, but not in CoreDNS's tree.
        ("/p/a/1", r#"{"host":"10.0.0.1","port":80}"#),
        // Nodes of an unknown kind.
        ("/p/a/1", r#"{"nodes":{"10.0.0.1:80":1},"scheme":"grpc"}"#),
        ("/p/a/1", r#"{"name":"a","nodes":[{"host":"10.0.0.1","port":80}]}"#),
        // Endpoints that are no URLs.
        ("/p/a/1", r#"{"id":"1","name":"a","endpoints":["10.0.0.1:80"]}"#),
        ("/p/a/1", r#"{"id":"1","name":"a","endpoints":[]}"#),
        // GoFrame's value under a key that holds no address.
        ("/p/a/v1/1", r#"{"protocol":"grpc"}"#),
        ("/p/a/1", "{}"),
    ] {
        check("/p", key, value, untold);
    }
    let rpcx = "rejected: \"weight=7\" has no port: expected host:port";
    check("/p", "/p/Arith/tcp@10.0.0.1:1", "weight=7", rpcx);
}

#[test]
fn the_more_telling_field_wins() {
    let both =
        r#"{"Addr":"10.0.0.1:1","addr":"10.0.0.2:2","network":"tcp","address":"10.0.0.3:3"}"#;
    check("/p", "/p/a/1", both, "a 1 10.0.0.1:1");
    let jupiter = r#"{"Addr":"10.0.0.1:1","MetadataX":{"weight":7}}"#;
    check("/p", "/p/a/1", jupiter, "a 1 10.0.0.1:1");
    let key = "grpc:s:v1:dev/10.0.0.1:1";
    check("grpc:s:v1:dev", key, jupiter, "dev/s 10.0.0.1:1 10.0.0.1:1 weight=7");
}

#[test]
fn siblings_of_dubbo_providers_are_nothing() {
    for category in ["providers", "consumers", "configurators", "routers"] {
        check("/dubbo", &format!("/dubbo/x.Svc/{category}"), "", "nothing");
    }
    check("/dubbo", "/dubbo/x.Svc/consumers/consumer%3A%2F%2F10.0.0.1%2Fx.Svc", "", "nothing");
}

#[test]
fn providers_of_dubbo_java_carry_a_lease() {
    let key = "/dubbo/x.Svc/providers/tri%3A%2F%2F10.0.0.1%3A1%2Fx.Svc%3Finterface%3Dx.Svc";
    check("/dubbo", key, "", "x.Svc 10.0.0.1:1 10.0.0.1:1 weight=100");
    let lease = "7587899054951306581";
    check("/dubbo", key, lease, "x.Svc 10.0.0.1:1 10.0.0.1:1 weight=100");
}

#[test]
fn urls_are_taken_only_where_they_say_grpc() {
    check("/p", "/p/a/1", "grpc://10.0.0.1:1", "a 1 10.0.0.1:1");
    let http = r#"rejected: "http://10.0.0.1:1" has the host "http://10.0.0.1", which is neither an IP address nor a host name"#;
    check("/p", "/p/a/1", "http://10.0.0.1:1", http);
}
