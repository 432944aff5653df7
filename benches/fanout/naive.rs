//! A grpclb server as a tutorial would write it: a task and a queue for each stream,
//! and a list that each stream clones and encodes for itself.
//!
//! In: the length of the list; lines on standard input, each a change. Out: a list for
//! each change, on every stream.

use std::io::BufRead;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{PORT, wire};

#[allow(unreachable_pub, missing_docs, clippy::all, reason = "generated")]
mod pb {
    tonic::include_proto!("grpc.lb.v1");
}

use pb::load_balance_response::LoadBalanceResponseType as Kind;
use pb::load_balancer_server::{LoadBalancer, LoadBalancerServer};

struct Service(watch::Receiver<pb::ServerList>);

#[tonic::async_trait]
impl LoadBalancer for Service {
    type BalanceLoadStream = ReceiverStream<Result<pb::LoadBalanceResponse, Status>>;

    async fn balance_load(
        &self,
        request: Request<Streaming<pb::LoadBalanceRequest>>,
    ) -> Result<Response<Self::BalanceLoadStream>, Status> {
        let mut requests = request.into_inner();
        requests.message().await?;
        let (responses, receiver) = mpsc::channel(4);
        let mut lists = self.0.clone();
        tokio::spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
        tokio::spawn(async move {
            let response =
                |kind| Ok(pb::LoadBalanceResponse { load_balance_response_type: Some(kind) });
            let opening = Kind::InitialResponse(pb::InitialLoadBalanceResponse::default());
            let _ = responses.send(response(opening)).await;
            loop {
                let list = lists.borrow_and_update().clone();
                let sent = responses.send(response(Kind::ServerList(list))).await;
                if sent.is_err() || lists.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Runs until standard input ends.
pub(crate) fn run(count: usize) -> std::io::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let list = |port: u16| {
        let server = |index| pb::Server {
            ip_address: wire::address(index).to_vec(),
            port: port.into(),
            load_balance_token: format!("{index:016x}"),
            drop: false,
        };
        pb::ServerList { servers: (0..count).map(server).collect() }
    };
    let (lists, receiver) = watch::channel(list(PORT));
    let incoming = runtime.block_on(async {
        let incoming = tonic::transport::server::TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
        println!("listening {}", incoming.local_addr()?);
        Ok::<_, std::io::Error>(incoming.with_nodelay(Some(true)))
    })?;
    let server = LoadBalancerServer::new(Service(receiver));
    runtime.spawn(
        tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming),
    );
    for (version, line) in (1..).zip(std::io::stdin().lock().lines()) {
        line?;
        lists.send_replace(list(PORT + version % 2));
    }
    runtime.shutdown_background();
    Ok(())
}
