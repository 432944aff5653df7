//! Tests of `/api/v1/marks` and of the orders that set and end marks.

use std::sync::Arc;

use lookaside::catalog::Input;
use lookaside::marks::report::{MarkStatus, Report, State};
use lookaside::marks::{Mark, MarkKey, Marks, Timestamp, Value as Signed};
use lookaside::registry::Key;
use serde_json::{Value, json};

use crate::admin::world::{Answer, World, entry};

async fn order(world: &World, path: &str, order: &str, headers: &str) -> Answer {
    let length = order.len();
    let head = format!("host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n");
    let path = format!("/api/v1/services/{path}");
    world.send(&format!("POST {path} HTTP/1.1\r\n{head}{headers}\r\n{order}")).await
}

async fn world() -> World {
    World::with(vec![
        entry("dev/game", "1", "10.0.0.1:1", 1, &[("zone", "a")]),
        entry("dev/game", "2", "10.0.0.2:1", 1, &[("zone", "b")]),
        entry("hello", "1", "10.0.0.3:1", 1, &[]),
    ])
    .await
}

#[tokio::test]
async fn marks_are_shown_with_who_why_and_how_many() {
    let world = world().await;
    let mark = |below: &str, until: Option<Timestamp>| {
        let (by, why) = ("me@here".to_owned(), "disk \u{1b}[2J".to_owned());
        let value = Signed { by, why, set: Some(Timestamp(1_000_000_000)), until, percent: None };
        Arc::new(Mark { key: MarkKey::parse(below).unwrap(), value })
    };
    let drain = mark("drain/game.dev/zone=a", Some(Timestamp(1_000_000_060)));
    let over = mark("drain/hello/10.0.0.3", Some(Timestamp(1)));
    let all = Arc::new(Marks::new([drain.clone()]));
    world.inputs.send(Input::Marks(all.clone())).await.unwrap();
    while world.catalog.marks() != all {
        tokio::task::yield_now().await;
    }
    world.marks.send_replace(Report {
        marks: vec![
            MarkStatus { mark: drain, state: State::InForce },
            MarkStatus { mark: over, state: State::Over },
        ],
        refused: vec![(Key::new(b"/lookaside/marks/z/x"), "no such mark".to_owned())],
        beyond: 0,
        outage: Some("connection refused".to_owned()),
    });
    let (status, shown) = world.json("/api/v1/marks").await;
    assert_eq!((status, &shown["total"], &shown["refused_total"]), (200, &json!(2), &json!(1)));
    let expected = json!({
        "kind": "drain", "service": "game.dev", "backends": "zone=a", "clients": null, "percent": null, "by": "me@here",
        "why": "disk \u{1b}[2J", "set": "2001-09-09T01:46:40Z", "until": "2001-09-09T01:47:40Z",
        "state": "in force", "keeps_out": 1
    });
    assert_eq!(shown["marks"][0], expected);
    assert_eq!(shown["marks"][1]["state"], json!("over"));
    assert_eq!(shown["unheard"], json!("connection refused"));
    let (_, some) = world.json("/api/v1/marks?service=hello").await;
    assert_eq!((&some["total"], &some["marks"][0]["service"]), (&json!(1), &json!("hello")));
    // The services, the endpoints and the metrics show the mark too.
    let (_, services) = world.json("/api/v1/services").await;
    let game = &services["services"][0];
    assert_eq!((&game["drained"], &game["state"]), (&json!(1), &json!("drained")));
    let (_, detail) = world.json("/api/v1/services/game.dev").await;
    assert_eq!(detail["endpoints"][0]["drained"]["by"], json!("me@here"));
    let turns: Vec<&Value> = (0..2).map(|n| &detail["endpoints"][n]["turns"]).collect();
    assert_eq!(turns, [&json!(0), &json!(1)]);
    let metrics = world.metrics().await;
    metrics.check("marks{kind=\"drain\"}", 1.0);
    metrics.check("marks_refused", 1.0);
    metrics.check("endpoints_drained", 1.0);
    let (_, why) = world.json("/api/v1/explain?service=game.dev&backend=1").await;
    assert_eq!(why["listed"], json!(false));
    let pass = &why["backends"][0]["passes"][2];
    assert_eq!((&pass["pass"], &pass["kept"]), (&json!("undrained"), &json!(false)));
    assert!(pass["why"].as_str().unwrap().contains("by me@here, since 2001"), "{pass}");
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_with_the_remedy() {
    let world = World::start().await;
    let drain = r#"{"backends":"10.0.0.1:1"}"#;
    assert_eq!(order(&world, "hello/drain", drain, "").await.status, 503, "nothing is known yet");
    let world = self::world().await;
    let check = async |path: &str, text: &str, status: u16, says: &str| {
        let answer = order(&world, path, text, "").await;
        assert_eq!(answer.status, status, "{path} {text}: {}", answer.body);
        assert!(answer.body.contains(says), "{path} {text}: {}", answer.body);
    };
    check("hello/drain", "", 400, "which backends?").await;
    check("hello/drain", "{", 400, "no JSON").await;
    check("hello/drain", r#"["10.0.0.1","1h","x","y",true]"#, 400, "no JSON").await;
    check("hello/drain", r#"{"backend":"1"}"#, 400, "unknown field").await;
    check("hello/drain", r#"{"backends":""}"#, 400, "names no backends").await;
    check("nobody/drain", drain, 404, "no backend of").await;
    check("zone--a.game.dev/drain", drain, 400, "the backends as zone=a").await;
    check("hello/drain", drain, 404, "--anyway").await;
    check("hello/drain", r#"{"backends":"10.0.0.3:1"}"#, 409, "without a backend").await;
    check("*/drain", r#"{"backends":"10.0.0.3"}"#, 409, "without a backend").await;
    for lasts in ["0s", "soon", "367days", "500ms"] {
        let text = format!(r#"{{"backends":"zone=a","for":"{lasts}"}}"#);
        check("dev%2Fgame/drain", &text, 400, "expected 1s to 366days").await;
    }
    let long = format!(r#"{{"backends":"zone=a","why":"{}"}}"#, "x".repeat(1025));
    check("dev%2Fgame/drain", &long, 400, "why has 1025 bytes").await;
    check("hello/drain", &" ".repeat(17 * 1024), 413, "longer than 16384 bytes").await;
    check("hello/undrain", "", 404, "no mark drains backends").await;
    check("hello/undrain", drain, 404, "no mark of \\\"hello\\\" itself drains 10.0.0.1:1").await;
    // Orders that make sense need etcd.
    check("dev%2Fgame/drain", r#"{"backends":"zone=a"}"#, 503, "there is no etcd").await;
    check("hello/drain", r#"{"backends":"x","anyway":true}"#, 503, "there is no etcd").await;
    for header in ["origin: http://evil.example", "sec-fetch-site: cross-site"] {
        for end in ["drain", "undrain", "release"] {
            let path = format!("hello/{end}");
            let answer = order(&world, &path, drain, &format!("{header}\r\n")).await;
            assert_eq!(answer.status, 403, "{header} {end}");
        }
    }
    // A release is obeyed here, although no other replica learns of it.
    let answer = order(&world, "hello/release", "", "").await;
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["untold"], json!("there is no etcd"), "{}", answer.body);
}
