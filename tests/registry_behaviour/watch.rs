//! Cases of watches.

use anyhow::Result;
use etcd_client::{DeleteOptions, Txn, TxnOp, WatchFilterType, WatchOptions};

use crate::registry_behaviour::scene::{Scene, receive};

fn below() -> WatchOptions {
    WatchOptions::new().with_prefix()
}

pub async fn live(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("a/", below().with_prev_key()).await;
    s.put("a/1", "1", None).await;
    s.next(&mut watch).await;
    s.put("b", "not watched", None).await;
    s.put("a/1", "2", None).await;
    s.next(&mut watch).await;
    let txn = Txn::new().and_then([
        TxnOp::put(s.key("a/1"), "3", None),
        TxnOp::put(s.key("b"), "3", None),
        TxnOp::put(s.key("a/2"), "3", None),
        TxnOp::delete(s.key("none"), None),
    ]);
    s.txn("two of three", txn).await;
    assert_eq!(s.next(&mut watch).await.events().len(), 2);
    s.delete("a/", Some(DeleteOptions::new().with_prefix())).await;
    assert_eq!(s.next(&mut watch).await.events().len(), 2);
    s.put("a/1", "again", None).await;
    s.next(&mut watch).await;
    s.quiet(&mut watch).await;
    watch.cancel(0).await?;
    assert!(s.next(&mut watch).await.canceled());
    s.put("a/1", "unseen", None).await;
    watch.cancel(0).await?;
    s.quiet(&mut watch).await;
    Ok(())
}

pub async fn past(s: &mut Scene) -> Result<()> {
    for value in ["1", "2", "3"] {
        s.put("a", value, None).await;
        s.put("b", value, None).await;
    }
    s.delete("a", None).await;
    let from =
        |s: &Scene, revision| below().with_prev_key().with_start_revision(s.absolute(revision));
    let mut all = s.watch("", from(s, 1)).await;
    s.events(&mut all, 7).await;
    let mut some = s.watch("a", from(s, 3)).await;
    s.events(&mut some, 3).await;
    s.put("a", "live", None).await;
    s.next(&mut all).await;
    s.next(&mut some).await;
    Ok(())
}

pub async fn future(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("", below().with_start_revision(s.absolute(3))).await;
    for value in ["1", "2", "3", "4"] {
        s.put("a", value, None).await;
    }
    s.events(&mut watch, 2).await;
    s.quiet(&mut watch).await;
    Ok(())
}

pub async fn filters(s: &mut Scene) -> Result<()> {
    let no_put = vec![WatchFilterType::NoPut];
    let no_delete = vec![WatchFilterType::NoDelete];
    let mut deletions = s.watch("", below().with_filters(no_put)).await;
    let mut puts = s.watch("", below().with_filters(no_delete)).await;
    s.put("a", "1", None).await;
    s.delete("a", None).await;
    s.put("a", "2", None).await;
    s.next(&mut deletions).await;
    s.quiet(&mut deletions).await;
    s.next(&mut puts).await;
    s.next(&mut puts).await;
    s.quiet(&mut puts).await;
    Ok(())
}

pub async fn several(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("a", below()).await;
    watch.watch(s.key("b"), Some(below())).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("b/1"), None).await?;
    s.next(&mut watch).await;
    s.put("a", "1", None).await;
    s.next(&mut watch).await;
    s.put("b/1", "1", None).await;
    // Two watchers see it, in any order.
    let mut seen = [receive(&mut watch).await, receive(&mut watch).await];
    seen.sort_by_key(etcd_client::WatchResponse::watch_id);
    s.note(format!("#{} and #{} see it", seen[0].watch_id(), seen[1].watch_id()));
    watch.cancel(1).await?;
    s.next(&mut watch).await;
    s.put("b/1", "2", None).await;
    s.next(&mut watch).await;
    s.quiet(&mut watch).await;
    Ok(())
}

pub async fn ids(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("a", below().with_watch_id(7)).await;
    watch.watch(s.key("b"), Some(below())).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("c"), Some(below().with_watch_id(1))).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("d"), Some(below())).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("e"), Some(below().with_watch_id(7))).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("f"), Some(WatchOptions::new().with_range(s.key("a")))).await?;
    s.next(&mut watch).await;
    watch.watch(s.key("g"), Some(below().with_watch_id(i64::MAX))).await?;
    s.next(&mut watch).await;
    watch.cancel(99).await?;
    for name in ["a", "b", "c", "d", "g"] {
        s.put(name, "1", None).await;
        s.next(&mut watch).await;
    }
    Ok(())
}

pub async fn progress(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("a", below().with_progress_notify()).await;
    s.quiet(&mut watch).await;
    s.put("b", "1", None).await;
    s.quiet(&mut watch).await;
    s.put("a", "1", None).await;
    s.next(&mut watch).await;
    s.quiet(&mut watch).await;
    Ok(())
}

pub async fn compacted(s: &mut Scene) -> Result<()> {
    for value in ["1", "2", "3", "4", "5"] {
        s.put("a", value, None).await;
    }
    s.compact(3).await;
    let from = |s: &Scene, revision| below().with_start_revision(s.absolute(revision));
    let mut late = s.watch("", from(s, 2)).await;
    let canceled = s.next(&mut late).await;
    assert!(canceled.canceled() && canceled.compact_revision() == s.absolute(3));
    let mut just = s.watch("", from(s, 3).with_prev_key()).await;
    s.events(&mut just, 3).await;
    // A watcher that has seen the compacted revisions goes on.
    s.compact(5).await;
    s.put("a", "6", None).await;
    s.next(&mut just).await;
    // The stream of the cancelled watcher still works.
    late.watch(s.key(""), Some(below())).await?;
    s.next(&mut late).await;
    s.put("a", "7", None).await;
    s.next(&mut late).await;
    Ok(())
}

/// Events that do not fit into one message arrive completely, in fragments or not.
pub async fn fragments(s: &mut Scene) -> Result<()> {
    let mut watch = s.watch("", below().with_prev_key().with_fragment()).await;
    for i in 0..4 {
        s.put(&i.to_string(), &"x".repeat(700_000), None).await;
        s.next(&mut watch).await;
    }
    s.delete("", Some(DeleteOptions::new().with_prefix())).await;
    let mut events = 0;
    loop {
        let response = receive(&mut watch).await.0;
        events += response.events.len();
        if !response.fragment {
            break;
        }
    }
    s.note(format!("{events} events"));
    assert_eq!(events, 4);
    s.put("end", "1", None).await;
    s.next(&mut watch).await;
    Ok(())
}

pub async fn everything(s: &mut Scene) -> Result<()> {
    let stream = s.client.watch("", Some(WatchOptions::new().with_all_keys())).await;
    let mut watch = stream?;
    s.next(&mut watch).await;
    s.put("a", "1", None).await;
    s.next(&mut watch).await;
    let mut single = s.client.watch("", None).await?;
    s.next(&mut single).await;
    s.put("a", "2", None).await;
    s.next(&mut watch).await;
    s.quiet(&mut single).await;
    Ok(())
}
