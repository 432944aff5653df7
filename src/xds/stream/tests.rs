//! A stream with thousands of names.
//!
//! In: names, and changes of some. Out: which names a stream looks at, and what it sends.

use std::collections::BTreeSet;
use std::future::poll_fn;

use prost::Message;
use tokio::sync::mpsc;

use super::*;
use crate::catalog::{self, Catalog, Input};
use crate::model::{ClientIdentity, HostPort, Meta, ServiceName, Weight, Zone};
use crate::registry::{Change, Entry, Event, Key, Registration};
use crate::settings::ServiceSettings;
use crate::telemetry::Counters;
use crate::xds::Xds;
use crate::xds::clients::Peer;
use crate::xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// A stream, and the registry that changes what its names mean.
struct Scene {
    stream: XdsStream,
    counters: Arc<Counters>,
    inputs: mpsc::Sender<Input>,
    revision: i64,
    names: Vec<String>,
}

impl Scene {
    async fn start(names: usize) -> Self {
        let catalog = Catalog::with(ServiceSettings::DEFAULT);
        let (inputs, inputs_rx) = mpsc::channel(8);
        tokio::spawn(catalog::drive(inputs_rx, catalog.clone(), clock::wall));
        let reset = Event::Reset { revision: 1, all: Vec::new(), went_back: false };
        inputs.send(Input::Registry(reset)).await.unwrap();
        catalog.watch_status().wait_for(|status| status.synced).await.unwrap();
        let counters: Arc<Counters> = Arc::default();
        let zone = Zone::new("lookaside.internal").unwrap();
        let sums = (Arc::default(), Arc::default(), Arc::default());
        let xds = Xds::new(zone, catalog, sums, Arc::default(), counters.clone());
        let names = (0..names).map(|n| format!("s{n:05}")).collect();
        Self { stream: stream(xds.0.clone()), counters, inputs, revision: 1, names }
    }

    /// Opens a further stream of the connection.
    fn another(&self, names: usize) -> Self {
        Self {
            stream: stream(self.stream.shared.clone()),
            counters: self.counters.clone(),
            inputs: self.inputs.clone(),
            revision: self.revision,
            names: (0..names).map(|n| format!("t{n:05}")).collect(),
        }
    }

    /// Asks for all names of a type, and accepts the response with this nonce.
    fn ask(&mut self, kind: Kind, nonce: &str) {
        let request = DiscoveryRequest {
            resource_names: self.names.clone(),
            type_url: kind.url().to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        self.stream.take_message(request.encode_to_vec().into());
    }

    async fn next(&mut self) -> DiscoveryResponse {
        let stream = &mut self.stream;
        let bytes = poll_fn(|cx| stream.poll_push(cx)).await.unwrap().to_bytes();
        assert!(bytes.len() < 4 * 1024 * 1024, "{}", bytes.len());
        DiscoveryResponse::decode(&bytes[5..]).unwrap()
    }

    /// Reads assignments until there is one of each of these names, and no other.
    async fn assignments(&mut self, mut names: BTreeSet<String>) -> usize {
        let mut responses = 0;
        while !names.is_empty() {
            let response = self.next().await;
            for any in &response.resources {
                // The name is the first field.
                let name = String::from_utf8(any.value[2..8].to_vec()).unwrap();
                assert!(names.remove(&name), "{name}");
            }
            responses += 1;
            self.ask(Kind::Endpoints, &response.nonce);
        }
        responses
    }

    /// Registers one more backend of a service.
    async fn register(&mut self, service: &str) {
        self.revision += 1;
        let (revision, id) = (self.revision, self.revision.to_string());
        let registration = Registration {
            service: ServiceName::new(service).unwrap(),
            id: id.as_str().into(),
            address: HostPort::parse(&format!("10.0.0.1:{}", 1_000 + revision)).unwrap(),
            weight: Weight::DEFAULT,
            meta: Arc::new(Meta::new()),
        };
        let key = Key::new(format!("/etcd3_naming/{service}/{id}").as_bytes());
        let entry = Entry { key, decoded: Ok(vec![registration].into()), leased: true };
        let changes = vec![Change::Put(entry)];
        self.inputs.send(Input::Registry(Event::Apply { revision, changes })).await.unwrap();
    }
}

fn stream(shared: Arc<Shared>) -> XdsStream {
    let identity = ClientIdentity { addr: "192.0.2.1:1".parse().unwrap(), certificate: None };
    let kind = ClientKind::Go;
    let peer = Peer { identity, user_agent: "test".into(), kind, zone: None };
    let row = shared.clients.register(peer, Arc::default(), clock::now());
    XdsStream::new(row, shared)
}

/// The work of a change does not grow with the number of names.
#[tokio::test]
async fn a_stream_looks_only_at_the_names_that_changed() {
    let mut scene = Scene::start(10_000).await;
    for kind in [Kind::Listener, Kind::Cluster] {
        scene.ask(kind, "");
        let response = scene.next().await;
        assert_eq!((response.type_url.as_str(), response.resources.len()), (kind.url(), 10_000));
        scene.ask(kind, &response.nonce);
    }
    scene.ask(Kind::Endpoints, "");
    let all = scene.names.iter().cloned().collect();
    let responses = scene.assignments(all).await;
    // Each is answered with all names: as few as possible.
    assert!(responses <= 3, "{responses}");
    for changed in [1, 20, 300, 1] {
        let names: BTreeSet<String> =
            scene.names.iter().step_by(9_999 / changed).take(changed).cloned().collect();
        VISITS.set(0);
        for name in &names {
            scene.register(name).await;
        }
        scene.assignments(names).await;
        // Once for the change, and once to see that there is no other.
        let visits = VISITS.get();
        assert!((2 * changed..=2 * changed + 2).contains(&visits), "{visits} for {changed}");
    }
    assert_eq!(scene.counters.xds_names_refused.total(), 0);
}

/// A name that changes while a response is unanswered is not forgotten, and one that the client
/// no longer wants is, at once: a client that answers nothing may ask for other names for ever.
#[tokio::test]
async fn changes_wait_for_an_answer() {
    let mut scene = Scene::start(3).await;
    scene.ask(Kind::Endpoints, "");
    let first = scene.next().await;
    assert_eq!(first.resources.len(), 3);
    for name in ["s00000", "s00001"] {
        scene.register(name).await;
    }
    // The registry is read while the stream is not open.
    let mut changed = BTreeSet::new();
    while changed.len() < 2 {
        match scene.stream.changes.take() {
            Some(name) => drop(changed.insert(name)),
            None => tokio::task::yield_now().await,
        }
    }
    changed.iter().for_each(|name| scene.stream.changes.add(name));
    let stream = &mut scene.stream;
    assert!(futures_util::poll!(poll_fn(|cx| stream.poll_push(cx))).is_pending());
    scene.names.remove(0);
    scene.ask(Kind::Endpoints, &first.nonce);
    let next = scene.stream.changes.take().unwrap();
    assert_eq!(&*next, "s00001");
    scene.stream.changes.add(&next);
    scene.assignments(["s00001".to_owned()].into()).await;
    assert!(scene.stream.changes.take().is_none());
}

/// The room is that of all names of a network, on whatever connection.
#[tokio::test]
async fn a_name_without_room_gets_no_backends() {
    let mut scene = Scene::start(1).await;
    let rooms = scene.stream.shared.names.clone();
    let held: Vec<_> = std::iter::from_fn(|| rooms.name([192, 0, 2, 1].into())).collect();
    let endpoints = |response: &DiscoveryResponse| {
        let [any] = &response.resources[..] else { panic!("one name") };
        ClusterLoadAssignment::decode(&any.value[..]).unwrap().endpoints.len()
    };
    scene.register("s00000").await;
    scene.ask(Kind::Endpoints, "");
    let response = scene.next().await;
    assert_eq!((endpoints(&response), scene.counters.xds_names_refused.total()), (0, 1));
    drop(held);
    scene.names = vec!["s00001".to_owned()];
    scene.register("s00001").await;
    scene.ask(Kind::Endpoints, &response.nonce);
    let mut response = scene.next().await;
    while endpoints(&response) == 0 {
        scene.ask(Kind::Endpoints, &response.nonce);
        response = scene.next().await;
    }
    assert_eq!(scene.counters.xds_names_refused.total(), 1);
}

/// A connection has 10,416 names of endpoints, on all of its streams.
#[tokio::test]
async fn the_streams_of_a_connection_share_the_room_for_selections() {
    let mut scene = Scene::start(10_000).await;
    let mut other = scene.another(417);
    for scene in [&mut scene, &mut other] {
        scene.ask(Kind::Endpoints, "");
        scene.assignments(scene.names.iter().cloned().collect()).await;
    }
    assert_eq!(scene.counters.xds_names_refused.total(), 1);
}

#[tokio::test]
async fn new_names_cost_a_client_and_repeated_ones_do_not() {
    let mut scene = Scene::start(3).await;
    for cost in [3 * (NEW_NAME_COST + "s00000".len()), 0] {
        scene.ask(Kind::Endpoints, "");
        assert_eq!(scene.stream.cost(), cost);
    }
}

/// Every stream takes this.
#[test]
fn a_stream_stays_small() {
    const MOST: usize = 336;
    assert!(size_of::<XdsStream>() <= MOST, "{} bytes", size_of::<XdsStream>());
}
