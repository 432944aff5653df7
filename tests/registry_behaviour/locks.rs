//! Cases of etcd's Lock and Election services.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{
    CampaignResponse, Error, GetOptions, LeaderKey, LockOptions, ProclaimOptions, ResignOptions,
};
use tokio::time::timeout;

use crate::registry_behaviour::scene::Scene;
use crate::support::WAIT_MAX;

/// The time in which a client gets into the queue, on a busy machine too.
const QUEUE: Duration = Duration::from_millis(500);

impl Scene {
    async fn session(&mut self) -> Result<i64> {
        let id = self.client.lease_grant(60, None).await?.id();
        self.lease(id);
        Ok(id)
    }

    /// Returns a key in which the lease's number is replaced by its name in this case.
    fn named(&mut self, key: &[u8], lease: i64) -> String {
        let text = String::from_utf8_lossy(key).replacen(&self.prefix, "", 1);
        let name = self.lease(lease);
        text.replace(&format!("{lease:x}"), &name)
    }

    async fn lock(&mut self, name: &str, lease: i64) -> Option<Vec<u8>> {
        let options = LockOptions::new().with_lease(lease);
        match self.client.lock(self.key(name), Some(options)).await {
            Ok(lock) => {
                let at = self.revision_of(lock.header());
                let key = self.named(lock.key(), lease);
                self.note(format!("lock {name}: {at} {key}"));
                Some(lock.key().to_vec())
            }
            Err(error) => {
                self.note_error(&format!("lock {name}"), &error);
                None
            }
        }
    }

    async fn unlock(&mut self, key: &[u8]) {
        match self.client.unlock(key.to_vec()).await {
            Ok(unlocked) => {
                let at = self.revision_of(unlocked.header());
                self.note(format!("unlock: {at}"));
            }
            Err(error) => self.note_error("unlock", &error),
        }
    }

    async fn queue_length(&mut self, name: &str) -> Result<usize> {
        let below = self.key(&format!("{name}/"));
        let options = GetOptions::new().with_prefix().with_count_only();
        Ok(usize::try_from(self.client.get(below, Some(options)).await?.count())?)
    }

    /// Waits until a queue has this length.
    async fn queued(&mut self, name: &str, count: usize) -> Result<()> {
        timeout(WAIT_MAX, async {
            while self.queue_length(name).await? != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
        .await?
    }

    fn revision_of(&self, header: Option<&etcd_client::ResponseHeader>) -> String {
        let revision = header.map_or(-1, etcd_client::ResponseHeader::revision);
        format!("@{}", revision - self.absolute(0))
    }

    fn campaigned(
        &mut self,
        what: &str,
        answer: Result<CampaignResponse, Error>,
    ) -> Option<LeaderKey> {
        match answer {
            Ok(elected) => {
                let at = self.revision_of(elected.header());
                let leader = elected.leader().expect("a leader").clone();
                let key = self.named(leader.key(), leader.lease());
                let rev = leader.rev() - self.absolute(0);
                self.note(format!("{what}: {at} {key} since {rev}"));
                Some(leader)
            }
            Err(error) => {
                self.note_error(what, &error);
                None
            }
        }
    }

    async fn leader(&mut self, name: &str) {
        match self.client.leader(self.key(name)).await {
            Ok(answer) => {
                let at = self.revision_of(answer.header());
                let kv = answer.kv().expect("a key");
                let (value, lease) = (kv.value_str().expect("text").to_owned(), kv.lease());
                let key = self.named(kv.key(), lease);
                self.note(format!("leader: {at} {key}={value}"));
            }
            Err(error) => self.note_error("leader", &error),
        }
    }
}

pub async fn locks(s: &mut Scene) -> Result<()> {
    let (one, two) = (s.session().await?, s.session().await?);
    let key = s.lock("a", one).await.context("it is free")?;
    s.lock("a", one).await;
    let mut other = s.client.clone();
    let name = s.key("a");
    let options = move || Some(LockOptions::new().with_lease(two));
    // A client that stops waiting leaves the queue.
    assert!(timeout(QUEUE, other.lock(name.clone(), options())).await.is_err());
    s.queued("a", 1).await?;
    let waiting = tokio::spawn(async move { other.lock(name, options()).await });
    s.queued("a", 2).await?;
    assert!(!waiting.is_finished());
    s.unlock(&key).await;
    let passed = timeout(WAIT_MAX, waiting).await???;
    let (at, key) = (s.revision_of(passed.header()), s.named(passed.key(), two));
    s.note(format!("passed on: {at} {key}"));
    // A lock ends with its lease.
    s.client.lease_revoke(two).await?;
    s.lock("a", one).await;
    s.lock("a", 4711).await;
    s.unlock(b"none").await;
    s.unlock(b"").await;
    let unleased = s.client.lock(s.key("b"), None).await?;
    let ours = String::from_utf8_lossy(unleased.key()).starts_with(&s.key("b/"));
    s.note(format!("a lease of its own: {ours}"));
    Ok(())
}

pub async fn elections(s: &mut Scene) -> Result<()> {
    let (one, two) = (s.session().await?, s.session().await?);
    let name = s.key("e");
    s.leader("e").await;
    let answer = s.client.campaign(name.clone(), "one", one).await;
    let leader = s.campaigned("campaign", answer).context("elected")?;
    // etcd sends nothing to an observer before there is a leader.
    let mut observer = s.client.clone().observe(name.clone()).await?;
    let told = timeout(WAIT_MAX, observer.message()).await??.context("a leader is told")?;
    assert_eq!(told.kv().context("a key")?.value(), b"one");
    let answer = s.client.campaign(name.clone(), "one", one).await;
    s.campaigned("the same again", answer);
    let answer = s.client.campaign(name.clone(), "uno", one).await;
    s.campaigned("another value", answer);
    s.leader("e").await;
    let options = || Some(ProclaimOptions::new().with_leader(leader.clone()));
    let proclaimed = s.client.proclaim("eins", options()).await?;
    let at = s.revision_of(proclaimed.header());
    s.note(format!("proclaim: {at}"));

    let mut other = s.client.clone();
    let queue = name.clone();
    let waiting = tokio::spawn(async move { other.campaign(queue, "two", two).await });
    s.queued("e", 2).await?;
    let resigned = s.client.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await?;
    let at = s.revision_of(resigned.header());
    s.note(format!("resign: {at}"));
    let answer = timeout(WAIT_MAX, waiting).await??;
    s.campaigned("the next", answer);
    s.leader("e").await;
    let late = s.client.proclaim("late", options()).await;
    s.note_error("proclaim late", &late.err().context("it does not lead")?);
    let again = s.client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    let at = s.revision_of(again.header());
    s.note(format!("resign again: {at}"));
    let answer = s.client.campaign(name.clone(), "none", 4711).await;
    s.campaigned("no such lease", answer);
    s.client.lease_revoke(two).await?;
    s.leader("e").await;
    let answer = s.client.campaign(name, "back", one).await;
    s.campaigned("back", answer);
    for value in ["uno", "eins", "two", "back"] {
        let told = timeout(WAIT_MAX, observer.message()).await??.context("a leader is told")?;
        let kv = told.kv().context("a key")?;
        let at = s.revision_of(told.header());
        assert_eq!(kv.value_str()?, value);
        s.note(format!("observed {at} {value}"));
    }
    Ok(())
}
