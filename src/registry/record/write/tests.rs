//! Tests that an encoded registration is decoded to an equal one, by its format and `auto`.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{HostPort, ServiceName, Weight};
use crate::registry::record::NAMED;

fn registration(service: &str, id: &str, weight: u32, meta: &[(&str, &str)]) -> Registration {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Registration {
        service: ServiceName::new(service).unwrap(),
        id: id.into(),
        address: HostPort::parse("10.0.0.1:80").unwrap(),
        weight: Weight(weight),
        meta: Arc::new(meta.iter().map(pair).collect()),
    }
}

#[track_caller]
fn check(format: &str, prefix: &str, r: &Registration, key: &str, value: &str) {
    let (found_key, found_value) = write(&format.parse().unwrap(), prefix, r).unwrap();
    assert_eq!((found_key.as_str(), found_value.as_str()), (key, value), "{format}");
}

#[test]
fn each_format_writes_what_its_registrants_write() {
    let zone = [("zone", "a")];
    let a = registration("hello", "1", 3, &zone);
    let bare = |weight| registration("hello", "10.0.0.1:80", weight, &[]);
    check("auto", "/p", &registration("hello", "1", 1, &[]), "/p/hello/1", "10.0.0.1:80");
    check("go-zero", "/p", &registration("hello", "1", 1, &[]), "/p/hello/1", "10.0.0.1:80");
    check(
        "kratos",
        "/microservices",
        &a,
        "/microservices/hello/1",
        r#"{"endpoints":["grpc://10.0.0.1:80"],"id":"1","metadata":{"weight":"3","zone":"a"},"name":"hello","version":""}"#,
    );
    check(
        "kratos-v1",
        "/kratos_etcd/",
        &a,
        "/kratos_etcd/hello/1",
        r#"{"addrs":["grpc://10.0.0.1:80"],"appid":"hello","env":"","hostname":"1","latest_timestamp":0,"metadata":{"weight":"3"},"region":"","status":1,"version":"","zone":"a"}"#,
    );
    check(
        "go-micro",
        "/micro/registry",
        &a,
        "/micro/registry/hello/1",
        r#"{"endpoints":[],"metadata":null,"name":"hello","nodes":[{"address":"10.0.0.1:80","id":"1","metadata":{"protocol":"grpc","weight":"3","zone":"a"}}],"version":""}"#,
    );
    check("rpcx", "b", &a, "b/hello/tcp@10.0.0.1:80", "id=1&weight=3&zone=a");
    check(
        "dubbo",
        "/dubbo",
        &a,
        "/dubbo/hello/providers/tri%3A%2F%2F10.0.0.1%3A80%2Fhello%3Fid%3D1%26interface%3Dhello%26weight%3D3%26zone%3Da",
        "",
    );
    check(
        "dubbo-app",
        "/services",
        &bare(100),
        "/services/hello/10.0.0.1:80",
        r#"{"Address":"","Enable":true,"GroupName":"","Healthy":true,"Host":"10.0.0.1","ID":"","Metadata":{"dubbo.endpoints":"[{\"port\":80,\"protocol\":\"tri\"}]"},"Port":80,"ServiceName":"hello","Tag":"","Weight":0}"#,
    );
    check(
        "kitex",
        "kitex/registry-etcd",
        &bare(10),
        "kitex/registry-etcd/hello/10.0.0.1:80",
        r#"{"address":"10.0.0.1:80","network":"tcp","tags":{},"weight":10}"#,
    );
    check(
        "skydns",
        "/skydns",
        &registration("hello.skydns.local", "x1", 3, &[]),
        "/skydns/local/skydns/hello/x1",
        r#"{"host":"10.0.0.1","port":80,"weight":3}"#,
    );
    check(
        "goframe",
        "/service",
        &bare(1),
        "/service/default/default/hello/latest/10.0.0.1:80",
        r#"{"protocol":"grpc"}"#,
    );
    let key = |format: &str, prefix: &str, service: &str| {
        let r = registration(service, "10.0.0.1:80", 100, &[]);
        write(&format.parse().unwrap(), prefix, &r).unwrap().0
    };
    assert_eq!(key("jupiter", "grpc:", "dev/hello"), "grpc:hello:v1:dev/10.0.0.1:80");
    assert_eq!(
        key("jupiter-2020", "/wsd-reg", "hello"),
        "/wsd-reg/hello/providers/grpc://10.0.0.1:80"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |format: &str, prefix: &str, r: &Registration| {
        write(&format.parse().unwrap(), prefix, r).unwrap_err().to_string()
    };
    let cannot = |format: &str, r: &Registration, what: &str| {
        let expected =
            format!("the format {format} cannot carry {what}: etcd-naming carries everything");
        assert_eq!(error(format, "/p", r), expected);
    };
    cannot("plain", &registration("a", "1", 2, &[]), "the weight 2");
    cannot("go-zero", &registration("a", "1", 1, &[("zone", "z")]), "the metadata zone=z");
    cannot("skydns", &registration("a.b", "1", 5, &[("zone", "z")]), "the metadata zone=z");
    cannot("skydns", &registration("a.b", "1", 0, &[]), "the weight 0");
    cannot("dubbo-app", &registration("a", "1", 0, &[]), "the weight 0");
    let reserved = registration("a", "1", 1, &[("protocol", "http")]);
    cannot("go-micro", &reserved, "the metadata protocol=http");
    let r = registration("a", "1", 100, &[]);
    assert!(error("apisix", "/apisix/upstreams", &r).contains("can be read but not written"));
    assert!(
        error("jupiter", "/etcd3_naming/", &r).contains("its key is \"grpc:a:v1:/10.0.0.1:80\"")
    );
}

fn any_registration() -> impl Strategy<Value = Registration> {
    let meta = proptest::collection::btree_map("[a-z]{1,4}", "[a-zA-Z0-9 &=%+#/é]{0,6}", 0..3)
        .prop_filter("words with a meaning of their own", |meta| {
            !meta.contains_key("id") && !meta.contains_key("weight")
        });
    let host = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Host::Ip(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| Host::Ip(ip.into())),
        "[a-z]{1,8}\\.local".prop_map(Host::Name),
    ];
    let service = prop_oneof![Just("hello"), Just("dev/game"), Just("a.b.c")];
    (service, host, 1..=u16::MAX, 0..2_000_u32, meta, "[a-z0-9:.-]{1,12}").prop_filter_map(
        "an address that may be used",
        |(service, host, port, weight, meta, id)| {
            Some(Registration {
                service: ServiceName::new(service).ok()?,
                id: id.into(),
                address: HostPort::new(host, port).ok()?,
                weight: Weight(weight),
                meta: Arc::new(meta),
            })
        },
    )
}

proptest! {
    /// `write` decodes its own result; this test finds what every format can carry.
    #[test]
    fn what_is_written_is_read_again(mut r in any_registration()) {
        for (name, format) in NAMED {
            let prefix = if format == Format::Jupiter { "grpc:" } else { "/p/" };
            let Ok((key, value)) = write(&format, prefix, &r) else { continue };
            let read = Prefix::parse(&format!("{prefix}={name}")).unwrap();
            let read = read.decode(key.as_bytes(), value.as_bytes()).unwrap();
            prop_assert_eq!(&read, &vec![r.clone()].into());
        }
        // The least that any registrant needs.
        r.meta = Arc::default();
        r.id = r.address.to_string().into();
        r.service = ServiceName::new("a.b").unwrap();
        for (name, format) in NAMED.into_iter().filter(|(_, format)| *format != Format::Apisix) {
            let prefix = if format == Format::Jupiter { "grpc:" } else { "/p/" };
            r.weight = format.default_weight();
            let written = write(&format, prefix, &r);
            prop_assert!(written.is_ok(), "{}: {:?}", name, written);
        }
    }

    #[test]
    fn auto_reads_what_the_first_formats_write(r in any_registration()) {
        for format in [Format::Plain, Format::Qsf, Format::EtcdNaming, Format::Auto] {
            let Ok((key, value)) = write(&format, "/p", &r) else { continue };
            let read = Prefix::parse("/p").unwrap().decode(key.as_bytes(), value.as_bytes());
            prop_assert_eq!(read, Ok(vec![r.clone()].into()));
        }
    }
}
