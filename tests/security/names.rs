//! Tests that names from outside forge nothing: no line of a log or a metric, no field of
//! JSON, and no colour or cursor of a terminal.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{ask, lookaside, printed};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::wire;

/// Names as nobody should give them: quotes and line ends of metrics, of JSON and of logs,
/// escape sequences of terminals (C0 and C1), other directions of writing.
const ODD: [&str; 6] = [
    "a\"} 1\nlookaside_forged{x=\"1",
    "b\\\",\"forged\":\"1",
    "c\r\n2026-11-26T00:00:00Z ERROR lookaside: forged",
    "d\u{1b}[2J\u{1b}]0;forged\u{7}",
    "e\u{9b}31m\u{202e}degrof\u{2066}",
    "f'`$(forged);|&<script>forged</script>{{forged}}",
];

/// Whether a terminal would obey a character instead of showing it.
fn steers(c: char) -> bool {
    let directs =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || directs
}

/// Checks that a text is of whole lines that nobody outside began, and steers no terminal.
#[track_caller]
fn check(what: &str, text: &str) {
    assert!(!text.chars().any(steers), "{what}: {text:?}");
    for line in text.lines() {
        let forged = line.starts_with("lookaside_forged") || line.starts_with("2026-11-26T00:00");
        assert!(!forged, "{what}: {line}");
    }
}

/// A balancer whose registry and clients have odd names everywhere.
struct Odd {
    _etcd: Etcd,
    balancer: Balancer,
    _clients: Vec<TcpStream>,
}

impl Odd {
    fn start(format: &str) -> Self {
        let etcd = Etcd::start();
        let flags = ["--etcd", &etcd.url(), "--log", "debug", "--log-format", format];
        let balancer = Balancer::start(&flags);
        for (number, odd) in ODD.iter().enumerate() {
            // As a service, as a backend's name, in metadata and in a value that is none.
            let value = serde_json::json!({
                "Op": 0, "Addr": format!("10.0.0.{number}:80"), "Metadata": {*odd: odd},
            });
            let put = |key: &str, value: &str| drop(etcd.ctl(&["put", "--", key, value]));
            put(&format!("/etcd3_naming/{odd}/1"), "10.0.0.1:80");
            put(&format!("/etcd3_naming/hello/{odd}"), &value.to_string());
            put(&format!("/etcd3_naming/hello/bad-{number}"), odd);
        }
        balancer.wait_ready();
        let clients = ODD.iter().map(|odd| client(&balancer, odd)).collect();
        Self { _etcd: etcd, balancer, _clients: clients }
    }
}

/// Opens a stream that asks for an odd name, and waits until the balancer has answered.
fn client(balancer: &Balancer, name: &str) -> TcpStream {
    let mut bytes = Vec::new();
    wire::put_opening(&mut bytes);
    wire::put_call(&mut bytes, 1, "/grpc.lb.v1.LoadBalancer/BalanceLoad");
    wire::put_data(&mut bytes, 1, &wire::balance_request(name));
    let mut stream = TcpStream::connect(balancer.grpclb()).expect("it listens");
    stream.write_all(&bytes).expect("it is sent");
    // The answer begins with settings; whatever follows, the request has arrived with them.
    stream.read_exact(&mut [0; 9]).expect("an answer");
    stream
}

#[test]
fn names_forge_no_metric_and_no_json() {
    let Odd { balancer, .. } = &Odd::start("text");
    let services = || balancer.get("/api/v1/services").1;
    eventually("what can be read is read", || services().contains("<script>").then_some(()));
    let (_, metrics) = balancer.get("/metrics");
    check("/metrics", &metrics);
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(name.starts_with("lookaside_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.contains("service=\"f'`$(forged);|&<script>"), "{metrics}");
    for path in [
        "/api/v1/services",
        "/api/v1/services/hello",
        "/api/v1/clients",
        "/api/v1/rejected",
        "/api/v1/explain?service=hello",
        "/api/v1/settings",
        "/api/v1/marks?service=%1b%5b2J",
        "/api/v1/explain?service=%22%7d%0aforged&backend=%1b",
        "/api/v1/services/%1b%5b2J%0a",
        "/%1b%5b2J%0d%0aforged:%20x",
    ] {
        let (_, head, body) = ask(balancer.admin(), &format!("GET {path}"), "");
        check(path, &body);
        assert!(!head.contains("\nforged"), "{head}");
        let value: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        fn keys(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                    found.push(key.clone());
                    keys(value, found);
                }),
                serde_json::Value::Array(all) => all.iter().for_each(|one| keys(one, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        keys(&value, &mut found);
        assert!(!found.contains(&"forged".to_owned()), "{path}: {body}");
    }
}

#[test]
fn names_forge_no_line_of_a_log_and_steer_no_terminal() {
    for format in ["text", "json"] {
        let Odd { balancer, .. } = &Odd::start(format);
        let rejected = r#"lookaside_registry_rejected_keys"#;
        eventually("keys are rejected", || balancer.metric(rejected).filter(|count| *count >= 6.0));
        let admin = format!("http://{}", balancer.admin());
        for args in [
            &["services"][..],
            &["clients"],
            &["explain", "hello"],
            &["explain", ODD[3]],
            &["explain", "hello", "--backend", ODD[4]],
            &["drain", ODD[3], ODD[4], "--why", ODD[0]],
            &["drain", "hello", ODD[3], "--why", ODD[2]],
            &["shed", ODD[5], "10", "--why", ODD[3]],
            &["marks"],
            &["settings", "show"],
            &["settings", "show", ODD[4]],
            &["services", "--json"],
            &["clients", "--json"],
            &["marks", "--json"],
            &["explain", "hello", "--json"],
        ] {
            let (_, shown) = printed(&lookaside(&[args, &["--admin", &admin]].concat()));
            check(&args.join(" "), &shown);
        }
        ask(balancer.admin(), "GET /%1b%5b2J%0aforged", "");
        let log = balancer.log();
        check("the log", &log);
        if format == "json" {
            for line in log.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(value["forged"].is_null() && value["fields"]["forged"].is_null(), "{line}");
            }
        }
    }
}
