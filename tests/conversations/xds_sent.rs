//! What clients were sent, as operators are shown it: read from the bytes that were sent, and
//! never taken for sent while something newer waits.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use lookaside::settings::WhenEmpty;
use lookaside::telemetry::{SentResources, Told, WantedNames};

use super::super::wire::{Balanced, GO};
use super::Client;

fn sent(balanced: &Balanced) -> SentResources {
    let stream = balanced.xds.clients()()[0].stream;
    balanced.xds.sent()(stream, &WantedNames::default()).expect("the stream is open")
}

fn says(says: &[(&'static str, String)]) -> String {
    says.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_xds_client_is_shown_with_its_resources() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    balanced
        .settle(
            "[service.hello]\ntimeout = '5s'\nretry = { on = 'unavailable', times = 2 }\n\
             circuit-breaking = { requests = 200 }\n\
             outlier-detection = { kind = 'failure-percentage', threshold = 50 }",
        )
        .await;
    balanced.reset(&["hello 1 10.0.0.1:80 weight=3", "hello 2 10.0.0.2:81"]).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<Listener>(&["hello", "other"], "");
    let (listeners, _) = client.next::<Listener>().await;
    let now = sent(&balanced);
    assert_eq!((now.total, now.types[0].state, now.types[1].state), (2, "unanswered", "nothing"));
    assert!(now.names[0].cluster.is_none() && now.names[0].endpoints.is_none());
    client.ask::<Listener>(&["hello", "other"], &listeners.nonce);
    client.ask::<Cluster>(&["hello", "other"], "");
    let (clusters, _) = client.next::<Cluster>().await;
    client.ask::<ClusterLoadAssignment>(&["hello", "other"], "");
    let (endpoints, _) = client.next::<ClusterLoadAssignment>().await;
    let names = ["hello", "other"];
    client.request::<ClusterLoadAssignment>(&names, &endpoints.nonce, Some("do not like it"));
    assert!(client.is_silent().await);

    let now = sent(&balanced);
    let states: Vec<_> = now.types.iter().map(|one| (one.kind, one.state)).collect();
    assert_eq!(
        states,
        [("listener", "accepted"), ("cluster", "unanswered"), ("endpoints", "refused")]
    );
    let version = |response: &str| u64::from_str_radix(response, 16).ok();
    assert_eq!(now.types[0].accepted, version(&listeners.version_info));
    assert_eq!(now.types[1].version, version(&clusters.version_info));
    assert_eq!(now.types[2].nonce.to_string(), endpoints.nonce);
    assert_eq!(now.types[2].refusal.as_deref(), Some("do not like it"));
    let [hello, other] = &now.names[..] else { panic!("{now:?}") };
    let listener = hello.listener.as_ref().unwrap();
    assert!(listener.as_sent);
    let expected = "cluster=hello timeout=5s retry=2 times on unavailable retry_pause=";
    assert!(says(&listener.says).starts_with(expected), "{listener:?}");
    let cluster = hello.cluster.as_ref().unwrap();
    let expected =
        "endpoints=hello policy=round_robin max_requests=200 outliers=failure percentage 50";
    assert!(cluster.as_sent && says(&cluster.says).starts_with(expected), "{cluster:?}");
    let endpoints = hello.endpoints.as_ref().unwrap();
    let localities = endpoints.localities.as_ref().unwrap();
    let localities: Vec<_> =
        localities.iter().map(|one| (one.weight, one.backends[0].to_string())).collect();
    assert_eq!(localities, [(3, "10.0.0.1:80".to_owned()), (1, "10.0.0.2:81".to_owned())]);
    assert_eq!((endpoints.told, &endpoints.drops[..]), (Told::List, &[][..]));
    let endpoints = other.endpoints.as_ref().unwrap();
    assert_eq!((endpoints.told, endpoints.drops[0].1), (Told::Drop, 100));
    let wanted = WantedNames { limit: Some(1), name: Some("other".to_owned()) };
    let one = balanced.xds.sent()(balanced.xds.clients()()[0].stream, &wanted).unwrap();
    assert_eq!((one.total, one.names.len(), &*one.names[0].name), (2, 1, "other"));
    let wanted = WantedNames { limit: Some(1), name: None };
    let first = balanced.xds.sent()(balanced.xds.clients()()[0].stream, &wanted).unwrap();
    assert_eq!((first.total, first.names.len(), &*first.names[0].name), (2, 1, "hello"));

    // The words are those about the type that was refused last.
    let said = |balanced: &Balanced| {
        let xds = balanced.xds.clients()()[0].xds.clone().expect("a client of xDS");
        (xds.refusal.as_deref().map(str::to_owned), xds.accepted)
    };
    assert_eq!(said(&balanced), (Some("do not like it".to_owned()), None));

    // The cluster is not answered, so a newer one waits, and is not taken for what was sent.
    balanced.settle("[service.hello]\ncircuit-breaking = { requests = 300 }").await;
    let (listeners, _) = client.next::<Listener>().await;
    let now = sent(&balanced);
    let [hello, _] = &now.names[..] else { panic!("{now:?}") };
    assert!(hello.listener.as_ref().unwrap().as_sent);
    assert!(!hello.cluster.as_ref().unwrap().as_sent);
    assert_eq!(now.types[0].version, version(&listeners.version_info));
    assert_eq!(now.types[1].version, version(&clusters.version_info));

    // Words are shown until a response of their type is accepted.
    client.request::<Cluster>(&names, &clusters.nonce, Some("nor that"));
    let (clusters, _) = client.next::<Cluster>().await;
    assert_eq!(said(&balanced), (Some("nor that".to_owned()), None));
    client.ask::<Cluster>(&names, &clusters.nonce);
    assert!(client.is_silent().await);
    assert_eq!(said(&balanced), (Some("do not like it".to_owned()), None));
    balanced.delete("hello 1 10.0.0.1:80").await;
    let (endpoints, _) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(sent(&balanced).types[2].accepted, None);
    client.ask::<ClusterLoadAssignment>(&names, &endpoints.nonce);
    assert!(client.is_silent().await);
    assert_eq!(said(&balanced), (None, version(&endpoints.version_info)));
    assert_eq!(sent(&balanced).types[2].accepted, version(&endpoints.version_info));
}

#[tokio::test]
async fn a_name_that_can_mean_no_service_is_shown_with_the_reason() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<ClusterLoadAssignment>(&["a..b"], "");
    client.next::<ClusterLoadAssignment>().await;
    let now = sent(&balanced);
    let endpoints = now.names[0].endpoints.as_ref().unwrap();
    assert_eq!((endpoints.told, endpoints.localities.as_deref()), (Told::Invalid, Some(&[][..])));
    let (reason, percent) = &endpoints.drops[0];
    assert!(reason.contains("\"a..b\" holds no service") && *percent == 100, "{reason}");
}

/// A stream holds no bytes of its own, so what every stream has left behind is not shown.
#[tokio::test]
async fn a_grpclb_client_is_shown_with_its_list() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    balanced.reset(&["hello 1 10.0.0.1:80 weight=2", "hello 2 [2001:db8::1]:81"]).await;
    let mut client = balanced.open(GO, "hello").await;
    let servers = client.first_servers().await;
    let shown = |balanced: &Balanced| {
        let stream = balanced.clients()[0].stream;
        let sent = balanced.balancer.sent()(stream, &WantedNames::default());
        sent.expect("the stream is open").entries.expect("the list is in memory")
    };
    let entries = shown(&balanced);
    let ports = |port: u16| entries.iter().filter(move |one| one.backend.unwrap().port() == port);
    assert_eq!((entries.len(), servers.len()), (3, 3));
    assert_eq!((ports(80).count(), ports(81).count()), (2, 1));
    assert_eq!(ports(81).next().unwrap().backend, "[2001:db8::1]:81".parse().ok());
    // The first entry's nonce is not part of its token.
    let token = servers[0].load_balance_token.split('~').next().unwrap().to_owned();
    assert_eq!(entries[0].token, token);
    balanced.delete("hello 1 10.0.0.1:80").await;
    balanced.delete("hello 2 [2001:db8::1]:81").await;
    // Without backends, grpc-go is sent an address that refuses every connection.
    while client.servers().await[0].port != 0 {}
    let entries = shown(&balanced);
    assert_eq!((entries.len(), entries[0].backend), (1, "127.0.0.1:0".parse().ok()));
    assert_eq!(balanced.balancer.sent()(77, &WantedNames::default()), None);
}
