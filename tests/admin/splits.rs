//! Tests what the admin port says of splits and of keys.

use std::sync::Arc;

use lookaside::catalog::Input;
use lookaside::model::ClientKind;
use lookaside::settings::Document;
use serde_json::json;

use crate::admin::world::{World, client, entry};

/// Puts a split of `hello` in force.
async fn settle(world: &World, split: &str) {
    let document = format!("[service.hello]\nsplit = {{ {split} }}\n");
    let document = Document::parse(&document).expect("a document");
    let settings = world.catalog.settings().with(None, Some(Arc::new(document)));
    world.inputs.send(Input::Settings(Arc::new(settings.clone()))).await.expect("it runs");
    while *world.catalog.settings() != settings {
        tokio::task::yield_now().await;
    }
}

/// Returns the last pass of the backend `new`, as `PASS yes|NO WHY`.
async fn last_pass(world: &World, query: &str) -> String {
    let path = format!("/api/v1/explain?{query}&backend=new");
    let (status, body) = world.json(&path).await;
    assert_eq!(status, 200, "{body}");
    let last = body["backends"][0]["passes"].as_array().and_then(|all| all.last().cloned());
    let last = last.expect("passes");
    let kept = if last["kept"] == json!(true) { "yes" } else { "NO" };
    let text = |field: &str| last[field].as_str().expect("text").to_owned();
    format!("{} {kept} {}", text("pass"), text("why"))
}

#[tokio::test]
async fn the_share_in_force_and_the_reasons_are_shown() {
    let world = World::with(vec![
        entry("hello", "old", "10.0.0.1:80", 1, &[]),
        entry("hello", "new", "10.0.0.2:80", 1, &[("version", "v2")]),
    ])
    .await;
    let (_, body) = world.json("/api/v1/services/hello").await;
    assert_eq!(body["split"], json!(null));
    settle(&world, "select = 'version=v2', percent = 20").await;
    let (_, body) = world.json("/api/v1/services/hello").await;
    let split = json!({"select": "version=v2", "by": "calls", "share": 0.2});
    assert_eq!(body["split"], split);
    let shown = |field: &str| {
        body["endpoints"]
            .as_array()
            .map(|all| all.iter().map(|one| one[field].clone()).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    assert_eq!(shown("turns"), [json!(1), json!(4)]);
    assert_eq!(
        (shown("due"), shown("share")),
        (vec![json!(0.2), json!(0.8)], vec![json!(0.2), json!(0.8)])
    );
    let metrics = world.metrics().await;
    metrics.check(r#"split_share_ratio{service="hello",by="calls"}"#, 0.2);
    let expected = "split yes version=v2 gets 20 % of the calls: it is one of these backends";
    assert_eq!(last_pass(&world, "service=hello").await, expected);
    // A key belongs to the share, and then has the only canary, or the rows end there.
    let expected = |n: usize| {
        [
            format!("affinity yes the name's key x{n} is assigned to this backend"),
            format!(
                "split NO the key x{n} does not belong to the 20 % for version=v2: it is one of \
                 these backends"
            ),
        ]
    };
    let mut found = [false, false];
    for n in 0..20 {
        let last = last_pass(&world, &format!("service=hash--x{n}.hello")).await;
        let which = expected(n).iter().position(|one| *one == last);
        found[which.unwrap_or_else(|| panic!("{last}"))] = true;
    }
    assert_eq!(found, [true, true]);

    settle(&world, "select = 'version=v2', percent = 0, by = 'clients'").await;
    *world.clients.lock().expect("no panic") =
        vec![client("hello", Some("hello"), ClientKind::Go, 1)];
    let expected = "split NO the client does not belong to the 0 % of clients for version=v2: \
                    it is one of these backends";
    assert_eq!(last_pass(&world, "service=hello&client=10.0.0.9").await, expected);
    let expected = "split yes without a client this says nothing of the 0 % of clients for \
                    version=v2: it is one of these backends";
    assert_eq!(last_pass(&world, "service=hello").await, expected);
}
