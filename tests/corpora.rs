//! Runs the checks of fuzzing (`make fuzz`) on its committed seeds, which include what
//! it has found, and on damaged variants of them.
#![allow(missing_docs, unreachable_pub)]

use std::path::Path;

#[path = "../fuzz/checks/client.rs"]
mod client;
#[path = "../fuzz/checks/dns.rs"]
mod dns;
#[path = "../fuzz/checks/etcd_connection.rs"]
mod etcd_connection;
#[path = "../fuzz/checks/etcd_requests.rs"]
mod etcd_requests;
#[path = "../fuzz/checks/grpc.rs"]
mod grpc;
#[path = "../fuzz/checks/http2.rs"]
mod http2;
#[path = "../fuzz/checks/load_stats.rs"]
mod load_stats;
#[path = "../fuzz/checks/etcd_model.rs"]
mod model;
#[path = "../fuzz/checks/name.rs"]
mod name;
#[path = "../fuzz/checks/record.rs"]
mod record;
#[path = "../fuzz/checks/settings.rs"]
mod settings;
#[path = "../fuzz/checks/state.rs"]
mod state;
#[path = "../fuzz/checks/xds.rs"]
mod xds;

/// Checks every file of a corpus whole, cut short, and with one bit flipped.
fn check(corpus: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(corpus);
    let mut files = 0;
    for file in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let data = std::fs::read(file.expect("it can be listed").path()).expect("it can be read");
        files += 1;
        check(&data);
        for turn in 0..32 {
            let at = data.len() * turn / 32;
            check(&data[..at]);
            let mut broken = data.clone();
            if let Some(byte) = broken.get_mut(at) {
                *byte ^= 1 << (turn % 8);
            }
            check(&broken);
        }
    }
    assert!(files >= 3, "{} holds {files} files", folder.display());
}

#[test]
fn keys_and_values() {
    check("record", record::check);
}

#[test]
fn names() {
    check("name", name::check);
}

#[test]
fn dns_queries() {
    check("dns", dns::check);
}

#[test]
fn settings_documents_and_files() {
    check("settings", settings::check);
}

#[test]
fn state_files() {
    check("state", state::check);
}

#[test]
fn connections() {
    check("http2", http2::check);
}

#[test]
fn clients() {
    check("grpc", grpc::check);
}

#[test]
fn xds_clients() {
    check("xds", xds::check);
}

#[test]
fn load_reports_of_xds() {
    check("load_stats", load_stats::check);
}

#[test]
fn connections_to_the_embedded_etcd() {
    check("etcd_connection", etcd_connection::check);
}

#[test]
fn requests_to_the_embedded_etcd() {
    check("etcd_requests", etcd_requests::check);
}
