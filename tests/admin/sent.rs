//! Tests of what one client was sent: by the id of its stream, and by its address; of a made-up
//! client, and of one of the real program that refuses.

use std::process::Command;

use lookaside::model::ClientKind;
use lookaside::telemetry::{
    ClientView, Counter, SentEndpoints, SentEntry, SentList, SentLocality, SentName, SentResource,
    SentResources, SentType, Told, WantedNames, XdsView,
};
use serde_json::json;

use super::world::{World, client, entry};
use crate::support::ads::{self, Kind};
use crate::support::eventually;
use crate::support::lookaside::{Balancer, program};
use crate::support::raw_call::RawCall;
use crate::support::wire;

/// What every BalanceLoad stream of the test was sent.
pub(super) fn list(_: u64, _: &WantedNames) -> Option<SentList> {
    let backend = "10.0.0.1:80".parse().ok();
    let entry = |backend| SentEntry { backend, token: "t".to_owned() };
    Some(SentList { entries: Some(vec![entry(backend), entry(None)]) })
}

/// What every xDS stream of the test was sent; the stream 9 has ended meanwhile.
pub(super) fn resources(stream: u64, wanted: &WantedNames) -> Option<SentResources> {
    let locality = SentLocality {
        name: "10.0.0.1:80".to_owned(),
        weight: 3,
        backends: vec!["10.0.0.1:80".parse().unwrap()],
    };
    let endpoints = SentEndpoints {
        name: "hello".to_owned(),
        version: 0xa2,
        told: Told::List,
        drops: vec![("shed".to_owned(), 30)],
        localities: Some(vec![locality]),
    };
    let cluster = SentResource {
        name: "hello".to_owned(),
        version: 0xb1,
        as_sent: true,
        says: vec![("policy", "round_robin".to_owned())],
    };
    let state = |kind, version: Option<u64>, refusal: Option<&str>| SentType {
        kind,
        version,
        nonce: version.map_or(0, |_| 7),
        accepted: None,
        state: match (version, refusal) {
            (None, _) => "nothing",
            (_, Some(_)) => "refused",
            _ => "unanswered",
        },
        refusal: refusal.map(Into::into),
    };
    let name = SentName {
        name: "hello".into(),
        listener: None,
        cluster: Some(cluster),
        endpoints: Some(endpoints),
    };
    let is_wanted = wanted.name.as_deref().is_none_or(|name| name == "hello");
    (stream != 9).then(|| SentResources {
        types: vec![
            state("listener", None, None),
            state("cluster", Some(0xb0), None),
            state("endpoints", Some(0xa2), Some("do not like it")),
        ],
        total: 1,
        names: if is_wanted { vec![name] } else { Vec::new() },
    })
}

fn xds(name: &str, port: u16) -> ClientView {
    let versions = XdsView { sent: Some(0xa2), refusal: Some("no".into()), ..XdsView::default() };
    ClientView { xds: Some(versions), ..client(name, Some("hello"), ClientKind::Go, port) }
}

#[tokio::test]
async fn a_client_is_shown_with_what_it_was_sent() {
    let world = World::with(vec![entry("hello", "a", "10.0.0.1:80", 1, &[])]).await;
    *world.clients.lock().unwrap() =
        vec![client("hello", Some("hello"), ClientKind::Go, 3), xds("hello", 4), xds("other", 9)];
    let (_, all) = world.json("/api/v1/clients").await;
    let ids: Vec<_> = all["clients"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["grpclb-3", "xds-4", "xds-9"]);

    let (status, grpclb) = world.json("/api/v1/clients/grpclb-3").await;
    assert_eq!((status, &grpclb["clients"][0]["name"]), (200, &json!("hello")));
    let entries =
        json!([{"address": "10.0.0.1:80", "token": "t"}, {"address": null, "token": "t"}]);
    assert_eq!((&grpclb["list"], &grpclb["types"]), (&entries, &json!([])));

    let (status, shown) = world.json("/api/v1/clients/xds-4").await;
    assert_eq!((status, &shown["list"], &shown["total"]), (200, &json!(null), &json!(1)));
    assert_eq!(
        shown["types"],
        json!([
            {"type": "listener", "version": null, "nonce": null, "state": "nothing",
                "accepted": null, "refusal": null},
            {"type": "cluster", "version": "00000000000000b0", "nonce": "7",
                "state": "unanswered", "accepted": null, "refusal": null},
            {"type": "endpoints", "version": "00000000000000a2", "nonce": "7",
                "state": "refused", "accepted": null, "refusal": "do not like it"},
        ])
    );
    assert_eq!(
        shown["names"],
        json!([{
            "name": "hello",
            "listener": null,
            "cluster": {"name": "hello", "version": "00000000000000b1", "as_sent": true,
                "says": [{"key": "policy", "value": "round_robin"}]},
            "endpoints": {"name": "hello", "version": "00000000000000a2", "told": "list",
                "drops": [{"category": "shed", "percent": 30}],
                "localities": [{"name": "10.0.0.1:80", "weight": 3,
                    "backends": ["10.0.0.1:80"]}]},
        }])
    );
    let (_, none) = world.json("/api/v1/clients/xds-4?service=other").await;
    assert_eq!((&none["clients"], &none["names"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn a_client_is_found_by_its_address_if_it_has_one_stream() {
    let world = World::with(Vec::new()).await;
    *world.clients.lock().unwrap() = vec![
        client("hello", Some("hello"), ClientKind::Go, 4),
        xds("hello", 4),
        xds("hello", 5),
        xds("hello", 9),
    ];
    let check = async |id: &str, status: u16, says: &str| {
        let (found, body) = world.json(&format!("/api/v1/clients/{id}")).await;
        assert_eq!(found, status, "{id} {body}");
        assert!(body.to_string().contains(says), "{id} {body}");
    };
    check("10.0.0.9%3A5", 200, r#""id":"xds-5""#).await;
    check("10.0.0.9:4", 400, "name one of grpclb-4, xds-4").await;
    check("10.0.0.9:6", 404, "/api/v1/clients lists the open ones").await;
    check("xds-6", 404, r#"no stream \"xds-6\" is open"#).await;
    check("grpclb-5", 404, "is open").await;
    check("xds-9", 404, "is open").await;
    check("xds-4?limt=1", 400, "this path takes limit and service").await;
}

#[tokio::test]
async fn metrics_count_responses_by_type_and_names_by_client() {
    let world = World::with(Vec::new()).await;
    let counters = &world.counters;
    let add = |counter: &Counter, times: u32| (0..times).for_each(|_| counter.increment());
    let types = [
        ("listener", &counters.xds_listeners, 1),
        ("cluster", &counters.xds_clusters, 4),
        ("endpoints", &counters.xds_endpoints, 7),
    ];
    for (_, of, times) in types {
        add(&of.sent, times);
        add(&of.accepted, times + 1);
        add(&of.refused, times + 2);
    }
    let node = ClientView { kind: ClientKind::Node, ..xds("hello", 5) };
    *world.clients.lock().unwrap() =
        vec![client("hello", None, ClientKind::Go, 3), xds("hello", 4), xds("other", 4), node];
    let metrics = world.metrics().await;
    for (kind, _, times) in types {
        for (what, more) in [("sent", 0), ("accepted", 1), ("refused", 2)] {
            let series = format!(r#"xds_responses_{what}_total{{type="{kind}"}}"#);
            metrics.check(&series, f64::from(times + more));
        }
    }
    for (kind, names) in [("go", 2.0), ("node", 1.0), ("java", 0.0)] {
        metrics.check(&format!(r#"xds_names_open{{client_kind="{kind}"}}"#), names);
    }
}

/// Asks the real program about a client that refuses, and about one by grpclb.
#[test]
fn the_command_line_shows_what_a_client_was_sent_and_its_refusal() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    balancer.register("hello", "1", "10.0.0.1:1");
    balancer.wait_listed("hello", "1");
    let admin = format!("http://{}", balancer.admin());
    let run = |args: &[&str]| {
        let output = Command::new(program()).args(args).args(["--admin", &admin]).output();
        let output = output.expect("lookaside runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let mut xds = RawCall::open(balancer.grpclb(), ads::PATH);
    let mut nonce = Vec::new();
    let mut versions = Vec::new();
    for kind in Kind::ALL {
        xds.send(&ads::request(kind, "hello", b"", b"", kind == Kind::Listener));
        let bytes = xds.next();
        let response = ads::Response::parse(&bytes);
        nonce = response.nonce.to_vec();
        versions.push(String::from_utf8_lossy(response.version).into_owned());
        if kind == Kind::Listener {
            xds.send(&ads::request(kind, "hello", response.version, response.nonce, false));
        }
    }
    xds.send(&ads::refusal(Kind::Endpoints, "hello", &nonce, "do not \u{1b}[31mlike it"));
    let (_, shown) = eventually("the refusal is shown", || {
        let shown = run(&["clients", "show", "xds-0"]);
        shown.1.contains("refused").then_some(shown)
    });
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = |start: &str| {
        let line = shown.lines().find(|line| line.trim_start().starts_with(start));
        words(line.unwrap_or_else(|| panic!("{start}: {shown}")))
    };
    assert_eq!(row("listener")[..2], ["listener", &versions[0]]);
    assert_eq!(row("listener").last().map(String::as_str), Some("accepted"));
    assert_eq!(row("cluster").last().map(String::as_str), Some("unanswered"));
    assert!(shown.contains("refused: do not \\u{1b}[31mlike it"), "{shown}");
    assert!(shown.contains("hello -> hello") && shown.contains("cluster=hello"), "{shown}");
    assert!(shown.contains("policy=round_robin") && !shown.contains("newer"), "{shown}");
    assert_eq!(row("10.0.0.1:1"), ["10.0.0.1:1", "1", "10.0.0.1:1"]);
    let (_, json) = run(&["clients", "show", "xds-0", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["types"][2]["version"], versions[2]);
    let (_, listed) = run(&["clients"]);
    assert!(listed.contains("refused: do not") && listed.contains(&versions[2]), "{listed}");

    let mut grpclb = RawCall::open(balancer.grpclb(), wire::BALANCE_LOAD);
    grpclb.send(&wire::balance_request("hello"));
    let _first = (grpclb.next(), grpclb.next());
    let (code, shown) = run(&["clients", "show", "grpclb-0"]);
    let row = shown.lines().find(|line| line.contains("10.0.0.1:1")).map(words);
    assert_eq!((code, row.map(|row| row[..2].to_vec())), (Some(0), Some(words("10.0.0.1:1 1"))));
    let (_, services) = run(&["services"]);
    let row = services.lines().find(|line| line.contains("hello")).map(words).expect(&services);
    assert_eq!(row[..5], ["hello", "1", "2", "1", "1"], "{services}");
    let (code, shown) = run(&["clients", "show", "xds-7"]);
    assert_eq!((code, shown.contains("no stream")), (Some(1), true), "{shown}");
}

/// A name with an authority means what it means without one, also while nothing is registered.
#[test]
fn a_client_that_asks_with_an_authority_is_found_by_the_service() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let mut xds = RawCall::open(balancer.grpclb(), ads::PATH);
    let name = "xdstp://any/envoy.config.endpoint.v3.ClusterLoadAssignment/dev%2Fnobody:80?a=b";
    xds.send(&ads::request(Kind::Endpoints, name, b"", b"", true));
    let _empty = xds.next();
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_str(&balancer.get(path).1).expect("JSON")
    };
    let found = json("/api/v1/clients?service=nobody.dev");
    assert_eq!((&found["total"], &found["clients"][0]["name"]), (&json!(1), &json!(name)));
    assert_eq!(json("/api/v1/clients?service=other")["total"], 0);
}
