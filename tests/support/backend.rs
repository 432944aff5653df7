//! Backends that serve greetings, say whether they are serving, register themselves like a
//! user's, and record the calls that they get.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use lookaside::model::{HostPort, Meta, ServiceName, Weight};
use lookaside::register::{self, Held, Status};
use lookaside::registry::Registration;
use lookaside::registry::etcd::Connect;
use lookaside::registry::record::Format;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo};
use tonic::transport::{Identity, ServerTlsConfig};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

use super::{WAIT_MAX, free_port};

mod pb {
    tonic::include_proto!("helloworld");
}

/// ORCA's types, in the modules in which they name each other.
mod xds {
    pub mod data {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.data.orca.v3");
            }
        }
    }
    pub mod service {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.service.orca.v3");
            }
        }
    }
}

use xds::data::orca::v3::OrcaLoadReport;
use xds::service::orca::v3::OrcaLoadReportRequest;
use xds::service::orca::v3::open_rca_service_server::{OpenRcaService, OpenRcaServiceServer};

use pb::greeter_server::{Greeter, GreeterServer};

/// The default prefix of balancers.
pub const PREFIX: &str = "/etcd3_naming/";
/// Calls that greet this name are answered after [`Backend::release`].
pub const HOLD: &str = "hold";

/// Calls that greet this name fail with UNAVAILABLE until a client tries them again by itself.
pub const FAIL_FIRST: &str = "fail-first";

/// A running backend. Dropping it ends it like a crash.
pub struct Backend {
    runtime: Runtime,
    id: String,
    addr: SocketAddr,
    seen: Arc<Seen>,
    reporter: HealthReporter,
    held: Option<Held>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

struct Seen {
    /// The number of connections that it has taken.
    connections: AtomicUsize,
    /// The `lb-token` of each call, if it had one.
    tokens: Mutex<Vec<Option<String>>>,
    /// The number of calls that waited so far. They wait until `gate` is closed.
    held: AtomicUsize,
    gate: Semaphore,
    /// Whether all calls fail.
    failing: AtomicBool,
    /// What it says of its load, if it is asked.
    load: Mutex<OrcaLoadReport>,
}

struct Greetings {
    id: String,
    seen: Arc<Seen>,
}

/// What a backend has of `grpc.health.v1`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HealthMethods {
    WatchAndCheck,
    Check,
    Neither,
}

/// `grpc.health.v1`, perhaps without `Watch`.
struct OwnHealth {
    methods: HealthMethods,
    service: HealthService,
}

impl Backend {
    /// Starts a backend that listens and is not registered.
    pub fn start(id: &str) -> Self {
        Self::start_at(id, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(id: &str, addr: SocketAddr) -> Self {
        Self::serve(id, addr, None, HealthMethods::WatchAndCheck)
    }

    /// Starts a backend that has these methods of `grpc.health.v1`.
    pub fn start_with(id: &str, methods: HealthMethods) -> Self {
        Self::serve(id, "127.0.0.1:0".parse().unwrap(), None, methods)
    }

    /// Starts a backend with TLS.
    pub fn start_tls(id: &str, identity: Identity) -> Self {
        let methods = HealthMethods::WatchAndCheck;
        Self::serve(id, "127.0.0.1:0".parse().unwrap(), Some(identity), methods)
    }

    /// Starts a backend at every address of this machine, on one port. In its answers, its id
    /// is the address that the client called.
    pub fn everywhere() -> Self {
        let methods = HealthMethods::WatchAndCheck;
        Self::serve("", "0.0.0.0:0".parse().unwrap(), None, methods)
    }

    fn serve(
        id: &str,
        mut addr: SocketAddr,
        identity: Option<Identity>,
        methods: HealthMethods,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        if addr.port() == 0 {
            // The port stays reserved, so that the backend can return there.
            addr.set_port(free_port());
        }
        let listener = runtime.block_on(tokio::net::TcpListener::bind(addr)).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            connections: AtomicUsize::new(0),
            tokens: Mutex::default(),
            held: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            failing: AtomicBool::new(false),
            load: Mutex::default(),
        });
        let load = OpenRcaServiceServer::new(OwnLoad(seen.clone()));
        let greetings = Greetings { id: id.to_owned(), seen: seen.clone() };
        let reporter = HealthReporter::new();
        let health = (methods != HealthMethods::Neither).then(|| {
            let service = HealthService::from_health_reporter(reporter.clone());
            HealthServer::new(OwnHealth { methods, service })
        });
        let mut server = tonic::transport::Server::builder();
        if let Some(identity) = identity {
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let connections = seen.clone();
        // Otherwise each call of grpc-go waits for its own delayed acknowledgement.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let incoming = incoming.inspect_ok(move |_| {
            connections.connections.fetch_add(1, Ordering::SeqCst);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = runtime.spawn(
            server
                .add_service(GreeterServer::new(greetings))
                .add_optional_service(health)
                .add_service(load)
                .serve_with_incoming_shutdown(incoming, async {
                    drop(stopped.await);
                }),
        );
        let id = id.to_owned();
        Self { runtime, id, addr, seen, reporter, held: None, stop, served }
    }

    /// Starts a backend and registers it.
    pub fn registered(id: &str, etcd: &str, service: &str) -> Self {
        let mut backend = Self::start(id);
        backend.register(etcd, service);
        backend
    }

    pub fn register(&mut self, etcd: &str, service: &str) {
        self.register_with(etcd, service, Weight::DEFAULT);
    }

    pub fn register_with(&mut self, etcd: &str, service: &str, weight: Weight) {
        self.register_below(PREFIX, etcd, service, weight);
    }

    /// Registers the backend below another prefix, at an etcd whose endpoints are separated by
    /// commas. Drops an earlier registration, whose key is then removed in the background.
    pub fn register_below(&mut self, prefix: &str, etcd: &str, service: &str, weight: Weight) {
        let options = register::Options {
            connect: Connect::new(&etcd.split(',').collect::<Vec<_>>(), None, None).unwrap(),
            prefix: prefix.into(),
            registration: Registration {
                service: ServiceName::new(service).unwrap(),
                id: self.id.as_str().into(),
                address: HostPort::parse(&self.addr.to_string()).unwrap(),
                weight,
                meta: Arc::new(Meta::new()),
            },
            ttl: Duration::from_secs(5),
            format: Format::Auto,
        };
        let held = self.runtime.block_on(register::hold(options)).unwrap();
        let mut status = held.status();
        let registered = async {
            let wait = status.wait_for(|status| *status == Status::Registered);
            tokio::time::timeout(WAIT_MAX, wait).await.unwrap().unwrap();
        };
        self.runtime.block_on(registered);
        self.held = Some(held);
    }

    /// Deregisters the backend, which continues to serve.
    pub fn withdraw(&mut self) {
        if let Some(held) = self.held.take() {
            self.runtime.block_on(held.withdraw()).unwrap();
        }
    }

    /// Deregisters the backend, finishes its calls and ends it. Returns its address.
    pub fn stop(mut self) -> SocketAddr {
        self.withdraw();
        drop(self.stop);
        let served = async { tokio::time::timeout(WAIT_MAX, self.served).await };
        self.runtime.block_on(served).expect("calls end").unwrap().unwrap();
        self.addr
    }

    /// Says from now on whether the backend is serving. It takes calls in any case.
    pub fn set_serving(&self, serving: bool) {
        let status = match serving {
            true => tonic_health::ServingStatus::Serving,
            false => tonic_health::ServingStatus::NotServing,
        };
        self.runtime.block_on(self.reporter.set_service_status("", status));
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the number of connections that it has taken so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Returns the tokens of the calls so far.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.seen.tokens.lock().unwrap().clone()
    }

    /// Returns the number of calls so far that greeted [`HOLD`] and had to wait.
    pub fn held(&self) -> usize {
        self.seen.held.load(Ordering::SeqCst)
    }

    /// Says from now on whether all calls fail with UNAVAILABLE.
    pub fn set_failing(&self, failing: bool) {
        self.seen.failing.store(failing, Ordering::SeqCst);
    }

    /// Says from now on that it serves so many calls per second, at this utilisation.
    pub fn set_load(&self, calls: f64, utilisation: f64) {
        let mut load = self.seen.load.lock().unwrap();
        load.rps_fractional = calls;
        load.application_utilization = utilisation;
    }

    /// Answers the waiting calls, and all later ones at once.
    pub fn release(&self) {
        self.seen.gate.close();
    }
}

#[tonic::async_trait]
impl Health for OwnHealth {
    type WatchStream = <HealthService as Health>::WatchStream;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        self.service.check(request).await
    }

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        if self.methods == HealthMethods::Check {
            return Err(tonic::Status::unimplemented("no watch here"));
        }
        self.service.watch(request).await
    }
}

/// Reports the load to clients that ask for it, once a second.
struct OwnLoad(Arc<Seen>);

#[tonic::async_trait]
impl OpenRcaService for OwnLoad {
    type StreamCoreMetricsStream =
        Pin<Box<dyn Stream<Item = Result<OrcaLoadReport, tonic::Status>> + Send>>;

    async fn stream_core_metrics(
        &self,
        _: tonic::Request<OrcaLoadReportRequest>,
    ) -> Result<tonic::Response<Self::StreamCoreMetricsStream>, tonic::Status> {
        let seen = self.0.clone();
        let reports = futures_util::stream::unfold(true, move |first| {
            let seen = seen.clone();
            async move {
                if !first {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                let load = *seen.load.lock().unwrap();
                Some((Ok(load), false))
            }
        });
        Ok(tonic::Response::new(Box::pin(reports)))
    }
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: tonic::Request<pb::HelloRequest>,
    ) -> Result<tonic::Response<pb::HelloReply>, tonic::Status> {
        let first = !request.metadata().contains_key("grpc-previous-rpc-attempts");
        let token = request.metadata().get("lb-token");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        self.seen.tokens.lock().unwrap().push(token);
        let id = if self.id.is_empty() { asked_at(&request) } else { self.id.clone() };
        let name = request.into_inner().name;
        if self.seen.failing.load(Ordering::SeqCst) || (name == FAIL_FIRST && first) {
            return Err(tonic::Status::unavailable(format!("{id} fails")));
        }
        if name == HOLD {
            self.seen.held.fetch_add(1, Ordering::SeqCst);
            // The gate has no permits, so this waits until the gate is closed.
            drop(self.seen.gate.acquire().await);
        }
        let message = format!("Hello {name} from {id}");
        Ok(tonic::Response::new(pb::HelloReply { message }))
    }
}

/// Returns the backend's address that the client called, without the port.
fn asked_at<T>(request: &tonic::Request<T>) -> String {
    let plain = request.extensions().get::<TcpConnectInfo>();
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let info = plain.or(tls.map(TlsConnectInfo::get_ref));
    info.and_then(TcpConnectInfo::local_addr).map(|addr| addr.ip().to_string()).unwrap_or_default()
}
