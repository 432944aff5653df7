//! Tests of `/api/v1/settings`: the settings in force, and a document's changes.

use std::sync::Arc;

use lookaside::catalog::Input;
use lookaside::settings::Document;
use serde_json::{Value, json};

use crate::admin::world::{Answer, World, entry};

pub(super) async fn diff(world: &World, document: &str, headers: &str) -> Answer {
    let length = document.len();
    let head = format!("host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n");
    world
        .send(&format!("POST /api/v1/settings/diff HTTP/1.1\r\n{head}{headers}\r\n{document}"))
        .await
}

#[tokio::test]
async fn what_is_in_force_is_shown_with_its_source() {
    let world = World::with(vec![
        entry("dev/game", "1", "10.0.0.1:1", 1, &[]),
        entry("hello", "1", "10.0.0.2:1", 1, &[]),
    ])
    .await;
    let text = "[service.'dev/*']\nwhen-empty = 'drop'\n[service.'nobody']\nguard = 1\n";
    let document = Arc::new(Document::parse(text).unwrap());
    let settings = Arc::new(world.catalog.settings().with(None, Some(document)));
    world.inputs.send(Input::Settings(settings.clone())).await.unwrap();
    while world.catalog.settings() != settings {
        tokio::task::yield_now().await;
    }
    let (status, all) = world.json("/api/v1/settings").await;
    assert_eq!((status, &all["total"]), (200, &json!(2)), "{all}");
    let when_empty = |of: &Value| of["settings"]["when-empty"].clone();
    let game = json!({"value": "drop", "source": "etcd", "pattern": "dev/*"});
    assert_eq!(when_empty(&all["services"][0]), game);
    let hello = json!({"value": "wait", "source": "flags", "pattern": null});
    assert_eq!(when_empty(&all["services"][1]), hello);
    assert_eq!(all["unmatched"], json!([{"source": "etcd", "pattern": "nobody"}]));
    let sources = all["sources"].as_array().unwrap();
    let names: Vec<_> = sources.iter().map(|source| source["source"].as_str().unwrap()).collect();
    assert_eq!(names, ["etcd", "flags"]);
    let (_, one) = world.json("/api/v1/settings?service=nobody.lookaside.internal").await;
    assert_eq!(one["services"][0]["settings"]["guard"]["value"], "1");
    // Explain shows them too, for a service and for a name without one.
    for (name, key, expected) in
        [("game.dev", "when-empty", &game), ("hello", "when-empty", &hello)]
    {
        let (_, why) = world.json(&format!("/api/v1/explain?service={name}")).await;
        assert_eq!(&why["settings"][key], expected, "{why}");
    }
    let (_, why) = world.json("/api/v1/explain?service=nobody").await;
    assert_eq!(why["settings"]["guard"]["pattern"], "nobody", "{why}");
    let (_, some) = world.json("/api/v1/settings?limit=1").await;
    assert_eq!((some["services"].as_array().unwrap().len(), &some["total"]), (1, &json!(2)));
    world.metrics().await.check("settings_refused{source=\"etcd\"}", 0.0);

    // A comparison lists the settings that would change, and changes nothing.
    let answer = diff(&world, "[service.'*']\nguard = 7\n[service.x]\n", "").await;
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    let changes = told["changes"].as_array().unwrap();
    let found: Vec<_> = changes
        .iter()
        .map(|one| [&one["service"], &one["key"], &one["before"]["value"], &one["after"]["value"]])
        .map(|texts| texts.map(|text| text.as_str().unwrap()).join(" "))
        .collect();
    let expected = ["dev/game when-empty drop wait", "dev/game guard 0 7", "hello guard 0 7"];
    assert_eq!((found, &told["total"]), (expected.map(str::to_owned).to_vec(), &json!(3)));
    assert_eq!(told["unmatched"], json!(["x"]));
    assert_eq!(world.catalog.settings(), settings);
}

#[tokio::test]
async fn a_comparison_refuses_browsers_and_wrong_documents() {
    let world = World::start().await;
    assert_eq!(diff(&world, "", "").await.status, 503, "nothing is known yet");
    world.read(Vec::new()).await;
    assert_eq!(diff(&world, "", "").await.status, 200);
    for header in ["origin: http://evil.example", "sec-fetch-site: cross-site"] {
        let answer = diff(&world, "", &format!("{header}\r\n")).await;
        assert_eq!(answer.status, 403, "{header}");
    }
    let wrong = diff(&world, "[service.a]\nguard = 101\nx = 1\n", "").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("2:9: ") && wrong.body.contains("3:1: "), "{}", wrong.body);
    let long = diff(&world, &"#".repeat(256 * 1024 + 1), "").await;
    assert_eq!(long.status, 413, "{}", long.body);
    assert!(long.body.contains("longer than 262144 bytes"), "{}", long.body);
    let answer = world.get("/api/v1/settings/diff").await;
    assert_eq!(answer.status, 405);
    assert!(answer.body.contains("asked with POST"), "{}", answer.body);
}
