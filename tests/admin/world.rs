//! Shared by the tests of the admin server: a running server whose inputs the test
//! controls, and readers of its answers.
#![allow(missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lookaside::admin;
use lookaside::catalog::{self, Catalog, Input, Rules};
use lookaside::load::{Calls, Ledger};
use lookaside::marks::Timestamp;
use lookaside::marks::report::Report as MarksReport;
use lookaside::model::{BackendAddr, ClientKind, HostPort, Meta, ServiceName, Weight, Zone};
use lookaside::readiness::{Condition, Readiness};
use lookaside::registry::{Entry, Event, Key, Registration, Rejected};
use lookaside::replica;
use lookaside::replica::hosts::BalancerHosts;
use lookaside::replica::known::Replicas;
use lookaside::settings::source::Report;
use lookaside::telemetry::{ClientView, Counters, Told};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sent;
use crate::support::WAIT_MAX;

/// Returns a balancer that shares its registry with no other.
fn alone() -> Arc<Replicas> {
    replica::alone(&replica::Options {
        connect: None,
        zone: Zone::new("lookaside.internal").unwrap(),
        advertise: Some(HostPort::parse("10.0.0.1:12000").unwrap()),
        hosts: BalancerHosts::default(),
        listen: "0.0.0.0:12000".parse().unwrap(),
        own_zone: Some("a".to_owned()),
        version: "1.2.3",
    })
}

/// A running admin server, and handles to everything that it shows.
pub struct World {
    pub addr: SocketAddr,
    pub inputs: mpsc::Sender<Input>,
    pub catalog: Catalog,
    pub counters: Arc<Counters>,
    pub ledger: Arc<Ledger>,
    pub clients: Arc<Mutex<Vec<ClientView>>>,
    pub marks: watch::Sender<MarksReport>,
    pub shutdown_condition: Condition,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<std::io::Result<()>>,
}

/// An answer; its headers are in lower case.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl World {
    pub async fn start() -> Self {
        Self::ruled(Rules::OFF).await
    }

    /// Starts a server whose catalog holds backends by these rules.
    pub async fn ruled(rules: Rules) -> Self {
        let (inputs, inputs_rx) = mpsc::channel(16);
        let catalog = Catalog::with(rules);
        tokio::spawn(catalog::drive(inputs_rx, catalog.clone(), lookaside::clock::wall));
        let readiness = Readiness::new();
        let registry = readiness.condition("registry");
        registry.missing("not read yet");
        tokio::spawn(registry.met_when_read(catalog.watch_status()));
        let clients = Arc::new(Mutex::new(Vec::new()));
        let (counters, ledger) = (Arc::<Counters>::default(), Arc::<Ledger>::default());
        let shown = clients.clone();
        let marks = watch::Sender::new(MarksReport::default());
        let state = admin::State {
            catalog: catalog.clone(),
            zone: Zone::new("lookaside.internal").unwrap(),
            counters: counters.clone(),
            ledger: ledger.clone(),
            clients: Arc::new(move || shown.lock().unwrap().clone()),
            sent: admin::Sent { grpclb: Arc::new(sent::list), xds: Arc::new(sent::resources) },
            xds_bootstrap: Arc::new(|clients| Ok(format!("{clients:?}"))),
            readiness: readiness.clone(),
            started: Instant::now(),
            tokens: |service: &ServiceName, backend: BackendAddr| format!("{service}@{backend}"),
            entries_per_pick: lookaside::balancer::entries_per_pick,
            excess: Arc::new(|| 0.25),
            demand: Arc::new(|_| None),
            cells: Arc::new(|_| Vec::new()),
            key_backend: Arc::new(|_, _, _| None),
            version: "1.2.3",
            inputs: inputs.clone(),
            sources: watch::Sender::new(Report::default()).subscribe(),
            marks: admin::Marks {
                writer: None,
                report: marks.subscribe(),
                now: || Timestamp(1_000_000_000),
                drain_lock: Arc::new(tokio::sync::Semaphore::new(1)),
            },
            hosts: Arc::from(["balancer.test".to_owned()]),
            access: admin::Access::default(),
            replicas: watch::Sender::new(alone()).subscribe(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(admin::serve(listener.into(), state, shutdown.clone()));
        let shutdown_condition = readiness.condition("shutdown");
        Self {
            addr,
            inputs,
            catalog,
            counters,
            ledger,
            clients,
            marks,
            shutdown_condition,
            shutdown,
            served,
        }
    }

    /// Starts a server that has read these entries.
    pub async fn with(all: Vec<Entry>) -> Self {
        let world = Self::start().await;
        world.read(all).await;
        world
    }

    /// Feeds these entries in as the whole registry, and waits until `/readyz` returns 200.
    pub async fn read(&self, all: Vec<Entry>) {
        self.say(Event::Reset { revision: 7, all, went_back: false }).await;
        // A task that watches the catalog meets the condition.
        self.until(|answer| answer.status == 200, "/readyz").await;
    }

    /// Sends an event, and waits until the catalog's status shows it.
    pub async fn say(&self, event: Event) {
        let mut status = self.catalog.watch_status();
        let heard = self.catalog.status();
        self.inputs.send(Input::Registry(event)).await.unwrap();
        let differs = |status: &catalog::RegistryStatus| *status != heard;
        let waiting = async {
            // This polls, because not every change wakes a watcher.
            while !differs(&status.borrow_and_update()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, waiting).await.expect("the event is taken in");
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    /// Gets a path with further header lines, each with its line end.
    pub async fn get_with(&self, path: &str, headers: &str) -> Answer {
        let host = "host: localhost\r\nconnection: close\r\n";
        self.send(&format!("GET {path} HTTP/1.1\r\n{host}{headers}\r\n")).await
    }

    pub async fn json(&self, path: &str) -> (u16, Value) {
        let answer = self.get(path).await;
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
        (answer.status, serde_json::from_str(&answer.body).expect("the body is JSON"))
    }

    async fn until(&self, is: impl Fn(&Answer) -> bool, path: &str) -> Answer {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let answer = self.get(path).await;
            if is(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "gave up waiting: {answer:?}");
        }
    }

    /// Sends a request, and reads until the server closes the connection.
    pub async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let read = stream.read_to_end(&mut text);
        tokio::time::timeout(WAIT_MAX, read).await.expect("an answer in time").unwrap();
        let text = String::from_utf8(text).expect("answers are text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.get_with("/metrics", "accept: application/openmetrics-text\r\n").await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{}",
            answer.head
        );
        Metrics::parse(&answer.body)
    }
}

/// The samples of one scrape, parsed by the rules of the OpenMetrics text format.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Parses a scrape. Every sample must belong to the family announced last.
    fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the text says where it ends");
        let mut samples = BTreeMap::new();
        let mut helped = String::new();
        let mut family = (String::new(), String::new());
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(name.starts_with("lookaside_") && !text.is_empty(), "{line}");
                helped = name.to_owned();
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, helped, "help before type");
                family = (name.to_owned(), kind.to_owned());
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let expected = match family.1.as_str() {
                "counter" => format!("{}_total", family.0),
                "gauge" => family.0.clone(),
                other => panic!("a kind that is not used here: {other}"),
            };
            assert_eq!(name, expected, "{line}");
            let twice = samples.insert(sample.to_owned(), value.parse().expect(line));
            assert_eq!(twice, None, "{line}");
        }
        Self(samples)
    }

    pub fn has(&self, sample: &str) -> bool {
        self.0.contains_key(&format!("lookaside_{sample}"))
    }

    #[track_caller]
    pub fn value(&self, sample: &str) -> f64 {
        let sample = format!("lookaside_{sample}");
        *self.0.get(&sample).unwrap_or_else(|| panic!("no {sample} in {:?}", self.0))
    }

    #[track_caller]
    pub fn check(&self, sample: &str, expected: f64) {
        let sample = format!("lookaside_{sample}");
        assert_eq!(self.0.get(&sample), Some(&expected), "{sample} in {:?}", self.0);
    }
}

pub fn entry(service: &str, id: &str, address: &str, weight: u32, meta: &[(&str, &str)]) -> Entry {
    let meta: Meta = meta.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let registration = Registration {
        service: ServiceName::new(service).unwrap(),
        id: id.into(),
        address: HostPort::parse(address).unwrap(),
        weight: Weight(weight),
        meta: Arc::new(meta),
    };
    Entry {
        key: Key::new(format!("/{service}/{id}").as_bytes()),
        decoded: Ok(vec![registration].into()),
        leased: true,
    }
}

pub fn bad(key: &[u8], reason: &str, value: &str) -> Entry {
    let rejected = Rejected { reason: reason.to_owned(), value: value.to_owned() };
    Entry { key: Key::new(key), decoded: Err(rejected), leased: true }
}

pub fn stale() -> Event {
    Event::Stale { since: Instant::now(), reason: "connection refused".to_owned() }
}

pub fn client(name: &str, service: Option<&str>, kind: ClientKind, port: u16) -> ClientView {
    let opened = Instant::now();
    ClientView {
        stream: port.into(),
        peer: SocketAddr::from(([10, 0, 0, 9], port)),
        certificate: None,
        user_agent: "grpc-go/1.85.0 <script>".into(),
        kind,
        name: name.into(),
        zone: None,
        subset: None,
        service: service.map(|service| ServiceName::new(service).unwrap()),
        told: if service.is_some() { Told::List } else { Told::Empty },
        entries: usize::from(service.is_some()) * 2,
        revision: 7,
        opened,
        pushed_at: opened,
        calls: Calls { started: 5, finished: 4, ..Calls::default() },
        xds: None,
    }
}
