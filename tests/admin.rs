//! Tests of the admin server over real sockets: its answers before the registry is
//! read, afterwards, and while the registry is stale; hostile clients.

#[path = "admin/explain.rs"]
mod explain;
#[path = "admin/hostile.rs"]
mod hostile;
#[path = "admin/list_changes.rs"]
mod list_changes;
#[path = "admin/marks.rs"]
mod marks;
#[path = "admin/sent.rs"]
mod sent;
#[path = "admin/settings.rs"]
mod settings;
#[path = "admin/splits.rs"]
mod splits;
#[path = "admin/world.rs"]
mod world;

use std::time::Duration;

use crate::support::WAIT_MAX;
use lookaside::admin;
use lookaside::catalog::Rules;
use lookaside::cli::admin_client::{self, AdminClient, AdminError};
use lookaside::load::Calls;
use lookaside::model::{ClientKind, ServiceName, Target, Zone};
use lookaside::registry::{Cause, Change, Event, Key};
use lookaside::telemetry::{ClientView, XdsView};
use serde_json::{Value, json};
use world::{World, bad, client, entry, stale};

#[tokio::test]
async fn nothing_is_concluded_before_the_registry_is_read() {
    let world = World::start().await;
    assert_eq!(world.get("/livez").await.body, "ok");
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "registry: not read yet"));
    for path in ["/api/v1/services", "/api/v1/services/hello", "/api/v1/rejected"] {
        let (status, body) = world.json(path).await;
        assert_eq!(status, 503, "{path}");
        assert!(body["error"].as_str().unwrap().contains("not been read yet"), "{body}");
    }
    let (status, body) = world.json("/api/v1/registry").await;
    assert_eq!(status, 200);
    assert_eq!((&body["synced"], &body["silent_seconds"]), (&json!(false), &Value::Null));
    assert_eq!(world.json("/api/v1/clients").await.1, json!({"total": 0, "clients": []}));
    let (_, status) = world.json("/api/v1/status").await;
    assert_eq!(status["missing"], json!(["registry: not read yet"]));
    let metrics = world.metrics().await;
    metrics.check("registry_synced", 0.0);
    metrics.check("ready", 0.0);
    metrics.check("services", 0.0);
}

#[tokio::test]
async fn ready_once_read_and_until_draining_whatever_the_registry_does() {
    let world = World::with(Vec::new()).await;
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok"));
    world.say(stale()).await;
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 200);
    let second = ready.body.strip_prefix("ok\nregistry: stale for ").expect(&ready.body);
    assert!(second.ends_with("s (connection refused): serving what was last read"), "{second}");
    let (_, registry) = world.json("/api/v1/registry").await;
    assert_eq!(registry["stale"]["reason"], "connection refused");
    let metrics = world.metrics().await;
    metrics.check("registry_stale", 1.0);
    metrics.check("registry_synced", 1.0);
    metrics.check("ready", 1.0);
    world.shutdown_condition.missing("draining");
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with("shutdown: draining\nregistry: stale"), "{}", ready.body);
    assert_eq!(world.get("/livez").await.status, 200);
}

#[tokio::test]
async fn services_are_listed_and_shown() {
    let world = World::with(vec![
        entry("dev/game", "7", "10.0.0.7:80", 3, &[("zone", "a")]),
        entry("dev/game", "8", "10.0.0.8:80", 1, &[("zone", "b")]),
        entry("dev/game", "9", "10.0.0.9:80", 0, &[]),
        entry("hello", "a", "10.0.0.1:80", 1, &[]),
    ])
    .await;
    let game = ServiceName::new("dev/game").unwrap();
    world.ledger.add(&game, Calls { started: 3, finished: 2, ..Calls::default() });
    *world.clients.lock().unwrap() = vec![
        client("game.dev", Some("dev/game"), ClientKind::Go, 1),
        client("hello.lookaside.internal:443", Some("hello"), ClientKind::Core, 2),
        ClientView {
            xds: Some(XdsView::default()),
            ..client("game.dev.lookaside.internal", Some("dev/game"), ClientKind::Java, 3)
        },
    ];
    let (status, body) = world.json("/api/v1/services").await;
    assert_eq!(status, 200);
    assert_eq!(body["total"], 2);
    let calls = json!({"started": 3, "finished": 2, "failed_to_send": 0, "known_received": 0,
        "dropped": 0});
    assert_eq!(
        body["services"][0],
        json!({"name": "dev/game", "dns_name": "game.dev.lookaside.internal", "endpoints": 3,
            "held": 0, "guarded": false, "down": 0, "unresolved": 0, "drained": 0, "unhealthy": 0,
            "panic": false, "shed": 0, "overload_shed": 0, "load_silent": 0, "fallback": false,
            "state": "ok", "since_seconds": null,
            "revision": 7, "clients": 2, "clients_by_protocol": {"grpclb": 1, "xds": 1},
            "calls": calls})
    );
    assert_eq!(body["services"][1]["name"], "hello");
    let (_, body) = world.json("/api/v1/services?limit=1").await;
    assert_eq!((&body["total"], body["services"].as_array().unwrap().len()), (&json!(2), 1));

    // Every spelling of the name means the one service.
    for typed in [
        "dev/game",
        "dev%2Fgame",
        "game.dev",
        "GAME.dev.lookaside.internal.",
        "game.dev.lookaside.internal:443",
    ] {
        let (status, body) = world.json(&format!("/api/v1/services/{typed}")).await;
        assert_eq!((status, &body["name"]), (200, &json!("dev/game")), "{typed}");
        let turns: Vec<_> =
            body["endpoints"].as_array().unwrap().iter().map(|e| &e["turns"]).collect();
        assert_eq!(turns, [3, 1, 0], "{typed}");
    }
    let (_, body) = world.json("/api/v1/services/zone--B.game.dev").await;
    assert_eq!(body["selectors"], json!([{"key": "zone", "value": "b"}]));
    assert_eq!(
        body["endpoints"][1],
        json!({"id": "8", "address": "10.0.0.8:80", "weight": 1, "turns": 1,
            "due": 1.0, "share": 1.0, "token": "dev/game@10.0.0.8:80", "meta": {"zone": "b"},
            "held": null, "down": false, "drained": null,
            "delayed_seconds": null, "slow_start": null, "load_factor": null, "unhealthy": null,
            "reported": null})
    );
    assert_eq!(body["endpoints"][0]["turns"], 0);
    assert_eq!((&body["clients"], &body["calls"]), (&json!(2), &calls));
    assert_eq!(body["clients_by_protocol"], json!({"grpclb": 1, "xds": 1}));
    let metrics = world.metrics().await;
    metrics.check(r#"service_clients{service="dev/game",protocol="grpclb"}"#, 1.0);
    metrics.check(r#"service_clients{service="dev/game",protocol="xds"}"#, 1.0);
    metrics.check(r#"service_clients{service="hello",protocol="xds"}"#, 0.0);

    // A stale registry changes none of it.
    let before = world.json("/api/v1/services").await;
    world.say(stale()).await;
    assert_eq!(world.json("/api/v1/services").await, before);
}

#[tokio::test]
async fn the_dashboard_leads_to_what_its_words_mean() {
    let world = World::with(Vec::new()).await;
    let page = world.get("/").await;
    assert!(page.body.contains(r#"<a href="glossary">"#), "{}", page.body);
    let glossary = world.get("/glossary").await;
    assert!(glossary.head.contains("content-type: text/plain"), "{}", glossary.head);
    for word in ["held", "guarded", "down", "rejected", "stale", "drained"] {
        assert!(glossary.body.contains(&format!("**{word}**")), "{word}");
    }
}

#[tokio::test]
async fn wrong_questions_get_answers_that_help() {
    let world = World::with(Vec::new()).await;
    let check = async |path: &str, status: u16, says: &str| {
        let (found, body) = world.json(path).await;
        assert_eq!(found, status, "{path} {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{path} {body}");
    };
    check("/api/v1/services/nobody", 404, r#"no backend of "nobody" is registered"#).await;
    check("/api/v1/services/a%20b", 400, "has a character that no name may have").await;
    check("/api/v1/services/a%00b", 400, "has a character that no name may have").await;
    check("/api/v1/services/%ff", 400, "no UTF-8").await;
    check("/api/v1/services/a..b", 400, "holds no service").await;
    check(&format!("/api/v1/services/{}", "a".repeat(256)), 400, "has 256 bytes").await;
    check("/api/v1/services/", 404, "/api/v1/services/{name}").await;
    check("/api/v1/services?limit=x", 400, r#"limit="x": expected a whole number"#).await;
    check("/api/v1/services?limt=1", 400, r#""limt" is unknown: this path takes limit"#).await;
    check("/api/v1/rejected?service=a", 400, r#""service" is unknown: this path takes limit"#)
        .await;
    check("/api/v1/clients?limit=1&limit=2", 400, r#""limit" is given twice"#).await;
    check("/api/v1/clients?service=a%20b", 400, "has a character").await;
    check("/nowhere", 404, "/api/v1/rejected").await;
    check("/favicon.ico", 404, "there is nothing at").await;
    // The error says which methods and paths there are instead.
    let release = "/api/v1/services/{name}/release";
    check("/nowhere", 404, "POST answers /api/v1/services/{name}/drain").await;
    for (method, path, allow, says) in [
        ("POST", "/", "get,head", "read with GET or HEAD"),
        ("POST", "/livez", "get,head", "read with GET or HEAD"),
        ("DELETE", "/api/v1/services", "get,head", "read with GET or HEAD"),
        ("POST", "/api/v1/services/a", "get,head", "read with GET or HEAD"),
        ("PUT", "/api/v1/services/a/release", "get,head,post", "changed with POST"),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = world.send(&request).await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.head.contains(&format!("allow: {allow}\r\n")), "{}", answer.head);
        let error: Value = serde_json::from_str(&answer.body).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("{method} does nothing at {path:?}: ")), "{error}");
        assert!(error.contains(says) && error.contains(release), "{error}");
    }
    let head =
        world.send("HEAD /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn clients_are_shown_by_what_they_mean() {
    let world = World::with(vec![entry("dev/game", "7", "10.0.0.7:80", 1, &[])]).await;
    *world.clients.lock().unwrap() = vec![
        client("id--7.Game.dev.lookaside.internal", Some("dev/game"), ClientKind::Go, 2),
        client("game.dev", Some("dev/game"), ClientKind::Core, 1),
        client("later", None, ClientKind::Java, 3),
    ];
    let (_, all) = world.json("/api/v1/clients").await;
    let peers: Vec<_> =
        all["clients"].as_array().unwrap().iter().map(|client| &client["peer"]).collect();
    assert_eq!(peers, ["10.0.0.9:1", "10.0.0.9:2", "10.0.0.9:3"]);
    let mut first = all["clients"][0].clone();
    for age in ["list_age_seconds", "open_seconds"] {
        assert!(first[age].take().as_f64().unwrap() >= 0.0);
    }
    assert_eq!(
        first,
        json!({"id": "grpclb-1", "peer": "10.0.0.9:1", "certificate": [], "user_agent": "grpc-go/1.85.0 <script>",
            "protocol": "grpclb", "kind": "core", "name": "game.dev", "zone": null, "subset": null,
            "service": "dev/game", "told": "list", "entries": 2,
            "revision": 7, "list_age_seconds": null, "open_seconds": null,
            "calls": {"started": 5, "finished": 4, "failed_to_send": 0, "known_received": 0,
            "dropped": 0}, "xds": null})
    );
    let total = async |query: &str| world.json(&format!("/api/v1/clients?{query}")).await.1;
    assert_eq!(total("service=dev/game").await["total"], 2);
    assert_eq!(total("service=game.dev.lookaside.internal").await["total"], 2);
    let waiting = total("service=later").await;
    assert_eq!((&waiting["total"], &waiting["clients"][0]["service"]), (&json!(1), &Value::Null));
    assert_eq!(total("service=other").await["total"], 0);
    let limited = total("limit=1").await;
    assert_eq!((&limited["total"], limited["clients"].as_array().unwrap().len()), (&json!(3), 1));
}

#[tokio::test]
async fn a_service_called_like_a_selector_is_found() {
    let zone = [("zone", "b")];
    let both =
        ["album", "zone--b.album"].map(|name| entry(name, "1", "10.0.0.1:80", 1, &zone)).to_vec();
    let world = World::with(both).await;
    let ask = async |name: &str| {
        let (status, body) = world.json(&format!("/api/v1/services/{name}")).await;
        assert_eq!(status, 200);
        (body["name"].clone(), body["selectors"].as_array().unwrap().len())
    };
    assert_eq!(ask("zone--b.album").await, (json!("zone--b.album"), 0));
    assert_eq!(ask("zone--b.zone--B.Album").await, (json!("zone--b.album"), 1));
    assert_eq!(ask("zone--c.album").await, (json!("album"), 1));
}

#[tokio::test]
async fn rejected_keys_are_shown_with_a_limit() {
    let mut all: Vec<_> =
        (0..1_200).map(|i| bad(format!("/x/{i:04}").as_bytes(), "no port", "v")).collect();
    all.push(bad(b"/a/\xff<script>", "not text", "\u{1b}[31m"));
    all.push(bad("é".repeat(5_000).as_bytes(), "too long", ""));
    let world = World::with(all).await;
    let (_, body) = world.json("/api/v1/rejected").await;
    assert_eq!(body["total"], 1_202);
    assert_eq!(body["rejected"].as_array().unwrap().len(), 1_000);
    assert_eq!(
        body["rejected"][0],
        json!({"key": "/a/\u{fffd}<script>", "reason": "not text", "value": "\u{1b}[31m"})
    );
    let (_, body) = world.json("/api/v1/rejected?limit=5000").await;
    let rejected = body["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 1_202);
    assert_eq!(rejected[1_201]["key"].as_str().unwrap().chars().count(), 1_025);
}

#[tokio::test]
async fn metrics_follow_what_happens() {
    let world = World::with(vec![
        entry("hello", "a", "10.0.0.1:80", 1, &[]),
        entry("hello", "b", "10.0.0.2:80", 1, &[]),
        entry(r#"we"ird\"#, "c", "10.0.0.3:80", 1, &[]),
        bad(b"/x", "no port", "v"),
    ])
    .await;
    let before = world.metrics().await;
    before.check("ready", 1.0);
    before.check(r#"build_info{version="1.2.3"}"#, 1.0);
    before.check("services", 2.0);
    before.check("endpoints", 3.0);
    before.check(r#"service_endpoints{service="hello"}"#, 2.0);
    before.check(r#"service_endpoints{service="we\"ird\\"}"#, 1.0);
    before.check("registry_keys", 4.0);
    before.check("registry_rejected_keys", 1.0);
    before.check("registry_revision", 7.0);
    before.check("registry_stale", 0.0);
    before.check("lists_sent_total", 0.0);
    before.check(r#"streams_open{client_kind="go"}"#, 0.0);

    let counters = &world.counters;
    let counted = [
        (&counters.connections, "connections"),
        (&counters.connections_failed, "connections_failed"),
        (&counters.connections_refused, "connections_refused"),
        (&counters.connections_replaced, "connections_replaced"),
        (&counters.accept_errors, "accept_errors"),
        (&counters.streams, "streams_opened"),
        (&counters.streams_refused, "streams_refused"),
        (&counters.streams_stalled, "streams_stalled"),
        (&counters.lists_sent, "lists_sent"),
        (&counters.lists_suppressed, "lists_suppressed"),
        (&counters.lists_encoded, "lists_encoded"),
        (&counters.fallbacks_sent, "fallbacks_sent"),
        (&counters.reports, "reports"),
        (&counters.reports_rejected, "reports_rejected"),
        (&counters.dns_answers, "dns_answers"),
        (&counters.dns_rejected, "dns_rejected"),
    ];
    for (times, (counter, _)) in (1..).zip(&counted) {
        (0..times).for_each(|_| counter.increment());
    }
    let calls = Calls { started: 9, finished: 8, failed_to_send: 1, known_received: 5, dropped: 2 };
    world.ledger.add(&ServiceName::new("hello").unwrap(), calls);
    *world.clients.lock().unwrap() = vec![
        client("hello", Some("hello"), ClientKind::Go, 1),
        client("x", None, ClientKind::Go, 2),
    ];
    let change = Change::Delete(Key::new(b"/hello/a"), Cause::Deregistered);
    world.say(Event::Apply { revision: 8, changes: vec![change] }).await;

    let after = world.metrics().await;
    for (times, (_, name)) in (1_u32..).zip(&counted) {
        after.check(&format!("{name}_total"), f64::from(times));
    }
    let hello = |name: &str| format!(r#"client_calls_{name}_total{{service="hello"}}"#);
    after.check(&hello("started"), 9.0);
    after.check(&hello("finished"), 8.0);
    after.check(&hello("failed_to_send"), 1.0);
    after.check(&hello("known_received"), 5.0);
    after.check(&hello("dropped"), 2.0);
    after.check(r#"streams_open{client_kind="go"}"#, 2.0);
    after.check(r#"service_endpoints{service="hello"}"#, 1.0);
    after.check("registry_revision", 8.0);
}

/// Calls of its clients fail, so the service must stay visible.
#[tokio::test]
async fn a_service_that_lost_all_its_backends_stays_in_sight() {
    let world = World::with(vec![
        entry("hello", "a", "10.0.0.1:80", 1, &[]),
        entry("idle", "a", "10.0.0.2:80", 0, &[]),
        entry("well", "a", "10.0.0.3:80", 1, &[]),
    ])
    .await;
    let zone = Zone::new("lookaside.internal").unwrap();
    let ask = |name: &str| {
        let target = Target::parse(name, &zone).unwrap();
        let subscription = world.catalog.subscribe(&target).unwrap();
        let mut listener = subscription.listen();
        // A stream polls like this from its first list on.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(listener.poll_known(&mut context).is_ready());
        (subscription, listener)
    };
    let _streams = [ask("hello"), ask("HELLO.lookaside.internal"), ask("nobody")];
    *world.clients.lock().unwrap() = vec![
        client("hello", None, ClientKind::Go, 1),
        ClientView {
            xds: Some(XdsView::default()),
            ..client("HELLO.lookaside.internal", None, ClientKind::Node, 2)
        },
        client("nobody", None, ClientKind::Go, 3),
    ];
    let change = Change::Delete(Key::new(b"/hello/a"), Cause::Deregistered);
    world.say(Event::Apply { revision: 8, changes: vec![change] }).await;

    let (_, services) = world.json("/api/v1/services?limit=1").await;
    assert_eq!((&services["total"], &services["problems_total"]), (&json!(3), &json!(2)));
    let hello = &services["services"][0];
    assert_eq!(*hello, services["problems"][0], "those whose clients suffer come first");
    assert_eq!(
        (&hello["name"], &hello["state"], &hello["endpoints"], &hello["clients"]),
        (&json!("hello"), &json!("empty"), &json!(0), &json!(2))
    );
    assert_eq!(hello["clients_by_protocol"], json!({"grpclb": 1, "xds": 1}));
    assert!(hello["since_seconds"].as_f64().unwrap() < 60.0);
    let idle = &services["problems"][1];
    assert_eq!((&idle["name"], &idle["state"]), (&json!("idle"), &json!("unusable")));
    assert_eq!(services["unknown"][0]["name"], "nobody");
    assert_eq!(
        (&services["unknown_total"], &services["unknown"][0]["clients"]),
        (&json!(1), &json!(1))
    );

    let (status, gone) = world.json("/api/v1/services/hello").await;
    let error = gone["error"].as_str().unwrap();
    assert_eq!(status, 404);
    assert!(error.contains("is registered any more") && error.contains("2 streams ask"), "{error}");
    let (_, registry) = world.json("/api/v1/registry").await;
    assert_eq!((&registry["services_empty"], &registry["streams_waiting"]), (&json!(1), &json!(3)));
    let metrics = world.metrics().await;
    metrics.check("list_share_excess_ratio", 0.25);
    metrics.check(r#"service_endpoints{service="hello"}"#, 0.0);
    metrics.check(r#"service_clients{service="hello",protocol="xds"}"#, 1.0);
    assert!(!metrics.has(r#"service_clients{service="nobody",protocol="grpclb"}"#));
    metrics.check(r#"service_endpoints{service="well"}"#, 1.0);
    metrics.check("services_empty", 1.0);
    metrics.check("streams_waiting", 3.0);
    assert!(!metrics.has(r#"service_endpoints{service="nobody"}"#), "clients make names up");
}

#[tokio::test]
async fn what_is_held_is_counted_and_said() {
    let keep = Duration::from_secs(600);
    let world =
        World::ruled(Rules { keep_lost: keep, guard: 50, probe_unleased: Duration::ZERO }).await;
    let ids = ["a", "b", "c"];
    let address = |id: &str| format!("10.0.0.{}:80", id.as_bytes()[0]);
    world.read(ids.iter().map(|id| entry("hello", id, &address(id), 1, &[])).collect()).await;
    let lost =
        |id: &&str| Change::Delete(Key::new(format!("/hello/{id}").as_bytes()), Cause::InDoubt);
    world.say(Event::Apply { revision: 8, changes: ids.iter().map(lost).collect() }).await;
    let (_, services) = world.json("/api/v1/services").await;
    let hello = &services["problems"][0];
    assert_eq!((&hello["state"], &hello["held"]), (&json!("held"), &json!(3)));
    assert!(hello["since_seconds"].as_f64().is_some());
    let (_, status) = world.json("/api/v1/status").await;
    assert_eq!(status["registry"]["endpoints_held"], 3);
    let admin::json::Services { problems, .. } = serde_json::from_value(services).unwrap();
    assert!(!problems[0].suffers(), "they are still served");
    let registry: admin::json::Registry =
        serde_json::from_value(status["registry"].clone()).unwrap();
    assert_eq!(
        registry.notices(),
        ["3 backends are held: listed although their registrations are gone"]
    );
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let world = World::with(vec![entry("hello", "a", "10.0.0.1:80", 1, &[])]).await;
    let open = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    for (headers, kind, ends) in [
        ("", "text/plain; version=0.0.4; charset=utf-8", false),
        ("accept: text/html, */*;q=0.8\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        (open, "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
    ] {
        let answer = world.get_with("/metrics", headers).await;
        assert!(answer.head.contains(&format!("content-type: {kind}\r\n")), "{}", answer.head);
        assert_eq!(answer.body.ends_with("# EOF\n"), ends);
        assert!(answer.body.contains("\nlookaside_service_endpoints{service=\"hello\"} 1"));
    }
    // promtool's rules: each sample's family has a help and a type, and exactly
    // counters have names that end in `_total`.
    let plain = world.get("/metrics").await.body;
    let (mut helped, mut typed) = (String::new(), (String::new(), String::new()));
    for line in plain.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            assert!(!help.is_empty(), "{line}");
            helped = name.to_owned();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            assert_eq!(name, helped);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            typed = (name.to_owned(), kind.to_owned());
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, typed.0, "{line}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_was_never_read_is_not_said_to_be_served() {
    let world = World::start().await;
    world.say(stale()).await;
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.ends_with("nothing has been read yet, so nothing is served"), "{ready:?}");
}

#[tokio::test]
async fn text_from_outside_steers_no_terminal() {
    let odd = "a\u{9b}31m\u{7f}\u{200b}\u{202e}\u{2028}\u{e0041}z";
    let world = World::with(vec![
        entry("hello", odd, "10.0.0.1:80", 1, &[("note", odd)]),
        bad(format!("/x/{odd}").as_bytes(), odd, odd),
    ])
    .await;
    for path in ["/api/v1/services/hello", "/api/v1/rejected"] {
        let answer = world.get(path).await;
        assert!(!answer.body.chars().any(|c| odd.contains(c) && !c.is_ascii_graphic()), "{path}");
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        let found = value["endpoints"][0]["id"].as_str().or(value["rejected"][0]["value"].as_str());
        assert_eq!(found, Some(odd), "the meaning is the same");
    }
    world
        .say(Event::Stale { since: std::time::Instant::now(), reason: format!("x\nok {odd}") })
        .await;
    let ready = world.get("/readyz").await.body;
    assert_eq!(ready.lines().count(), 2, "{ready}");
    assert!(ready.contains("x\\u{a}ok a\\u{9b}31m\\u{7f}\\u{200b}"), "{ready}");
}

#[tokio::test]
async fn the_dashboard_comes_with_a_strict_policy_and_nothing_from_outside() {
    let world = World::start().await;
    for (path, kind) in
        [("/", "text/html"), ("/dashboard.js", "text/javascript"), ("/dashboard.css", "text/css")]
    {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains(&format!("content-type: {kind}; charset=utf-8")), "{path}");
        assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{path}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{path}");
        // No inline script or style, which the policy would have to allow, and no function
        // that turns text into HTML.
        for bad in ["http://", "https://", "innerHTML", "insertAdjacentHTML", "<style", "eval("] {
            assert!(!answer.body.contains(bad), "{path} has {bad}");
        }
    }
}

#[tokio::test]
async fn names_that_no_client_can_type_are_still_shown() {
    let names = ["100%", "<script>alert(1)</script>", "a:80", "x--y.hello", "grüße"];
    let all = names.iter().map(|name| entry(name, "i", "10.0.0.1:80", 1, &[])).collect();
    let world = World::with(all).await;
    for name in names {
        let path = format!("/api/v1/services/{}", admin_client::encode(name));
        let (status, body) = world.json(&path).await;
        assert_eq!((status, &body["name"]), (200, &json!(name)));
    }
}

#[tokio::test]
async fn the_command_line_reads_what_the_balancer_writes() {
    let world = World::with(vec![entry("dev/game", "7", "10.0.0.7:80", 1, &[])]).await;
    let admin = format!("http://{}", world.addr);
    let asked = tokio::task::spawn_blocking(move || {
        let client = AdminClient::new(&admin_client::AdminArgs {
            admin,
            trust: admin_client::TrustArgs::default(),
            json: false,
        })
        .unwrap();
        let services = client.get::<admin::json::Services>("/api/v1/services").unwrap();
        let missing = client.get::<admin::json::ServiceDetail>("/api/v1/services/x").unwrap_err();
        let foreign = client.get::<admin::json::Services>("/livez").unwrap_err();
        (services.value, missing, foreign)
    });
    let (services, missing, foreign) =
        tokio::time::timeout(WAIT_MAX + Duration::from_secs(30), asked).await.unwrap().unwrap();
    assert_eq!(services.services[0].name, "dev/game");
    assert!(matches!(&missing, AdminError::Refused { status: 404, .. }), "{missing}");
    assert!(foreign.to_string().contains("is --admin right?"), "{foreign}");
    assert_eq!((missing.exit_code(), foreign.exit_code()), (1, 1));
}
