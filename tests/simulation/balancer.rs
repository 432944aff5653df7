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
use lookaside::catalog::{self, Catalog, Input, Rules};
use lookaside::health;
use lookaside::marks::Timestamp;
use lookaside::model::Zone;
use lookaside::registry::Event;
use lookaside::registry::etcd;
use lookaside::registry::record::{Format, Prefix};
use lookaside::serve::{Server, Services};
use lookaside::settings::{ServiceSettings, WhenEmpty};
use lookaside::telemetry::Counters;
use lookaside::xds::Xds;
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

/// Access to a running balancer from outside its host.
#[derive(Clone, Default)]
pub struct Handle(Rc<RefCell<Option<Inside>>>);

struct Inside {
    inputs: mpsc::Sender<Input>,
    balancer: Balancer,
    xds: Xds,
    tasks: TaskTracker,
}

impl Handle {
    /// Releases the held backends of all services.
    pub fn release(&self) {
        let inside = self.0.borrow();
        let inside = inside.as_ref().expect("it runs");
        for service in 0..SERVICES {
            let release = Input::Release(format!("s{service}"), Duration::ZERO);
            inside.inputs.try_send(release).expect("there is room");
        }
    }

    /// Returns the number of open tasks of connections and streams, and of clients in the
    /// table.
    pub fn open(&self) -> (usize, usize) {
        let inside = self.0.borrow();
        let inside = inside.as_ref().expect("it runs");
        let clients = inside.balancer.clients()().len() + inside.xds.clients()().len();
        (inside.tasks.len(), clients)
    }
}

pub async fn run(
    index: usize,
    rules: Rules,
    crowd: Option<Crowd>,
    handle: Handle,
    history: History,
) -> turmoil::Result {
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
    let prefix = Prefix { path: crate::etcd::PREFIX.to_owned(), format: Format::Plain };
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
    let initial = settings::InitialSettings {
        settings: (*catalog.settings()).clone(),
        file: None,
        client_certificates: false,
    };
    let connect = || Some(connect.clone());
    spawn_local(settings::follow(initial, &zone, connect(), inputs.clone(), settings).0);
    spawn_local(
        marks::follow(&zone, wall, (Vec::new(), Duration::ZERO), connect(), inputs.clone(), marks)
            .0,
    );
    spawn_local(health::run(
        catalog.watch_liveness(),
        inputs.clone(),
        TcpStream::connect::<std::net::SocketAddr>,
    ));
    spawn_local(catalog::drive(inputs_rx, catalog.clone(), since_1970));

    if let Some(crowd) = crowd {
        spawn_local(crowd::run(index, crowd, catalog.clone(), history));
    }

    let counters: Arc<Counters> = Arc::default();
    let balancer = Balancer::new(zone.clone(), catalog.clone(), Arc::default(), counters.clone());
    let sums = (balancer.demands(), balancer.rates());
    let xds = Xds::new(zone, catalog, sums, Arc::default(), counters.clone());
    spawn_local(balancer.clone().sweep());
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
    handle.0.replace(Some(Inside { inputs, balancer, xds, tasks: tasks.clone() }));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let server = server.clone();
        tasks.spawn_local(async move { server.http2(stream, peer).await });
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
