//! Tests of flags of `register`: metadata, and how health is checked.

use std::process::Child;

use tokio::time::timeout;
use tonic_health::ServingStatus;

use crate::register::{KEY, end, lookaside, start, until_there, value};
use crate::support::etcd::Etcd;
use crate::support::signal::{self, Signal};
use crate::support::{WAIT_MAX, eventually, free_port};

#[test]
fn values_of_metadata_may_hold_commas() {
    let etcd = Etcd::start();
    let meta = |child: Child| {
        let text = eventually("the key", || value(&etcd, KEY));
        signal::send(child.id(), Signal::TERM);
        assert_eq!(end(child).0, Some(0));
        let json: serde_json::Value = serde_json::from_str(&text).expect("json");
        json["Metadata"].clone()
    };
    let flags = meta(start(&etcd, &["--meta", "tags=a,b", "--meta", "query=x=1,y=2"]));
    assert_eq!(flags, serde_json::json!({"tags": "a,b", "query": "x=1,y=2"}));
    let url = etcd.url();
    let all = ["--etcd", &url, "--service", "hello", "--addr", "10.0.0.1:1", "--prefix", "/s/"];
    let mut command = lookaside(&all);
    let child = command.env("LOOKASIDE_META", "tags=a,b,zone=x").spawn().expect("it starts");
    assert_eq!(meta(child), serde_json::json!({"tags": "a,b", "zone": "x"}));
}

/// At first there is no server, and after some seconds the program says what it waits
/// for. Then there is a server with TLS, and only the health of its `db` counts.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_by_tls_and_by_service_and_what_is_waited_for_is_said() {
    use std::io::BufRead;
    let etcd = Etcd::start();
    let dir = tempfile::TempDir::new().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["backend.test".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate").pem();
    let ca = dir.path().join("ca");
    std::fs::write(&ca, &cert).expect("it can be written");
    let port = free_port();
    let (url, address) = (etcd.url(), format!("127.0.0.1:{port}"));
    let mut child = lookaside(&["--etcd", &url, "--service", "hello", "--addr", &address])
        .args(["--prefix", "/s/", "--when-serving", "--health-service", "db"])
        .args(["--health-ca", ca.to_str().expect("text"), "--health-tls-name", "backend.test"])
        .spawn()
        .expect("it starts");
    let stderr = child.stderr.take().expect("it is piped");
    let said = tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
        lines.find(|line| line.contains("not registered yet"))
    });
    let said = timeout(WAIT_MAX, said).await.expect("in time").expect("no panic");
    let said = said.expect("it says so");
    assert!(said.contains(&address) && said.contains("refused"), "{said}");

    let listener = tokio::net::TcpListener::bind(&address).await.expect("the port is free");
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    reporter.set_service_status("db", ServingStatus::Serving).await;
    let identity = tonic::transport::Identity::from_pem(&cert, key.serialize_pem());
    let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
    let mut server = tonic::transport::Server::builder().tls_config(tls).expect("it is right");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
    until_there(&etcd, &format!("/s/hello/{address}"));
    signal::send(child.id(), Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));

    let output = lookaside(&["--health-ca", "/nowhere"]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--health-ca needs --when-serving"), "{error}");
}
