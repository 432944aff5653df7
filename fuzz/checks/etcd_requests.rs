//! Any requests to the embedded etcd, by its own API over a connection in memory.
//!
//! The bytes become puts, deletions, transactions, ranges, compactions, leases and waits. Each
//! answer must be that of a naive model, revisions grow by one with each change, an error
//! changes nothing, and the events of a watch replay to the keys of each revision.

use std::time::Duration;

use embedded_etcd::{Data, serve_data};
use etcd_client::proto as pb;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::model::{Keys, Model};

/// The most requests of one input.
const REQUESTS_MAX: usize = 64;
/// Few keys, so that requests meet; among them prefixes of others and the ends of ranges.
const KEYS: [&[u8]; 8] = [b"", b"\0", b"a", b"aa", b"ab", b"b", b"c", b"\xff"];
/// The codes with which etcd refuses a request. Others would be faults of the server.
const REFUSALS: [Code; 5] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::OutOfRange,
    Code::FailedPrecondition,
    Code::ResourceExhausted,
];

/// Panics at an answer that must not be.
pub fn check(data: &[u8]) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut world = World::start().await;
        let mut bytes = Bytes(data);
        for _ in 0..REQUESTS_MAX {
            let Some(kind) = bytes.next() else { break };
            world.step(kind, &mut bytes).await;
            world.events.follow(&world.model).await;
        }
        world.finish().await;
    });
}

/// The bytes that are left.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Returns a number below `end`; 0 where no bytes are left.
    fn below(&mut self, end: u8) -> u8 {
        self.next().unwrap_or(0) % end
    }

    fn flag(&mut self) -> bool {
        self.below(4) == 3
    }

    fn key(&mut self) -> Vec<u8> {
        KEYS[usize::from(self.below(8))].to_vec()
    }

    /// Returns a revision near the ones that exist.
    fn revision(&mut self) -> i64 {
        i64::from(self.below(32)) - 2
    }

    fn put(&mut self) -> pb::PbPutRequest {
        pb::PbPutRequest {
            key: self.key(),
            value: vec![b'v'; usize::from(self.below(3))],
            lease: i64::from(self.below(6)).saturating_sub(2).max(0),
            prev_kv: self.flag(),
            ignore_value: self.flag(),
            ignore_lease: self.flag(),
        }
    }

    fn delete(&mut self) -> pb::PbDeleteRequest {
        pb::PbDeleteRequest { key: self.key(), range_end: self.key(), prev_kv: self.flag() }
    }

    fn range(&mut self) -> pb::PbRangeRequest {
        let bound = |bytes: &mut Self| if bytes.flag() { bytes.revision() } else { 0 };
        pb::PbRangeRequest {
            key: self.key(),
            range_end: self.key(),
            limit: i64::from(self.below(4)),
            revision: bound(self),
            sort_order: i32::from(self.below(3)),
            sort_target: i32::from(self.below(5)),
            serializable: self.flag(),
            keys_only: self.flag(),
            count_only: self.flag(),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }

    fn compare(&mut self) -> pb::PbCompare {
        use pb::PbTargetUnion as Union;
        let number = self.revision();
        let target_union = match self.below(6) {
            0 => Some(Union::Version(number)),
            1 => Some(Union::CreateRevision(number)),
            2 => Some(Union::ModRevision(number)),
            3 => Some(Union::Value(vec![b'v'; usize::from(self.below(3))])),
            4 => Some(Union::Lease(number)),
            _ => None,
        };
        pb::PbCompare {
            result: i32::from(self.below(4)),
            target: i32::from(self.below(5)),
            key: self.key(),
            range_end: if self.flag() { self.key() } else { Vec::new() },
            target_union,
        }
    }

    /// Returns a transaction; `depth`: how deep others may be nested in it.
    fn txn(&mut self, depth: u8) -> pb::PbTxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare()).collect();
        let [success, failure] = [(); 2].map(|()| {
            let ops = self.below(4);
            (0..ops).map(|_| self.op(depth)).collect()
        });
        pb::PbTxnRequest { compare, success, failure }
    }

    fn op(&mut self, depth: u8) -> pb::PbTxnRequestOp {
        use pb::PbTxnOpRequest as Op;
        let request = match self.below(if depth > 0 { 5 } else { 4 }) {
            0 | 1 => Op::RequestPut(self.put()),
            2 => Op::RequestDeleteRange(self.delete()),
            // Only the keys as they are in the transaction: at a number, etcd's own versions
            // differ about its writes.
            3 => Op::RequestRange(pb::PbRangeRequest { revision: 0, ..self.range() }),
            _ => Op::RequestTxn(self.txn(depth - 1)),
        };
        pb::PbTxnRequestOp { request: Some(request) }
    }
}

/// A server with its model, and a watch of all keys.
struct World {
    model: Model,
    server: Server,
    events: Events,
}

/// A server, over one connection in memory.
struct Server {
    channel: Channel,
    serving: JoinHandle<()>,
}

/// A watch, and the keys by its events.
struct Events {
    stream: Streaming<pb::PbWatchResponse>,
    /// Ends the watch when it is dropped.
    _requests: mpsc::Sender<pb::PbWatchRequest>,
    keys: Keys,
    revision: i64,
}

impl World {
    async fn start() -> Self {
        let server = Server::start().await;
        let model = Model::new();
        let events = server.watch(1, Keys::new()).await;
        Self { model, server, events }
    }

    async fn step(&mut self, kind: u8, bytes: &mut Bytes<'_>) {
        match kind % 12 {
            0..=2 => {
                let put = bytes.put();
                if let Some(told) = self.server.call("KV/Put", put.clone()).await {
                    let pb::PbPutResponse { header, prev_kv } = told;
                    let expected = self.model.put(&put);
                    assert_eq!(
                        (self.revision(header), prev_kv),
                        (true, expected.prev_kv),
                        "{put:?}"
                    );
                }
            }
            3 => {
                let delete = bytes.delete();
                if let Some(told) = self.server.call("KV/DeleteRange", delete.clone()).await {
                    let expected = self.model.delete(&delete);
                    let pb::PbDeleteResponse { header, .. } = told;
                    assert!(self.revision(header), "{delete:?}");
                    assert_eq!(
                        pb::PbDeleteResponse { header: None, ..told },
                        expected,
                        "{delete:?}"
                    );
                }
            }
            4 | 5 => {
                let txn = bytes.txn(2);
                if let Some(told) = self.server.call("KV/Txn", txn.clone()).await {
                    let expected = self.model.txn(&txn);
                    let pb::PbTxnResponse { header, .. } = told;
                    assert!(self.revision(header), "{txn:?}");
                    assert_eq!(without_headers(told), expected, "{txn:?}");
                }
            }
            6 | 7 => self.range(bytes.range()).await,
            8 => {
                let (id, ttl) = (i64::from(bytes.below(5)), i64::from(bytes.below(9)));
                let grant = pb::PbLeaseGrantRequest { ttl, id };
                let told: Option<pb::PbLeaseGrantResponse> =
                    self.server.call("Lease/LeaseGrant", grant).await;
                if let Some(pb::PbLeaseGrantResponse { header, id: given, ttl, .. }) = told {
                    assert!(self.revision(header));
                    assert!(id == 0 || id == given);
                    assert!(!self.model.leases.contains_key(&given), "{given} lives");
                    self.model.hold(given, ttl);
                }
            }
            9 => {
                let id = i64::from(bytes.below(5));
                let lives = self.model.leases.contains_key(&id);
                let told: Option<pb::PbLeaseRevokeResponse> =
                    self.server.call("Lease/LeaseRevoke", pb::PbLeaseRevokeRequest { id }).await;
                assert_eq!(told.is_some(), lives, "lease {id}");
                if let Some(told) = told {
                    self.model.end_lease(id);
                    assert!(self.revision(told.header));
                }
            }
            10 => {
                let revision = bytes.revision();
                let can = revision > self.model.compacted && revision <= self.model.revision();
                let compact = pb::PbCompactionRequest { revision, physical: false };
                let told: Option<pb::PbCompactionResponse> =
                    self.server.call("KV/Compact", compact).await;
                assert_eq!(told.is_some(), can, "compaction to {revision}");
                if can {
                    self.model.compacted = revision;
                }
            }
            _ => self.wait(u64::from(bytes.below(4)) + 1).await,
        }
    }

    async fn range(&mut self, asked: pb::PbRangeRequest) {
        let can = !asked.key.is_empty() && self.model.has(asked.revision);
        let told: Option<pb::PbRangeResponse> = self.server.call("KV/Range", asked.clone()).await;
        assert_eq!(told.is_some(), can, "{asked:?}");
        if let Some(told) = told {
            assert!(self.revision(told.header), "{asked:?}");
            let told = pb::PbRangeResponse { header: None, ..told };
            assert_eq!(told, self.model.range(&asked), "{asked:?}");
        }
    }

    /// Lets time pass, and checks the leases that are left with their keys.
    async fn wait(&mut self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        self.model.expire(Instant::now());
        // The server ends leases by a task of its own.
        self.events.follow(&self.model).await;
        for id in 0..5 {
            let asked = pb::PbLeaseTimeToLiveRequest { id, keys: true };
            let told: pb::PbLeaseTimeToLiveResponse =
                self.server.call("Lease/LeaseTimeToLive", asked).await.expect("it is answered");
            let expected = self.model.leases.get(&id).map(|(ttl, _)| *ttl);
            assert_eq!((told.ttl >= 0).then_some(told.granted_ttl), expected, "lease {id}");
            let keys = self.model.now().values().filter(|kv| kv.lease == id);
            let mut keys: Vec<_> = keys.map(|kv| kv.key.clone()).collect();
            keys.retain(|_| expected.is_some());
            let mut found = told.keys;
            found.sort_unstable();
            assert_eq!(found, keys, "lease {id}");
        }
    }

    /// Checks all keys, and that a watch from the oldest revision on replays to them.
    async fn finish(mut self) {
        let all = pb::PbRangeRequest {
            key: vec![0],
            range_end: vec![0],
            ..pb::PbRangeRequest::default()
        };
        self.range(all).await;
        let before = self.model.compacted.max(1);
        let mut late = self.server.watch(before + 1, self.model.at(before).clone()).await;
        late.revision = before;
        late.follow(&self.model).await;
        self.server.serving.abort();
    }

    /// Returns whether a header has the revision that the model has.
    fn revision(&self, header: Option<pb::PbResponseHeader>) -> bool {
        header.expect("a header").revision == self.model.revision()
    }
}

impl Server {
    async fn start() -> Self {
        let mut numbers = 1_000;
        let data = Data::with_random(|| {
            numbers += 1;
            numbers
        });
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let address = "127.0.0.1:2379".parse().expect("an address");
        let incoming = tokio_stream::once(theirs).chain(tokio_stream::pending());
        let serving = tokio::spawn(async move {
            let served = serve_data(&data, address, incoming, std::future::pending());
            served.await.expect("no client ends the server");
        });
        let mut ours = Some(TokioIo::new(ours));
        let connect = service_fn(move |_| {
            let ours = ours.take().ok_or_else(|| std::io::Error::other("one connection"));
            async move { ours }
        });
        let endpoint = Endpoint::from_static("http://etcd");
        let channel = endpoint.connect_with_connector(connect).await.expect("it connects");
        Self { channel, serving }
    }

    /// Returns the answer to a request; `None` if it is refused.
    async fn call<Q, A>(&self, method: &str, request: Q) -> Option<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.expect("the server lives");
        let path = PathAndQuery::try_from(format!("/etcdserverpb.{method}")).expect("a path");
        let codec = ProstCodec::<Q, A>::default();
        let answer: Result<_, Status> = client.unary(Request::new(request), path, codec).await;
        match answer {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                assert!(REFUSALS.contains(&status.code()), "{method}: {status}");
                None
            }
        }
    }

    /// Watches all keys from a revision on; `keys` are those before it.
    async fn watch(&self, start: i64, keys: Keys) -> Events {
        let mut create = pb::PbWatchRequestUnion::CreateRequest(Default::default());
        if let pb::PbWatchRequestUnion::CreateRequest(create) = &mut create {
            (create.key, create.range_end) = (vec![0], vec![0]);
            (create.start_revision, create.prev_kv) = (start, true);
        }
        let (requests, requests_rx) = mpsc::channel(1);
        let request = pb::PbWatchRequest { request_union: Some(create) };
        requests.send(request).await.expect("the stream takes it");
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.expect("the server lives");
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<pb::PbWatchRequest, pb::PbWatchResponse>::default();
        let stream = Request::new(ReceiverStream::new(requests_rx));
        let stream = client.streaming(stream, path, codec).await.expect("a watch");
        let mut stream = stream.into_inner();
        let created = stream.message().await.expect("it goes on").expect("it goes on");
        assert!(created.created && !created.canceled, "{created:?}");
        Events { stream, _requests: requests, keys, revision: 1 }
    }
}

impl Events {
    /// Takes events up to the newest revision of the model. Each answer has whole revisions,
    /// and each event has the key as it is and as it was.
    async fn follow(&mut self, model: &Model) {
        while self.revision < model.revision() {
            let answer = self.stream.message().await.expect("it goes on").expect("it goes on");
            assert!(!answer.canceled && !answer.events.is_empty(), "{answer:?}");
            for event in answer.events {
                let deletes = event.r#type() as i32 == 1;
                let kv = event.kv.expect("a key");
                let revision = kv.mod_revision;
                assert!(revision >= self.revision, "{revision} after {}", self.revision);
                if revision > self.revision {
                    assert_eq!(self.keys, *model.at(self.revision), "the revision is whole");
                    assert_eq!(revision, self.revision + 1, "no revision is left out");
                    self.revision = revision;
                }
                assert_eq!(event.prev_kv.as_ref(), model.at(revision - 1).get(&kv.key));
                match deletes {
                    true => assert!(self.keys.remove(&kv.key).is_some(), "{kv:?} was there"),
                    false => _ = self.keys.insert(kv.key.clone(), kv),
                }
            }
        }
        assert_eq!((self.revision, &self.keys), (model.revision(), model.now()));
    }
}

/// Returns the answer without headers, which only the outermost one has a use for.
fn without_headers(mut answer: pb::PbTxnResponse) -> pb::PbTxnResponse {
    use pb::PbTxnOpResponse as Answer;
    answer.header = None;
    for one in answer.responses.iter_mut().filter_map(|one| one.response.as_mut()) {
        match one {
            Answer::ResponseRange(range) => range.header = None,
            Answer::ResponsePut(put) => put.header = None,
            Answer::ResponseDeleteRange(delete) => delete.header = None,
            Answer::ResponseTxn(nested) => *nested = without_headers(std::mem::take(nested)),
        }
    }
    answer
}
