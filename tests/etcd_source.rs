//! Tests the etcd source against real etcds: it lists, follows, and has the right
//! content after every fault.
//!
//! In: changes and faults of etcd. Out: the source's events, applied to a mirror.

#[path = "etcd_source/hostile.rs"]
mod hostile;
#[path = "etcd_source/peers.rs"]
mod peers;
#[path = "etcd_source/rotation.rs"]
mod rotation;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::etcd::Etcd;
use crate::support::proxy::Proxy;
use crate::support::{WAIT_MAX, eventually, free_port};
use etcd_client::{Client, Txn, TxnOp};
use lookaside::registry::etcd::{Connect, Options, Tls, run};
use lookaside::registry::record::{Format, Prefix};
use lookaside::registry::{Change, Entry, Event};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A source, and the state that its events add up to.
struct Mirror {
    events_rx: mpsc::Receiver<Event>,
    task: tokio::task::JoinHandle<()>,
    /// Key → its first registration's address, or why it has none.
    keys: BTreeMap<String, String>,
    revision: i64,
    resets: usize,
    stale: Vec<String>,
    /// The `went_back` of each `Reset`.
    went_back: Vec<bool>,
    /// The number of `Apply` events since the last `Reset`.
    fresh: usize,
    /// Revision and number of changes of every `Apply` that has changes.
    applied: Vec<(i64, usize)>,
}

impl Mirror {
    fn of(connect: Connect, paths: &[&str], queue: usize) -> Self {
        let prefix = |path: &&str| Prefix { path: (*path).to_owned(), format: Format::Plain };
        let prefixes = paths.iter().map(prefix).collect();
        let (events_tx, events_rx) = mpsc::channel(queue);
        let task = tokio::spawn(run(Options { connect, prefixes }, events_tx));
        Self {
            events_rx,
            task,
            keys: BTreeMap::new(),
            revision: 0,
            resets: 0,
            stale: Vec::new(),
            went_back: Vec::new(),
            fresh: 0,
            applied: Vec::new(),
        }
    }

    /// Applies events until `so` is true.
    #[track_caller]
    fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + WAIT_MAX;
            while !so(self) {
                let left = deadline.saturating_duration_since(Instant::now());
                match timeout(left, self.events_rx.recv()).await {
                    Ok(Some(event)) => self.apply(event),
                    Ok(None) => panic!("{place}: the source ended"),
                    Err(_) => {
                        let keys = self.keys.iter().take(20).collect::<Vec<_>>();
                        panic!("{place}: gave up waiting: {what}: {keys:?} {:?}", self.stale)
                    }
                }
            }
        }
    }

    async fn until_has(&mut self, expected: &[(&str, &str)]) {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let expected: BTreeMap<_, _> = expected.iter().map(pair).collect();
        self.until(&format!("{expected:?}"), |mirror| mirror.keys == expected).await;
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Reset { revision, all, went_back } => {
                self.resets += 1;
                self.went_back.push(went_back);
                self.fresh = 0;
                self.revision = revision;
                let count = all.len();
                self.keys = all.into_iter().map(text).collect();
                assert_eq!(self.keys.len(), count, "a key was listed twice");
            }
            Event::Apply { revision, changes } => {
                assert!(revision >= self.revision, "back from {} to {revision}", self.revision);
                assert!(changes.is_empty() || revision > self.revision, "{revision} again");
                self.revision = revision;
                self.fresh += 1;
                if !changes.is_empty() {
                    self.applied.push((revision, changes.len()));
                }
                for change in changes {
                    match change {
                        Change::Put(entry) => self.keys.extend([text(entry)]),
                        Change::Delete(key, _) => drop(self.keys.remove(&key.to_string())),
                    }
                }
            }
            Event::Stale { since, reason } => {
                assert!(since <= Instant::now());
                self.stale.push(reason);
            }
        }
    }
}

fn text(entry: Entry) -> (String, String) {
    let meaning = match entry.decoded {
        Ok(found) => {
            found.registrations.first().map(|found| found.address.to_string()).unwrap_or_default()
        }
        Err(rejected) => {
            assert!(rejected.value.len() < 1000, "a rejected value is shown in part");
            "rejected".to_owned()
        }
    };
    (entry.key.to_string(), meaning)
}

fn connect(urls: &[&str]) -> Connect {
    Connect::new(urls, None, None).expect("endpoints")
}

fn mirror(etcd: &Etcd, paths: &[&str]) -> Mirror {
    Mirror::of(connect(&[&etcd.url()]), paths, 64)
}

async fn client(etcd: &Etcd) -> Client {
    Client::connect([etcd.url()], None).await.expect("etcd answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_follows_and_one_bad_key_costs_nothing() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    etcd.ctl(&["put", "/s/hello/2", "nonsense"]);
    etcd.ctl(&["put", "/s2/hello/1", "10.0.0.9:1"]);
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1"), ("/s/hello/2", "rejected")]).await;
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0));

    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:1"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1"), ("/s/hello/2", "10.0.0.2:1")]).await;
    etcd.ctl(&["put", "/s2/hello/2", "10.0.0.9:1"]);
    etcd.ctl(&["put", "/s/hello/3", "127.0.0.1:500053"]);
    etcd.ctl(&["del", "/s/hello/1"]);
    mirror.until_has(&[("/s/hello/2", "10.0.0.2:1"), ("/s/hello/3", "rejected")]).await;

    let before = mirror.fresh;
    mirror.until("word that nothing happened", |mirror| mirror.fresh >= before + 3).await;
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_apply_and_prefixes_may_overlap() {
    let etcd = Etcd::start();
    let mut mirror = mirror(&etcd, &["/s/", "/s/inner/", "/other/"]);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;
    let put = |key: &str| TxnOp::put(key, "10.0.0.1:1", None);
    let all = [put("/s/a/1"), put("/s/inner/a/1"), put("/s/b/1")];
    client(&etcd).await.txn(Txn::new().and_then(all)).await.expect("a transaction");
    etcd.ctl(&["put", "/other/a/1", "10.0.0.2:1"]);
    let one = "10.0.0.1:1";
    let all =
        [("/s/a/1", one), ("/s/b/1", one), ("/s/inner/a/1", one), ("/other/a/1", "10.0.0.2:1")];
    mirror.until_has(&all).await;
    let changes: Vec<_> = mirror.applied.iter().map(|(_, changes)| *changes).collect();
    assert_eq!(changes, [3, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_many_pages_as_one() {
    const KEYS: usize = 20_001;
    let etcd = Etcd::start();
    let mut client = client(&etcd).await;
    let put = |n: &usize| TxnOp::put(format!("/s/hello/{n}"), "10.0.0.1:1", None);
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(100) {
        let all: Vec<_> = chunk.iter().map(put).collect();
        client.txn(Txn::new().and_then(all)).await.expect("a transaction");
    }
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until("every key", |mirror| mirror.keys.len() == KEYS).await;
    etcd.ctl(&["del", "--prefix", "/s/hello/1"]);
    mirror.until("a deletion of many", |mirror| mirror.keys.len() == KEYS - 11_111).await;
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0));
    assert_eq!(mirror.applied.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_megabyte_are_read_in_smaller_pages() {
    const LARGE: usize = 60;
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "1000000000"]);
    let mut client = client(&etcd).await;
    let value = "x".repeat(1_300_000);
    for n in 0..LARGE {
        client.put(format!("/s/large/{n:02}"), value.as_str(), None).await.expect("a put");
    }
    client.put("/s/small/1", "10.0.0.1:1", None).await.expect("a put");
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until("every key", |mirror| mirror.keys.len() == LARGE + 1).await;
    assert_eq!(mirror.keys["/s/small/1"], "10.0.0.1:1");
    client.put("/s/large/next", value.as_str(), None).await.expect("a put");
    mirror.until("the next", |mirror| mirror.keys.len() == LARGE + 2).await;
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_misses_nothing_and_does_not_take_itself_for_etcds_silence() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "2000000000"]);
    let mut client = client(&etcd).await;
    let mut mirror = Mirror::of(connect(&[&etcd.url()]), &["/s/"], 1);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;
    // This takes longer than etcd may be silent, and exceeds every buffer on the way, so
    // that etcd sends the missed events in fragments.
    let (started, mut puts) = (Instant::now(), 0);
    let value = "x".repeat(900_000);
    while started.elapsed() < Duration::from_secs(6) || puts < 20 {
        if puts < 60 {
            client.put(format!("/s/large/{puts}"), value.as_str(), None).await.expect("a put");
        } else {
            client.put(format!("/s/small/{puts}"), "10.0.0.1:1", None).await.expect("a put");
        }
        puts += 1;
    }
    mirror.until("everything", |mirror| mirror.keys.len() == puts).await;
    assert_eq!(mirror.applied.len(), puts);
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0), "{:?}", mirror.stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_is_stale_until_it_is_back_and_an_empty_one_is_empty() {
    let mut etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    etcd.kill();
    mirror.until("a stale registry", |mirror| !mirror.stale.is_empty()).await;
    mirror.until("the reason", |mirror| mirror.stale.iter().any(|s| s.contains("refused"))).await;
    assert_eq!(mirror.keys.len(), 1, "trouble takes nothing away");
    etcd.restart();
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:1"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1"), ("/s/hello/2", "10.0.0.2:1")]).await;
    let mut reasons = mirror.stale.clone();
    reasons.dedup();
    assert_eq!(reasons, mirror.stale, "a reason is told once");

    let resets = mirror.resets;
    etcd.restart_empty();
    mirror.until("the empty store", |mirror| mirror.resets > resets).await;
    mirror.until_has(&[]).await;
    etcd.ctl(&["put", "/s/hello/3", "10.0.0.3:1"]);
    mirror.until_has(&[("/s/hello/3", "10.0.0.3:1")]).await;
}

/// A revision counts as known even if the source only followed it and never listed it.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_store_is_known_as_such() {
    let mut etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let snapshot = directory.path().join("snapshot");
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    etcd.ctl(&["snapshot", "save", snapshot.to_str().expect("a path is text")]);
    etcd.restart();
    mirror.until("a second reading", |mirror| mirror.resets == 2).await;
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:2"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:2")]).await;
    etcd.restart_from(&snapshot);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    assert_eq!(mirror.went_back, [false, false, true]);
}

/// The copy is written to before it is read again, so its revision is no sign.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_store_is_known_by_its_keys() {
    let mut etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port()).await;
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let snapshot = directory.path().join("snapshot");
    etcd.ctl(&["snapshot", "save", snapshot.to_str().expect("a path is text")]);
    let mut mirror = Mirror::of(connect(&[&proxy.url()]), &["/s/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:2"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:2")]).await;
    proxy.cut();
    etcd.restart_from(&snapshot);
    for n in 2..=9 {
        etcd.ctl(&["put", &format!("/s/hello/{n}"), "10.0.0.1:9"]);
    }
    proxy.mend();
    mirror.until("another reading", |mirror| mirror.resets == 2).await;
    assert_eq!((mirror.keys["/s/hello/1"].as_str(), mirror.keys.len()), ("10.0.0.1:1", 9));
    assert_eq!(mirror.went_back, [false, true]);

    // A key that is written, deleted and written again is no sign of an older store.
    proxy.cut();
    for value in ["10.0.0.1:3", "10.0.0.1:4"] {
        etcd.ctl(&["del", "/s/hello/2"]);
        etcd.ctl(&["put", "/s/hello/1", value]);
        etcd.ctl(&["put", "/s/hello/2", value]);
    }
    proxy.mend();
    mirror.until("a third reading", |mirror| mirror.resets == 3).await;
    assert_eq!(mirror.went_back, [false, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_etcd_is_stale_until_it_thaws() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    etcd.freeze();
    mirror.until("a stale registry", |mirror| !mirror.stale.is_empty()).await;
    assert_eq!(mirror.keys.len(), 1);
    etcd.thaw();
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:1"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1"), ("/s/hello/2", "10.0.0.2:1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_while_cut_off_is_read_anew() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port()).await;
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let mut mirror = Mirror::of(connect(&[&proxy.url()]), &["/s/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    proxy.cut();
    mirror.until("a stale registry", |mirror| !mirror.stale.is_empty()).await;
    etcd.ctl(&["del", "/s/hello/1"]);
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:1"]);
    etcd.ctl(&["put", "/s/hello/2", "10.0.0.2:2"]);
    etcd.ctl(&["compact", "4"]);
    assert_eq!(mirror.keys.len(), 1);
    proxy.mend();
    mirror.until_has(&[("/s/hello/2", "10.0.0.2:2")]).await;
}

/// The first event fills the queue, so the source holds its reading back until the
/// revision is compacted. The watch then starts at a compacted revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_etcd_takes_back_is_read_anew() {
    let etcd = Etcd::start();
    // The order is chance, and rarely the wrong one.
    for _ in 0..40 {
        let proxy = Proxy::to(etcd.port()).await;
        proxy.cut();
        let mut mirror = Mirror::of(connect(&[&proxy.url()]), &["/s/"], 1);
        eventually("a first trouble", || (!mirror.events_rx.is_empty()).then_some(()));
        proxy.mend();
        eventually("a way to etcd", || (proxy.passed() > 0).then_some(()));
        let mut last = String::new();
        for n in 0..10 {
            last = format!("10.0.0.1:{}", n + 1);
            etcd.ctl(&["put", "/s/hello/1", &last]);
            let json = etcd.ctl(&["get", "x", "-w", "json"]);
            let (_, revision) = json.split_once("\"revision\":").expect("a revision");
            let end = revision.find(|c: char| !c.is_ascii_digit()).expect("more behind it");
            etcd.ctl(&["compact", &revision[..end]]);
        }
        mirror.until_has(&[("/s/hello/1", &last)]).await;
        // A listing at a compacted revision is no reading, so etcd canceled a watch.
        if mirror.resets > 1 {
            return;
        }
    }
    panic!("no watch was ever taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_are_passed_over() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    let dead = || format!("127.0.0.1:{}", free_port());
    let live = format!("127.0.0.1:{}", etcd.port());
    let endpoints = [&dead(), &dead(), live.as_str(), &dead()];
    let mut mirror = Mirror::of(connect(&endpoints), &["/s/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_followed_while_any_majority_lives() {
    let mut cluster = Cluster::start(3);
    let urls = cluster.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let mut mirror = Mirror::of(connect(&urls), &["/s/"], 64);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;
    for index in 0..3 {
        cluster.freeze(index);
        let key = format!("/s/hello/{index}");
        let put = || cluster.ctl((index + 1) % 3, &["put", &key, "10.0.0.1:1"]).then_some(());
        eventually("a leader", put);
        mirror.until("the key", |mirror| mirror.keys.contains_key(&key)).await;
        cluster.thaw(index);
    }
    assert!(!mirror.stale.is_empty(), "one of them was the one it followed");
    let mut survivors = Mirror::of(connect(&urls[2..]), &["/s/"], 64);
    survivors.until("a first reading", |mirror| mirror.resets == 1).await;
    let (stale, resets) = (mirror.stale.len(), mirror.resets);
    cluster.kill(0);
    cluster.kill(1);
    let wait = mirror.until("no leader", |mirror| mirror.stale.len() > stale);
    wait.await;
    let told = |mirror: &Mirror| mirror.stale.iter().any(|reason| reason.contains("no leader"));
    survivors.until("a member without a leader", told).await;
    assert_eq!(mirror.keys.len(), 3);
    cluster.restart(0);
    mirror.until("a reading", |mirror| mirror.resets > resets).await;
    assert_eq!(mirror.keys.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_with_a_user_that_may_only_read_the_prefix() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/s/hello/1", "10.0.0.1:1"]);
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "reader", "read", "/s/"]);
    etcd.ctl(&["user", "add", "me:mine"]);
    etcd.ctl(&["user", "grant-role", "me", "reader"]);
    let user = |name: &str, password: &str| {
        let user = Some((name.to_owned(), password.to_owned()));
        Connect::new(&[&etcd.url()], user, None).expect("endpoints")
    };
    let mut before = Mirror::of(user("me", "mine"), &["/s/"], 64);
    before.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;

    etcd.ctl(&["auth", "enable"]);
    let mut mirror = Mirror::of(user("me", "mine"), &["/s/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    etcd.ctl(&["--user=root:secret", "put", "/s/hello/2", "10.0.0.2:1"]);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1"), ("/s/hello/2", "10.0.0.2:1")]).await;

    let refused = [
        (user("me", "wrong"), "/s/", "invalid user ID or password"),
        (user("me", "mine"), "/other/", "permission denied"),
        (connect(&[&etcd.url()]), "/s/", "user name is empty"),
    ];
    for (connect, path, reason) in refused {
        let mut mirror = Mirror::of(connect, &[path], 64);
        let told = |mirror: &Mirror| mirror.stale.iter().any(|text| text.contains(reason));
        mirror.until(reason, told).await;
        assert_eq!(mirror.resets, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn speaks_tls_both_ways() {
    let etcd = Cluster::start_with_tls();
    assert!(etcd.ctl(0, &["put", "/s/hello/1", "10.0.0.1:1"]));
    let files = etcd.certificates();
    let read = |path| std::fs::read(path).expect("a certificate");
    let url = etcd.url(0);
    let with = |ca: Vec<u8>, identity| {
        Connect::new(&[&url], None, Some(&Tls { ca, identity })).expect("endpoints")
    };
    let identity = Some((read(&files.cert), read(&files.key)));
    let mut mirror = Mirror::of(with(read(&files.ca), identity.clone()), &["/s/"], 64);
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;

    let strangers = Cluster::start_with_tls();
    let bad = [(read(&strangers.certificates().ca), identity), (read(&files.ca), None)];
    for (ca, identity) in bad {
        let mut mirror = Mirror::of(with(ca, identity), &["/s/"], 64);
        mirror.until("a refusal", |mirror| !mirror.stale.is_empty()).await;
        assert_eq!(mirror.resets, 0, "{:?}", mirror.stale);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_when_nobody_listens() {
    let etcd = Etcd::start();
    let mut mirror = mirror(&etcd, &["/s/"]);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;
    mirror.events_rx.close();
    timeout(WAIT_MAX, mirror.task).await.expect("it ends").expect("in order");
}
