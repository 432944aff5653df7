//! What a backend answers: `grpc.health.v1`, and ORCA's reports of its load.
//!
//! In: a connection, and what the backend does with connections. Out: answers. They end
//! with the future that gives them, as those of a process end with the process.

use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic_health::pb::HealthCheckResponse;
use turmoil::net::TcpStream;

use crate::client::framed;
use crate::policies::Act;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod pb {
    tonic::include_proto!("xds.data.orca.v3");
}

/// How many calls a second each backend of a service can serve.
pub const CAPACITY: f64 = 50.0;
/// How often a backend reports its load.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// What decides the answers of a backend.
#[derive(Clone)]
pub struct Mood {
    pub act: watch::Receiver<Act>,
    /// Whether it gets more calls than it can serve.
    pub busy: watch::Receiver<bool>,
}

/// Answers everything that is asked over a connection, until it ends.
pub async fn answer(io: TcpStream, mut mood: Mood) {
    // A process that hangs takes connections, and that is all.
    if mood.act.wait_for(|act| *act != Act::Hangs).await.is_err() {
        return;
    }
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let mut answers = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        answers.spawn_local(respond_to(path, respond, mood.clone()));
    }
}

async fn respond_to(path: String, mut respond: SendResponse<Bytes>, mut mood: Mood) {
    let head = || Response::builder().header("content-type", "application/grpc");
    let (watches, orca) = match path.as_str() {
        "/grpc.health.v1.Health/Check" => (false, false),
        "/grpc.health.v1.Health/Watch" => (true, false),
        "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics" => (true, true),
        _ => {
            let head = head().header("grpc-status", "12").body(()).expect("a head");
            let _ = respond.send_response(head, true);
            return;
        }
    };
    let head = head().body(()).expect("a head");
    let Ok(mut body) = respond.send_response(head, false) else { return };
    loop {
        // A process that hangs says nothing more, over any connection. One that refuses
        // connections is about to close them.
        let speaks = |act: &Act| matches!(act, Act::Serves | Act::SaysNo);
        let Ok(act) = mood.act.wait_for(speaks).await.map(|act| *act) else { return };
        let message = if orca { report(*mood.busy.borrow()) } else { state(act) };
        if body.send_data(framed(&message), false).is_err() {
            return;
        }
        if !watches {
            let mut status = HeaderMap::new();
            status.insert("grpc-status", "0".parse().expect("a number"));
            let _ = body.send_trailers(status);
            return;
        }
        if orca {
            sleep(REPORT_EVERY).await;
        } else if mood.act.changed().await.is_err() {
            return;
        }
    }
}

fn state(act: Act) -> Vec<u8> {
    let status = if act == Act::Serves { SERVING } else { NOT_SERVING };
    HealthCheckResponse { status }.encode_to_vec()
}

fn report(busy: bool) -> Vec<u8> {
    let utilisation = if busy { 1.0 } else { 0.1 };
    pb::OrcaLoadReport {
        rps_fractional: CAPACITY * utilisation,
        application_utilization: utilisation,
        ..Default::default()
    }
    .encode_to_vec()
}
