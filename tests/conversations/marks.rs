//! Tests marks that change while streams are open.
//!
//! In: marks. Out: the lists that open and new streams get.

use std::sync::Arc;

use lookaside::catalog::Input;
use lookaside::marks::{Mark, MarkKey, Marks, Value};
use lookaside::settings::WhenEmpty;

use crate::conversations::sorted_ports as ports;
use crate::conversations::wire::{Balanced, Kind, PYTHON};

/// Puts these marks in force in place of all others.
async fn mark(balanced: &Balanced, all: &[&str]) {
    let one = |below: &&str| {
        let key = MarkKey::parse(below).expect("a mark");
        Arc::new(Mark { key, value: Value::default() })
    };
    let marks = Arc::new(Marks::new(all.iter().map(one)));
    balanced.inputs.send(Input::Marks(marks)).await.unwrap();
}

#[tokio::test]
async fn a_drained_backend_leaves_the_lists_of_those_who_have_it() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    for (id, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        balanced.put(&format!("hello {id} 10.0.0.{id}:{id} zone={zone}")).await;
    }
    let mut all = balanced.open(PYTHON, "hello").await;
    let mut zone = balanced.open(PYTHON, "zone--b.hello").await;
    assert_eq!(ports(&all.first_servers().await), [1, 2, 3]);
    assert_eq!(ports(&zone.first_servers().await), [3]);
    // A stream whose list stays the same is sent nothing.
    mark(&balanced, &["drain/hello/10.0.0.1"]).await;
    assert_eq!(ports(&all.servers().await), [2, 3]);
    // The zone's list would be empty, so the stream gets what `when-empty` says.
    mark(&balanced, &["drain/hello/10.0.0.1", "drain/*/zone=b"]).await;
    assert_eq!(ports(&all.servers().await), [2]);
    let Kind::ServerList(list) = zone.next().await else { panic!("a list") };
    assert!(!list.servers.is_empty() && list.servers.iter().all(|server| server.drop));
    // A new stream gets the same list.
    let mut late = balanced.open(PYTHON, "hello").await;
    assert_eq!(ports(&late.first_servers().await), [2]);
    // A backend that registers anew stays drained.
    balanced.put("hello 1 10.0.0.1:11 zone=a").await;
    balanced.put("hello 4 10.0.0.4:4 zone=a").await;
    assert_eq!(ports(&late.servers().await), [2, 4]);
    mark(&balanced, &[]).await;
    assert_eq!(ports(&zone.servers().await), [3]);
    assert_eq!(ports(&late.servers().await), [2, 3, 4, 11]);
}
