//! Any bytes from a client to the gRPC port.

use std::sync::Arc;

use lookaside::balancer::{Balancer, PATH};
use lookaside::catalog::{self, Catalog, Input};
use lookaside::model::Zone;
use lookaside::registry::Event;
use lookaside::serve::{Server, Services};
use lookaside::telemetry::Counters;
use lookaside::xds::Xds;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::client;

/// What `data` says is what [`client::check`] makes of it.
pub fn check(data: &[u8]) {
    client::check(data, PATH, 4_096, serve);
}

/// Serves one connection of a balancer whose registry is empty.
pub async fn serve(stream: DuplexStream) {
    let catalog = Catalog::new();
    let (inputs, inputs_rx) = mpsc::channel(1);
    let driver = tokio::spawn(catalog::drive(inputs_rx, catalog.clone(), lookaside::clock::wall));
    let read = Input::Registry(Event::Reset { revision: 1, all: Vec::new(), went_back: false });
    inputs.send(read).await.expect("the catalog listens");
    let zone = Zone::new("lookaside.internal").expect("a zone");
    let counters: Arc<Counters> = Arc::default();
    let balancer = Balancer::new(zone.clone(), catalog.clone(), Arc::default(), counters.clone());
    let sums = (balancer.demands(), balancer.rates(), balancer.placements());
    let xds = Xds::new(zone, catalog, sums, Arc::default(), counters.clone());
    let server = Server {
        services: Services { balancer, xds, others: Routes::default() },
        tls: None,
        counters,
        tasks: TaskTracker::new(),
        drain: CancellationToken::new(),
        connections_max: 1,
        connections_per_peer: 0,
        max_connection_age: None,
        spread: None,
    };
    let peer = "192.0.2.1:1".parse().expect("an address");
    server.http2(stream, peer).await;
    driver.abort();
}
