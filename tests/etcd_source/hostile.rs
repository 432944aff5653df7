//! Tests the source with broken or hostile etcds. Each fake etcd breaks the protocol in
//! one way.
//!
//! In: the answers of a fake etcd. Out: the source rejects them at little cost and reads
//! everything again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Mirror, connect};
use crate::support::lookaside::Balancer;
use crate::support::{WAIT_MAX, eventually};
use etcd_client::proto as pb;
use futures_util::stream::{BoxStream, StreamExt};
use lookaside::registry::{Cause, Change, Event};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// The way in which a fake etcd breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    SameKeyForEver,
    NoKeysAndMore,
    FragmentsForEver,
    FragmentsThatStop,
    OtherCluster,
    OtherKey,
    OtherWatcher,
    GreatestRevision,
    RevisionsGoBack,
    SilentWatch,
    CancelsForEver,
    EventsForEver,
}

#[derive(Clone)]
struct Fake {
    ill: Ill,
    url: String,
    pages: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

const REVISION: i64 = 5;
const KEY: &str = "/s/hello/1";
/// A key that is registered under [`LEASE`] and deleted by event number [`GONE`].
const LEASED: &str = "/s/leased/1";
const LEASE: i64 = 9;
const GONE: i64 = 300;

fn header(cluster_id: u64, revision: i64) -> Option<pb::PbResponseHeader> {
    Some(pb::PbResponseHeader { cluster_id, revision, ..Default::default() })
}

fn kv(key: &str, mod_revision: i64) -> pb::PbKeyValue {
    let value = b"10.0.0.1:1".to_vec();
    pb::PbKeyValue { key: key.into(), value, mod_revision, ..Default::default() }
}

fn event(key: &str, mod_revision: i64) -> pb::PbEvent {
    pb::PbEvent { kv: Some(kv(key, mod_revision)), ..Default::default() }
}

fn response(watch_id: i64) -> pb::PbWatchResponse {
    pb::PbWatchResponse { header: header(7, REVISION), watch_id, ..Default::default() }
}

impl Fake {
    async fn start(ill: Ill) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (pages, watches, bytes) = (Arc::default(), Arc::default(), Arc::default());
        let fake = Self { ill, url, pages, watches, bytes };
        let server = tonic::transport::Server::builder()
            .add_service(pb::PbKvServer::new(fake.clone()))
            .add_service(pb::PbLeaseServer::new(fake.clone()))
            .add_service(pb::PbWatchServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    /// Sends the broken responses that follow the answer to a first watcher.
    async fn misbehave(&self, tx: &mpsc::Sender<Result<pb::PbWatchResponse, Status>>) {
        let say = async |response| drop(tx.send(Ok(response)).await);
        let events = |events| pb::PbWatchResponse { events, ..response(0) };
        match self.ill {
            Ill::FragmentsForEver => loop {
                let mut long = event(KEY, REVISION + 1);
                long.kv.as_mut().expect("it has one").value = vec![b'x'; 1 << 20];
                let header = header(7, REVISION + 1);
                let part = pb::PbWatchResponse { header, fragment: true, ..events(vec![long]) };
                if tx.send(Ok(part)).await.is_err() {
                    return;
                }
                self.bytes.fetch_add(1 << 20, Ordering::SeqCst);
            },
            Ill::EventsForEver => {
                for revision in REVISION + 1.. {
                    let mut event = match revision - REVISION {
                        1 | GONE => event(LEASED, revision),
                        _ => event(KEY, revision),
                    };
                    event.r#type = i32::from(revision - REVISION == GONE);
                    event.kv.as_mut().expect("it has one").lease = LEASE;
                    let header = header(7, revision);
                    let one = pb::PbWatchResponse { header, ..events(vec![event]) };
                    if tx.send(Ok(one)).await.is_err() {
                        return;
                    }
                }
            }
            Ill::FragmentsThatStop => {
                let part = events(vec![event(KEY, REVISION)]);
                let mut part = pb::PbWatchResponse { fragment: true, ..part };
                part.events[0].kv.as_mut().expect("it has one").mod_revision = REVISION + 1;
                part.header = header(7, REVISION + 1);
                say(part).await;
            }
            Ill::OtherCluster => {
                let events = events(vec![event("/s/evil/1", 6)]);
                say(pb::PbWatchResponse { header: header(8, 6), ..events }).await;
            }
            Ill::OtherKey => {
                let events = events(vec![event("/other/1", 6)]);
                say(pb::PbWatchResponse { header: header(7, 6), ..events }).await;
            }
            Ill::OtherWatcher => {
                let events = events(vec![event("/s/evil/1", 6)]);
                let header = header(7, 6);
                say(pb::PbWatchResponse { header, watch_id: 99, ..events }).await;
            }
            Ill::GreatestRevision => {
                let events = events(vec![event("/s/evil/1", i64::MAX)]);
                say(pb::PbWatchResponse { header: header(7, i64::MAX), ..events }).await;
            }
            Ill::RevisionsGoBack => {
                let events = events(vec![event("/s/evil/1", 9), event("/s/evil/2", 8)]);
                say(pb::PbWatchResponse { header: header(7, 9), ..events }).await;
            }
            Ill::CancelsForEver => {
                say(pb::PbWatchResponse { canceled: true, ..response(0) }).await;
            }
            Ill::SilentWatch | Ill::SameKeyForEver | Ill::NoKeysAndMore => {}
        }
    }
}

#[tonic::async_trait]
impl pb::PbKvService for Fake {
    type RangeStreamStream = BoxStream<'static, Result<pb::PbRangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::PbRangeRequest>,
    ) -> Result<Response<pb::PbRangeResponse>, Status> {
        let one = request.get_ref().range_end.is_empty();
        self.pages.fetch_add(usize::from(!one), Ordering::SeqCst);
        let more = !one && matches!(self.ill, Ill::SameKeyForEver | Ill::NoKeysAndMore);
        let kvs = if one || self.ill == Ill::NoKeysAndMore { vec![] } else { vec![kv(KEY, 2)] };
        let header = header(7, REVISION);
        Ok(Response::new(pb::PbRangeResponse { header, count: 1, kvs, more }))
    }

    async fn range_stream(
        &self,
        _: Request<pb::PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn put(
        &self,
        _: Request<pb::PbPutRequest>,
    ) -> Result<Response<pb::PbPutResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_range(
        &self,
        _: Request<pb::PbDeleteRequest>,
    ) -> Result<Response<pb::PbDeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn txn(
        &self,
        _: Request<pb::PbTxnRequest>,
    ) -> Result<Response<pb::PbTxnResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn compact(
        &self,
        _: Request<pb::PbCompactionRequest>,
    ) -> Result<Response<pb::PbCompactionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl pb::PbLeaseService for Fake {
    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        _: Request<pb::PbLeaseGrantRequest>,
    ) -> Result<Response<pb::PbLeaseGrantResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::PbLeaseRevokeRequest>,
    ) -> Result<Response<pb::PbLeaseRevokeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lease_keep_alive(
        &self,
        _: Request<tonic::Streaming<pb::PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Answers that the lease lives.
    async fn lease_time_to_live(
        &self,
        request: Request<pb::PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::PbLeaseTimeToLiveResponse>, Status> {
        let (id, header) = (request.into_inner().id, header(7, REVISION));
        let answer = pb::PbLeaseTimeToLiveResponse { header, id, ttl: 10, ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::PbLeaseLeasesRequest>,
    ) -> Result<Response<pb::PbLeaseLeasesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl pb::PbWatchService for Fake {
    type WatchStream = BoxStream<'static, Result<pb::PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<tonic::Streaming<pb::PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = self.watches.fetch_add(1, Ordering::SeqCst) == 0;
        let ill = first || self.ill == Ill::CancelsForEver;
        let (tx, rx) = mpsc::channel(1);
        let mut requests = request.into_inner();
        let fake = self.clone();
        tokio::spawn(async move {
            let mut watch_id = 0;
            while let Some(Ok(request)) = requests.next().await {
                let union = request.request_union;
                if !matches!(union, Some(pb::PbWatchRequestUnion::CreateRequest(_))) {
                    continue;
                }
                if ill && fake.ill == Ill::SilentWatch && watch_id > 0 {
                    continue;
                }
                let created = pb::PbWatchResponse { created: true, ..response(watch_id) };
                let _ = tx.send(Ok(created)).await;
                if ill && watch_id == 0 {
                    fake.misbehave(&tx).await;
                }
                watch_id += 1;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_end_is_given_up() {
    for (ill, reason) in [
        (Ill::SameKeyForEver, "keys do not rise"),
        (Ill::NoKeysAndMore, "a page without keys, and more to come"),
    ] {
        let fake = Fake::start(ill).await;
        let mut mirror = Mirror::of(connect(&[&fake.url]), &["/s/"], 64);
        let told = |mirror: &Mirror| mirror.stale.iter().any(|text| text.contains(reason));
        mirror.until(reason, told).await;
        assert_eq!(mirror.resets, 0);
        // Each attempt until now read two pages.
        let pages = fake.pages.load(Ordering::SeqCst);
        assert!(pages <= 20, "{ill:?}: {pages} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_watch_says_is_read_anew() {
    let check = async |ill| {
        let fake = Fake::start(ill).await;
        let mut mirror = Mirror::of(connect(&[&fake.url]), &["/s/"], 64);
        mirror.until(&format!("a second reading: {ill:?}"), |mirror| mirror.resets == 2).await;
        assert_eq!(mirror.keys.keys().collect::<Vec<_>>(), [KEY], "{ill:?}");
        mirror.until("signs of life", |mirror| mirror.fresh >= 2).await;
        assert_eq!(mirror.resets, 2, "{ill:?}");
        let silent = mirror.stale.iter().any(|text| text.contains("did not answer"));
        assert_eq!(silent, ill == Ill::SilentWatch, "{ill:?}: {:?}", mirror.stale);
        // The source reads 64 MiB; more may be on the way.
        let bytes = fake.bytes.load(Ordering::SeqCst);
        assert!(bytes < 100 << 20, "{ill:?}: {bytes} bytes");
    };
    let all = [
        Ill::FragmentsForEver,
        Ill::FragmentsThatStop,
        Ill::OtherCluster,
        Ill::OtherKey,
        Ill::OtherWatcher,
        Ill::GreatestRevision,
        Ill::RevisionsGoBack,
        Ill::SilentWatch,
    ];
    futures_util::future::join_all(all.map(check)).await;
}

/// The source reports a deletion at once, and again when etcd has said that its lease
/// lives.
#[tokio::test(flavor = "multi_thread")]
async fn answers_about_leases_are_read_though_events_never_end() {
    // On a busy machine the source may lose its connection, and then it reads everything
    // anew: the fake's events begin again, and the deletion may be in none of them.
    for _ in 0..3 {
        if let Ok(Some((causes, later))) = timeout(WAIT_MAX / 2, causes_of_a_deletion()).await {
            let expected = [Cause::InDoubt, Cause::Deregistered];
            return assert_eq!(causes, expected, "{later} events later");
        }
    }
    panic!("the connection was lost, or stood still, three times");
}

/// Returns the causes that the source reports for one deletion among endless events, and
/// how many events came after the first report. `None` if the connection was lost.
async fn causes_of_a_deletion() -> Option<(Vec<Cause>, usize)> {
    let fake = Fake::start(Ill::EventsForEver).await;
    let mut mirror = Mirror::of(connect(&[&fake.url]), &["/s/"], 1);
    let (mut causes, mut later) = (Vec::new(), 0);
    while causes.len() < 2 && later < 5_000 {
        // Events are read more slowly than they are sent, so one is always waiting.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let changes = match mirror.events_rx.recv().await.expect("the source never ends") {
            Event::Apply { changes, .. } => changes,
            Event::Stale { .. } => return None,
            Event::Reset { .. } => continue,
        };
        later += usize::from(!causes.is_empty());
        causes.extend(changes.iter().filter_map(|change| match change {
            Change::Delete(_, cause) => Some(*cause),
            Change::Put(_) => None,
        }));
    }
    Some((causes, later))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_cancels_is_one_line_in_the_log() {
    let fake = Fake::start(Ill::CancelsForEver).await;
    // An announcement would have lines of its own.
    let own = ["--etcd", &fake.url, "--prefix", "/s/", "--announce", "off"];
    let balancer = Balancer::start(&own);
    eventually("several loops", || (fake.watches.load(Ordering::SeqCst) >= 8).then_some(()));
    let log = balancer.log();
    let lines = |word: &str| log.lines().filter(|line| line.contains(word)).count();
    assert_eq!((lines("etcd canceled the watch"), lines("following etcd")), (1, 1), "{log}");
    assert!(log.lines().count() <= 8, "{log}");
    assert_eq!(
        balancer.metric("lookaside_registry_stale"),
        Some(0.0),
        "it is read again and again"
    );
}
