//! Cases of what a client and a balancer say to each other, recorded between them.
//!
//! In: a scene. Out: a panic if either says what it must not, or a call fails.

use std::time::Duration;

use super::cases::{client_of, is_unused, is_used, refused};
use super::policy::only;
use super::relay::{Message, Relay, Said};
use super::{Scene, open};
use crate::support::ads::Kind;
use crate::support::client::{Calls, Options};
use crate::support::eventually;
use crate::support::language::{XDS_JAVA, XDS_RUST};
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, metric, streams};

/// A client refuses a response, goes on with what it has, and takes the next one. The balancer
/// is killed, and another is there later: the client waits longer before each further try, and
/// states the versions that it has; it is sent what changed, and all else. At last the balancer
/// is killed while the client's channel is idle.
pub fn refused_and_restarted(scene: &Scene) {
    let mut balancer = scene.balancer(&[]);
    let relay = Relay::to(&scene.address);
    let _one = scene.world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    let driver = scene.driver_by(&balancer, &relay.address);
    // It is idle once it makes no calls.
    let idle_seconds = (scene.language != XDS_RUST).then_some(1.0);
    let client = driver.open(&Options { idle_seconds, ..Options::xds(SERVICE) });
    is_used(&client_of(&client), "one");
    client.start(&Calls::new(0).every(Duration::from_millis(5)));

    relay.spoil_next(Kind::Endpoints);
    let mut two = scene.world.backend("two");
    eventually("the response is refused", || (refused(&balancer) == 1).then_some(()));
    let report = client.call(&Calls::new(50));
    assert_eq!((report.from("one"), report.from("two")), (50, 0), "{report:?}");
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    let words = clients["clients"][0]["xds"]["refusal"].as_str();
    assert!(words.is_some_and(|words| !words.is_empty()), "{clients}");
    let _three = scene.world.backend("three");
    only(&client, &["one", "two", "three"]);
    assert_eq!(refused(&balancer), 1, "{}", balancer.log());

    balancer.kill();
    let tries = eventually("it tries twice", || Some(relay.refused()).filter(|it| it.len() > 1));
    // The first may come at once. One that does not back off tries a thousand times a second.
    assert!(tries[1] - tries[0] > Duration::from_millis(300), "{tries:?}");
    two.withdraw();
    let _four = scene.world.backend("four");
    balancer = scene.balancer(&[]);
    is_used(&client_of(&client), "four");
    is_unused(&client_of(&client), "two");
    states_versions(&relay);

    // Nothing changes, so the client states the versions of this balancer.
    balancer.kill();
    balancer = scene.balancer(&[]);
    eventually("it is answered all the same", || (accepted(&balancer) > 0).then_some(()));
    states_versions(&relay);
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");

    if idle_seconds.is_some() {
        eventually("the name is let go", || (streams(&balancer) == 0).then_some(()));
        balancer.kill();
        balancer = scene.balancer(&[]);
        only(&client, &["one", "three", "four"]);
    }
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
    relay.check();
}

/// Two processes ask for names of which one is the same, let names go and ask again, while
/// listeners and clusters change. Neither process loses what the other lets go.
pub fn overlapping(scene: &Scene) {
    let balancer = scene.balancer(&[]);
    let relay = Relay::to(&scene.address);
    let services = [SERVICE, "other", "third"];
    let _all = services.map(|service| {
        let backend = scene.backend_of(service, service);
        balancer.wait_listed(service, service);
        backend
    });
    let [first, second] = [(); 2].map(|()| scene.driver_by(&balancer, &relay.address));
    let hello = open(&first, SERVICE);
    let shared = open(&second, "other");
    let third = open(&second, "third");
    for (client, id) in [(&hello, SERVICE), (&shared, "other"), (&third, "third")] {
        is_used(&client_of(client), id);
        client.start(&Calls::new(0).every(Duration::from_millis(5)));
    }
    for round in 1..=2 {
        let of_first = [open(&first, "other"), open(&first, "third")];
        change_all(scene, &relay, &services, round);
        is_used(&client_of(&of_first[0]), "other");
        is_used(&client_of(&of_first[1]), "third");
        drop(of_first);
        let id = format!("new{round}");
        let mut backend = scene.backend_of("other", &id);
        is_used(&client_of(&shared), &id);
        let again = open(&first, "other");
        is_used(&client_of(&again), &id);
        change_all(scene, &relay, &services, round + 10);
        backend.withdraw();
        only(&shared, &["other"]);
        only(&again, &["other"]);
    }
    for client in [hello, shared, third] {
        let report = client.stop();
        assert_eq!(report.failed(), 0, "{report:?}");
    }
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
    relay.check();
}

/// Changes the listener and the cluster of each service, and waits until one has arrived.
fn change_all(scene: &Scene, relay: &Relay, services: &[&str], number: u32) {
    // grpc-java is told of no outlier detection, so its clusters stay.
    let kinds = match scene.language {
        XDS_JAVA => &[Kind::Listener][..],
        _ => &[Kind::Listener, Kind::Cluster],
    };
    let newest = || kinds.iter().map(|&kind| relay.newest(kind, SERVICE)).collect::<Vec<_>>();
    let before = newest();
    let one = |service: &&str| {
        let time = 20 + number;
        format!(
            "[service.{service}]\ntimeout = '{time}s'\n\
             outlier-detection = {{ kind = 'success-rate', interval = '{time}s' }}\n"
        )
    };
    let document: String = services.iter().map(one).collect();
    let key = format!("/lookaside/settings/{}", scene.world.zone());
    scene.world.etcd().ctl(&["put", "--", &key, &document]);
    eventually("listener and cluster change", || {
        newest().iter().zip(&before).all(|(now, before)| now != before).then_some(())
    });
}

/// Checks that the newest stream began with the versions of an earlier one, and without nonces.
#[track_caller]
fn states_versions(relay: &Relay) {
    let messages = relay.messages();
    let newest = messages.iter().map(|message| message.stream).max().expect("there are some");
    for kind in Kind::ALL {
        let of = |message: &&Message| message.kind == kind;
        let first = messages.iter().filter(of).find_map(|message| match &message.said {
            Said::Request(request) if message.stream == newest => Some(request),
            _ => None,
        });
        let first = first.unwrap_or_else(|| panic!("no request of {kind:?}: {messages:#?}"));
        let earlier = messages.iter().filter(of).any(|message| match &message.said {
            Said::Response(response) => {
                message.stream < newest && response.version_info == first.version_info
            }
            Said::Request(_) => false,
        });
        assert!(earlier && first.response_nonce.is_empty(), "{kind:?}: {first:?}");
    }
}

/// Returns how many responses with endpoints clients of this balancer have accepted.
fn accepted(balancer: &Balancer) -> u64 {
    metric(balancer, r#"lookaside_xds_responses_accepted_total{type="endpoints"}"#)
}
