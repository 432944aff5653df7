//! Tests that each format treats odd fields as its framework's own resolver does.
//!
//! A row is a prefix, a key, a value, and the decoded text. `docs/formats.md` explains
//! the same, with the source of each rule.

use crate::registry::record::tests::check;

type Rows = &'static [(&'static str, &'static str)];

#[track_caller]
fn all(prefix: &str, key: &str, rows: Rows) {
    for (value, expected) in rows {
        check(prefix, key, value, expected);
    }
}

#[test]
fn qsf_writes_its_fields_in_two_ways() {
    all(
        "/qsf.service=qsf",
        "/qsf.service/example/node1",
        &[
            // QSF 2.
            (r#"{"Addr":"10.0.0.1:28544","Metadata":null}"#, "example node1 10.0.0.1:28544"),
            (
                r#"{"Addr":"h:1","Metadata":{"weight":"3","zone":"a"}}"#,
                "example node1 h:1 weight=3 zone=a",
            ),
            // QSF 1.
            (r#"{"addr":"h:1","metadata":{"weight":"3"}}"#, "example node1 h:1 weight=3"),
            // QSF 1's own selector takes 0 for 1. Here it means no traffic, as in every
            // format that lookaside itself writes.
            (r#"{"addr":"h:1","metadata":{"weight":"0"}}"#, "example node1 h:1 weight=0"),
            (r#"{"addr":"h:1","Addr":"h:2"}"#, "example node1 h:1"),
        ],
    );
}

#[test]
fn kratos_skips_what_is_not_its_own_and_replaces_the_weight() {
    all(
        "/microservices=kratos",
        "/microservices/a/i",
        &[
            (
                r#"{"id":"i","name":"a","endpoints":["grpc://h:1"],"metadata":{"weight":"high"}}"#,
                "a i h:1 weight=100 !the weight \"high\" is no number: 100 counts",
            ),
            (
                r#"{"id":"i","name":"a","endpoints":["grpc://h:1"],"metadata":{"weight":5,"up":true}}"#,
                "a i h:1 weight=5 up=true",
            ),
            (
                r#"{"id":7,"name":"a","version":2,"endpoints":["grpc://h:1"],"metadata":[]}"#,
                "a 7 h:1 weight=100 version=2 !\"/metadata\" is [], no object: ignored",
            ),
            (
                r#"{"id":[],"name":{},"endpoints":["grpc://h:1"]}"#,
                "a i h:1 weight=100 !the name {} is no text: ignored !the id [] is no short text: ignored",
            ),
            (r#"{"endpoints":["grpc://h:1"]}"#, "a i h:1 weight=100"),
            // One bad address is left out and costs nothing else.
            (
                r#"{"name":"a","endpoints":["grpc://h:500053","grpc://h:2",7]}"#,
                "a i h:2 weight=100 !left out: \"h:500053\" has the port \"500053\": expected a number from 1 to 65535 !left out: the endpoint 7 is neither text nor an object",
            ),
            (
                r#"{"name":"a","endpoints":["grpc://h:500053","http://h:80"]}"#,
                "rejected: \"h:500053\" has the port \"500053\": expected a number from 1 to 65535",
            ),
            (
                r#"{"name":"a","endpoints":["grpc://h:1","grpc://h:1"]}"#,
                "a i h:1 weight=100 !the address h:1 occurs more than once",
            ),
            (
                r#"{"name":"pay","endpoints":["grpc://h:1"]}"#,
                "rejected: the key says that the service is \"a\", the value says \"pay\": the registrant must write the same name in both",
            ),
        ],
    );
    let team = r#"{"name":"a","endpoints":["grpc://h:1"]}"#;
    check("/microservices=kratos", "/microservices/team/a/i", team, "team/a i h:1 weight=100");
    let slash = r#"{"name":"team/a","endpoints":["grpc://h:1"]}"#;
    check("/m/team=kratos", "/m/team/a/i", slash, "a i h:1 weight=100");
    check("/m/team/a=kratos", "/m/team/a/i", slash, "a i h:1 weight=100");
}

#[test]
fn kratos_v1_counts_0_as_unset() {
    all(
        "/kratos_etcd=kratos-v1",
        "/kratos_etcd/a/h",
        &[
            (
                r#"{"appid":"a","addrs":["grpc://h:1"],"status":0,"metadata":{"weight":"0"}}"#,
                "a h h:1 weight=10",
            ),
            (
                r#"{"appid":"a","addrs":["grpc://h:1"],"status":1,"metadata":{"weight":"-3"}}"#,
                "a h h:1 weight=10 !the weight \"-3\" is below 0: 10 counts",
            ),
            (
                r#"{"appid":"a","addrs":["grpc://h:1"],"status":{},"metadata":null}"#,
                "a h h:1 weight=10 !the status {} is no text: ignored",
            ),
            (
                r#"{"appid":"pay","addrs":["grpc://h:1"]}"#,
                "rejected: the key says that the service is \"a\", the value says \"pay\": the registrant must write the same name in both",
            ),
        ],
    );
}

#[test]
fn go_micro_writes_slashes_as_hyphens() {
    let node = r#""nodes":[{"id":"n","address":"h:1","metadata":{"protocol":"grpc","weight":null}},{"id":"b","metadata":{"protocol":"grpc"}}]"#;
    let read = "team-a n h:1 !left out: \"/address\" is missing: expected host:port";
    let value = format!(r#"{{"name":"team/a",{node}}}"#);
    check("/micro/registry=go-micro", "/micro/registry/team-a/n", &value, read);
    let other = format!(r#"{{"name":"pay",{node}}}"#);
    let contradicts = "rejected: the key says that the service is \"team-a\", the value says \"pay\": the registrant must write the same name in both";
    check("/micro/registry=go-micro", "/micro/registry/team-a/n", &other, contradicts);
}

#[test]
fn rpcx_takes_the_first_of_several_parameters() {
    all(
        "rpcx_test=rpcx",
        "rpcx_test/Arith/tcp@h:1",
        &[
            ("weight=7&weight=9", "Arith h:1 h:1 weight=7"),
            ("weight=high", "Arith h:1 h:1 !the weight \"high\" is no number: 1 counts"),
            ("weight=&group=a", "Arith h:1 h:1 group=a"),
            ("weight=0", "Arith h:1 h:1 weight=0"),
            ("state=active", "Arith h:1 h:1"),
        ],
    );
}

#[test]
fn dubbo_parts_at_the_last_colon_and_raises_weights_to_0() {
    let check = |url: &str, expected: &str| {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let encoded = utf8_percent_encode(url, NON_ALPHANUMERIC);
        check("/dubbo=dubbo", &format!("/dubbo/x.Svc/providers/{encoded}"), "", expected);
    };
    let six = "x.Svc [2001:db8::1]:50051 [2001:db8::1]:50051 weight=100";
    check("tri://2001:db8:0:0:0:0:0:1:50051/x.Svc?interface=x.Svc", six);
    check("tri://[2001:db8::1]:50051/x.Svc?interface=x.Svc", six);
    let raised = "x.Svc h:1 h:1 weight=0 !the weight \"-1\" is below 0: 0 counts";
    check("tri://h:1/x.Svc?weight=-1", raised);
    let high = "x.Svc h:1 h:1 weight=100 !the weight \"high\" is no number: 100 counts";
    check("tri://h:1/x.Svc?weight=high", high);
    check("tri://h:1/ctx/other?interface=x.Svc", "x.Svc h:1 h:1 weight=100");
    let contradicts = "rejected: the key says that the service is \"x.Svc\", the value says \"pay.Svc\": the registrant must write the same name in both";
    check("tri://h:1/x.Svc?interface=pay.Svc", contradicts);
    let odd = "x.Svc h:1 h:1 weight=100 !\"maybe\" says nothing of being disabled: ignored";
    check("tri://h:1/x.Svc?enabled=maybe", odd);
}

#[test]
fn dubbo_names_may_be_encoded_in_keys() {
    let url = "tri%3A%2F%2Fh%3A1%2Fx%3Finterface%3Dx.Outer%24Svc";
    let key = format!("/dubbo/x.Outer%24Svc/providers/{url}");
    check("/dubbo=dubbo", &key, "", "x.Outer$Svc h:1 h:1 weight=100");
    let other = key.replace("/x.Outer", "/pay.Outer");
    check(
        "/dubbo=dubbo",
        &other,
        "",
        "rejected: the key says that the service is \"pay.Outer$Svc\", the value says \"x.Outer$Svc\": the registrant must write the same name in both",
    );
}

#[test]
fn dubbo_app_falls_back_to_the_instances_own_port() {
    all(
        "/services=dubbo-app",
        "/services/app/h:20000",
        &[
            (
                r#"{"ServiceName":"app","Host":"h","Port":20000,"Weight":-5}"#,
                "app h:20000 h:20000 weight=100 !the weight -5 is below 0: 100 counts",
            ),
            (
                r#"{"ServiceName":"app","Host":"h","Port":20000.0,"Weight":0,"Metadata":{"dubbo.endpoints":"[]"}}"#,
                "app h:20000 h:20000 weight=100",
            ),
            (
                r#"{"ServiceName":"app","Host":"h","Port":20000,"Metadata":{"dubbo.endpoints":"oops"}}"#,
                "app h:20000 h:20000 weight=100 !\"/Metadata/dubbo.endpoints\" is \"oops\", no list: ignored",
            ),
            (
                r#"{"ServiceName":"app","Host":"h","Port":1,"Metadata":{"dubbo.endpoints":"[{\"port\":99999,\"protocol\":\"tri\"},{\"port\":7,\"protocol\":\"tri\"}]"}}"#,
                "app h:7 h:7 weight=100 !left out: \"h:99999\" has the port \"99999\": expected a number from 1 to 65535",
            ),
            (
                r#"{"ServiceName":"app","Host":"2001:db8::1","Port":20000,"Metadata":"x"}"#,
                "app [2001:db8::1]:20000 [2001:db8::1]:20000 weight=100 !\"/Metadata\" is \"x\", no object: ignored",
            ),
            (
                r#"{"ServiceName":"pay","Host":"h","Port":20000}"#,
                "rejected: the key says that the service is \"app\", the value says \"pay\": the registrant must write the same name in both",
            ),
        ],
    );
}

#[test]
fn kitex_and_hertz_replace_weights_that_are_not_above_0() {
    for (prefix, key) in [
        ("kitex/registry-etcd=kitex", "kitex/registry-etcd/demo/h:1"),
        ("hertz/registry-etcd=hertz", "hertz/registry-etcd/demo/h:1"),
    ] {
        all(
            prefix,
            key,
            &[
                (
                    r#"{"network":"tcp","address":"h:1","weight":0,"tags":null}"#,
                    "demo h:1 h:1 weight=10",
                ),
                (
                    r#"{"network":"","address":"h:1","weight":null,"tags":{}}"#,
                    "demo h:1 h:1 weight=10",
                ),
                (
                    r#"{"address":"h:1","weight":{},"tags":"x"}"#,
                    "demo h:1 h:1 weight=10 !the weight {} is no number: 10 counts !\"/tags\" is \"x\", no object: ignored",
                ),
                (
                    r#"{"address":"h:1","weight":99999999}"#,
                    "demo h:1 h:1 weight=1000000 !the weight 99999999 is over 1000000: 1000000 counts",
                ),
            ],
        );
    }
}

#[test]
fn skydns_counts_no_weight_as_100() {
    all(
        "/skydns=skydns",
        "/skydns/local/skydns/a/x1",
        &[
            (
                r#"{"host":"10.0.0.1","port":80,"weight":-1}"#,
                "a.skydns.local x1 10.0.0.1:80 weight=100 !the weight -1 is below 0: 100 counts",
            ),
            (r#"{"host":"10.0.0.1","port":0}"#, "nothing"),
            (r#"{"host":"10.0.0.1","port":-1}"#, "nothing"),
            (
                r#"{"host":"10.0.0.1","port":"80","priority":"x","group":7}"#,
                "a.skydns.local x1 10.0.0.1:80 weight=100 group=7 priority=x",
            ),
        ],
    );
}

#[test]
fn apisix_is_called_by_its_id_where_its_name_is_none() {
    all(
        "/apisix/upstreams=apisix",
        "/apisix/upstreams/7",
        &[
            (
                r#"{"id":"7","name":"order service (prod)","scheme":"grpc","nodes":{"h:1":2}}"#,
                "7 h:1 h:1 weight=2 !the name \"order service (prod)\" has a character that no name may have: use letters, digits, '.', '-', '_' and '/': 7 counts",
            ),
            (r#"{"id":7,"name":"pay","scheme":"grpc","nodes":{"h:1":2}}"#, "pay h:1 h:1 weight=2"),
            (
                r#"{"id":"8","name":"pay","scheme":"grpc","nodes":{"h:1":2}}"#,
                "rejected: the key says that the service is \"7\", the value says \"8\": the registrant must write the same name in both",
            ),
            (
                r#"{"scheme":"grpc","nodes":{"h:1":"x","h:2":0,"h:99999":1},"labels":[]}"#,
                "7 h:1 h:1 | 7 h:2 h:2 weight=0 !the weight \"x\" is no number: 1 counts !\"/labels\" is [], no object: ignored !left out: \"h:99999\" has the port \"99999\": expected a number from 1 to 65535",
            ),
            // Two colons before any dot: an address without a port.
            (
                r#"{"scheme":"grpcs","nodes":{"2001:db8::1":1}}"#,
                "7 [2001:db8::1]:443 [2001:db8::1]:443 tls=true",
            ),
            (
                r#"{"scheme":"grpc","nodes":{"[2001:db8::1]:9":1}}"#,
                "7 [2001:db8::1]:9 [2001:db8::1]:9",
            ),
            (r#"{"scheme":"grpc","nodes":[]}"#, "nothing"),
        ],
    );
}

#[test]
fn jupiter_takes_the_key_for_the_address() {
    all(
        "grpc:=jupiter",
        "grpc:s:v1:dev/h:1",
        &[
            (
                r#"{"Op":0,"Addr":"x","MetadataX":{"name":"s","weight":"7"}}"#,
                "dev/s h:1 h:1 weight=7",
            ),
            (r#"{"Op":1,"MetadataX":{}}"#, "dev/s h:1 h:1 weight=0 status=1"),
            (r#"{"MetadataX":null}"#, "dev/s h:1 h:1 weight=100"),
            (
                r#"{"MetadataX":{"enable":"maybe","metadata":7}}"#,
                "dev/s h:1 h:1 weight=100 !\"maybe\" says nothing of being disabled: ignored !\"/MetadataX/metadata\" is 7, no object: ignored",
            ),
            (
                r#"{"MetadataX":{"name":"pay"}}"#,
                "rejected: the key says that the service is \"s\", the value says \"pay\": the registrant must write the same name in both",
            ),
        ],
    );
    let other = r#"{"name":"pay","weight":1}"#;
    check(
        "/wsd-reg=jupiter-2020",
        "/wsd-reg/s/providers/grpc://h:1",
        other,
        "rejected: the key says that the service is \"s\", the value says \"pay\": the registrant must write the same name in both",
    );
}

#[test]
fn goframe_reads_the_key_and_takes_the_rest_as_it_comes() {
    all(
        "/service=goframe",
        "/service/default/default/a/latest/h:1,h:99999,h:2",
        &[(
            r#"{"protocol":"grpc","weight":"high"}"#,
            "a h:1 h:1 | a h:2 h:2 !the weight \"high\" is no number: 1 counts !left out: \"h:99999\" has the port \"99999\": expected a number from 1 to 65535",
        )],
    );
}
