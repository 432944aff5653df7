//! Builds the parts of the balancer, binds all sockets, owns every task and orders shutdown.
//!
//! In: a validated [`Config`] and a future that ends when the balancer must stop.
//! Out: a running balancer. All sockets are bound before any part runs, so a client
//! that sees the addresses can connect. If a part ends before shutdown, the balancer
//! stops with an error that names the part.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balancer::{self, Balancer};
use crate::catalog::{self, Catalog, Input};
use crate::config::{Config, Registry};
use crate::load::Ledger;
use crate::marks::{MarkWriter, Marks};
use crate::persist::OperatorState;
use crate::readiness::Readiness;
use crate::registry::etcd::{self, Connect};
use crate::replica::Vitals;
use crate::serve::{self, Server, Services};
use crate::telemetry::Counters;
use crate::xds::Xds;
use crate::{admin, clock, dns, hosts, persist};

mod addresses;
mod backends;
mod etcd_source;
mod grpc_health;
pub mod marks;
pub mod registry_gate;
mod replicas;
pub mod settings;
mod skydns;
mod tasks;
mod xds;

pub use addresses::Addresses;
use addresses::reachable;
pub use tasks::Died;
use tasks::Tasks;

/// A balancer whose sockets are bound and that does not run yet.
pub struct App {
    config: Config,
    addresses: Addresses,
    grpclb: TcpListener,
    admin: admin::Listener,
    dns: Option<(UdpSocket, TcpListener)>,
    registry: Option<TcpListener>,
    state: Option<persist::Store>,
}

/// The stages of a graceful shutdown, in order.
#[derive(Default)]
struct Stages {
    /// Cancelled: withdraw the announcement of this balancer.
    withdraw: CancellationToken,
    /// Cancelled: tell clients to leave.
    drain: CancellationToken,
    /// Cancelled: end all other parts.
    end: CancellationToken,
}

/// A resource that the balancer needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A socket cannot be bound.
    #[error("cannot listen on {addr} for {what}: {error}")]
    Socket {
        /// The part that needs the socket.
        what: &'static str,
        /// The address to listen on.
        addr: String,
        /// The system's error.
        error: io::Error,
    },
    /// The directory of the saved state cannot be used.
    #[error(transparent)]
    State(#[from] persist::OpenError),
}

/// How long shutdown waits for the announcement of this balancer to be withdrawn before
/// it drains clients. With etcd it takes less than half a second. Without etcd it cannot
/// be withdrawn.
const WITHDRAW_WITHIN: Duration = Duration::from_secs(2);
/// How long connections have to end while draining. Clients are told to leave over at
/// most ten seconds; this is a little more.
const DRAIN_WITHIN: Duration = Duration::from_secs(12);
/// The length of each queue of inputs and events. A short queue suffices, because the
/// catalog is faster than its sources.
const INPUTS: usize = 64;

impl App {
    /// Binds every socket and locks the directory of the saved state.
    ///
    /// # Errors
    /// Returns the first socket or directory that cannot be used.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let grpclb = bind("grpclb", config.listen, serve::bind(config.listen))?;
        let (addr, tls) = (&config.admin.listen, config.admin.tls.clone());
        let admin = bind("admin", addr, admin::Listener::bind(addr, tls).await)?;
        let dns = match config.dns.listen {
            Some(addr) => Some(bind("dns", addr, dns::bind(addr).await)?),
            None => None,
        };
        let registry = match config.registry {
            Registry::Embedded(addr) => {
                Some(bind("registry", addr, TcpListener::bind(addr).await)?)
            }
            Registry::Etcd(_) => None,
        };
        let tcp = |what, listener: &TcpListener, addr| bind(what, addr, listener.local_addr());
        let addresses = Addresses {
            grpclb: tcp("grpclb", &grpclb, config.listen)?,
            admin: bind("admin", &config.admin.listen, admin.address())?,
            dns: dns.as_ref().and_then(|(_, listener)| listener.local_addr().ok()),
            registry: registry.as_ref().and_then(|listener| listener.local_addr().ok()),
        };
        let state = match &config.state_dir {
            Some(dir) => {
                let prefixes = config.prefixes.iter().map(|prefix| prefix.path.clone());
                Some(persist::Store::open(dir, prefixes).await?)
            }
            None => None,
        };
        Ok(Self { config, addresses, grpclb, admin, dns, registry, state })
    }

    /// Returns the bound addresses.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Runs until `stop`, then shuts down: it withdraws the announcement of this balancer,
    /// then drains the connected clients, then ends all other parts. Each notification of
    /// `reload` makes it read all files again.
    ///
    /// # Errors
    /// Returns the part that died.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        reload: Arc<Notify>,
    ) -> Result<(), Died> {
        // The task of the admin server may not come to its end.
        let _socket_file = self.admin.take_file();
        let mut tasks = Tasks::default();
        let stages = Stages::default();
        let Stages { withdraw, drain, end } = &stages;
        let connections = TaskTracker::new();
        let catalog = Catalog::with(Arc::new(self.config.settings()));
        let readiness = Readiness::new();
        let draining = readiness.condition("shutdown");
        let announced = self.start(&mut tasks, &catalog, &readiness, &stages, &connections, reload);
        let stopped = tasks.run_until(stop).await;
        draining.missing("draining");
        withdraw.cancel();
        let withdrawn = all_cancelled(&announced);
        let _ = tokio::time::timeout(WITHDRAW_WITHIN, withdrawn).await;
        drain.cancel();
        connections.close();
        if tokio::time::timeout(DRAIN_WITHIN, connections.wait()).await.is_err() {
            let left = connections.len();
            tracing::warn!(left, "connections did not end in time and are closed");
        }
        catalog.close();
        let _ = tokio::time::timeout(DRAIN_WITHIN, all_cancelled(&announced)).await;
        end.cancel();
        stopped
    }

    /// Starts every part. Returns tokens that are cancelled once what this balancer has written
    /// into etcd about itself is withdrawn.
    fn start(
        self,
        tasks: &mut Tasks,
        catalog: &Catalog,
        readiness: &Readiness,
        Stages { withdraw, drain, end }: &Stages,
        connections: &TaskTracker,
        reload: Arc<Notify>,
    ) -> Vec<CancellationToken> {
        let started = Instant::now();
        let counters: Arc<Counters> = Arc::default();
        let ledger: Arc<Ledger> = Arc::default();
        let (inputs_tx, inputs_rx) = mpsc::channel(INPUTS);
        let zone = self.config.zone.clone();
        tasks.spawn("files", self.config.reloadables().run(reload, counters.clone()));

        let services = self.config.services.clone();
        let file = || services.as_ref().map(|file| file.document.value());
        let (mut current, mut operator_state) = (self.config.settings(), OperatorState::default());
        let mut age = Duration::ZERO;
        if let Some(store) = self.state {
            // No source runs yet, so the queue has room and the saved state comes first.
            if let Some((restored, saved)) = store.load() {
                let marks = saved.marks.iter().filter(|mark| !mark.is_over(marks::now()));
                let marks = Arc::new(Marks::new(marks.cloned()));
                current = current.with(file(), saved.settings.clone());
                (operator_state, age) = (saved, restored.age);
                let settings = Arc::new(current.clone());
                let all =
                    [Input::Settings(settings), Input::Marks(marks), Input::Restored(restored)];
                all.into_iter().for_each(|input| drop(inputs_tx.try_send(input)));
            }
            tasks.spawn("state", persist::run(store, catalog.clone(), counters.clone()));
        }

        let connect = match (&self.config.registry, self.registry, self.addresses.registry) {
            (Registry::Etcd(connect), ..) => Some(connect.clone()),
            (Registry::Embedded(_), Some(listener), Some(addr)) => {
                if !addr.ip().to_canonical().is_loopback() {
                    let remedy = "use etcd, or let a firewall keep other hosts out";
                    tracing::warn!(%addr, remedy, "the embedded registry lets every host register and delete");
                }
                let end = end.clone();
                tasks.spawn("embedded registry", async move {
                    let served = embedded_etcd::serve(listener, end.cancelled()).await;
                    served
                        .inspect_err(|error| tracing::error!(%error, "embedded registry failed"))
                        .ok();
                });
                Connect::new(&[&format!("http://{}", reachable(addr))], None, None).ok()
            }
            _ => None,
        };
        // Settings and marks come first, so that no list is sent that they forbid.
        let first_reads = [CancellationToken::new(), CancellationToken::new()];
        let inputs = || inputs_tx.clone();
        let initial = settings::InitialSettings {
            settings: current,
            file: services,
            client_certificates: self.config.client_certificates,
        };
        let (follow, sources) =
            settings::follow(initial, &zone, connect.clone(), inputs(), first_reads[0].clone());
        tasks.spawn("settings", follow);
        let (follow, marks) = marks::follow(
            &zone,
            marks::now,
            (operator_state.marks, age),
            connect.clone(),
            inputs(),
            first_reads[1].clone(),
        );
        tasks.spawn("marks", follow);
        let writer = connect.clone().map(|connect| MarkWriter::new(connect, zone.clone()));
        if let Some(connect) = connect {
            let prefixes = self.config.prefixes.clone();
            let (events_tx, events_rx) = mpsc::channel(INPUTS);
            let options = etcd::Options { connect, prefixes };
            tasks.spawn("registry", etcd::run(options, events_tx));
            tasks.spawn("registry events", registry_gate::run(first_reads, events_rx, inputs()));
        }
        backends::ask(tasks, catalog, &inputs_tx, &ledger, &counters);
        tasks.spawn("host names", hosts::run(catalog.watch_host_names(), inputs_tx.clone()));
        tasks.spawn("catalog", catalog::drive(inputs_rx, catalog.clone(), clock::wall));
        let registry = readiness.condition("registry");
        registry.missing("not read yet");
        tasks.spawn_brief(registry.met_when_read(catalog.watch_status()));

        let balancer =
            Balancer::new(zone.clone(), catalog.clone(), Arc::clone(&ledger), counters.clone());
        tasks.spawn("stalled clients", balancer.clone().sweep());
        let sums = (balancer.demands(), balancer.rates(), balancer.placements());
        let (reported, counted) = (Arc::clone(&ledger), counters.clone());
        let ads = Xds::new(zone.clone(), catalog.clone(), sums, reported, counted);
        tasks.spawn("stalled xds clients", ads.clone().sweep());
        let (others, report_health) =
            grpc_health::routes(readiness.watch(), self.config.reflection);
        tasks.spawn("health", report_health);
        let vitals = Vitals {
            ready: readiness.watch(),
            registry: catalog.watch_status(),
            streams: xds::all_streams(balancer.streams(), ads.streams()),
        };
        let wired = replicas::start(tasks, &self.config, &self.addresses, vitals, withdraw);
        let known = wired.replicas.clone();
        let part = move || known.borrow().part();
        tasks.spawn("demand", balancer.clone().follow_demand(inputs_tx.clone(), part));
        let known = wired.replicas.clone();
        let records = skydns::start(tasks, &self.config, catalog, known, &counters, withdraw);
        let server = Server {
            services: Services { balancer: balancer.clone(), xds: ads.clone(), others },
            tls: self.config.tls.clone(),
            counters: counters.clone(),
            tasks: connections.clone(),
            drain: drain.clone(),
            connections_max: serve::raise_open_files(),
            connections_per_peer: self.config.connections_per_peer,
            max_connection_age: self.config.max_connection_age,
            spread: Some(serve::Spread {
                replicas: wired.replicas.clone(),
                per_second: self.config.replica.spread,
            }),
        };
        tasks.spawn("grpclb", server.run(self.grpclb));

        let state = admin::State {
            catalog: catalog.clone(),
            zone: zone.clone(),
            counters: counters.clone(),
            ledger,
            clients: xds::all_clients(balancer.clients(), ads.clients()),
            sent: admin::Sent { grpclb: balancer.sent(), xds: ads.sent() },
            xds_bootstrap: xds::bootstrap(&self.config, &self.addresses),
            readiness: readiness.clone(),
            started,
            tokens: balancer::token,
            entries_per_pick: balancer::entries_per_pick,
            excess: balancer.excess(),
            demand: balancer.demand(),
            cells: balancer.cells(),
            key_backend: balancer.key_backend(),
            version: env!("CARGO_PKG_VERSION"),
            inputs: inputs_tx,
            sources,
            marks: admin::Marks {
                writer,
                report: marks,
                now: marks::now,
                drain_lock: Arc::new(Semaphore::new(1)),
            },
            hosts: self.config.admin.hosts.clone().into(),
            access: self.config.admin.access.clone(),
            replicas: wired.replicas.clone(),
        };
        let admin_end = end.clone();
        let admin = self.admin;
        tasks.spawn("admin", async move { drop(admin::serve(admin, state, admin_end).await) });

        if let Some((udp, tcp)) = self.dns {
            let answers = dns::Answers::new(zone, catalog.clone(), wired.advertised, counters)
                .with_secondaries(self.config.dns.secondaries.clone());
            let end = end.clone();
            tasks.spawn("dns", async move {
                let served = dns::serve(udp, tcp, answers, end).await;
                served.inspect_err(|error| tracing::error!(%error, "dns failed")).ok();
            });
        }
        wired.withdrawn.into_iter().chain(records).collect()
    }
}

async fn all_cancelled(tokens: &[CancellationToken]) {
    for token in tokens {
        token.cancelled().await;
    }
}

fn bind<T>(what: &'static str, addr: impl Display, bound: io::Result<T>) -> Result<T, BindError> {
    bound.map_err(|error| BindError::Socket { what, addr: addr.to_string(), error })
}
