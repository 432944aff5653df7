//! A client that connects as gRPC does, and speaks grpclb or xDS.
//!
//! In: its plan. Out: a record of each connection, list and status that it gets.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client};
use http::{HeaderMap, Request};
use lookaside::balancer::{PATH, token};
use lookaside::model::{BackendAddr, ServiceName};
use lookaside::xds;
use prost::Message;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{interval, sleep, sleep_until, timeout};
use turmoil::net::TcpStream;

use crate::balancer::{PORT, REPORT_EVERY, ZONE};
use crate::history::{History, Set, What};
use crate::plan::{BALANCERS, Client, Host, Protocol};
use crate::rng::Rng;
use crate::xds_client;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod pb {
    tonic::include_proto!("grpc.lb.v1");
}

use pb::load_balance_request::LoadBalanceRequestType as Ask;
use pb::load_balance_response::LoadBalanceResponseType as Kind;

/// The first backoff. As in gRPC, it grows by a factor of 1.6 and varies by 20 %.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest backoff. gRPC's is two minutes, which is longer than a run.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long connecting may take. gRPC's limit is 20 seconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How many calls a second a client starts, usually and where a service gets too many.
const IDLE: u64 = 10;
const BUSY: u64 = 400;

/// How a stream ended.
enum End {
    /// No stream was open, or its connection broke before any answer.
    NotConnected,
    /// The balancer sent a status and no initial response.
    Refused,
    /// It ended after its initial response.
    Lost,
    /// The client ended it.
    HungUp,
}

/// The parts that all clients of a run share.
#[derive(Clone)]
pub struct Shared {
    pub history: History,
    /// Whether each service gets more calls than it can serve.
    pub busy: Vec<watch::Receiver<bool>>,
    /// Set at the end: all clients hang up and do not come back.
    pub closing: watch::Receiver<bool>,
}

pub async fn run(index: usize, plan: Client, seed: u64, shared: Shared) {
    let rng = &mut Rng::new(seed ^ index as u64);
    let mut balancer = plan.first;
    let mut backoff = BACKOFF;
    let mut closing = shared.closing.clone();
    let mut hangups = plan.hangups.clone();
    hangups.sort_unstable();
    for id in index * 1_000.. {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        hangups.retain(|at| u128::from(*at) > now.as_millis());
        let until = hangups.first().map(|at| Duration::from_millis(*at) - now);
        let end = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            end = stream(index, id, &plan, balancer, until, &shared) => end,
        };
        match end {
            // The client opens a new stream at once, on a new connection.
            End::Lost | End::HungUp => {
                backoff = BACKOFF;
                continue;
            }
            // The client tries the other address, as pick_first does.
            End::NotConnected => balancer = (balancer + 1) % BALANCERS,
            End::Refused => {}
        }
        let pause = backoff.mul_f64(0.8 + rng.below(400) as f64 / 1_000.0);
        backoff = backoff.mul_f64(1.6).min(BACKOFF_MAX);
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = sleep(pause) => {}
        }
    }
}

async fn stream(
    index: usize,
    id: usize,
    plan: &Client,
    balancer: usize,
    until: Option<Duration>,
    shared: &Shared,
) -> End {
    let address = (Host::Balancer(balancer).to_string(), PORT);
    let connected = timeout(CONNECT_WITHIN, async {
        let stream = TcpStream::connect(address).await.ok()?;
        client::handshake(stream).await.ok()
    });
    let Ok(Some((mut requests, connection))) = connected.await else { return End::NotConnected };
    // Dropping this ends the connection.
    let connection = Owned(spawn_local(async { drop(connection.await) }));
    let path = match plan.protocol {
        Protocol::Grpclb => PATH,
        Protocol::Xds => xds::PATH,
    };
    let request = Request::post(format!("http://balancer{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", plan.user_agent)
        .body(())
        .expect("a request");
    let Ok((response, mut requests)) = requests.send_request(request, false) else {
        return End::NotConnected;
    };
    let history = &shared.history;
    history.note(What::Opened { stream: id, client: index, balancer });
    let mut greeted = false;
    let talking = async {
        match plan.protocol {
            Protocol::Grpclb => {
                converse(id, plan, &mut requests, response, &mut greeted, shared).await
            }
            Protocol::Xds => {
                xds_client::converse(id, plan, &mut requests, response, &mut greeted, history).await
            }
        }
    };
    let hangup = tokio::time::Instant::now() + until.unwrap_or_default();
    let status = tokio::select! {
        biased;
        status = talking => status,
        () = sleep_until(hangup), if until.is_some() => {
            history.note(What::Ended { stream: id, status: Some("hung up".to_owned()) });
            return End::HungUp;
        }
    };
    drop(connection);
    match (greeted, status) {
        (false, Some(code)) => {
            history.note(What::Refused { stream: id, code });
            End::Refused
        }
        (false, None) => {
            history.note(What::Ended { stream: id, status: None });
            End::NotConnected
        }
        (true, status) => {
            history.note(What::Ended { stream: id, status });
            End::Lost
        }
    }
}

/// Speaks grpclb to the end of the stream. Returns its status, if it has one.
async fn converse(
    id: usize,
    plan: &Client,
    requests: &mut SendStream<Bytes>,
    response: client::ResponseFuture,
    greeted: &mut bool,
    shared: &Shared,
) -> Option<String> {
    let name = format!("s{}.{ZONE}:443", plan.service);
    send(requests, Ask::InitialRequest(pb::InitialLoadBalanceRequest { name }));
    let drops = Cell::new(0);
    let reporting = async {
        let mut every = interval(REPORT_EVERY);
        every.tick().await;
        loop {
            every.tick().await;
            let busy = *shared.busy[plan.service].borrow();
            send(requests, Ask::ClientStats(stats(if busy { BUSY } else { IDLE }, drops.get())));
        }
    };
    tokio::select! {
        biased;
        status = read(id, plan.service, response, (greeted, &drops), &shared.history) => status,
        () = reporting => None,
    }
}

/// Reads to the end of the stream. Returns its status, if it has one.
async fn read(
    id: usize,
    service: usize,
    response: client::ResponseFuture,
    (greeted, dropping): (&mut bool, &Cell<u32>),
    history: &History,
) -> Option<String> {
    let (head, mut body) = response.await.ok()?.into_parts();
    assert_eq!(head.status, 200, "stream {id}");
    if let Some(code) = code(&head.headers) {
        return Some(code);
    }
    let mut waiting = BytesMut::new();
    while let Some(message) = next::<pb::LoadBalanceResponse>(&mut body, &mut waiting).await? {
        match message.load_balance_response_type.expect("a known type") {
            Kind::InitialResponse(_) => {
                assert!(!*greeted, "stream {id}: a second initial response");
                *greeted = true;
                history.note(What::Greeted { stream: id });
            }
            Kind::ServerList(list) => {
                assert!(*greeted, "stream {id}: a list before the initial response");
                let (entries, dropped) =
                    (list.servers.len(), list.servers.iter().filter(|one| one.drop).count());
                let drops = (10_000 * dropped).checked_div(entries).unwrap_or(0) as u32;
                dropping.set(drops);
                let (list, shares) = backends(service, &list.servers);
                history.note(What::ReceivedList { stream: id, list, shares, drops });
            }
            Kind::FallbackResponse(_) => {
                assert!(*greeted, "stream {id}: a fallback before the initial response");
                history.note(What::ToldToFallBack { stream: id });
            }
        }
    }
    code(&body.trailers().await.ok()??)
}

/// Returns the next message, `Some(None)` at the regular end, and `None` if the stream
/// broke.
pub async fn next<M: Message + Default>(
    body: &mut RecvStream,
    waiting: &mut BytesMut,
) -> Option<Option<M>> {
    loop {
        if let Some(length) = waiting.get(1..5) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if waiting.len() >= 5 + length {
                waiting.advance(5);
                return Some(Some(M::decode(waiting.split_to(length)).expect("a message")));
            }
        }
        match body.data().await {
            None => return Some(None),
            Some(Err(_)) => return None,
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                waiting.extend_from_slice(&data);
            }
        }
    }
}

/// Returns the backends of a list with the number of their entries, and checks their tokens.
/// Entries with port 0 are left out: they stand for a service without backends.
fn backends(service: usize, servers: &[pb::Server]) -> (Set, Vec<u32>) {
    let service = ServiceName::new(&format!("s{service}")).expect("a name");
    let mut entries = BTreeMap::<SocketAddr, u32>::new();
    for server in servers.iter().filter(|server| server.port != 0) {
        let ip: [u8; 4] = server.ip_address[..].try_into().expect("IPv4 here");
        let port = u16::try_from(server.port).expect("a port");
        let addr = BackendAddr::new(ip.into(), port).expect("an address");
        let told = server.load_balance_token.split('~').next();
        assert_eq!(told, Some(token(&service, addr).as_str()), "another's token");
        *entries.entry(SocketAddr::new(ip.into(), port)).or_default() += 1;
    }
    entries.into_iter().unzip()
}

/// Returns a report of that many calls a second. All that are not dropped are answered.
fn stats(rate: u64, drops: u32) -> pb::ClientStats {
    let calls = (rate * REPORT_EVERY.as_secs()) as i64;
    let dropped = calls * i64::from(drops) / 10_000;
    let token = pb::ClientStatsPerToken { num_calls: dropped, ..Default::default() };
    pb::ClientStats {
        num_calls_started: calls,
        num_calls_finished: calls,
        num_calls_finished_known_received: calls - dropped,
        calls_finished_with_drop: vec![token],
        ..Default::default()
    }
}

pub fn code(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").map(|code| code.to_str().expect("a number").to_owned())
}

fn send(requests: &mut SendStream<Bytes>, kind: Ask) {
    let request = pb::LoadBalanceRequest { load_balance_request_type: Some(kind) };
    // The reading side notices that a stream has ended.
    let _ = requests.send_data(framed(&request.encode_to_vec()), false);
}

/// Returns a message with gRPC's prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// A task that is aborted when this is dropped.
struct Owned(tokio::task::JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
