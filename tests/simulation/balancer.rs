//! A balancer on the simulated network: the product's parts, put together as `app`
//! does.
//!
//! In: rules, and connections of the simulated network. Out: a handle for the test.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lookaside::app::{marks, registry_gate, settings};
use lookaside::balancer::Balancer;
use lookaside::catalog::{self, Catalog, Input, Restored, Rules, Service};
use lookaside::load::Ledger;
use lookaside::marks::{Mark, Marks, Timestamp};
use lookaside::model::{Endpoint, ServiceName, Zone};
use lookaside::registry::Event;
use lookaside::registry::etcd;
use lookaside::registry::record::{Format, Prefix};
use lookaside::serve::{Server, Services};
use lookaside::settings::{Document, Layer, ServiceSettings, WhenEmpty};
use lookaside::telemetry::Counters;
use lookaside::xds::Xds;
use lookaside::{health, health_check, load_reports};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use turmoil::net::{TcpListener, TcpStream};

use crate::crowd;
use crate::history::History;
use crate::plan::{Crowd, SERVICES};
use crate::rng::Rng;

pub const PORT: u16 = 12_000;
pub const ZONE: &str = "lookaside.internal";
/// The wall clock when a run begins.
pub const BEGAN: Timestamp = Timestamp(1_000_000_000);
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// Access to a running balancer from outside its host.
#[derive(Clone, Default)]
pub struct Handle {
    inside: Rc<RefCell<Option<Inside>>>,
    saved: Rc<RefCell<Option<Saved>>>,
}

/// The state that outlives a balancer's process, as `persist` keeps it on disk.
#[derive(Clone)]
struct Saved {
    at: Duration,
    marks: Vec<Arc<Mark>>,
    settings: Option<Arc<Document>>,
    services: Vec<(ServiceName, Vec<Endpoint>)>,
}

struct Inside {
    catalog: Catalog,
    inputs: mpsc::Sender<Input>,
    balancer: Balancer,
    xds: Xds,
    tasks: TaskTracker,
}

impl Handle {
    /// Releases the held backends of all services.
    pub fn release(&self) {
        let inside = self.inside.borrow();
        let inside = inside.as_ref().expect("it runs");
        for service in 0..=SERVICES {
            let release = Input::Release(format!("s{service}"), Duration::ZERO);
            inside.inputs.try_send(release).expect("there is room");
        }
    }

    /// Returns the newest value of each service, if the balancer has begun to run.
    pub fn services(&self) -> Vec<Option<Arc<Service>>> {
        let inside = self.inside.borrow();
        let service = |service| {
            let name = ServiceName::new(&format!("s{service}")).expect("a name");
            inside.as_ref()?.catalog.service(&name)
        };
        (0..=SERVICES).map(service).collect()
    }

    /// Returns the number of open tasks of connections and streams, and of clients in the
    /// table.
    pub fn open(&self) -> (usize, usize) {
        let inside = self.inside.borrow();
        let inside = inside.as_ref().expect("it runs");
        let clients = inside.balancer.clients()().len() + inside.xds.clients()().len();
        (inside.tasks.len(), clients)
    }
}

/// What a plan says about balancers.
#[derive(Clone, Copy)]
pub struct BalancerPlan {
    pub rules: Rules,
    pub crowd: Option<Crowd>,
    /// Whether they save their state.
    pub saves: bool,
}

pub async fn run(
    index: usize,
    plan: BalancerPlan,
    handle: Handle,
    history: History,
) -> turmoil::Result {
    let BalancerPlan { rules, crowd, saves } = plan;
    let Rules { keep_lost, guard, probe_unleased } = rules;
    let report_interval = REPORT_EVERY;
    let when_empty = WhenEmpty::Wait;
    let catalog = Catalog::with(ServiceSettings {
        when_empty,
        report_interval,
        guard,
        keep_lost,
        probe_unleased,
        // It changes shares and no membership. A delay of flapping backends would.
        slow_start: Duration::from_secs(5),
        ..ServiceSettings::DEFAULT
    });
    let (inputs, inputs_rx) = mpsc::channel(64);
    let (events, events_rx) = mpsc::channel(64);
    let mut initial = (*catalog.settings()).clone();
    let mut marks_at_start = (Vec::new(), Duration::ZERO);
    let saved = handle.saved.borrow().clone().filter(|_| saves);
    if let Some(Saved { at, marks, settings, services }) = saved {
        let age = turmoil::sim_elapsed().unwrap_or_default() - at;
        let marks: Vec<_> = marks.into_iter().filter(|mark| !mark.is_over(wall())).collect();
        initial = initial.with(None, settings);
        let all = [
            Input::Settings(Arc::new(initial.clone())),
            Input::Marks(Arc::new(Marks::new(marks.iter().cloned()))),
            Input::Restored(Restored { saved: String::new(), age, services }),
        ];
        all.into_iter().for_each(|input| inputs.try_send(input).expect("there is room"));
        marks_at_start = (marks, age);
    }
    if saves {
        spawn_local(save(catalog.clone(), handle.saved.clone()));
    }
    let prefix = Prefix { path: crate::etcd::PREFIX.to_owned(), format: Format::Auto };
    let options = etcd::Options { connect: crate::etcd::connect(), prefixes: vec![prefix] };
    spawn_local(etcd::run(options, events));
    let pace = crowd.map(|crowd| Rng::new(crowd.seed ^ index as u64));
    let (paced, paced_rx) = mpsc::channel(1);
    spawn_local(delay(events_rx, paced, pace));
    let first_reads = [CancellationToken::new(), CancellationToken::new()];
    let (tokens, connect) = (first_reads.clone(), crate::etcd::connect());
    spawn_local(registry_gate::run(first_reads, paced_rx, inputs.clone()));
    let zone = Zone::new(ZONE).expect("a zone");
    let [settings, marks] = tokens;
    let initial =
        settings::InitialSettings { settings: initial, file: None, client_certificates: false };
    let connect = || Some(connect.clone());
    spawn_local(settings::follow(initial, &zone, connect(), inputs.clone(), settings).0);
    spawn_local(marks::follow(&zone, wall, marks_at_start, connect(), inputs.clone(), marks).0);
    spawn_local(health::run(
        catalog.watch_liveness(),
        inputs.clone(),
        TcpStream::connect::<std::net::SocketAddr>,
    ));
    let (counters, ledger): (Arc<Counters>, Arc<Ledger>) = Default::default();
    spawn_local(health_check::run(
        catalog.watch_health_targets(),
        inputs.clone(),
        ledger.clone(),
        counters.clone(),
        TcpStream::connect::<std::net::SocketAddr>,
    ));
    spawn_local(load_reports::run(
        catalog.watch_load_targets(),
        inputs.clone(),
        counters.clone(),
        TcpStream::connect::<std::net::SocketAddr>,
    ));
    spawn_local(catalog::drive(inputs_rx, catalog.clone(), since_1970));

    if let Some(crowd) = crowd {
        spawn_local(crowd::run(index, crowd, catalog.clone(), history));
    }

    let balancer = Balancer::new(zone.clone(), catalog.clone(), ledger.clone(), counters.clone());
    let sums = (balancer.demands(), balancer.rates(), balancer.placements());
    let xds = Xds::new(zone, catalog.clone(), sums, ledger, counters.clone());
    spawn_local(balancer.clone().sweep());
    spawn_local(balancer.clone().follow_demand(inputs.clone(), || 1.0));
    spawn_local(xds.clone().sweep());
    let tasks = TaskTracker::new();
    let services =
        Services { balancer: balancer.clone(), xds: xds.clone(), others: Routes::default() };
    let server = Arc::new(Server {
        services,
        tls: None,
        counters,
        tasks: tasks.clone(),
        drain: CancellationToken::new(),
        connections_max: 1_000,
        connections_per_peer: 0,
        max_connection_age: None,
        spread: None,
    });
    handle.inside.replace(Some(Inside {
        catalog: catalog.clone(),
        inputs,
        balancer,
        xds,
        tasks: tasks.clone(),
    }));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let server = server.clone();
        tasks.spawn_local(async move { server.http2(stream, peer).await });
    }
}

/// Saves the state now and then, as `persist` does.
async fn save(catalog: Catalog, saved: Rc<RefCell<Option<Saved>>>) {
    loop {
        sleep(SAVE_EVERY).await;
        let status = catalog.status();
        if !status.synced || status.restored.is_some() {
            continue;
        }
        let endpoints = |service: Arc<Service>| (service.name.clone(), service.endpoints.to_vec());
        saved.replace(Some(Saved {
            at: turmoil::sim_elapsed().unwrap_or_default(),
            marks: catalog.marks().all().cloned().collect(),
            settings: catalog.settings().document(Layer::Store).cloned(),
            services: catalog.services().into_iter().map(endpoints).collect(),
        }));
    }
}

/// Returns the wall clock of the simulated world.
fn wall() -> Timestamp {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    BEGAN.after(elapsed)
}

fn since_1970() -> Duration {
    Duration::from_secs(BEGAN.0) + turmoil::sim_elapsed().unwrap_or_default()
}

/// Forwards events. With a crowd, it separates events that come at one time and lets
/// other tasks run in between, so that some events come in the middle of a round.
async fn delay(
    mut events: mpsc::Receiver<Event>,
    paced: mpsc::Sender<Event>,
    mut pace: Option<Rng>,
) {
    while let Some(event) = events.recv().await {
        if let Some(rng) = &mut pace {
            if rng.percent(20) {
                // More events arrive meanwhile.
                sleep(Duration::from_millis(rng.between(20, 150))).await;
            }
            for _ in 0..rng.below(6) {
                others_first().await;
            }
        }
        if paced.send(event).await.is_err() {
            return;
        }
    }
}

/// Lets every ready task run before this task goes on.
async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
