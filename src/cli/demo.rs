//! `lookaside demo`: runs everything on one machine, to try things out.
//!
//! In: a duration. Out: a balancer with DNS and the embedded registry, three backends
//! that register themselves (one of them stops and returns), and a line for each event.
//! Everything listens on loopback, on free ports.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::signals::StopSignals;
use crate::app::{Addresses, App};
use crate::config::admin_args::AdminConfig;
use crate::config::dns_args::DnsConfig;
use crate::config::replica_args::ReplicaConfig;
use crate::config::{Config, Registry};
use crate::model::{Host, HostPort, Meta, ServiceName, Weight, Zone};
use crate::register::{self, Held};
use crate::registry::Registration;
use crate::registry::etcd::Connect;
use crate::registry::record::{Format, Prefix};
use crate::settings::ServiceSettings;

use pb::greeter_server::{Greeter, GreeterServer};

/// The greeting service.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
mod pb {
    tonic::include_proto!("helloworld");
}

/// Flags of `demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// How long the demo runs, in seconds; 0: until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 20, env = "LOOKASIDE_SECONDS")]
    seconds: u64,
}

struct Backend {
    id: &'static str,
    held: Held,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

struct Greetings(&'static str);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "hello";
const PREFIX: &str = "/etcd3_naming/";
const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];
/// How long a backend still answers after its registration is removed, so that clients
/// get a list without it first.
const LINGER: Duration = Duration::from_millis(500);
/// The time between two events of an endless demo.
const SCENE: Duration = Duration::from_secs(10);

/// Runs the demo. Needs a tokio runtime with time, I/O and signals.
pub async fn run(args: &DemoArgs) -> ExitCode {
    match demo(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs) -> Result<(), AnyError> {
    let mut stop = StopSignals::new()?;
    let app = App::bind(config()?).await?;
    let addresses = app.addresses().clone();
    println!("{addresses}");
    let (stop_tx, stop_rx) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stop_rx.await) }, Arc::default()));
    introduce(&addresses);
    let connect = connect(&addresses)?;
    let story = run_scenes(&connect, args.seconds);
    let ended = tokio::select! {
        ended = story => ended,
        () = stop.next() => Ok(()),
    };
    drop(stop_tx);
    running.await??;
    ended
}

fn introduce(addresses: &Addresses) {
    let registry = addresses.registry.map(|addr| addr.to_string()).unwrap_or_default();
    let dns = addresses.dns.map(|addr| addr.to_string()).unwrap_or_default();
    println!("dashboard:     http://{}/", addresses.admin);
    println!("registry:      ETCDCTL_API=3 etcdctl --endpoints={registry} get --prefix {PREFIX}");
    println!("client target: dns://{dns}/{SERVICE}.lookaside.internal");
}

/// Starts three backends; stops and restarts the second.
async fn run_scenes(connect: &Connect, seconds: u64) -> Result<(), AnyError> {
    let scene = if seconds == 0 { SCENE } else { Duration::from_secs(seconds) / 3 };
    let mut backends = Vec::new();
    for id in BACKENDS {
        backends.push(Backend::start(id, connect).await?);
    }
    loop {
        tokio::time::sleep(scene).await;
        let leaving = backends.remove(1);
        println!("{} stops: its share moves to the others", leaving.id);
        leaving.stop().await?;
        tokio::time::sleep(scene).await;
        println!("{} starts again: all three share the calls", BACKENDS[1]);
        backends.insert(1, Backend::start(BACKENDS[1], connect).await?);
        if seconds != 0 {
            tokio::time::sleep(scene).await;
            break;
        }
    }
    for backend in backends {
        backend.stop().await?;
    }
    Ok(())
}

impl Backend {
    async fn start(id: &'static str, connect: &Connect) -> Result<Self, AnyError> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .add_service(GreeterServer::new(Greetings(id)))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                drop(stopped.await);
            });
        let server = tokio::spawn(finish(server));
        let registration = Registration {
            service: ServiceName::new(SERVICE)?,
            id: id.into(),
            address: HostPort::new(Host::Ip(addr.ip()), addr.port())?,
            weight: Weight::DEFAULT,
            meta: Arc::new(Meta::new()),
        };
        let held = register::hold(register::Options {
            connect: connect.clone(),
            prefix: PREFIX.to_owned(),
            registration,
            ttl: register::TTL_DEFAULT,
            format: Format::Auto,
        })
        .await?;
        println!("{id} serves at {addr} and registers");
        Ok(Self { id, held, stop, server })
    }

    /// Removes the registration, waits [`LINGER`] for clients, then stops the server.
    async fn stop(self) -> Result<(), AnyError> {
        self.held.withdraw().await?;
        tokio::time::sleep(LINGER).await;
        drop(self.stop);
        self.server.await?;
        Ok(())
    }
}

async fn finish(server: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = server.await {
        eprintln!("error: backend failed: {error}");
    }
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloReply>, Status> {
        let message = format!("Hello {} from {}", request.into_inner().name, self.0);
        Ok(Response::new(pb::HelloReply { message }))
    }
}

fn config() -> Result<Config, AnyError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // A stopped backend must leave the lists at once, so nothing is held or guarded.
    let defaults = ServiceSettings {
        report_interval: Duration::from_secs(2),
        keep_lost: Duration::ZERO,
        guard: 0,
        ..ServiceSettings::DEFAULT
    };
    Ok(Config {
        listen: any,
        registry: Registry::Embedded(any),
        prefixes: vec![Prefix::parse(PREFIX)?],
        dns: DnsConfig { listen: Some(any), ..DnsConfig::default() },
        replica: ReplicaConfig::default(),
        admin: AdminConfig::local(any),
        zone: Zone::new("lookaside.internal")?,
        defaults,
        services: None,
        state_dir: None,
        reflection: true,
        connections_per_peer: 0,
        max_connection_age: None,
        client_certificates: false,
        tls: None,
    })
}

fn connect(addresses: &Addresses) -> Result<Connect, AnyError> {
    let registry = addresses.registry.ok_or("the demo has no registry")?;
    Connect::new(&[&format!("http://{registry}")], None, None).map_err(|errors| {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ").into()
    })
}
