//! Tests of each framework's literal keys and values, and what they register.

use proptest::prelude::*;

use crate::registry::record::tests::check;
use crate::registry::record::{Format, NAMED, Prefix};

/// Real samples of every format: prefix, key, value.
pub(in crate::registry::record) const SAMPLES: [(&str, &str, &str); 16] = [
    (
        "/microservices=kratos",
        "/microservices/helloworld/i-1",
        r#"{"id":"i-1","name":"helloworld","version":"v1","metadata":{"zone":"a"},"endpoints":["http://10.0.0.1:8000?isSecure=false","grpc://10.0.0.1:9000?isSecure=false"]}"#,
    ),
    (
        "/kratos_etcd=kratos-v1",
        "/kratos_etcd/a.b/h1",
        r#"{"region":"sh","zone":"sh001","env":"prod","appid":"a.b","hostname":"h1","addrs":["http://10.0.0.1:8000","grpc://10.0.0.1:9000"],"version":"","latest_timestamp":1605000000,"metadata":{"weight":"20","cluster":"c1","color":"red"},"status":1}"#,
    ),
    (
        "/micro/registry=go-micro",
        "/micro/registry/greeter/greeter-1",
        r#"{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"name":"Say.Hello","request":null,"response":null,"metadata":{}}],"nodes":[{"metadata":{"protocol":"grpc","server":"grpc"},"id":"greeter-1","address":"10.0.0.1:8080"}]}"#,
    ),
    (
        "rpcx_test=rpcx",
        "rpcx_test/Arith/tcp@10.0.0.1:8972",
        "group=test&weight=7&calls=1.00&connections=3.00",
    ),
    (
        "/dubbo=dubbo",
        "/dubbo/com.x.Svc/providers/tri%3A%2F%2F10.0.0.1%3A50051%2Fcom.x.Svc%3Finterface%3Dcom.x.Svc%26weight%3D200%26group%3Dg%26version%3D1.0%26timestamp%3D1605000000%26pid%3D7%26methods%3DA%2CB",
        "",
    ),
    (
        "/services=dubbo-app",
        "/services/app/10.0.0.1:20000",
        r#"{"ID":"","ServiceName":"app","Host":"10.0.0.1","Port":20000,"Weight":0,"Enable":true,"Healthy":true,"Metadata":{"dubbo.endpoints":"[{\"port\":20000,\"protocol\":\"tri\"},{\"port\":20001,\"protocol\":\"dubbo\"}]","timestamp":"1605"},"ServiceMetadata":null,"Address":"","GroupName":"","Tag":"blue"}"#,
    ),
    (
        "kitex/registry-etcd=kitex",
        "kitex/registry-etcd/echo/10.0.0.1:8888",
        r#"{"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":{"cluster":"a"}}"#,
    ),
    (
        "hertz/registry-etcd=hertz",
        "hertz/registry-etcd/echo/10.0.0.1:8888",
        r#"{"network":"tcp","address":"10.0.0.1:8888","weight":5,"tags":null}"#,
    ),
    (
        "/skydns=skydns",
        "/skydns/local/skydns/staging/service/x1",
        r#"{"host":"10.0.0.1","port":8080,"priority":10,"weight":20,"text":"","ttl":60,"group":"g1"}"#,
    ),
    (
        "/apisix/upstreams=apisix",
        "/apisix/upstreams/1",
        r#"{"id":"1","nodes":{"10.0.0.1:80":1,"10.0.0.2:80":0},"type":"roundrobin","scheme":"grpc","create_time":1}"#,
    ),
    (
        "grpc:=jupiter",
        "grpc:server.test:v1:dev/10.0.0.1:9091",
        r#"{"Op":0,"Addr":"10.0.0.1:9091","MetadataX":{"name":"server.test","appId":"","scheme":"grpc","address":"10.0.0.1:9091","weight":100,"enable":true,"healthy":true,"metadata":{},"region":"r1","zone":"z1","kind":1,"version":"","mode":"dev","hostname":"h","deployment":"","group":""}}"#,
    ),
    (
        "/wsd-reg=jupiter-2020",
        "/wsd-reg/server.test/providers/grpc://10.0.0.1:9091",
        r#"{"name":"server.test","appId":"","scheme":"grpc","address":"10.0.0.1:9091","weight":50,"enable":true,"healthy":true,"metadata":{},"region":"","zone":"z","kind":1,"deployment":"","group":"red"}"#,
    ),
    (
        "/service=goframe",
        "/service/default/default/hello/v1.0/10.0.0.1:8000,10.0.0.2:8000",
        r#"{"protocol":"grpc","insecure":true,"weight":100}"#,
    ),
    ("/services=go-kit", "/services/foosvc/10.0.0.1:8080", "grpc://10.0.0.1:8080"),
    ("greet.rpc=go-zero", "greet.rpc/7587874813701447054", "192.168.1.7:8080"),
    ("/nodes=registrator", "/nodes/redis/host:redis-1:6379", "10.0.0.1:6379"),
];

/// The registrations of the samples, in the same order.
const READ: [&str; 16] = [
    "helloworld i-1 10.0.0.1:9000 weight=100 version=v1 zone=a",
    "a.b h1 10.0.0.1:9000 weight=20 cluster=c1 color=red env=prod region=sh zone=sh001",
    "greeter greeter-1 10.0.0.1:8080 server=grpc version=latest",
    "Arith 10.0.0.1:8972 10.0.0.1:8972 weight=7 group=test",
    "com.x.Svc 10.0.0.1:50051 10.0.0.1:50051 weight=200 group=g methods=A,B version=1.0",
    "app 10.0.0.1:20000 10.0.0.1:20000 weight=100 tag=blue",
    "echo 10.0.0.1:8888 10.0.0.1:8888 weight=10 cluster=a",
    "echo 10.0.0.1:8888 10.0.0.1:8888 weight=5",
    "service.staging.skydns.local x1 10.0.0.1:8080 weight=20 group=g1 priority=10",
    "1 10.0.0.1:80 10.0.0.1:80 | 1 10.0.0.2:80 10.0.0.2:80 weight=0",
    "dev/server.test 10.0.0.1:9091 10.0.0.1:9091 weight=100 hostname=h mode=dev region=r1 zone=z1",
    "server.test 10.0.0.1:9091 10.0.0.1:9091 weight=50 group=red zone=z",
    "hello 10.0.0.1:8000 10.0.0.1:8000 weight=100 insecure=true version=v1.0 | hello 10.0.0.2:8000 10.0.0.2:8000 weight=100 insecure=true version=v1.0",
    "foosvc 10.0.0.1:8080 10.0.0.1:8080",
    "greet.rpc 7587874813701447054 192.168.1.7:8080",
    "redis host:redis-1:6379 10.0.0.1:6379",
];

#[test]
fn samples_register_what_they_say() {
    for ((prefix, key, value), expected) in SAMPLES.into_iter().zip(READ) {
        check(prefix, key, value, expected);
    }
}

#[test]
fn kratos() {
    let p = "/microservices=kratos";
    let key = "/microservices/a/i";
    let value = |endpoints: &str, metadata: &str| {
        format!(r#"{{"id":"i","name":"a","endpoints":{endpoints},"metadata":{metadata}}}"#)
    };
    let both = r#"["grpcs://10.0.0.1:1","grpc://10.0.0.2:2?isSecure=true"]"#;
    let two = "a i 10.0.0.1:1 weight=3 tls=true | a i 10.0.0.2:2 weight=3 tls=true";
    check(p, key, &value(both, r#"{"weight":"3"}"#), two);
    check(p, key, &value(r#"["grpc://a:1"]"#, r#"{"weight":"0"}"#), "a i a:1 weight=0");
    check(p, key, &value(r#"["http://10.0.0.1:8000"]"#, "null"), "nothing");
    check(p, key, &value("[]", "null"), "nothing");
    let no_list = r#"rejected: "/endpoints" is missing: expected a list"#;
    check(p, key, &value("null", "null"), no_list);
    let port = r#"rejected: "10.0.0.1" has no port: expected host:port"#;
    check(p, key, &value(r#"["grpc://10.0.0.1"]"#, "null"), port);
    let weight = r#"a i a:1 weight=100 !the weight "heavy" is no number: 100 counts"#;
    check(p, key, &value(r#"["grpc://a:1"]"#, r#"{"weight":"heavy"}"#), weight);
    check(p, key, &value("[7]", "{}"), "rejected: the endpoint 7 is neither text nor an object");
    check(
        p,
        key,
        "10.0.0.1:1",
        "rejected: the value is no JSON: trailing characters at line 1 column 5",
    );
    check(
        p,
        "/microservices/team/a/i",
        &value(r#"["grpc://a:1"]"#, "null"),
        "team/a i a:1 weight=100",
    );
}

#[test]
fn kratos_v1() {
    let p = "/kratos_etcd=kratos-v1";
    let waiting = r#"{"appid":"a","addrs":["grpc://10.0.0.1:9000"],"status":2,"zone":"z"}"#;
    let key = "/kratos_etcd/a/h";
    check(p, key, waiting, "a h 10.0.0.1:9000 weight=0 status=2 zone=z");
    let unsaid = r#"{"appid":"a","addrs":["grpc://10.0.0.1:9000"],"metadata":{"zone":"m"}}"#;
    check(p, key, unsaid, "a h 10.0.0.1:9000 weight=10 zone=m");
}

#[test]
fn go_micro() {
    let p = "/micro/registry=go-micro";
    let node = |id: &str, protocol: &str| {
        format!(
            r#"{{"id":"{id}","address":"{id}:1","metadata":{{"protocol":"{protocol}","zone":"z"}}}}"#
        )
    };
    let value = |nodes: &[String]| {
        let nodes = nodes.join(",");
        format!(
            r#"{{"name":"s","version":"v","metadata":{{"zone":"all","team":"t"}},"nodes":[{nodes}]}}"#
        )
    };
    let key = "/micro/registry/s/s-1";
    let three = value(&[node("a", "grpc"), node("b", "http"), node("c", "grpc")]);
    let two = "s a a:1 team=t version=v zone=z | s c c:1 team=t version=v zone=z";
    check(p, key, &three, two);
    check(p, key, &value(&[node("b", "mucp")]), "nothing");
    check(p, key, r#"{"name":"s","nodes":[{"id":"a","address":"a:1"}]}"#, "nothing");
    let none = r#"{"name":"s","nodes":[{"id":"a","metadata":{"protocol":"grpc"}}]}"#;
    check(p, key, none, r#"rejected: "/address" is missing: expected host:port"#);
}

#[test]
fn rpcx() {
    let p = "rpcx_test=rpcx";
    let key = "rpcx_test/Arith/tcp@10.0.0.1:8972";
    let inactive = "Arith 10.0.0.1:8972 10.0.0.1:8972 weight=0 status=inactive";
    check(p, key, "state=inactive&weight=3", inactive);
    check(p, key, "", "Arith 10.0.0.1:8972 10.0.0.1:8972");
    check(p, "rpcx_test/Arith", "Arith", "nothing");
    check(p, "rpcx_test/Arith/quic@10.0.0.1:8972", "weight=3", "nothing");
    let host = r#"rejected: "10.0.0.1:x" has the port "x": expected a number from 1 to 65535"#;
    check(p, "rpcx_test/Arith/tcp@10.0.0.1:x", "", host);
    // The meters change at every tick; nothing else does.
    let at = |calls: &str| super::super::tests::read(p, key, calls.as_bytes());
    assert_eq!(at("weight=2&calls=1.00&connections=1.00"), at("weight=2&calls=7.31"));
}

#[test]
fn dubbo() {
    let p = "/dubbo=dubbo";
    let key = |url: &str| {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        format!("/dubbo/x.Svc/providers/{}", utf8_percent_encode(url, NON_ALPHANUMERIC))
    };
    let plain = "x.Svc 10.0.0.1:1 10.0.0.1:1 weight=100";
    check(p, &key("grpc://10.0.0.1:1/x.Svc?interface=x.Svc&timestamp=1"), "", plain);
    check(p, &key("tri://10.0.0.1:1"), "", plain);
    check(p, &key("dubbo://10.0.0.1:1/x.Svc?weight=1"), "", "nothing");
    check(p, &key("dubbo://10.0.0.1:1/x.Svc?ext.protocol=tri,"), "", plain);
    let off = "x.Svc 10.0.0.1:1 10.0.0.1:1 weight=0 status=disabled";
    check(p, &key("tri://10.0.0.1:1/x.Svc?enabled=false"), "", off);
    for directory in ["/dubbo/x.Svc", "/dubbo/x.Svc/providers", "/dubbo/x.Svc/consumers/a%3A%2F%2F"]
    {
        check(p, directory, "", "nothing");
    }
    check(p, &key("nonsense"), "", "rejected: the key's last segment is no encoded URL");
    let port = r#"rejected: "10.0.0.1" has no port: expected host:port"#;
    check(p, &key("tri://10.0.0.1/x"), "", port);
    // A restart on the same address must cause no push.
    let at = |pid: &str| {
        super::super::tests::read(p, &key(&format!("tri://h:1/x?pid={pid}&timestamp={pid}")), b"")
    };
    assert_eq!(at("1"), at("2"));
}

#[test]
fn dubbo_app() {
    let p = "/services=dubbo-app";
    let key = "/services/app/10.0.0.1:20000";
    let value =
        |more: &str| format!(r#"{{"ServiceName":"app","Host":"10.0.0.1","Port":20000{more}}}"#);
    check(p, key, &value(""), "app 10.0.0.1:20000 10.0.0.1:20000 weight=100");
    let weighted = "app 10.0.0.1:20000 10.0.0.1:20000 weight=7";
    check(p, key, &value(r#","Weight":7,"Enable":true,"Healthy":true"#), weighted);
    let off = "app 10.0.0.1:20000 10.0.0.1:20000 weight=0 status=disabled";
    check(p, key, &value(r#","Enable":false"#), off);
    let ill = "app 10.0.0.1:20000 10.0.0.1:20000 weight=0 status=unhealthy";
    check(p, key, &value(r#","Enable":true,"Healthy":false"#), ill);
    let dubbo = r#","Metadata":{"dubbo.endpoints":"[{\"port\":1,\"protocol\":\"dubbo\"}]"}"#;
    check(p, key, &value(dubbo), "nothing");
    let java = r#"{"id":"i","serviceName":"app","host":"h","port":20000,"enabled":true,"healthy":true,"metadata":{"dubbo.endpoints":"[{\"port\":7,\"protocol\":\"tri\"}]"}}"#;
    check(p, key, java, "app i h:7 weight=100");
    let big =
        r#"rejected: "10.0.0.1:70000" has the port "70000": expected a number from 1 to 65535"#;
    check(p, key, r#"{"Host":"10.0.0.1","Port":70000}"#, big);
}

#[test]
fn kitex_and_hertz() {
    for p in ["kitex/registry-etcd=kitex", "kitex/registry-etcd/=hertz"] {
        let key = "kitex/registry-etcd/echo/10.0.0.1:8888";
        let value = |network: &str, weight: &str| {
            format!(
                r#"{{"network":"{network}","address":"10.0.0.1:8888","weight":{weight},"tags":{{"id":"7"}}}}"#
            )
        };
        check(p, key, &value("tcp", "0"), "echo 7 10.0.0.1:8888 weight=10");
        check(p, key, &value("unix", "1"), "nothing");
        let below = "echo 7 10.0.0.1:8888 weight=10 !the weight -1 is below 0: 10 counts";
        check(p, key, &value("tcp", "-1"), below);
    }
}

#[test]
fn skydns() {
    let key = "/skydns/local/skydns/staging/service/x1";
    let value = r#"{"host":"2001:db8::1","port":80}"#;
    let read = "service.staging.skydns.local x1 [2001:db8::1]:80 weight=100";
    // The service has the same name wherever the prefix ends.
    check("/skydns=skydns", key, value, read);
    check("/skydns/local/skydns/=skydns", key, value, read);
    check("/skydns/local/sky=skydns", key, value, "nothing");
    check(
        "/skydns=skydns",
        key,
        r#"{"host":"a.b","port":1,"weight":0}"#,
        "service.staging.skydns.local x1 a.b:1 weight=100",
    );
    check("/skydns=skydns", key, r#"{"host":"10.0.0.1"}"#, "nothing");
    check("/skydns=skydns", key, r#"{"text":"for people"}"#, "nothing");
}

#[test]
fn apisix() {
    let p = "/apisix/upstreams=apisix";
    let key = "/apisix/upstreams/1";
    let list = r#"{"id":"1","name":"hello","labels":{"env":"prod"},"scheme":"grpcs","nodes":[{"host":"a.b","port":80,"weight":3,"priority":0},{"host":"10.0.0.2","weight":0}]}"#;
    let read = "hello a.b:80 a.b:80 weight=3 env=prod priority=0 tls=true | hello 10.0.0.2:443 10.0.0.2:443 weight=0 env=prod tls=true";
    check(p, key, list, read);
    check("/apisix=apisix", key, list, read);
    check("/apisix=apisix", "/apisix/routes/1", list, "nothing");
    check(p, key, r#"{"id":"1","nodes":{"10.0.0.1:80":1},"scheme":"http"}"#, "nothing");
    check(p, key, r#"{"id":"1","nodes":{"10.0.0.1:80":1}}"#, "nothing");
    check(
        p,
        key,
        r#"{"id":"1","scheme":"grpc","service_name":"x","discovery_type":"dns"}"#,
        "nothing",
    );
    check(p, "/apisix/upstreams/", "init_dir", "nothing");
    check(p, "/apisix/upstreams/x", "init_dir", "nothing");
    check(
        p,
        key,
        r#"{"scheme":"grpc","nodes":{"10.0.0.1":2}}"#,
        "1 10.0.0.1:80 10.0.0.1:80 weight=2",
    );
    let bad = r#"rejected: "/nodes" is no list of endpoints"#;
    check(p, key, r#"{"scheme":"grpc","nodes":7}"#, bad);
}

#[test]
fn jupiter() {
    let value =
        r#"{"Op":0,"Addr":"10.0.0.1:1","MetadataX":{"weight":7.0,"enable":true,"healthy":true}}"#;
    let key = "grpc:server.test:v1:dev/10.0.0.1:1";
    let read = "dev/server.test 10.0.0.1:1 10.0.0.1:1 weight=7";
    for prefix in [
        "grpc",
        "grpc:",
        "grpc:server.test",
        "grpc:server.test:v1",
        "grpc:server.test:v1:dev",
        "grpc:server.test:v1:dev/",
    ] {
        check(&format!("{prefix}=jupiter"), key, value, read);
    }
    for prefix in ["grp", "grpc:server", "grpc:server.test:v1:de"] {
        check(&format!("{prefix}=jupiter"), key, value, "nothing");
    }
    let p = "grpc:=jupiter";
    check(
        p,
        "grpc:server.test:v1:/10.0.0.1:1",
        value,
        "server.test 10.0.0.1:1 10.0.0.1:1 weight=7",
    );
    check("http:=jupiter", "http:server.test:v1:dev/10.0.0.1:1", value, "nothing");
    let off = r#"{"Addr":"10.0.0.1:1","MetadataX":{"enable":false,"weight":1}}"#;
    check(p, key, off, "dev/server.test 10.0.0.1:1 10.0.0.1:1 weight=0 status=disabled");
    check(p, "grpc:else", "7", "nothing");
    let half = r#"{"Addr":"10.0.0.1:1","MetadataX":{"weight":0.5}}"#;
    let rounded =
        "dev/server.test 10.0.0.1:1 10.0.0.1:1 !the weight 0.5 is no whole number: 1 counts";
    check(p, key, half, rounded);
}

#[test]
fn jupiter_2020() {
    let p = "/wsd-reg=jupiter-2020";
    let value = r#"{"weight":100,"enable":true,"healthy":false}"#;
    let key = "/wsd-reg/s/providers/grpc://10.0.0.1:1";
    check(p, key, value, "s 10.0.0.1:1 10.0.0.1:1 weight=0 status=unhealthy");
    check(p, "/wsd-reg/s/providers/http://10.0.0.1:1", value, "nothing");
    check(p, "/wsd-reg/s/configurators/grpc:///routes/1", "{}", "nothing");
}

#[test]
fn goframe() {
    let grpc = r#"{"protocol":"grpc"}"#;
    let p = "/service=goframe";
    let key = "/service/default/default/hello/latest/10.0.0.1:1";
    check(p, key, grpc, "hello 10.0.0.1:1 10.0.0.1:1");
    let prod = "/service/prod/default/hello/latest/10.0.0.1:1";
    check(p, prod, grpc, "prod/default/hello 10.0.0.1:1 10.0.0.1:1");
    check("/service/prod/default=goframe", prod, grpc, "hello 10.0.0.1:1 10.0.0.1:1");
    check(p, key, r#"{"protocol":"http"}"#, "nothing");
    for silent in ["{}", "null", ""] {
        check(p, key, silent, "nothing");
    }
    let one_bad = r#"hello 10.0.0.1:1 10.0.0.1:1 !left out: "x" has no port: expected host:port"#;
    check(p, "/service/default/default/hello/latest/10.0.0.1:1,x", grpc, one_bad);
    let shape = "rejected: the key has another shape: expected {scope...}/{service}/{version}/{addresses} below the prefix";
    check(p, "/service/10.0.0.1:1", grpc, shape);
}

#[test]
fn go_kit() {
    let p = "/services/foosvc/=go-kit";
    let key = "/services/foosvc/10.0.0.1:8080";
    check(p, key, "10.0.0.1:8080", "foosvc 10.0.0.1:8080 10.0.0.1:8080");
    check(p, key, "grpcs://10.0.0.1:8080/", "foosvc 10.0.0.1:8080 10.0.0.1:8080 tls=true");
    check(p, key, "http://10.0.0.1:8080", "nothing");
    check(p, key, "", "rejected: the value is empty: expected host:port");
}

fn mutated(text: &str, edits: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for &(at, byte) in edits {
        let at = at % (bytes.len() + 1);
        match byte % 3 {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Damaged samples cause no panic and no invalid address. A `HostPort` is valid by
    /// type, so its text is parsed again.
    #[test]
    fn damaged_samples_do_no_harm(
        sample in 0..SAMPLES.len(),
        key_edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
        value_edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        let (prefix, key, value) = SAMPLES[sample];
        let path = Prefix::parse(prefix).unwrap().path;
        let (key, value) = (mutated(key, &key_edits), mutated(value, &value_edits));
        for (_, format) in NAMED {
            let prefix = Prefix { path: path.clone(), format };
            for found in prefix.decode(&key, &value).unwrap_or_default().registrations {
                let again = crate::model::HostPort::parse(&found.address.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&found.address));
                prop_assert!(found.weight.0 <= super::super::weights::WEIGHT_MAX);
            }
        }
    }
}

#[test]
fn every_pattern_of_a_preset_is_one() {
    for (format, decoder) in super::PRESETS.iter() {
        assert!(!decoder.keys.is_empty(), "{format}");
        assert_eq!(format.to_string().parse::<Format>().as_ref(), Ok(format));
    }
}
