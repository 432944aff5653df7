//! A gRPC server that registers itself in etcd while it runs.
//!
//! In: an etcd (or lookaside's embedded registry), a service's name. Out: greetings
//! that name the server. If several run, any grpclb client that lookaside serves shares
//! its calls among them:
//!
//! ```sh
//! cargo run --example greeter_server -- http://127.0.0.1:2379 hello
//! ```

use std::sync::Arc;
use std::time::Duration;

use lookaside::model::{HostPort, Meta, ServiceName, Weight};
use lookaside::register;
use lookaside::registry::Registration;
use lookaside::registry::etcd::Connect;
use lookaside::registry::record::Format;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use pb::greeter_server::{Greeter, GreeterServer};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod pb {
    tonic::include_proto!("helloworld");
}

struct Greetings(String);

/// The time in which the server still answers, until clients have a list without it.
const LINGER: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let etcd = args.next().unwrap_or_else(|| "http://127.0.0.1:2379".into());
    let service = args.next().unwrap_or_else(|| "hello".into());
    let mut terminate = signal(SignalKind::terminate())?;

    // The server listens first, because a registered backend must answer.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?.to_string();
    let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
    let server = Server::builder()
        .add_service(GreeterServer::new(Greetings(addr.clone())))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
            let _ = stop_rx.await;
        });
    let server = tokio::spawn(server);

    // From here on clients are sent here, even while etcd is away.
    let connect = Connect::new(&[&etcd], None, None)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
    let registration = Registration {
        service: ServiceName::new(&service)?,
        id: addr.as_str().into(),
        address: HostPort::parse(&addr)?,
        weight: Weight::DEFAULT,
        meta: Arc::new(Meta::new()),
    };
    let (prefix, ttl, format) = ("/etcd3_naming/".into(), register::TTL_DEFAULT, Format::Auto);
    let held =
        register::hold(register::Options { connect, prefix, registration, ttl, format }).await?;
    println!("serving {service} at {addr}");

    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // It deregisters, and stops answering only once clients have the new list.
    held.withdraw().await?;
    tokio::time::sleep(LINGER).await;
    drop(stop_tx);
    server.await??;
    Ok(())
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloReply>, Status> {
        let message = format!("Hello {} from {}", request.into_inner().name, self.0);
        Ok(Response::new(pb::HelloReply { message }))
    }
}
