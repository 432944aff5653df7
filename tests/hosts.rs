//! Host names against the system's own resolver.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lookaside::catalog::{Input, Resolved};
use lookaside::hosts;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

mod support;

fn names(all: &[&str]) -> Arc<BTreeSet<String>> {
    Arc::new(all.iter().map(|&name| name.to_owned()).collect())
}

async fn next(inputs: &mut mpsc::Receiver<Input>) -> Resolved {
    match timeout(support::PATIENCE, inputs.recv()).await {
        Ok(Some(Input::Hosts(resolved))) => resolved,
        other => panic!("no word of a host: {other:?}"),
    }
}

#[tokio::test]
async fn names_that_exist_are_told_and_others_are_not() {
    let (wanted, receiver) = watch::channel(names(&["localhost", "nothing.invalid", "a..b"]));
    let (sender, mut inputs) = mpsc::channel(1);
    let run = hosts::run(receiver, sender);
    let look = async {
        let first = next(&mut inputs).await;
        assert_eq!(first.host, "localhost");
        assert!(first.addresses.iter().all(IpAddr::is_loopback) && !first.addresses.is_empty());
        // Said again when the wanted names change, and still nothing of others.
        for more in ["b..c", "c..d"] {
            wanted.send_replace(names(&["localhost", "nothing.invalid", "a..b", more]));
            assert_eq!(next(&mut inputs).await, first);
        }
        drop(wanted);
        assert!(inputs.recv().await.is_none());
    };
    let both = async { tokio::join!(run, look) };
    timeout(2 * support::PATIENCE, both).await.expect("ends when nobody wants names");
}

#[tokio::test]
async fn nobody_listening_is_the_end() {
    let (_wanted, receiver) = watch::channel(names(&["localhost"]));
    let (sender, inputs) = mpsc::channel(1);
    drop(inputs);
    let run = hosts::run(receiver, sender);
    timeout(support::PATIENCE, run).await.expect("ends when nobody listens");
}
