//! Greeting servers that register themselves, as a user's would, and remember
//! what they were asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lookaside::model::{HostPort, Meta, ServiceName, Weight};
use lookaside::register::{self, Held, Status};
use lookaside::registry::Registration;
use lookaside::registry::etcd::Connect;
use lookaside::registry::record::Format;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

use super::PATIENCE;

mod pb {
    tonic::include_proto!("helloworld");
}

use pb::greeter_server::{Greeter, GreeterServer};

/// A server; gone with its value, as if it had crashed.
pub struct Backend {
    runtime: Runtime,
    id: String,
    addr: SocketAddr,
    asked: Asked,
    held: Option<Held>,
    stop: Option<oneshot::Sender<()>>,
}

/// The `lb-token` of each call, where it had one.
type Asked = Arc<Mutex<Vec<Option<String>>>>;

struct Greetings {
    id: String,
    asked: Asked,
}

impl Backend {
    /// One that listens, but is not registered.
    pub fn start(id: &str) -> Self {
        Self::start_at(id, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(id: &str, addr: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(addr)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Asked::default();
        let greetings = Greetings { id: id.to_owned(), asked: asked.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(GreeterServer::new(greetings))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                    drop(stopped.await);
                }),
        );
        Self { runtime, id: id.to_owned(), addr, asked, held: None, stop: Some(stop) }
    }

    /// One that has registered.
    pub fn registered(id: &str, etcd: &str, service: &str) -> Self {
        let mut backend = Self::start(id);
        backend.register(etcd, service);
        backend
    }

    pub fn register(&mut self, etcd: &str, service: &str) {
        self.register_with(etcd, service, Weight::DEFAULT);
    }

    pub fn register_with(&mut self, etcd: &str, service: &str, weight: Weight) {
        let options = register::Options {
            connect: Connect::new(&[etcd], None, None).unwrap(),
            prefix: "/etcd3_naming/".into(),
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
            tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
        };
        self.runtime.block_on(registered);
        self.held = Some(held);
    }

    /// Deregisters, finishes what it is doing, and ends.
    pub fn stop(mut self) -> SocketAddr {
        if let Some(held) = self.held.take() {
            self.runtime.block_on(held.withdraw()).unwrap();
        }
        drop(self.stop.take());
        self.addr
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The tokens of the calls so far.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.asked.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: tonic::Request<pb::HelloRequest>,
    ) -> Result<tonic::Response<pb::HelloReply>, tonic::Status> {
        let token = request.metadata().get("lb-token");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        self.asked.lock().unwrap().push(token);
        let message = format!("Hello {} from {}", request.into_inner().name, self.id);
        Ok(tonic::Response::new(pb::HelloReply { message }))
    }
}
