//! Cases of keys: put, get, delete, compact.

use anyhow::Result;
use etcd_client::{DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget};

use crate::registry_behaviour::scene::Scene;

pub async fn puts_and_revisions(s: &mut Scene) -> Result<()> {
    s.get("a", None).await;
    s.put("a", "1", None).await;
    s.put("a", "2", None).await;
    s.put("b", "1", None).await;
    let kvs = s.get("a", None).await;
    assert_eq!(kvs[0].create_revision, s.absolute(1));
    assert_eq!((kvs[0].mod_revision, kvs[0].version), (s.absolute(2), 2));
    s.delete("a", None).await;
    s.put("a", "3", None).await;
    let kvs = s.get("a", None).await;
    assert_eq!((kvs[0].create_revision, kvs[0].version), (s.absolute(5), 1));
    s.put("empty", "", None).await;
    s.get("empty", None).await;
    Ok(())
}

pub async fn put_options(s: &mut Scene) -> Result<()> {
    let previous = || PutOptions::new().with_prev_key();
    s.put("a", "1", Some(previous())).await;
    s.put("a", "2", Some(previous())).await;
    let lease = s.client.lease_grant(60, None).await?.id();
    s.put("a", "3", Some(previous().with_lease(lease))).await;
    s.put("a", "4", Some(previous().with_ignore_lease())).await;
    s.get("a", None).await;
    s.put("a", "", Some(previous().with_ignore_value())).await;
    s.get("a", None).await;
    s.put("a", "5", Some(PutOptions::new().with_ignore_value())).await;
    s.put("a", "5", Some(PutOptions::new().with_ignore_lease().with_lease(lease))).await;
    s.put("none", "", Some(PutOptions::new().with_ignore_value())).await;
    s.put("none", "1", Some(PutOptions::new().with_ignore_lease())).await;
    s.client.lease_revoke(lease).await?;
    s.get("a", None).await;
    Ok(())
}

pub async fn ranges(s: &mut Scene) -> Result<()> {
    for name in ["foo", "foo/1", "foo/2", "foo2", "fop", "f"] {
        s.put(name, name, None).await;
    }
    let all = GetOptions::new;
    assert_eq!(s.get("foo", None).await.len(), 1);
    assert_eq!(s.get("foo", Some(all().with_prefix())).await.len(), 4);
    assert_eq!(s.get("foo/", Some(all().with_prefix())).await.len(), 2);
    assert_eq!(s.get("foo/1", Some(all().with_range(s.key("foo2")))).await.len(), 2);
    s.get("foo", Some(all().with_range(s.key("foo")))).await;
    s.get("foo", Some(all().with_range(s.key("a")))).await;
    s.get("", Some(all().with_prefix().with_count_only())).await;
    s.get("", Some(all().with_prefix().with_keys_only())).await;
    s.get("", Some(all().with_prefix().with_limit(2))).await;
    s.get("", Some(all().with_prefix().with_limit(6))).await;
    s.get("", Some(all().with_prefix().with_limit(2).with_count_only())).await;
    s.get("", Some(all().with_prefix().with_limit(-1))).await;
    s.get("fop", Some(all().with_from_key().with_limit(1))).await;
    s.get("", Some(all().with_prefix().with_serializable())).await;
    Ok(())
}

pub async fn sorting_and_filters(s: &mut Scene) -> Result<()> {
    for (name, value) in [("c", "2"), ("a", "3"), ("b", "1"), ("c", "4"), ("a", "0"), ("c", "5")] {
        s.put(name, value, None).await;
    }
    let all = || GetOptions::new().with_prefix();
    for target in [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            s.get("", Some(all().with_sort(target, order))).await;
        }
        s.get("", Some(all().with_sort(target, SortOrder::Descend).with_limit(2))).await;
        s.get("", Some(all().with_sort(target, SortOrder::Ascend).with_limit(3))).await;
    }
    let (two, three) = (s.absolute(2), s.absolute(3));
    s.get("", Some(all().with_min_mod_revision(three + 1))).await;
    s.get("", Some(all().with_max_mod_revision(three).with_limit(1))).await;
    s.get("", Some(all().with_min_create_revision(two).with_limit(1))).await;
    s.get("", Some(all().with_max_create_revision(two))).await;
    s.get("", Some(all().with_max_create_revision(two).with_count_only())).await;
    Ok(())
}

/// All pages of a list show the same moment, whatever is written meanwhile.
pub async fn pages(s: &mut Scene) -> Result<()> {
    for i in 0..25 {
        s.put(&format!("{i:02}"), "old", None).await;
    }
    let pinned = s.absolute(25);
    let end = format!("{}~", s.prefix);
    let mut next = s.key("");
    let mut seen = Vec::new();
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(10);
        let name = next.strip_prefix(&s.prefix).expect("a key of the case").to_owned();
        let kvs = s.get(&name, Some(options.with_revision(pinned))).await;
        let Some(last) = kvs.last() else { break };
        next = format!("{}\0", String::from_utf8_lossy(&last.key));
        seen.extend(kvs.into_iter().map(|kv| kv.value));
        s.put("05", "new", None).await;
        s.put("99", "new", None).await;
        s.delete("2", Some(DeleteOptions::new().with_prefix())).await;
    }
    assert_eq!(seen, vec![b"old".to_vec(); 25]);
    Ok(())
}

pub async fn deletions(s: &mut Scene) -> Result<()> {
    for name in ["a", "b", "b/1", "b/2", "c"] {
        s.put(name, name, None).await;
    }
    s.delete("none", None).await;
    s.delete("a", Some(DeleteOptions::new().with_prev_key())).await;
    s.delete("a", None).await;
    s.delete("b", Some(DeleteOptions::new().with_prefix().with_prev_key())).await;
    s.delete("d", Some(DeleteOptions::new().with_range(s.key("a")))).await;
    s.delete("", Some(DeleteOptions::new().with_prefix())).await;
    s.get("", Some(GetOptions::new().with_prefix())).await;
    Ok(())
}

pub async fn compaction(s: &mut Scene) -> Result<()> {
    for value in ["1", "2", "3"] {
        s.put("a", value, None).await;
        s.put("b", value, None).await;
    }
    s.delete("b", None).await;
    let at = |revision| Some(GetOptions::new().with_prefix().with_revision(revision));
    for revision in 1..=7 {
        s.get("", at(s.absolute(revision))).await;
    }
    s.get("", at(s.absolute(8))).await;
    s.get("", at(-1)).await;
    s.compact(8).await;
    s.compact(4).await;
    for revision in 3..=7 {
        s.get("", at(s.absolute(revision))).await;
    }
    s.compact(4).await;
    s.compact(3).await;
    s.compact(7).await;
    s.get("", at(s.absolute(6))).await;
    s.get("", at(s.absolute(7))).await;
    s.put("b", "again", None).await;
    s.get("", Some(GetOptions::new().with_prefix())).await;
    Ok(())
}

pub async fn refused(s: &mut Scene) -> Result<()> {
    let prefix = std::mem::take(&mut s.prefix);
    s.put("", "no key", None).await;
    s.get("", None).await;
    s.delete("", None).await;
    s.prefix = prefix;
    s.put("a", "1", Some(PutOptions::new().with_lease(4711))).await;
    s.get("a", None).await;
    Ok(())
}

pub async fn large(s: &mut Scene) -> Result<()> {
    s.put("a", &"x".repeat(1_500_000), None).await;
    s.get("a", None).await;
    s.put("a", &"x".repeat(1_600_000), None).await;
    s.get("a", None).await;
    s.put(&"k".repeat(10_000), "1", None).await;
    s.delete("", Some(DeleteOptions::new().with_prefix())).await;
    Ok(())
}

pub async fn binary(s: &mut Scene) -> Result<()> {
    let key = [s.prefix.as_bytes(), &[0, 0xff, 0xfe]].concat();
    s.client.put(key.clone(), vec![0xff, 0, 0x80], None).await?;
    let answer = s.client.get(s.prefix.as_bytes(), Some(GetOptions::new().with_prefix())).await?;
    assert_eq!((answer.kvs()[0].key(), answer.kvs()[0].value()), (&key[..], &[0xff, 0, 0x80][..]));
    let last = [s.prefix.as_bytes(), &[0xff, 0xff]].concat();
    s.client.put(last.clone(), "1", None).await?;
    let answer = s.client.get(last, Some(GetOptions::new().with_prefix())).await?;
    s.note(format!("{} below 0xffff", answer.count()));
    Ok(())
}
