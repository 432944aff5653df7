//! Any bytes from a client to the embedded etcd.

use std::time::Duration;

use embedded_etcd::{Data, serve_data};
use tokio::io::DuplexStream;
use tokio_stream::StreamExt;

use crate::client;

/// The methods that a stream may ask for.
const PATHS: [&str; 6] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/v3lockpb.Lock/Lock",
    "/v3electionpb.Election/Observe",
];
/// Longer than the server leaves a dead connection open.
const SERVED: Duration = Duration::from_secs(120);

/// What `data` says is what [`client::check`] makes of it. Its first byte also chooses the
/// method.
pub fn check(data: &[u8]) {
    let method = data.first().map_or(0, |first| usize::from(first / 12));
    client::check(data, PATHS[method % PATHS.len()], 8_192, serve);
}

/// Serves one connection of an empty store.
async fn serve(stream: DuplexStream) {
    let mut numbers = 0;
    let data = Data::with_random(|| {
        numbers += 1;
        numbers
    });
    let address = "127.0.0.1:2379".parse().expect("an address");
    // A server ends with the last of its connections to come.
    let incoming = tokio_stream::once(stream).chain(tokio_stream::pending());
    let shutdown = tokio::time::sleep(SERVED);
    serve_data(&data, address, incoming, shutdown).await.expect("no client ends the server");
}
