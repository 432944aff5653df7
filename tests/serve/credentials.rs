//! Tests of the server's certificates, replaced under a running balancer.

use std::path::Path;

use crate::support::cluster::Certificates;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A client of the balancer, with its authority's certificate and its own.
struct Client {
    ca: String,
    identity: (String, String),
    runtime: tokio::runtime::Runtime,
}

impl Client {
    fn of(files: &Certificates) -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).expect("a certificate");
        let identity = (read(&files.cert), read(&files.key));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Self { ca: read(&files.ca), identity, runtime }
    }

    fn connect(&self, balancer: &Balancer) -> Option<HealthClient<Channel>> {
        let (cert, key) = &self.identity;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(Identity::from_pem(cert, key));
        let url = format!("https://{}", balancer.grpclb());
        self.runtime.block_on(async {
            let endpoint = Channel::from_shared(url).expect("an address");
            let channel = endpoint.tls_config(tls).expect("certificates").connect().await.ok()?;
            let mut client = HealthClient::new(channel);
            client.check(HealthCheckRequest::default()).await.ok()?;
            Some(client)
        })
    }

    fn asks(&self, client: &mut HealthClient<Channel>) -> bool {
        self.runtime.block_on(client.check(HealthCheckRequest::default())).is_ok()
    }
}

#[test]
fn certificates_are_replaced_under_a_running_balancer() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = Certificates::new(directory.path());
    let path = |path: &Path| path.to_str().expect("a path is text").to_owned();
    let (cert, key, ca) = (path(&files.cert), path(&files.key), path(&files.ca));
    let balancer =
        Balancer::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    let old = Client::of(&files);
    let mut open = old.connect(&balancer).expect("the first certificate");

    // The files are replaced one by one, as operators do it.
    let next_directory = tempfile::tempdir().expect("a temporary directory");
    let next = Certificates::new(next_directory.path());
    let new = Client::of(&next);
    std::fs::copy(&next.cert, &files.cert).expect("a copy");
    balancer.signal(Signal::HUP);
    let broken = r#"lookaside_credentials_broken{use="serve"}"#;
    eventually("a fault", || balancer.metric(broken).filter(|&broken| broken > 0.0));
    eventually("the log names the flags", || {
        balancer.log().contains("--tls-cert, --tls-key").then_some(())
    });
    assert!(old.connect(&balancer).is_some(), "the former pair is kept");
    std::fs::copy(&next.key, &files.key).expect("a copy");
    // While clients change, both authorities are trusted.
    std::fs::write(&files.ca, old.ca.clone() + &new.ca).expect("a file");
    // Without a signal, changed files are read too.
    eventually("the new certificate", || new.connect(&balancer));
    assert!(old.connect(&balancer).is_none());
    assert!(old.asks(&mut open), "what is open stays open");
    std::fs::copy(&next.ca, &files.ca).expect("a copy");
    balancer.signal(Signal::HUP);
    eventually("what nobody vouches for ends", || (!old.asks(&mut open)).then_some(()));
    assert_eq!(balancer.metric(broken), Some(0.0));

    std::fs::write(&files.ca, "nonsense").expect("a file");
    balancer.signal(Signal::HUP);
    eventually("a fault", || balancer.metric(broken).filter(|&broken| broken > 0.0));
    assert!(new.connect(&balancer).is_some());
    assert_eq!(balancer.log().matches("cannot be used").count(), 2, "{}", balancer.log());
    let failures = balancer.metric(r#"lookaside_credential_failures_total{use="serve"}"#);
    assert_eq!(failures, Some(2.0));
}

#[test]
fn the_end_of_certificates_is_a_metric_and_told_a_month_before() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["b.test".to_owned()]).expect("parameters");
    // 2001-09-09 is 999,993,600 seconds after 1970.
    params.not_after = rcgen::date_time_ymd(2001, 9, 9);
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path is text").to_owned()
    };
    let cert = write("cert", params.self_signed(&key).expect("a certificate").pem());
    let key = write("key", key.serialize_pem());
    let balancer = Balancer::start(&["--tls-cert", &cert, "--tls-key", &key]);
    let series = r#"lookaside_certificate_expiry_seconds{use="serve"}"#;
    assert_eq!(eventually("the metric", || balancer.metric(series)), 999_993_600.0);
    eventually("it is logged", || balancer.log().contains("a certificate has ended").then_some(()));
    let status: serde_json::Value =
        serde_json::from_str(&balancer.get("/api/v1/status").1).expect("JSON");
    let shown = &status["certificates"][0];
    assert_eq!((&shown["use"], &shown["ends_soon"]), (&"serve".into(), &true.into()), "{status}");
    assert!(shown["ends_in_seconds"].as_f64().is_some_and(|left| left < 0.0), "{status}");
}
