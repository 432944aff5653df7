//! Tests of host name resolution with the system's own resolver.

use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lookaside::catalog::{Input, Resolved};
use lookaside::hosts;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

fn names(all: &[&str]) -> Arc<BTreeSet<String>> {
    Arc::new(all.iter().map(|&name| name.to_owned()).collect())
}

async fn next(inputs: &mut mpsc::Receiver<Input>) -> Resolved {
    match timeout(support::WAIT_MAX, inputs.recv()).await {
        Ok(Some(Input::Hosts(resolved))) => resolved,
        other => panic!("no word of a host: {other:?}"),
    }
}

#[tokio::test]
async fn names_that_exist_are_told_and_so_is_that_others_do_not() {
    let (wanted, receiver) = watch::channel(names(&["localhost", "nothing.invalid", "a..b"]));
    let (sender, mut inputs) = mpsc::channel(1);
    let run = hosts::run(receiver, sender);
    let look = async {
        // Answers come in any order.
        let mut all = BTreeMap::new();
        for _ in 0..3 {
            let told = next(&mut inputs).await;
            all.insert(told.host.clone(), told);
        }
        let local = &all["localhost"];
        assert!(local.addresses.iter().all(IpAddr::is_loopback) && !local.addresses.is_empty());
        assert_eq!(local.trouble, None);
        for bad in ["nothing.invalid", "a..b"] {
            assert!(all[bad].addresses.is_empty() && all[bad].trouble.is_some(), "{all:?}");
        }
        // Hosts are reported again when the wanted names change.
        wanted.send_replace(names(&["localhost", "nothing.invalid"]));
        let mut again = BTreeSet::new();
        while again.len() < 2 {
            again.insert(next(&mut inputs).await.host);
        }
        drop(wanted);
    };
    let both = async { tokio::join!(run, look) };
    timeout(2 * support::WAIT_MAX, both).await.expect("ends when nobody wants names");
}

#[tokio::test]
async fn nobody_listening_is_the_end() {
    let (_wanted, receiver) = watch::channel(names(&["localhost"]));
    let (sender, inputs) = mpsc::channel(1);
    drop(inputs);
    let run = hosts::run(receiver, sender);
    timeout(support::WAIT_MAX, run).await.expect("ends when nobody listens");
}
