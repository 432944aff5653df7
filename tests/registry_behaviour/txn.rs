//! Cases of transactions.

use anyhow::Result;
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};

use crate::registry_behaviour::scene::Scene;

const OPS: [CompareOp; 4] =
    [CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less];

/// Every target and operator: below, at and above, for a key and for a missing key.
pub async fn compares(s: &mut Scene) -> Result<()> {
    let lease = s.client.lease_grant(60, Some(etcd_client::LeaseGrantOptions::new().with_id(77)));
    lease.await?;
    s.put("a", "1", None).await;
    s.put("a", "m", Some(PutOptions::new().with_lease(77))).await;
    for name in ["a", "none"] {
        let key = s.key(name);
        let mut held = String::new();
        for op in OPS {
            for delta in -1..=1 {
                let (created, modified) = (s.absolute(1) + delta, s.absolute(2) + delta);
                let value = ["l", "m", "n"][usize::try_from(delta + 1)?];
                for compare in [
                    Compare::version(key.clone(), op, 2 + delta),
                    Compare::version(key.clone(), op, delta),
                    Compare::create_revision(key.clone(), op, created),
                    Compare::create_revision(key.clone(), op, delta),
                    Compare::mod_revision(key.clone(), op, modified),
                    Compare::value(key.clone(), op, value),
                    Compare::value(key.clone(), op, ""),
                    Compare::lease(key.clone(), op, 77 + delta),
                    Compare::lease(key.clone(), op, delta),
                ] {
                    let answer = s.client.txn(Txn::new().when([compare])).await?;
                    held.push(if answer.succeeded() { '1' } else { '0' });
                }
            }
        }
        assert!(held.contains('1') && held.contains('0'));
        s.note(format!("{name}: {held}"));
    }
    s.client.lease_revoke(77).await?;
    Ok(())
}

pub async fn range_compares(s: &mut Scene) -> Result<()> {
    s.put("a/1", "x", None).await;
    s.put("a/2", "x", None).await;
    let below = |s: &Scene, name: &str, op, value| {
        Txn::new().when([Compare::value(s.key(name), op, value).with_prefix()])
    };
    assert!(s.txn("all equal", below(s, "a/", CompareOp::Equal, "x")).await);
    s.put("a/2", "y", None).await;
    assert!(!s.txn("not all equal", below(s, "a/", CompareOp::Equal, "x")).await);
    s.txn("all differ", below(s, "a/", CompareOp::NotEqual, "z")).await;
    s.txn("none there", below(s, "b/", CompareOp::NotEqual, "z")).await;
    let none = Compare::create_revision(s.key("b/"), CompareOp::Equal, 0).with_prefix();
    assert!(s.txn("nothing was created", Txn::new().when([none])).await);
    Ok(())
}

pub async fn transactions(s: &mut Scene) -> Result<()> {
    let (a, b, c) = (s.key("a"), s.key("b"), s.key("c"));
    let absent = Compare::version(a.clone(), CompareOp::Equal, 0);
    let create = Txn::new()
        .when([absent.clone()])
        .and_then([TxnOp::put(a.clone(), "1", None), TxnOp::put(b.clone(), "1", None)])
        .or_else([TxnOp::get(a.clone(), None)]);
    assert!(s.txn("create", create.clone()).await);
    assert!(!s.txn("create again", create).await);
    s.txn("empty", Txn::new()).await;
    let reads_see_writes = Txn::new().and_then([
        TxnOp::get(a.clone(), None),
        TxnOp::put(a.clone(), "2", Some(PutOptions::new().with_prev_key())),
        TxnOp::get(a.clone(), None),
        TxnOp::put(c.clone(), "2", None),
        TxnOp::delete(b.clone(), Some(DeleteOptions::new().with_prev_key())),
        TxnOp::get(s.prefix.clone(), Some(GetOptions::new().with_prefix())),
    ]);
    s.txn("mixed", reads_see_writes).await;
    s.get("", Some(GetOptions::new().with_prefix())).await;
    let nothing = Txn::new().and_then([TxnOp::delete(b.clone(), None), TxnOp::get(a, None)]);
    s.txn("deletes nothing", nothing).await;
    let two = [absent, Compare::version(b, CompareOp::Equal, 0)];
    s.txn("one of two compares", Txn::new().when(two)).await;
    let keep = PutOptions::new().with_ignore_value().with_prev_key();
    s.txn("keep the value", Txn::new().and_then([TxnOp::put(c, "", Some(keep))])).await;
    let old = GetOptions::new().with_prefix().with_revision(s.absolute(1));
    s.txn("read the past", Txn::new().and_then([TxnOp::get(s.prefix.clone(), Some(old))])).await;
    Ok(())
}

pub async fn nested(s: &mut Scene) -> Result<()> {
    let (a, b) = (s.key("a"), s.key("b"));
    let inner = |n: &str| {
        Txn::new()
            .when([Compare::version(a.clone(), CompareOp::Greater, 0)])
            .and_then([TxnOp::put(b.clone(), format!("there {n}"), None)])
            .or_else([TxnOp::put(b.clone(), format!("not there {n}"), None)])
    };
    let outer = |n| Txn::new().and_then([TxnOp::put(a.clone(), n, None), TxnOp::txn(inner(n))]);
    // The inner compare sees the state before the outer put.
    s.txn("first", outer("1")).await;
    s.txn("second", outer("2")).await;
    s.get("", Some(GetOptions::new().with_prefix())).await;
    let twice = Txn::new().and_then([TxnOp::txn(inner("3")), TxnOp::txn(inner("4"))]);
    s.txn("twice the same key", twice).await;
    let deep = (0..5).fold(Txn::new(), |txn, _| Txn::new().and_then([TxnOp::txn(txn)]));
    s.txn("deep", deep).await;
    Ok(())
}

pub async fn refused(s: &mut Scene) -> Result<()> {
    let key = s.key("a");
    let put = || TxnOp::put(key.clone(), "1", None);
    let delete =
        |from: &str| TxnOp::delete(s.key(from), Some(DeleteOptions::new().with_range(s.key("z"))));
    let txns = [
        ("twice the same key", Txn::new().and_then([put(), put()])),
        ("twice in what is not taken", Txn::new().or_else([put(), put()])),
        ("put and delete", Txn::new().and_then([put(), TxnOp::delete(key.clone(), None)])),
        ("put and delete around", Txn::new().and_then([put(), delete("A")])),
        ("put and delete beside", Txn::new().and_then([put(), delete("b")])),
        ("delete twice", Txn::new().and_then([delete("b"), delete("c")])),
        (
            "nested delete before",
            Txn::new().and_then([TxnOp::txn(Txn::new().and_then([delete("A")])), put()]),
        ),
        ("no key", Txn::new().and_then([TxnOp::put("", "1", None)])),
        ("no key to compare", Txn::new().when([Compare::version("", CompareOp::Equal, 0)])),
        (
            "no such lease",
            Txn::new().and_then([
                TxnOp::put(s.key("b"), "1", None),
                TxnOp::put(s.key("c"), "1", Some(PutOptions::new().with_lease(4711))),
            ]),
        ),
        (
            "future",
            Txn::new().and_then([
                TxnOp::put(s.key("b"), "1", None),
                TxnOp::get(key.clone(), Some(GetOptions::new().with_revision(1 << 40))),
            ]),
        ),
        (
            "nothing to keep",
            Txn::new().and_then([TxnOp::put(
                s.key("none"),
                "",
                Some(PutOptions::new().with_ignore_value()),
            )]),
        ),
    ];
    for (what, txn) in txns {
        s.txn(what, txn).await;
    }
    for count in [128, 129] {
        let compare = Compare::version(key.clone(), CompareOp::Equal, 5);
        let ops: Vec<_> =
            (0..count).map(|i| TxnOp::put(s.key(&i.to_string()), "1", None)).collect();
        s.txn("many compares", Txn::new().when(vec![compare; count])).await;
        let ok = s.client.txn(Txn::new().and_then(ops)).await;
        s.note(format!("{count} puts: {}", ok.is_ok()));
        let gets: Vec<_> = (0..count).map(|_| TxnOp::get(key.clone(), None)).collect();
        let ok = s.client.txn(Txn::new().or_else(gets)).await;
        s.note(format!("{count} gets: {}", ok.is_ok()));
    }
    s.get("", Some(GetOptions::new().with_prefix().with_count_only())).await;
    Ok(())
}
