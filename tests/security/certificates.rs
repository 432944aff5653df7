//! Tests that wrong, ended and foreign certificates are refused: of the admin address by the
//! commands, of clients by the gRPC port, and of etcd by the balancer.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Files, lookaside, printed};
use crate::support::certificates::Authority;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::proxy::Proxy;
use crate::support::signal::Signal;

const HERE: &[&str] = &["127.0.0.1"];

/// Writes a certificate and its key.
fn put(files: &Files, (cert, key): (String, String)) -> [String; 2] {
    [files.write("cert", &cert), files.write("key", &key)]
}

#[test]
fn commands_refuse_wrong_ended_and_foreign_certificates_of_the_admin_address() {
    let (files, authority) = (Files::new(), Authority::new());
    let [cert, key] = put(&files, authority.sign(HERE));
    let ca = files.write("ca", &authority.pem());
    let balancer = Balancer::start(&["--admin-cert", &cert, "--admin-key", &key]);
    let admin = format!("https://{}", balancer.admin());
    let ask = || printed(&lookaside(&["clients", "--admin", &admin, "--admin-ca", &ca]));
    let ends = |words: &str| {
        eventually(words, || {
            let (code, shown) = ask();
            (code != Some(0) && shown.contains(words)).then_some(())
        });
    };
    let (code, shown) = ask();
    assert_eq!(code, Some(0), "{shown}");

    // The certificate is replaced under the running balancer, each time by a worse one.
    put(&files, authority.sign_ended(HERE));
    balancer.signal(Signal::HUP);
    ends("xpired");
    eventually("the log warns", || {
        balancer
            .log()
            .contains("a certificate has ended: renew it used_for=\"admin\"")
            .then_some(())
    });
    put(&files, authority.sign(&["10.9.8.7", "other.test"]));
    ends("not valid for");
    put(&files, Authority::new().sign(HERE));
    ends("UnknownIssuer");
    put(&files, authority.sign(HERE));
    eventually("a right certificate is believed again", || (ask().0 == Some(0)).then_some(()));

    // Without TLS, and without the authority, nothing is read either.
    let plain = format!("http://{}", balancer.admin());
    let (code, shown) = printed(&lookaside(&["clients", "--admin", &plain]));
    assert!(code == Some(1) && shown.contains("cannot ask"), "{shown}");
    let (code, shown) = printed(&lookaside(&["clients", "--admin", &admin]));
    assert!(code != Some(0) && !shown.contains("CLIENT"), "{shown}");
}

#[test]
fn clients_with_wrong_ended_or_foreign_certificates_are_refused() {
    let (files, authority) = (Files::new(), Authority::new());
    let [cert, key] = put(&files, authority.sign(HERE));
    let ca = files.write("ca", &authority.pem());
    let balancer =
        Balancer::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = format!("https://{}", balancer.grpclb());
    let enters = |identity: Option<(String, String)>, trusted: &str| {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted));
        if let Some((cert, key)) = identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        runtime.block_on(async {
            let endpoint = Channel::from_shared(url.clone()).expect("an address");
            let channel = endpoint.tls_config(tls).expect("certificates").connect().await.ok()?;
            HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()
        })
    };
    let right = authority.pem();
    assert!(enters(Some(authority.sign(&["client.test"])), &right).is_some());
    for (refused, identity) in [
        ("without a certificate", None),
        ("ended", Some(authority.sign_ended(&["client.test"]))),
        ("foreign", Some(Authority::new().sign(&["client.test"]))),
        ("for servers only", Some(authority.sign_for_servers(&["client.test"]))),
    ] {
        assert!(enters(identity, &right).is_none(), "{refused}");
    }
    // A client refuses a balancer of another authority, too.
    let other = Authority::new();
    assert!(enters(Some(authority.sign(&["client.test"])), &other.pem()).is_none());
    eventually("they are counted", || {
        let failed = balancer.metric("lookaside_connections_failed_total");
        failed.filter(|failed| *failed >= 4.0)
    });
}

/// A client that has gone on to send is not reset before it has read the alert.
#[test]
fn a_client_that_fails_the_handshake_can_read_why() {
    let (files, authority) = (Files::new(), Authority::new());
    let [cert, key] = put(&files, authority.sign(HERE));
    let ca = files.write("ca", &authority.pem());
    let balancer =
        Balancer::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stream = TcpStream::connect(balancer.grpclb()).await.expect("a connection");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        // For the client, the handshake is over before its certificate is looked at.
        let mut tls = connector.connect(name, stream).await.expect("a handshake");
        // More than is read at a time.
        tls.write_all(&[0; 8 * 1024]).await.expect("it is taken");
        tls.flush().await.expect("it is taken");
        let error = tls.read(&mut [0; 1]).await.expect_err("an alert");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        let end = tls.get_mut().0.read(&mut [0; 1]).await;
        assert_eq!(end.expect("it ends in order"), 0);
    });
}

#[test]
fn an_etcd_with_a_wrong_ended_or_foreign_certificate_is_not_believed() {
    let etcd = Cluster::start_with_tls();
    let known = etcd.certificates();
    let read = |path: &Path| std::fs::read_to_string(path).expect("a certificate");
    let right = (read(&known.cert), read(&known.key));
    let (authority, files) = (Authority::new(), Files::new());
    // What the balancer trusts: both authorities. Its own certificate is the right one.
    let ca = files.write("ca", &(read(&known.ca) + &authority.pem()));
    let [cert, key] = put(&files, right.clone());
    assert!(etcd.ctl(0, &["put", "/etcd3_naming/hello/1", "127.0.0.9:1"]));
    let port = etcd.url(0).rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // etcd reads its files for each connection.
    let shows = |(cert, key): &(String, String)| {
        std::fs::write(&known.key, key).expect("a file");
        std::fs::write(&known.cert, cert).expect("a file");
    };
    let mut balancers = Vec::new();
    for (words, shown) in [
        ("xpired", authority.sign_ended(HERE)),
        ("not valid for", authority.sign(&["10.9.8.7"])),
        ("UnknownIssuer", Authority::new().sign(HERE)),
    ] {
        shows(&shown);
        // It counts the connections.
        let proxy = runtime.block_on(Proxy::to(port.expect("a port")));
        let url = proxy.url().replace("http:", "https:");
        let trust = ["--etcd-ca", &ca, "--etcd-cert", &cert, "--etcd-key", &key];
        let balancer = Balancer::start(&[&["--etcd", &url][..], &trust].concat());
        eventually(words, || balancer.log().contains(words).then_some(()));
        // However often it tries, nothing is read.
        let passed = proxy.passed();
        eventually("it tries again", || (proxy.passed() > passed + 2).then_some(()));
        assert_eq!(balancer.get("/readyz").0, 503, "{words}: it believes etcd");
        assert_eq!(balancer.metric("lookaside_registry_synced"), Some(0.0), "{words}");
        balancers.push((balancer, proxy));
    }
    shows(&right);
    for (balancer, _proxy) in &balancers {
        balancer.wait_listed("hello", "1");
    }
}
