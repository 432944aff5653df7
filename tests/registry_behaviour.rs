//! Tests that the embedded registry behaves as etcd does: each case of one list runs
//! against both, and clients must see the same, line by line.
//!
//! `clients.rs` brings unmodified clients in other languages, some of which run against
//! the embedded registry alone. `abuse.rs` brings hostile clients, and needs it alone.

#![allow(unreachable_pub, missing_docs)]

#[path = "registry_behaviour/abuse.rs"]
mod abuse;
#[path = "registry_behaviour/auth.rs"]
mod auth;
#[path = "registry_behaviour/clients.rs"]
mod clients;
#[path = "registry_behaviour/ctl.rs"]
mod ctl;
#[path = "registry_behaviour/embedded.rs"]
mod embedded;
#[path = "registry_behaviour/kv.rs"]
mod kv;
#[path = "registry_behaviour/lease.rs"]
mod lease;
#[path = "registry_behaviour/locks.rs"]
mod locks;
#[path = "registry_behaviour/memory.rs"]
mod memory;
#[path = "registry_behaviour/scene.rs"]
mod scene;
#[path = "registry_behaviour/txn.rs"]
mod txn;
#[path = "registry_behaviour/watch.rs"]
mod watch;
#[path = "registry_behaviour/wire.rs"]
mod wire;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::support::WAIT_MAX;
use crate::support::etcd::Etcd;
use embedded::Embedded;
use scene::Scene;

type Case = for<'a> fn(&'a mut Scene) -> BoxFuture<'a, anyhow::Result<()>>;

const CASES: &[(&str, Case)] = &[
    ("puts and revisions", |s| kv::puts_and_revisions(s).boxed()),
    ("put options", |s| kv::put_options(s).boxed()),
    ("ranges", |s| kv::ranges(s).boxed()),
    ("sorting and filters", |s| kv::sorting_and_filters(s).boxed()),
    ("pages pinned to a revision", |s| kv::pages(s).boxed()),
    ("deletions", |s| kv::deletions(s).boxed()),
    ("old revisions and compaction", |s| kv::compaction(s).boxed()),
    ("refused requests", |s| kv::refused(s).boxed()),
    ("large requests", |s| kv::large(s).boxed()),
    ("binary keys", |s| kv::binary(s).boxed()),
    ("compares", |s| txn::compares(s).boxed()),
    ("compares over ranges", |s| txn::range_compares(s).boxed()),
    ("transactions", |s| txn::transactions(s).boxed()),
    ("nested transactions", |s| txn::nested(s).boxed()),
    ("refused transactions", |s| txn::refused(s).boxed()),
    ("leases", |s| lease::life(s).boxed()),
    ("lease expiry", |s| lease::expiry(s).boxed()),
    ("lease renewal", |s| lease::renewal(s).boxed()),
    ("another lease", |s| lease::another(s).boxed()),
    ("refused leases", |s| lease::refused(s).boxed()),
    ("live watch", |s| watch::live(s).boxed()),
    ("watch of the past", |s| watch::past(s).boxed()),
    ("watch of the future", |s| watch::future(s).boxed()),
    ("watch filters", |s| watch::filters(s).boxed()),
    ("several watchers on a stream", |s| watch::several(s).boxed()),
    ("watch ids", |s| watch::ids(s).boxed()),
    ("watch progress", |s| watch::progress(s).boxed()),
    ("compacted watch", |s| watch::compacted(s).boxed()),
    ("watch fragments", |s| watch::fragments(s).boxed()),
    ("watch of everything", |s| watch::everything(s).boxed()),
    ("etcdctl", |s| ctl::commands(s).boxed()),
    ("etcdctl with a password", |s| ctl::users(s).boxed()),
    ("users", |s| auth::users(s).boxed()),
    ("locks", |s| locks::locks(s).boxed()),
    ("elections", |s| locks::elections(s).boxed()),
    ("heads of requests", |s| wire::heads(s).boxed()),
    ("HTTP/1", |s| wire::http1(s).boxed()),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_registry_behaves_as_etcd_does() {
    let etcd = tokio::task::spawn_blocking(Etcd::start).await.expect("etcd starts");
    let embedded = Embedded::start().await;
    let url = etcd.url();
    let (theirs, ours) = tokio::join!(play(&url), play(embedded.url()));
    let mut failures = String::new();
    for ((name, _), (theirs, ours)) in CASES.iter().zip(theirs.into_iter().zip(ours)) {
        if theirs.failed || ours.failed || theirs.lines != ours.lines {
            failures += &format!("--- {name}\n{}", difference(&theirs.lines, &ours.lines));
        }
        assert!(theirs.failed || !theirs.lines.is_empty(), "{name} saw nothing");
    }
    assert!(failures.is_empty(), "they differ (<: etcd, >: embedded)\n{failures}");
}

struct Outcome {
    lines: Vec<String>,
    failed: bool,
}

/// Runs every case in turn. A failure becomes a line of the case's outcome.
async fn play(url: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (name, case) in CASES {
        let mut scene = Scene::new(url, name).await;
        let played = AssertUnwindSafe(case(&mut scene)).catch_unwind();
        let failure = match tokio::time::timeout(WAIT_MAX, played).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("failed: {error:#}")),
            Ok(Err(_)) => Some("panicked: see above".to_owned()),
            Err(_) => Some("took too long".to_owned()),
        };
        let failed = failure.is_some();
        let lines = scene.lines.into_iter().chain(failure).collect();
        outcomes.push(Outcome { lines, failed });
    }
    outcomes
}

fn difference(theirs: &[String], ours: &[String]) -> String {
    let mut text = String::new();
    for i in 0..theirs.len().max(ours.len()) {
        match (theirs.get(i), ours.get(i)) {
            (Some(a), Some(b)) if a == b => text += &format!("  {a}\n"),
            (a, b) => {
                a.iter().for_each(|a| text += &format!("< {a}\n"));
                b.iter().for_each(|b| text += &format!("> {b}\n"));
            }
        }
    }
    text
}
