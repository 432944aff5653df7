//! Clients whose certificates are revoked, or whose authority is no longer trusted, while they
//! are connected.

use std::time::Duration;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, KeyIdMethod, RevokedCertParams,
    SerialNumber,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::Code;

use super::age::{is_let_in, now};
use super::certificates::{Authority, open, start, uri};
use super::{go, json};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Options};
use crate::support::etcd::Etcd;
use crate::support::language::XDS_GO;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::world::metric;
use crate::support::{WAIT_MAX, eventually, skip};

const REVOKED: &str = "lookaside_connections_revoked_total";

/// Returns certificate and key of a client, with this name and serial number.
pub fn sign(authority: &Authority, name: &str, number: u64) -> (String, String) {
    authority.sign([uri(name)], |params: &mut CertificateParams| {
        params.serial_number = Some(SerialNumber::from(number));
    })
}

/// Writes an authority's list of the certificates that it has revoked. Returns its path.
pub fn write_list(authority: &Authority, revoked: &[u64]) -> String {
    let now = now();
    let one = |number: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*number),
        revocation_time: now.into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_secs(3600)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(one).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(authority.issuer()).expect("a list");
    authority.write("crl", &signed.pem().expect("PEM"))
}

#[test]
fn a_revoked_certificate_is_refused_once_the_list_says_so() {
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let [kept, revoked] = [7, 8].map(|number| sign(&authority, "spiffe://prod/web", number));
    let crl = write_list(&authority, &[]);
    let balancer = start(&authority, &etcd, "version = 1", &["--tls-client-crl", &crl]);
    let runtime = Runtime::new().expect("a runtime");
    let enters = |identity| is_let_in(&runtime, &authority, &balancer, identity);
    assert!(enters(&kept) && enters(&revoked));
    write_list(&authority, &[8]);
    balancer.signal(Signal::HUP);
    eventually("it is refused", || (!enters(&revoked)).then_some(()));
    assert!(enters(&kept));
    // A list that cannot be read changes nothing.
    authority.write("crl", "nonsense");
    balancer.signal(Signal::HUP);
    let broken = r#"lookaside_credentials_broken{use="serve"}"#;
    eventually("a fault", || balancer.metric(broken).filter(|&broken| broken > 0.0));
    assert!(enters(&kept) && !enters(&revoked));
    let log = Balancer::try_start(&["--tls-client-crl", &crl]).err().expect("refused");
    assert!(log.contains("--tls-client-crl needs --tls-client-ca"), "{log}");
}

/// Without a list that names it, a certificate whose authority is no longer trusted counts no
/// more than a revoked one.
#[test]
fn open_streams_end_with_a_status_when_their_certificates_no_longer_count() {
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let crl = write_list(&authority, &[]);
    let balancer = start(&authority, &etcd, "version = 1", &["--tls-client-crl", &crl]);
    let runtime = Runtime::new().expect("a runtime");
    let [kept, revoked] = [7, 8].map(|number| {
        let identity = sign(&authority, &format!("spiffe://prod/{number}"), number);
        runtime.block_on(open(&authority, &balancer, &identity)).into_inner()
    });
    eventually("two streams", || (json(&balancer, "/api/v1/clients")["total"] == 2).then_some(()));
    let end = |mut stream: tonic::Streaming<()>| {
        let end = async {
            loop {
                match stream.message().await {
                    Ok(Some(())) => {}
                    Ok(None) => panic!("it ends without a status"),
                    Err(status) => return status,
                }
            }
        };
        let end = async { timeout(WAIT_MAX, end).await };
        runtime.block_on(end).expect("the stream ends")
    };

    write_list(&authority, &[8]);
    balancer.signal(Signal::HUP);
    let status = end(revoked);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("certificate of this connection"), "{status}");
    let left = eventually("its row is gone", || {
        Some(json(&balancer, "/api/v1/clients")).filter(|rows| rows["total"] == 1)
    });
    assert_eq!(left["clients"][0]["certificate"][0], "spiffe://prod/7", "{left}");
    assert_eq!(metric(&balancer, REVOKED), 1);
    let line = "refuse the certificates of connected clients";
    eventually("a line in the log", || balancer.log().contains(line).then_some(()));

    authority.write("ca", &Authority::new().issuer().pem());
    balancer.signal(Signal::HUP);
    assert_eq!(end(kept).code(), Code::Unauthenticated);
    assert_eq!(metric(&balancer, REVOKED), 2);
    eventually("no stream", || (json(&balancer, "/api/v1/clients")["total"] == 0).then_some(()));
}

/// A list or an authority that is wrong by mistake stops no calls.
#[test]
fn go_with_xds_loses_its_stream_and_no_call_when_its_certificate_is_revoked() {
    if let Some(obstacle) = XDS_GO.obstacle() {
        return skip("authorization: go with a revoked certificate", &obstacle);
    }
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let crl = write_list(&authority, &[]);
    let balancer = start(&authority, &etcd, "version = 1", &["--tls-client-crl", &crl]);
    let mut backend = Backend::start("one");
    backend.register(&etcd.url(), "hello");
    balancer.wait_listed("hello", "one");
    let processes = [7, 8].map(|number| {
        let identity = sign(&authority, &format!("spiffe://prod/{number}"), number);
        go::driver(&authority, &balancer, &number.to_string(), &identity)
    });
    let clients = processes.each_ref().map(|process| process.open(&Options::xds("hello")));
    for client in &clients {
        client.shares(&["one"]);
        client.start(&Calls::new(0).every(Duration::from_millis(5)));
    }
    let rows = || json(&balancer, "/api/v1/clients");
    assert_eq!(rows()["total"], 2);
    let opened = metric(&balancer, "lookaside_xds_streams_opened_total");

    write_list(&authority, &[8]);
    balancer.signal(Signal::HUP);
    let left = eventually("its stream ends", || Some(rows()).filter(|rows| rows["total"] == 1));
    assert_eq!(left["clients"][0]["certificate"][0], "spiffe://prod/7", "{left}");
    let failed = metric(&balancer, "lookaside_connections_failed_total");
    eventually("it comes back in vain", || {
        (metric(&balancer, "lookaside_connections_failed_total") > failed + 1).then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_xds_streams_opened_total"), opened, "{:?}", rows());

    write_list(&authority, &[]);
    balancer.signal(Signal::HUP);
    eventually("it is back", || (rows()["total"] == 2).then_some(()));
    let ca = authority.write("ca", &Authority::new().issuer().pem());
    balancer.signal(Signal::HUP);
    eventually("both streams end", || (rows()["total"] == 0).then_some(()));
    std::fs::write(ca, authority.issuer().pem()).expect("a file");
    balancer.signal(Signal::HUP);
    eventually("both are back", || (rows()["total"] == 2).then_some(()));
    assert_eq!(metric(&balancer, REVOKED), 3);
    for client in &clients {
        let report = client.stop();
        assert!(report.succeeded() > 0 && report.failed() == 0, "{report:?}");
    }
}
