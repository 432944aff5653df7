//! A relay between clients of xDS and a balancer. It records what both say, spoils a response
//! when it is told to, and finds what no balancer may say.
//!
//! In: the balancer's address. Out: the messages, in the order in which they passed.

use std::collections::{BTreeSet, HashMap};
use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::support::ads::{self, Kind};

/// A running relay. It ends when this value is dropped.
pub struct Relay {
    pub address: String,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

/// A message that passed.
#[derive(Debug, Clone)]
pub struct Message {
    /// The number of its stream, counted from the first.
    pub stream: usize,
    pub kind: Kind,
    pub said: Said,
}

#[derive(Debug, Clone)]
pub enum Said {
    Request(Box<DiscoveryRequest>),
    Response(DiscoveryResponse),
}

struct Shared {
    balancer: String,
    streams: AtomicUsize,
    messages: Mutex<Vec<Message>>,
    /// When streams found no balancer.
    refused: Mutex<Vec<Instant>>,
    /// Of which kind the next response is to be spoilt.
    spoil: Mutex<Option<Kind>>,
}

/// What a stream has said of one type.
#[derive(Default)]
struct State {
    /// The names that were ever asked for.
    asked: BTreeSet<String>,
    /// The names that were asked for by the last response, and ever since.
    steady: Option<BTreeSet<String>>,
    /// The names that the newest request asks for.
    names: BTreeSet<String>,
}

impl Relay {
    /// Starts a relay to a balancer, which may come later.
    pub fn to(balancer: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            balancer: format!("http://{balancer}"),
            streams: AtomicUsize::new(0),
            messages: Mutex::default(),
            refused: Mutex::default(),
            spoil: Mutex::new(None),
        });
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(Service(shared.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { address, shared, _runtime: runtime }
    }

    /// Spoils the next response of a type, so that every client refuses it.
    pub fn spoil_next(&self, kind: Kind) {
        *lock(&self.shared.spoil) = Some(kind);
    }

    /// Returns when streams found no balancer, and were refused.
    pub fn refused(&self) -> Vec<Instant> {
        lock(&self.shared.refused).clone()
    }

    pub fn messages(&self) -> Vec<Message> {
        lock(&self.shared.messages).clone()
    }

    /// Returns the newest resource of a type and a name.
    pub fn newest(&self, kind: Kind, name: &str) -> Option<Vec<u8>> {
        lock(&self.shared.messages).iter().rev().find_map(|message| match &message.said {
            Said::Response(response) if message.kind == kind => {
                let mut resources = response.resources.iter().map(|any| &any.value);
                resources.find(|value| ads::name_of(value) == name.as_bytes()).cloned()
            }
            _ => None,
        })
    }

    /// Checks what the balancer has said: no response leaves out a listener or a cluster that
    /// its stream wants, has a name that nobody asked for, or has endpoints that some client
    /// would refuse, such as a locality twice or at another priority.
    #[track_caller]
    pub fn check(&self) {
        let mut states: HashMap<(usize, &str), State> = HashMap::new();
        let messages = self.messages();
        for Message { stream, kind, said } in &messages {
            let state = states.entry((*stream, kind.url())).or_default();
            match said {
                Said::Request(request) => state.request(&request.resource_names),
                Said::Response(response) => {
                    if let Some(problem) = state.response(*kind, response) {
                        panic!("stream {stream}, {kind:?}: {problem}: {messages:#?}");
                    }
                }
            }
        }
    }
}

impl State {
    fn request(&mut self, names: &[String]) {
        self.names = names.iter().cloned().collect();
        self.asked.extend(names.iter().cloned());
        let steady = self.steady.get_or_insert_with(|| self.names.clone());
        steady.retain(|name| self.names.contains(name));
    }

    /// Returns what the balancer may not say. A request and a response may pass each other, so
    /// names that came since the last response may be missing.
    fn response(&mut self, kind: Kind, response: &DiscoveryResponse) -> Option<String> {
        let name = |value: &[u8]| String::from_utf8_lossy(ads::name_of(value)).into_owned();
        let sent: BTreeSet<_> = response.resources.iter().map(|any| name(&any.value)).collect();
        let steady = self.steady.replace(self.names.clone()).unwrap_or_default();
        if let Some(name) = sent.iter().find(|name| !self.asked.contains(*name)) {
            return Some(format!("{name} was not asked for"));
        }
        if kind != Kind::Endpoints {
            return steady.difference(&sent).next().map(|name| format!("{name} is left out"));
        }
        let problem = response.resources.iter().find_map(|any| ads::problem(&any.value));
        problem.map(str::to_owned)
    }
}

impl Shared {
    fn record(&self, stream: usize, type_url: &str, said: Said) {
        // Clients of gRPC ask for no others.
        let kind = Kind::of(type_url.as_bytes()).expect("a type that lookaside serves");
        lock(&self.messages).push(Message { stream, kind, said });
    }

    /// Records a response as the balancer sent it, and spoils it if that is wanted.
    fn pass(&self, stream: usize, response: &mut DiscoveryResponse) {
        let kind = response.type_url.clone();
        self.record(stream, &kind, Said::Response(response.clone()));
        let mut spoil = lock(&self.spoil);
        if *spoil == Kind::of(kind.as_bytes()) {
            *spoil = None;
            for any in &mut response.resources {
                // Some clients look at the type, and others at the bytes.
                any.type_url.push('x');
                any.value = vec![0xff; 3];
            }
        }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let stream = self.0.streams.fetch_add(1, Ordering::SeqCst);
        let balancer = AggregatedDiscoveryServiceClient::connect(self.0.balancer.clone()).await;
        let mut balancer = balancer.map_err(|_| {
            lock(&self.0.refused).push(Instant::now());
            Status::unavailable("there is no balancer")
        })?;
        let (one, other) = (self.0.clone(), self.0.clone());
        // After an error, the client's stream has ended.
        let requests = request.into_inner().filter_map(|request| ready(request.ok()));
        let requests = requests.inspect(move |request| {
            one.record(stream, &request.type_url, Said::Request(request.clone().into()));
        });
        let responses = balancer.stream_aggregated_resources(requests).await?.into_inner();
        let responses = responses.map_ok(move |mut response| {
            other.pass(stream, &mut response);
            response
        });
        let responses = responses.map_err(|_| Status::unavailable("the balancer has gone"));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("no deltas"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
