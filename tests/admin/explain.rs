//! Tests of explain: every reason why a backend is in a client's list or is not.

use std::time::Duration;

use lookaside::catalog::{Input, ProbeResult, Resolved, Rules};
use lookaside::cli::admin_client::{AdminArgs, AdminError, TrustArgs};
use lookaside::cli::explain;
use lookaside::model::{BackendAddr, ClientKind};
use serde_json::{Value, json};

use crate::admin::world::{World, bad, client, entry};

/// The passes of an answer's only backend, as `PASS yes|NO WHY`.
#[track_caller]
fn passes(body: &Value) -> Vec<String> {
    let backends = body["backends"].as_array().expect("there are backends");
    let [backend] = backends.as_slice() else { panic!("one backend: {body}") };
    let pass = |pass: &Value| {
        let kept = if pass["kept"] == json!(true) { "yes" } else { "NO" };
        let text = |field: &str| pass[field].as_str().unwrap().to_owned();
        format!("{} {kept} {}", text("pass"), text("why"))
    };
    backend["passes"].as_array().unwrap().iter().map(pass).collect()
}

/// Asks until the answer satisfies `is`, because the catalog applies inputs asynchronously.
async fn until(world: &World, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let (status, body) = world.json(path).await;
            assert_eq!(status, 200, "{body}");
            if is(&body) {
                return body;
            }
        }
    };
    tokio::time::timeout(crate::support::WAIT_MAX, asking).await.expect("gave up waiting")
}

#[tokio::test]
async fn what_is_listed_is_followed_from_its_key_to_its_share() {
    let world = World::with(vec![
        entry("dev/game", "7", "10.0.0.7:80", 3, &[("zone", "a")]),
        entry("dev/game", "8", "10.0.0.8:80", 1, &[("zone", "b")]),
    ])
    .await;
    for backend in ["7", "10.0.0.7", "10.0.0.7:80"] {
        let path = format!("/api/v1/explain?service=game.dev&backend={backend}");
        let (status, body) = world.json(&path).await;
        assert_eq!(
            (status, &body["listed"], &body["service"]),
            (200, &json!(true), &json!("dev/game"))
        );
        assert_eq!(
            passes(&body),
            [
                "registered yes by /dev/game/7, with a lease",
                "weight yes weight 3",
                "undrained yes no operator drains it",
                "selected yes the name selects nothing",
                "undelayed yes it does not come and go"
            ]
        );
        let backend = &body["backends"][0];
        assert_eq!((&backend["turns"], &backend["cycle"]), (&json!(3), &json!(4)));
        assert_eq!((&backend["due"], &backend["share"]), (&json!(0.75), &json!(0.75)));
    }
    let (_, body) = world.json("/api/v1/explain?service=zone--b.game.dev").await;
    assert_eq!(body["selectors"], json!([{"key": "zone", "value": "b"}]));
    assert_eq!(body["listed"], json!(false), "one of two is not");
    let listed: Vec<_> =
        body["backends"].as_array().unwrap().iter().map(|b| &b["listed"]).collect();
    assert_eq!(listed, [false, true]);
}

#[tokio::test]
async fn all_backends_of_an_address_are_explained_each_by_its_own_key() {
    let world = World::with(vec![
        entry("hello", "a", "10.0.0.1:80", 1, &[]),
        entry("hello", "b", "10.0.0.1:81", 1, &[]),
        entry("hello", "c", "10.0.0.2:80", 1, &[]),
    ])
    .await;
    let (_, body) = world.json("/api/v1/explain?service=hello&backend=10.0.0.1").await;
    let whys: Vec<_> = body["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| backend["passes"][0]["why"].as_str().unwrap())
        .collect();
    assert_eq!(whys, ["by /hello/a, with a lease", "by /hello/b, with a lease"]);
    // Without a backend in the question, the keys of thousands are not read.
    let (_, body) = world.json("/api/v1/explain?service=hello").await;
    assert_eq!(body["backends"][2]["passes"][0]["why"], "it is registered");
}

#[tokio::test]
async fn a_client_is_explained_by_the_name_that_it_asked_for() {
    let world = World::with(vec![entry("hello", "a", "10.0.0.1:80", 1, &[("zone", "a")])]).await;
    *world.clients.lock().unwrap() = vec![
        client("zone--b.hello", Some("hello"), ClientKind::Go, 1),
        client("other", None, ClientKind::Go, 2),
    ];
    for who in ["10.0.0.9", "10.0.0.9:1"] {
        let (_, body) =
            world.json(&format!("/api/v1/explain?service=hello&client={who}&backend=a")).await;
        assert_eq!((&body["name"], &body["listed"]), (&json!("zone--b.hello"), &json!(false)));
        assert_eq!(body["clients"].as_array().unwrap().len(), 1);
        let last = passes(&body).remove(3);
        assert_eq!(last, "selected NO the name selects zone=b, and it has no such metadata");
    }
    for stranger in ["10.0.0.9:2", "10.9.9.9"] {
        let (_, body) =
            world.json(&format!("/api/v1/explain?service=hello&client={stranger}")).await;
        assert!(body["no_client"].as_str().unwrap().contains(stranger), "{body}");
        assert_eq!((&body["name"], &body["listed"]), (&json!("hello"), &json!(true)));
    }
}

#[tokio::test]
async fn what_is_not_listed_says_at_which_pass_it_stayed() {
    let mut unleased = entry("hello", "dead", "10.0.0.5:80", 1, &[]);
    unleased.leased = false;
    let mut rules = Rules { keep_lost: Duration::from_secs(600), ..Rules::OFF };
    rules.probe_unleased = Duration::from_secs(1);
    let world = World::ruled(rules).await;
    world
        .read(vec![
            entry("hello", "a", "10.0.0.1:80", 0, &[]),
            entry("hello", "b", "10.0.0.2:80", 1, &[]),
            entry("hello", "named", "nowhere.test:80", 1, &[]),
            entry("other", "far", "10.0.0.3:80", 1, &[]),
            unleased,
            bad(b"/hello/x", "the port is missing", "10.0.0.4"),
        ])
        .await;
    let ask = |backend: &str| format!("/api/v1/explain?service=hello&backend={backend}");
    let said = async |backend: &str| {
        let (status, body) = world.json(&ask(backend)).await;
        assert_eq!((status, &body["listed"]), (200, &json!(false)), "{body}");
        passes(&body)
    };
    assert!(
        said("a")
            .await
            .contains(&"weight NO it is registered with weight 0: no traffic".to_owned())
    );
    let registered = "registered NO";
    assert_eq!(
        said("10.0.0.3").await,
        [format!("{registered} it is registered for another service: other")]
    );
    assert_eq!(
        said("10.0.0.4").await,
        [format!("{registered} the key /hello/x cannot be read: the port is missing")]
    );
    assert!(said("10.7.7.7").await[0].starts_with(&format!("{registered} no key registers it")));

    let unresolved = Resolved {
        host: "nowhere.test".to_owned(),
        addresses: Vec::new(),
        trouble: Some("NXDOMAIN".to_owned()),
    };
    world.inputs.send(Input::Hosts(unresolved)).await.unwrap();
    let resolved = until(&world, &ask("named"), |body| passes(body).len() == 2).await;
    assert_eq!(
        passes(&resolved)[1],
        "resolved NO the host name nowhere.test does not resolve: NXDOMAIN"
    );

    for _ in 0..3 {
        let dead = BackendAddr::new([10, 0, 0, 5].into(), 80).unwrap();
        world.inputs.send(Input::Probed(dead, ProbeResult::Refuses)).await.unwrap();
    }
    let down = until(&world, &ask("dead"), |body| body["listed"] == json!(false)).await;
    assert!(passes(&down)[1].starts_with("answers NO it refuses connections"), "{down}");

    // A service without any backend; the backend belongs to another service.
    let (_, body) = world.json("/api/v1/explain?service=nobody&backend=10.0.0.3").await;
    assert!(body["absent"].as_str().unwrap().contains("is registered"), "{body}");
    assert_eq!(
        passes(&body),
        [format!("{registered} it is registered for another service: other")]
    );
}

#[tokio::test]
async fn a_host_name_is_followed_to_its_address() {
    let world = World::with(vec![entry("hello", "a", "here.test:80", 1, &[])]).await;
    let host = "here.test".to_owned();
    let resolved = Resolved { host, addresses: vec![[10, 0, 0, 1].into()], trouble: None };
    world.inputs.send(Input::Hosts(resolved)).await.unwrap();
    let path = "/api/v1/explain?service=hello&backend=10.0.0.1";
    let body = until(&world, path, |body| body["listed"] == json!(true)).await;
    assert_eq!(passes(&body)[1], "resolved yes here.test has the address 10.0.0.1");
}

#[tokio::test]
async fn wrong_questions_are_told_how_to_ask() {
    let world = World::with(Vec::new()).await;
    for (path, says) in [
        ("/api/v1/explain", "which service?"),
        ("/api/v1/explain?service=a%20b", "has a character that no name may have"),
        ("/api/v1/explain?service=a&limit=1", "takes service, client and backend"),
    ] {
        let (status, body) = world.json(path).await;
        assert_eq!(status, 400, "{path}");
        assert!(body["error"].as_str().unwrap().contains(says), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_with_whether_it_is_listed() {
    let world = World::with(vec![
        entry("hello", "a", "10.0.0.1:80", 1, &[]),
        entry("hello", "b", "10.0.0.2:80", 0, &[]),
    ])
    .await;
    let ask = async |service: &str, backend: Option<&str>| {
        let admin = AdminArgs {
            admin: format!("http://{}", world.addr),
            trust: TrustArgs::default(),
            json: false,
        };
        let (service, backend) = (service.to_owned(), backend.map(str::to_owned));
        let args = explain::Args { service, client: None, backend, admin };
        tokio::task::spawn_blocking(move || explain::run(&args)).await.unwrap()
    };
    assert!(ask("hello", Some("a")).await.unwrap());
    assert!(!ask("hello", Some("b")).await.unwrap());
    assert!(!ask("hello", Some("c")).await.unwrap());
    assert!(ask("hello", None).await.unwrap(), "nothing was asked that could be answered with no");
    let refused = ask("a b", None).await.unwrap_err();
    assert!(matches!(refused, AdminError::Refused { status: 400, .. }), "{refused}");
}
