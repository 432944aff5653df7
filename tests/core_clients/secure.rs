//! Tests of TLS with C++ and Ruby: C-core expects the balancer's certificate to name
//! the SRV record's target, and a backend's to name the service.

use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::core_clients::scene::{World, answered_by, fails_with, metric};
use crate::support::core::{Driver, Open};

mod pb {
    tonic::include_proto!("helloworld");
}

use pb::greeter_server::{Greeter, GreeterServer};

const LANGUAGES: [&str; 2] = ["cpp", "ruby"];

/// The target of the SRV records, which a balancer's certificate must name.
const BALANCER: &str = "grpclb.lookaside.internal";
const SERVICE: &str = "hello.lookaside.internal";

struct Authority {
    files: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Certified {
    cert: String,
    key: String,
}

/// A greeting server with TLS. Dropping the value stops it.
struct Secure {
    _runtime: Runtime,
    addr: SocketAddr,
}

struct Greetings(&'static str);

impl Authority {
    fn new() -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        // OpenSSL takes a certificate for self-signed if its issuer has the same name as
        // its subject, so the authority needs a name of its own.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(files.path().join("ca.pem"), pem).expect("a temporary file");
        Self { files, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    fn sign(&self, name: &str) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Certified { cert, key: key.serialize_pem() }
    }

    /// Starts a world whose balancer has a certificate for this name.
    fn world(&self, name: &str) -> World {
        let Certified { cert, key } = self.sign(name);
        let [cert, key] = [("cert.pem", cert), ("key.pem", key)].map(|(file, pem)| {
            let path = self.files.path().join(file);
            std::fs::write(&path, pem).expect("a temporary file");
            path.to_str().expect("a path of text").to_owned()
        });
        World::start_with(&["--tls-cert", &cert, "--tls-key", &key])
    }

    /// Starts a backend that has a certificate for this name.
    fn server(&self, id: &'static str, name: &str) -> Secure {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let Certified { cert, key } = self.sign(name);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        let server = runtime.block_on(async { Server::builder().tls_config(tls) });
        let server = server.expect("a certificate").add_service(GreeterServer::new(Greetings(id)));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Secure { _runtime: runtime, addr }
    }
}

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: tonic::Request<pb::HelloRequest>,
    ) -> Result<tonic::Response<pb::HelloReply>, tonic::Status> {
        let message = format!("Hello {} from {}", request.into_inner().name, self.0);
        Ok(tonic::Response::new(pb::HelloReply { message }))
    }
}

#[test]
fn a_balancer_of_another_name_is_not_listened_to() {
    let authority = Authority::new();
    let world = authority.world("somebody.lookaside.internal");
    let (one, fallback) = (authority.server("one", SERVICE), authority.server("fallback", SERVICE));
    world.list("hello", "one", one.addr);
    world.fallback_to("hello", "fallback", fallback.addr);
    for language in LANGUAGES {
        let driver = Driver::start(language);
        let open = Open::grpclb(world.target("hello", fallback.addr.port())).ca(&authority.ca());
        answered_by(&driver.open(&open), "fallback");
    }
    assert_eq!(metric(&world.balancer, "lookaside_streams_opened_total"), 0);
}

#[test]
fn a_backend_of_another_name_is_not_called() {
    let authority = Authority::new();
    let world = authority.world(BALANCER);
    let one = authority.server("one", BALANCER);
    world.list("hello", "one", one.addr);
    for language in LANGUAGES {
        let driver = Driver::start(language);
        let open = Open::grpclb(world.target("hello", 443)).ca(&authority.ca());
        fails_with(&driver.open(&open), "UNAVAILABLE");
    }
    assert_eq!(metric(&world.balancer, "lookaside_streams_opened_total"), 2);
}
