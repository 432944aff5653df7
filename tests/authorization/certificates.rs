//! Clients with certificates: a name in the certificate decides, and an answer says nothing
//! of what exists.

use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::PathAndQuery;
use lookaside::balancer::ask::{FirstList, first_list};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{denied, json};
use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;

/// An authority, and the files of a balancer's certificate that it signed.
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // A certificate of another authority must not look like one of this.
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
            rcgen::KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Self { directory: TempDir::new().expect("a directory"), issuer };
        let own = [SanType::IpAddress([127, 0, 0, 1].into())];
        let (cert, key) = authority.sign(own, |_| ());
        authority.write("ca", &authority.issuer.pem());
        authority.write("cert", &cert);
        authority.write("key", &key);
        authority
    }

    /// Returns a certificate with these names and its key, in PEM.
    pub fn sign(
        &self,
        names: impl IntoIterator<Item = SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = names.into_iter().collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    }

    pub fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path is text").to_owned()
    }

    /// Returns the flags of a balancer with mutual TLS.
    pub fn flags(&self) -> Vec<String> {
        let path = |name| self.directory.path().join(name).to_str().expect("text").to_owned();
        [("--tls-cert", "cert"), ("--tls-key", "key"), ("--tls-client-ca", "ca")]
            .into_iter()
            .flat_map(|(flag, name)| [flag.to_owned(), path(name)])
            .collect()
    }

    /// Returns a channel to a balancer with a client's certificate.
    pub fn channel(&self, balancer: &Balancer, (cert, key): &(String, String)) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.issuer.pem()))
            .identity(Identity::from_pem(cert, key));
        let url = format!("https://{}", balancer.grpclb());
        let endpoint = Channel::from_shared(url).expect("an address").tls_config(tls);
        endpoint.expect("certificates").connect_lazy()
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

pub fn start(authority: &Authority, etcd: &Etcd, document: &str, further: &[&str]) -> Balancer {
    let config = authority.write("lookaside.toml", document);
    let mut flags = authority.flags();
    flags.extend(["--etcd", &etcd.url(), "--config", &config].map(ToOwned::to_owned));
    let flags = flags.iter().map(String::as_str).chain(further.iter().copied());
    let balancer = Balancer::start(&flags.collect::<Vec<_>>());
    balancer.wait_ready();
    balancer
}

/// A client's first message, of which only the name is set.
#[derive(Clone, PartialEq, prost::Message)]
struct First {
    #[prost(message, optional, tag = "1")]
    initial: Option<Name>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

/// Opens a stream for `hello` that stays open while its answers are kept.
pub async fn open(
    authority: &Authority,
    balancer: &Balancer,
    identity: &(String, String),
) -> Response<Streaming<()>> {
    let mut grpc = tonic::client::Grpc::new(authority.channel(balancer, identity));
    grpc.ready().await.expect("a connection");
    let first = First { initial: Some(Name { name: "hello".to_owned() }) };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let codec = ProstCodec::<First, ()>::default();
    let path = PathAndQuery::from_static(lookaside::balancer::PATH);
    grpc.streaming(Request::new(requests), path, codec).await.expect("a stream")
}

#[test]
fn the_names_in_a_certificate_decide_and_nothing_leaks() {
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let document = "
        [service.'secret*']
        clients = ['spiffe://prod/web/*', 'dns:*.web.example', '192.0.2.0/24']
        [service.closed]
        clients = 'nobody'
    ";
    let balancer = start(&authority, &etcd, document, &[]);
    let mut backends = ["secret", "closed", "open"].map(Backend::start);
    for backend in &mut backends {
        let service = backend.id().to_owned();
        backend.register(&etcd.url(), &service);
        balancer.wait_listed(&service, &service);
    }
    let runtime = Runtime::new().expect("a runtime");
    let ask = |identity: &(String, String), name: &str| -> Result<FirstList, Status> {
        runtime.block_on(async { first_list(authority.channel(&balancer, identity), name).await })
    };
    let web = authority.sign([uri("spiffe://prod/web/1")], |_| ());
    let host = authority.sign([dns("other.example"), dns("A1.web.example")], |_| ());
    let other = authority.sign([uri("spiffe://prod/webmail"), dns("web.example")], |_| ());
    let nameless = authority.sign([], |_| ());
    let listed = |found: Result<FirstList, Status>, port: u16| match found {
        Ok(FirstList::Servers { backends, .. }) => backends.iter().all(|one| one.port() == port),
        other => panic!("{other:?}"),
    };
    for identity in [&web, &host] {
        assert!(listed(ask(identity, "secret"), backends[0].addr().port()));
        assert!(listed(ask(identity, "open"), backends[2].addr().port()));
    }
    for identity in [&other, &nameless] {
        assert!(listed(ask(identity, "open"), backends[2].addr().port()));
        // A service that exists, names that nobody registered, selections and spellings get
        // the same answer.
        let refusal = ask(identity, "secret").expect_err("denied");
        assert_eq!(refusal.code(), Code::PermissionDenied);
        let names = [
            "secret2",
            "SECRET",
            "secret.lookaside.internal:80",
            "id--x.secret",
            "hash--7.secret9",
            "a--b.secretive",
            "closed",
        ];
        for name in names {
            let told = ask(identity, name).expect_err("denied");
            assert_eq!(
                (told.code(), told.message()),
                (refusal.code(), refusal.message()),
                "{name}"
            );
            assert_eq!(told.metadata().len(), refusal.metadata().len(), "{name}");
        }
    }
    assert!(ask(&web, "closed").is_err());
    assert_eq!(denied(&balancer, "grpclb"), 2.0 * 8.0 + 1.0);
    let rows = json(&balancer, "/api/v1/denied");
    let row = rows["denied"].as_array().expect("rows").iter().find(|row| row["name"] == "closed");
    assert_eq!(row.expect("a row")["certificate"][0], "spiffe://prod/web/1", "{rows}");
}

#[test]
fn an_open_stream_shows_the_names_of_its_certificate() {
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let balancer = start(&authority, &etcd, "version = 1", &[]);
    let web = authority.sign([uri("spiffe://prod/web"), dns("a.example")], |_| ());
    let runtime = Runtime::new().expect("a runtime");
    let stream = runtime.block_on(open(&authority, &balancer, &web));
    let clients = eventually("a stream", || {
        let all = json(&balancer, "/api/v1/clients");
        (all["total"] == 1).then_some(all)
    });
    let names = &clients["clients"][0]["certificate"];
    assert_eq!(*names, serde_json::json!(["spiffe://prod/web", "dns:a.example"]));
    drop(stream);
}

#[test]
fn rules_of_certificates_need_mutual_tls() {
    let directory = TempDir::new().expect("a directory");
    let config = directory.path().join("lookaside.toml");
    let path = config.to_str().expect("text");
    let refused = |args: &[&str]| Balancer::try_start(args).err().expect("refused");
    std::fs::write(&config, "[service.pay]\nclients = ['spiffe://prod/web']\n").expect("a file");
    let log = refused(&["--config", path]);
    assert!(
        log.contains("[service.\"pay\"] clients: \"spiffe://prod/web\" names certificates"),
        "{log}"
    );
    let log = refused(&["--clients", "10.0.0.0/8,dns:a.b"]);
    assert!(log.contains("--clients: \"dns:a.b\" names certificates"), "{log}");
    let log = refused(&["--clients", "10.0.0.1/8"]);
    assert!(log.contains("--clients: \"10.0.0.1/8\" is no network"), "{log}");
    // From a changed file or etcd it is a warning, and the rule names nobody.
    std::fs::write(&config, "clients = ['10.0.0.0/8', '127.0.0.1']\n").expect("a file");
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--config", path, "--etcd", &etcd.url()]);
    balancer.wait_ready();
    super::apply(&etcd, "lookaside.internal", "[service.pay]\nclients = ['dns:a.b']\n");
    eventually("a warning", || {
        let log = balancer.log();
        let told = log.lines().find(|line| line.contains("it names nobody"))?;
        told.contains("dns:a.b").then_some(())
    });
}
