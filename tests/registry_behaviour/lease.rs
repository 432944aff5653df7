//! Cases of leases.

use anyhow::Result;
use etcd_client::{
    GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions,
};

use crate::registry_behaviour::scene::Scene;

impl Scene {
    async fn grant(&mut self, ttl: i64, id: i64) -> i64 {
        let options = LeaseGrantOptions::new().with_id(id);
        match self.client.lease_grant(ttl, Some(options)).await {
            Ok(answer) => {
                let (header, ttl, error) =
                    (self.header(&answer.0.header), answer.ttl(), answer.error());
                let lease = self.lease(answer.id());
                self.lines.push(format!("grant {lease}: {header} ttl {ttl} {error:?}"));
                answer.id()
            }
            Err(error) => {
                self.note_error("grant", &error);
                0
            }
        }
    }

    async fn revoke(&mut self, id: i64) {
        match self.client.lease_revoke(id).await {
            Ok(answer) => {
                let header = self.header(&answer.0.header);
                self.note(format!("revoke: {header}"));
            }
            Err(error) => self.note_error("revoke", &error),
        }
    }

    async fn time_to_live(&mut self, id: i64) {
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let answer = self.client.lease_time_to_live(id, Some(options)).await.expect("it answers");
        let (header, granted) = (self.header(&answer.0.header), answer.granted_ttl());
        // The TTL is in whole seconds, rounded down, and a busy machine may use up some.
        let left = if answer.ttl() < 0 { answer.ttl() } else { granted - answer.ttl() };
        assert!(left <= 10, "{answer:?}");
        let left = left.min(1);
        let lease = self.lease(id);
        let mut keys: Vec<_> =
            answer.keys().iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        keys.sort();
        self.note(format!("{lease}: {header} granted {granted} left {left} {keys:?}"));
    }
}

pub async fn life(s: &mut Scene) -> Result<()> {
    let lease = s.grant(600, 0).await;
    assert!(lease > 0);
    s.time_to_live(lease).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(lease))).await;
    s.put("b", "1", Some(PutOptions::new().with_lease(lease))).await;
    s.put("c", "1", None).await;
    s.get("", Some(GetOptions::new().with_prefix())).await;
    s.time_to_live(lease).await;
    let listed = s.client.leases().await?;
    assert!(listed.leases().iter().any(|status| status.id() == lease));
    s.note(format!("{} leases", listed.leases().len()));
    let mut watch = s.watch("", WatchOptions::new().with_prefix().with_prev_key()).await;
    s.revoke(lease).await;
    // Both deletions come in one revision, in the order of the keys.
    assert_eq!(s.next(&mut watch).await.events().len(), 2);
    s.get("", Some(GetOptions::new().with_prefix())).await;
    s.time_to_live(lease).await;
    s.revoke(lease).await;
    let bare = s.grant(600, 0).await;
    s.revoke(bare).await;
    Ok(())
}

pub async fn expiry(s: &mut Scene) -> Result<()> {
    let lease = s.grant(4, 0).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(lease))).await;
    s.put("b", "1", Some(PutOptions::new().with_lease(lease))).await;
    let mut watch = s.watch("", WatchOptions::new().with_prefix().with_prev_key()).await;
    let gone = s.next(&mut watch).await;
    assert!(gone.events().iter().all(|e| e.kv().is_some_and(|kv| kv.value().is_empty())));
    s.get("", Some(GetOptions::new().with_prefix())).await;
    s.time_to_live(lease).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(lease))).await;
    Ok(())
}

pub async fn renewal(s: &mut Scene) -> Result<()> {
    let lease = s.grant(4, 0).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(lease))).await;
    let (mut keeper, mut kept) = s.client.lease_keep_alive(lease).await?;
    let begin = tokio::time::Instant::now();
    // This is longer than the lease lives without renewals.
    while begin.elapsed().as_millis() < 6_000 {
        keeper.keep_alive().await?;
        let answer = kept.message().await?.expect("the stream goes on");
        assert_eq!((answer.ttl(), answer.id()), (4, lease));
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert_eq!(s.get("a", None).await.len(), 1);
    s.revoke(lease).await;
    keeper.keep_alive().await?;
    let answer = kept.message().await?.expect("the stream goes on");
    s.note(format!("renewed too late: {} ttl {}", s.header(&answer.0.header), answer.ttl()));
    let none = s.client.lease_keep_alive(4711).await;
    s.note_error("renew what is not", &none.expect_err("there is no such lease"));
    Ok(())
}

/// A registrant that takes a new lease at every tick keeps its key.
pub async fn another(s: &mut Scene) -> Result<()> {
    let first = s.grant(600, 0).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(first))).await;
    let second = s.grant(600, 0).await;
    assert_ne!(first, second);
    s.put("a", "1", Some(PutOptions::new().with_lease(second))).await;
    s.time_to_live(first).await;
    s.time_to_live(second).await;
    s.revoke(first).await;
    assert_eq!(s.get("a", None).await.len(), 1);
    s.put("a", "1", None).await;
    s.time_to_live(second).await;
    s.revoke(second).await;
    assert_eq!(s.get("a", None).await.len(), 1);
    let third = s.grant(600, 0).await;
    s.put("a", "1", Some(PutOptions::new().with_lease(third))).await;
    s.delete("a", None).await;
    s.put("a", "1", None).await;
    s.revoke(third).await;
    assert_eq!(s.get("a", None).await.len(), 1);
    Ok(())
}

pub async fn refused(s: &mut Scene) -> Result<()> {
    s.grant(600, 1234).await;
    s.grant(600, 1234).await;
    s.revoke(1234).await;
    s.revoke(1234).await;
    s.time_to_live(1234).await;
    s.grant(9_000_000_000, 1).await;
    s.revoke(1).await;
    s.grant(9_000_000_001, 1).await;
    for ttl in [0, -5] {
        s.grant(ttl, 2).await;
        s.revoke(2).await;
    }
    s.revoke(0).await;
    Ok(())
}
