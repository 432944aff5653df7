//! Tests the source with proxies, learners, and load balancers that forget connections
//! in place of etcd or before it.
//!
//! In: their faults. Out: a source that passes them over or notices the loss.

use std::process::{Child, Command, Stdio};

use super::{Mirror, client, connect, mirror};
use crate::support::etcd::Etcd;
use crate::support::free_port;
use crate::support::grpc_proxy::GrpcProxy;
use crate::support::proxy::Proxy;
use etcd_client::{Txn, TxnOp};
use lookaside::registry::{Cause, Change, Event};

/// A number of signs of life that takes longer than etcd may be silent.
const SIGNS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn etcds_grpc_proxy_is_followed_like_etcd() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let mut proxy = GrpcProxy::to(&etcd.url());
    let mut mirror = Mirror::of(connect(&[&proxy.url()]), &["/s/", "/other/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    mirror.until("signs of life", |mirror| mirror.fresh >= SIGNS).await;
    assert!(proxy.runs(), "it does not survive what it is asked");
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0), "{:?}", mirror.stale);
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:1"]);
    etcd.ctl(&["put", "/other/hello/1", "10.0.0.3:1"]);
    etcd.ctl(&["del", "/s/hello/1"]);
    let all = [("/s/hello/2", "10.0.0.2:1"), ("/other/hello/1", "10.0.0.3:1")];
    mirror.until_has(&all).await;
    assert_eq!(mirror.resets, 1);
    etcd.freeze();
    mirror.until("a stale registry", |mirror| !mirror.stale.is_empty()).await;
    etcd.thaw();
    etcd.ctl(&["put", "/s/hello/3", "10.0.0.3:1"]);
    mirror.until("the next key", |mirror| mirror.keys.contains_key("/s/hello/3")).await;
}

/// A second member, which copies the store and does not vote.
struct Learner {
    url: String,
    child: Child,
    _data: tempfile::TempDir,
}

impl Learner {
    fn of(etcd: &Etcd) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let added = etcd.ctl(&["member", "add", "learner", "--learner", "--peer-urls", &peer]);
        let cluster = added.lines().find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER="));
        let child = Command::new("etcd")
            .args(["--name", "learner", "--log-level", "error", "--logger", "zap"])
            .args(["--initial-cluster", cluster.expect("the members").trim_matches('"')])
            .args(["--initial-cluster-state", "existing", "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: Debian package etcd-server");
        Self { url, child, _data: data }
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_passed_over() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let learner = Learner::of(&etcd);
    let mut alone = Mirror::of(connect(&[&learner.url]), &["/s/"], 64);
    let told = |mirror: &Mirror| mirror.stale.iter().any(|text| text.contains("learner"));
    alone.until("what a learner says", told).await;
    assert_eq!(alone.resets, 0);
    // The source begins at a random endpoint.
    for _ in 0..4 {
        let mut both = Mirror::of(connect(&[&learner.url, &etcd.url()]), &["/s/"], 64);
        both.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_forgotten_on_the_way_is_noticed() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port()).await;
    let mut mirror = Mirror::of(connect(&[&proxy.url()]), &["/s/"], 64);
    // The watch is open now. Earlier, another connection would replace a lost one
    // unnoticed.
    mirror.until("a sign of life", |mirror| mirror.fresh > 0).await;
    proxy.forget_by_reset();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let second = |mirror: &Mirror| mirror.resets == 2 && mirror.fresh > 0;
    mirror.until("a second reading", second).await;
    proxy.forget_silently();
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.1:2"]);
    mirror.until("a third reading", |mirror| mirror.resets == 3).await;
    assert_eq!(mirror.keys.len(), 2);
    let silent = |reason: &String| reason.contains("did not answer");
    assert!(mirror.stale.iter().any(silent), "{:?}", mirror.stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_several_prefixes_is_one_apply_and_judged_as_one() {
    let etcd = Etcd::start();
    let mut client = client(&etcd).await;
    let mut mirror = mirror(&etcd, &["/a/", "/b/", "/c/"]);
    let keys = ["/a/hello/1", "/b/hello/1", "/c/hello/1"];
    for round in 0..10 {
        let put = keys.map(|key| TxnOp::put(key, "10.0.0.1:1", None));
        client.txn(Txn::new().and_then(put)).await.expect("a transaction");
        mirror.until("all keys", |mirror| mirror.keys.len() == 3).await;
        let applied = mirror.applied.len();
        let delete = keys.map(|key| TxnOp::delete(key, None));
        client.txn(Txn::new().and_then(delete)).await.expect("a transaction");
        let changes = loop {
            match mirror.events_rx.recv().await.expect("it runs") {
                Event::Apply { changes, .. } if changes.is_empty() => {}
                Event::Apply { revision, changes } => {
                    mirror.apply(Event::Apply { revision, changes: changes.clone() });
                    break changes;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((changes.len(), mirror.applied.len()), (3, applied + 1), "round {round}");
        let swept = |change: &Change| matches!(change, Change::Delete(_, Cause::Swept));
        assert!(changes.iter().all(swept), "keys of several without a lease: {changes:?}");
        // A change below one prefix alone is reported, although the others have none.
        etcd.ctl(&["put", "/b/hello/2", "10.0.0.1:1"]);
        mirror.until("one key", |mirror| mirror.keys.len() == 1).await;
        etcd.ctl(&["del", "/b/hello/2"]);
        mirror.until("no key", |mirror| mirror.keys.is_empty()).await;
    }
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_believed_by_the_systems_authorities() {
    use crate::support::cluster::Cluster;
    use crate::support::lookaside::Balancer;
    let etcd = Cluster::start_with_tls();
    let files = etcd.certificates().clone();
    let path = |path: &std::path::Path| path.to_str().expect("a path is text").to_owned();
    let (cert, key, ca) = (path(&files.cert), path(&files.key), path(&files.ca));
    let url = etcd.url(0);
    let flags = ["--etcd", &url, "--etcd-cert", &cert, "--etcd-key", &key];
    let balancer = Balancer::try_start_with(&flags, &[("SSL_CERT_FILE", &ca)]).expect("it starts");
    balancer.wait_ready();
    let nobody = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
    let log = Balancer::try_start_with(&flags, &nobody).err().expect("there is no authority");
    assert!(log.contains("ca-certificates") && log.contains("--etcd-ca"), "{log}");
}
