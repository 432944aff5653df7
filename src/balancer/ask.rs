//! Asks a balancer for a list, as a client does.
//!
//! In: a channel to a balancer, and a name. Out: what the first list holds. It waits without
//! bounds: the caller sets them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::pb;
use pb::load_balance_request::LoadBalanceRequestType;
use pb::load_balance_response::LoadBalanceResponseType;

/// What a balancer told a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstList {
    /// A list.
    Servers {
        /// The backends, each once.
        backends: BTreeSet<SocketAddr>,
        /// The entries, repeats and drops included.
        entries: usize,
        /// The entries at which calls are dropped.
        drops: usize,
    },
    /// The client is to use the addresses that DNS gives.
    Fallback,
}

/// Opens a stream for `name`, waits for the first list, and ends the stream.
///
/// # Errors
/// The balancer's status, also if it ends the stream without a list.
pub async fn first_list(channel: Channel, name: &str) -> Result<FirstList, Status> {
    let mut client = pb::load_balancer_client::LoadBalancerClient::new(channel);
    let initial = pb::InitialLoadBalanceRequest { name: name.to_owned() };
    let kind = Some(LoadBalanceRequestType::InitialRequest(initial));
    let first = pb::LoadBalanceRequest { load_balance_request_type: kind };
    // A client's side stays open: a stream that was ended may be answered by its end.
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut answers = client.balance_load(Request::new(requests)).await?.into_inner();
    let mut begun = false;
    while let Some(answer) = answers.message().await? {
        match answer.load_balance_response_type {
            Some(LoadBalanceResponseType::InitialResponse(_)) => begun = true,
            Some(LoadBalanceResponseType::ServerList(list)) if begun => return Ok(servers(&list)),
            Some(LoadBalanceResponseType::FallbackResponse(_)) if begun => {
                return Ok(FirstList::Fallback);
            }
            // Some clients end a stream that begins with anything else, others ignore it.
            _ => return Err(Status::internal("the stream does not begin as clients expect")),
        }
    }
    Err(Status::unavailable("the stream ended without a list"))
}

fn servers(list: &pb::ServerList) -> FirstList {
    let address = |server: &pb::Server| {
        let ip: IpAddr = match *server.ip_address.as_slice() {
            [a, b, c, d] => [a, b, c, d].into(),
            ref long => <[u8; 16]>::try_from(long).ok()?.into(),
        };
        Some(SocketAddr::new(ip, u16::try_from(server.port).ok()?))
    };
    let (drops, calls): (Vec<_>, Vec<_>) = list.servers.iter().partition(|server| server.drop);
    FirstList::Servers {
        backends: calls.into_iter().filter_map(address).collect(),
        entries: list.servers.len(),
        drops: drops.len(),
    }
}
