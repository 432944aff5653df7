//! A small client over an in-memory transport, and a balancer without sockets.
//!
//! In: messages or bytes, right or wrong, which the client sends as they are. Out: the
//! messages and the status that come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client};
use http::{HeaderMap, Request};
use lookaside::balancer::{Balancer, PATH};
use lookaside::catalog::{self, Catalog, Input};
use lookaside::load::{Calls, Ledger};
use lookaside::model::{HostPort, Meta, ServiceName, Weight, Zone};
use lookaside::registry::{Cause, Change, Entry, Event, Key, Registration};
use lookaside::serve::{Server, Services};
use lookaside::settings::{Document, ServiceSettings, WhenEmpty};
use lookaside::telemetry::{ClientView, Counters};
use lookaside::xds::Xds;
use prost::Message;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub mod pb {
    tonic::include_proto!("grpc.lb.v1");
}

use pb::load_balance_request::LoadBalanceRequestType;
pub use pb::load_balance_response::LoadBalanceResponseType as Kind;

pub const GO: &str = "grpc-go/1.85.0";
pub const JAVA: &str = "grpc-java-netty/1.85.0";
pub const PYTHON: &str = "grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)";

/// How long a test waits before it fails.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A balancer without sockets.
pub struct Balanced {
    pub catalog: Catalog,
    pub balancer: Balancer,
    pub xds: Xds,
    pub ledger: Arc<Ledger>,
    pub counters: Arc<Counters>,
    pub inputs: mpsc::Sender<Input>,
    /// The address of the clients that connect.
    pub peer: SocketAddr,
    revision: i64,
}

/// One stream on one connection.
pub struct Stream {
    send: SendStream<Bytes>,
    response: Option<client::ResponseFuture>,
    pub head: HeaderMap,
    body: Option<RecvStream>,
    waiting: BytesMut,
}

impl Balanced {
    /// Starts a balancer that has read an empty registry.
    pub async fn start(when_empty: WhenEmpty) -> Self {
        let mut balanced = Self::unread(when_empty, Duration::from_secs(10));
        balanced.reset(&[]).await;
        balanced
    }

    /// Starts a balancer that has not read the registry.
    pub fn unread(when_empty: WhenEmpty, report_interval: Duration) -> Self {
        let defaults = ServiceSettings {
            when_empty,
            report_interval,
            keep_lost: Duration::ZERO,
            guard: 0,
            ..ServiceSettings::DEFAULT
        };
        let (ledger, counters) = (Arc::default(), Arc::default());
        let catalog = Catalog::with(defaults);
        let (inputs, inputs_rx) = mpsc::channel(64);
        tokio::spawn(catalog::drive(inputs_rx, catalog.clone(), lookaside::clock::wall));
        let zone = Zone::new("lookaside.internal").unwrap();
        let balancer = Balancer::new(
            zone.clone(),
            catalog.clone(),
            Arc::clone(&ledger),
            Arc::clone(&counters),
        );
        let sums = (balancer.demands(), balancer.rates(), balancer.placements());
        let (reported, counted) = (Arc::clone(&ledger), Arc::clone(&counters));
        let xds = Xds::new(zone, catalog.clone(), sums, reported, counted);
        let peer = "192.0.2.1:1234".parse().unwrap();
        Self { catalog, balancer, xds, ledger, counters, inputs, peer, revision: 1 }
    }

    /// Replaces the whole registry. Each text has the form
    /// `SERVICE ID ADDRESS [weight=N] [key=value…]`.
    pub async fn reset(&mut self, all: &[&str]) {
        let all = all.iter().map(|text| entry(text)).collect();
        let revision = self.next_revision();
        self.say(Event::Reset { revision, all, went_back: false }).await;
    }

    pub async fn put(&mut self, text: &str) {
        let changes = vec![Change::Put(entry(text))];
        let revision = self.next_revision();
        self.say(Event::Apply { revision, changes }).await;
    }

    pub async fn delete(&mut self, text: &str) {
        let changes = vec![Change::Delete(entry(text).key, Cause::Deregistered)];
        let revision = self.next_revision();
        self.say(Event::Apply { revision, changes }).await;
    }

    /// Puts the settings of a document in force. Returns once they are.
    pub async fn settle(&mut self, document: &str) {
        let document = Document::parse(document).expect("a document");
        let settings = self.catalog.settings().with(None, Some(Arc::new(document)));
        self.inputs.send(Input::Settings(Arc::new(settings.clone()))).await.unwrap();
        while *self.catalog.settings() != settings {
            tokio::task::yield_now().await;
        }
    }

    /// Sends an event of the registry and waits until the catalog has applied it.
    pub async fn say(&mut self, event: Event) {
        let wanted = match &event {
            Event::Reset { revision, .. } | Event::Apply { revision, .. } => Some(*revision),
            Event::Stale { .. } => None,
        };
        self.inputs.send(Input::Registry(event)).await.unwrap();
        loop {
            let status = self.catalog.status();
            let taken = match wanted {
                Some(revision) => status.synced && status.revision == revision,
                None => status.stale.is_some(),
            };
            if taken {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Opens a connection with one stream, and sends no message on it.
    pub async fn connect(&self, user_agent: &str) -> Stream {
        self.connect_with_window(1 << 20, user_agent).await
    }

    /// Opens a stream with a window of `window` bytes, and sends its name.
    pub async fn open_with_window(&self, window: u32, user_agent: &str, name: &str) -> Stream {
        let mut stream = self.connect_with_window(window, user_agent).await;
        stream.initial(name);
        stream
    }

    async fn connect_with_window(&self, window: u32, user_agent: &str) -> Stream {
        let mut client = self.caller(window).await;
        Self::call(&mut client, PATH, user_agent)
    }

    /// Opens a connection for any calls.
    pub async fn caller(&self, window: u32) -> client::SendRequest<Bytes> {
        let (ours, _serving) = self.connect_raw();
        let (client, connection) =
            client::Builder::new().initial_window_size(window).handshake(ours).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Begins a call on a connection.
    pub fn call(client: &mut client::SendRequest<Bytes>, path: &str, user_agent: &str) -> Stream {
        let request = Request::post(format!("http://balancer{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", user_agent)
            .body(())
            .unwrap();
        let (response, send) = client.send_request(request, false).unwrap();
        let (response, head, body) = (Some(response), HeaderMap::new(), None);
        Stream { send, response, head, body, waiting: BytesMut::new() }
    }

    /// Opens a connection and sends nothing. Also returns the task that serves it, which
    /// returns whether HTTP/2 was spoken.
    pub fn connect_raw(&self) -> (DuplexStream, JoinHandle<bool>) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let others = Routes::new(health).add_service(reflection.build_v1().unwrap());
        let services = Services { balancer: self.balancer.clone(), xds: self.xds.clone(), others };
        let server = Server {
            services,
            tls: None,
            counters: self.counters.clone(),
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            connections_max: 1_000,
            connections_per_peer: 0,
            max_connection_age: None,
            spread: None,
        };
        let peer = self.peer;
        (ours, tokio::spawn(async move { server.http2(theirs, peer).await }))
    }

    /// Opens a stream and sends its name.
    pub async fn open(&self, user_agent: &str, name: &str) -> Stream {
        let mut stream = self.connect(user_agent).await;
        stream.initial(name);
        stream
    }

    /// Waits for `reports` reports. Returns the sums of calls of a service.
    pub async fn reported(&self, service: &str, reports: u64) -> Calls {
        let counted = async {
            while self.counters.reports.total() < reports {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, counted).await.expect("all reports are counted");
        let service = ServiceName::new(service).unwrap();
        let totals = self.ledger.totals();
        totals
            .into_iter()
            .find(|(name, _)| *name == service)
            .map(|(_, calls)| calls)
            .unwrap_or_default()
    }

    pub fn clients(&self) -> Vec<ClientView> {
        self.balancer.clients()()
    }

    fn next_revision(&mut self) -> i64 {
        self.revision += 1;
        self.revision
    }
}

impl Stream {
    pub fn initial(&mut self, name: &str) {
        let initial = pb::InitialLoadBalanceRequest { name: name.to_owned() };
        self.request(Some(LoadBalanceRequestType::InitialRequest(initial)));
    }

    pub fn report(&mut self, stats: pb::ClientStats) {
        self.request(Some(LoadBalanceRequestType::ClientStats(stats)));
    }

    pub fn request(&mut self, kind: Option<LoadBalanceRequestType>) {
        let request = pb::LoadBalanceRequest { load_balance_request_type: kind };
        self.message(&request.encode_to_vec());
    }

    /// Sends any bytes as a message.
    pub fn message(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.bytes(&[&[0], length.as_slice(), message].concat());
    }

    /// Sends any bytes as DATA.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.send.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
    }

    pub fn close(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Returns the next message. Panics if the stream ends.
    pub async fn next(&mut self) -> Kind {
        match self.maybe_next().await {
            Some(kind) => kind,
            None => panic!("the stream ended: {:?}", self.status().await),
        }
    }

    pub async fn servers(&mut self) -> Vec<pb::Server> {
        match self.next().await {
            Kind::ServerList(list) => list.servers,
            other => panic!("{other:?}"),
        }
    }

    /// Reads the initial response and returns the first list.
    pub async fn first_servers(&mut self) -> Vec<pb::Server> {
        let first = self.next().await;
        assert!(matches!(first, Kind::InitialResponse(_)), "{first:?}");
        self.servers().await
    }

    /// Returns whether no message comes within 200 ms.
    pub async fn silent(&mut self) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(200), self.maybe_next());
        next.await.is_err()
    }

    /// Returns the code and the text of the status, which must be the next thing to come.
    pub async fn status(&mut self) -> (i32, String) {
        assert_eq!(self.maybe_next().await, None);
        let trailers = match &mut self.body {
            Some(body) => body.trailers().await.unwrap(),
            None => None,
        };
        let headers = trailers.unwrap_or_else(|| self.head.clone());
        let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let code = text("grpc-status").expect("a status").parse().unwrap();
        (code, text("grpc-message").unwrap_or_default().replace("%20", " ").replace("%22", "\""))
    }

    /// Reads until the server resets the stream. Returns the reason, or `None` at a regular
    /// end.
    pub async fn reset(&mut self) -> Option<h2::Reason> {
        let body = self.body.as_mut().expect("there was an answer");
        loop {
            match body.data().await? {
                Ok(data) => drop(body.flow_control().release_capacity(data.len())),
                Err(error) => return error.reason(),
            }
        }
    }

    /// Returns the length of the next piece of the answer. The stream may go on.
    pub async fn answer(&mut self) -> usize {
        self.begin().await;
        self.body.as_mut().unwrap().data().await.unwrap().unwrap().len()
    }

    async fn begin(&mut self) {
        if let Some(response) = self.response.take() {
            let (head, body) = response.await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            self.head = head.headers;
            self.body = Some(body);
        }
    }

    pub async fn maybe_next(&mut self) -> Option<Kind> {
        let message = self.maybe_bytes().await?;
        pb::LoadBalanceResponse::decode(message).unwrap().load_balance_response_type
    }

    /// Returns the bytes of the next message; `None` at the end of the stream.
    pub async fn maybe_bytes(&mut self) -> Option<Bytes> {
        self.begin().await;
        loop {
            if let Some(message) = self.whole() {
                return Some(message);
            }
            let body = self.body.as_mut().unwrap();
            let data = body.data().await?.unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            self.waiting.extend_from_slice(&data);
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(self.waiting.get(1..5)?.try_into().unwrap()) as usize;
        if self.waiting.len() < 5 + length {
            return None;
        }
        self.waiting.advance(5);
        Some(self.waiting.split_to(length).freeze())
    }
}

pub fn entry(text: &str) -> Entry {
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap();
    let (service, id, address) = (word(), word(), word());
    let key = Key::new(format!("/etcd3_naming/{service}/{id}").as_bytes());
    let pair =
        |word: &str| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    let mut meta: Meta = words.map(pair).collect();
    let weight = meta.remove("weight").map_or(Weight::DEFAULT, |w| Weight(w.parse().unwrap()));
    let registration = Registration {
        service: ServiceName::new(service).unwrap(),
        id: id.into(),
        address: HostPort::parse(address).unwrap(),
        weight,
        meta: Arc::new(meta),
    };
    Entry { key, decoded: Ok(vec![registration].into()), leased: true }
}
