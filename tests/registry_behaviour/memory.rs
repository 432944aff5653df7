//! Tests that answers which clients ask for and do not read take bounded memory. The
//! memory is measured from outside, at the process of the program.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use tokio::time::timeout;
use tonic::Code;

use crate::support::WAIT_MAX;
use crate::support::lookaside::Balancer;
use crate::support::wire::{DATA, END_STREAM, field, message, put_call, put_frame, put_opening};

const MB: usize = 1_000_000;
/// All answers together may take 128 MB, and as much again while one is being encoded. A
/// debug build takes 50 MB by itself. Without a bound, each of these tests takes 400 to
/// 2,000 MB.
const PEAK_MAX: usize = 350 * MB;

struct Scene {
    balancer: Balancer,
    client: Client,
}

impl Scene {
    async fn new() -> Self {
        let balancer = tokio::task::spawn_blocking(|| Balancer::start(&[])).await.expect("it runs");
        let url = format!("http://{}", balancer.registry());
        let mut client = Client::connect([url], None).await.expect("the server is there");
        for i in 0..10 {
            client.put(format!("/big/{i}"), vec![b'x'; MB], None).await.expect("a put");
        }
        Self { balancer, client }
    }

    fn registry(&self) -> SocketAddr {
        self.balancer.registry()
    }

    /// Checks that other clients are served meanwhile, with small answers and a large one.
    async fn others_are_served(&mut self) {
        let mut other = self.client.clone();
        let served = timeout(WAIT_MAX, async {
            for i in 0..20 {
                other.put("/small", vec![i; 10], None).await?;
                assert_eq!(other.get("/small", None).await?.kvs()[0].value(), [i; 10]);
            }
            other.get("/big/", Some(GetOptions::new().with_prefix().with_limit(3))).await
        });
        let much = served.await.expect("in time").expect("it is served");
        assert_eq!(much.kvs().len(), 3);
    }

    #[track_caller]
    fn check_peak(&self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.balancer.id()));
        let status = status.expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let peak = peak.trim().trim_end_matches(" kB").parse::<usize>().expect("kB") * 1024;
        assert!(peak < PEAK_MAX, "{} MB", peak / MB);
    }
}

/// Opens a connection with this number of calls, and never reads from it.
fn deaf(registry: SocketAddr, path: &str, request: &[u8], calls: u32, end: bool) -> TcpStream {
    let mut bytes = Vec::new();
    put_opening(&mut bytes);
    for call in 0..calls {
        put_call(&mut bytes, 2 * call + 1, path);
        let flags = if end { END_STREAM } else { 0 };
        put_frame(&mut bytes, DATA, flags, 2 * call + 1, &message(request));
    }
    let mut socket = TcpStream::connect(registry).expect("it listens");
    socket.write_all(&bytes).expect("it is taken");
    socket
}

/// Encodes a Range or a watcher of all keys below a prefix that ends with a slash.
fn below(prefix: &str) -> Vec<u8> {
    let end = prefix.replace('/', "0").replacen('0', "/", 1);
    [field(1, prefix.as_bytes()), field(2, end.as_bytes())].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_multiplies_what_is_stored_is_refused() {
    let mut scene = Scene::new().await;
    let all = || TxnOp::get("/big/", Some(GetOptions::new().with_prefix()));
    let refused =
        scene.client.txn(Txn::new().and_then((0..128).map(|_| all()).collect::<Vec<_>>()));
    let Err(Error::GRpcStatus(status)) = refused.await else { panic!("it was answered") };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    // A refused transaction changes nothing.
    let mut ops: Vec<_> = (0..127).map(|_| all()).collect();
    ops.push(TxnOp::put("/written", "1", Some(PutOptions::new())));
    scene.client.txn(Txn::new().and_then(ops)).await.expect_err("it is refused");
    assert_eq!(scene.client.get("/written", None).await.expect("an answer").count(), 0);
    scene.others_are_served().await;
    scene.check_peak();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded() {
    let mut scene = Scene::new().await;
    let range = below("/big/");
    let registry = scene.registry();
    let open = |connections, calls| -> Vec<_> {
        let call = |_| deaf(registry, "/etcdserverpb.KV/Range", &range, calls, true);
        (0..connections).map(call).collect()
    };
    let (_one, _many) = (open(2, 100), open(30, 3));
    scene.others_are_served().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.others_are_served().await;
    scene.check_peak();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_charged_for_their_keys() {
    let mut scene = Scene::new().await;
    let (mut granted, mut refused) = (0, 0);
    let mut streams = Vec::new();
    for i in 0..4 {
        let options = WatchOptions::new().with_prefix();
        let stream = scene.client.watch(format!("/{i}/"), Some(options)).await;
        let (mut requests, mut responses) = stream.expect("it begins").split();
        let created = timeout(WAIT_MAX, responses.message()).await.expect("in time");
        assert!(created.expect("no error").expect("an answer").created());
        for _ in 0..30 {
            let key = vec![b'k'; 1_400_000];
            requests.watch(key, Some(WatchOptions::new())).await.expect("it is open");
            let response = timeout(WAIT_MAX, responses.message()).await.expect("in time");
            let response = response.expect("no error").expect("an answer");
            assert!(response.created());
            refused += u32::from(response.canceled());
            granted += u32::from(!response.canceled());
        }
        streams.push((requests, responses));
    }
    assert!(granted > 10 && refused > 60, "{granted} granted, {refused} refused");
    scene.others_are_served().await;
    scene.check_peak();
    // Streams that end make room.
    drop(streams);
    let options = || Some(WatchOptions::new());
    timeout(WAIT_MAX, async {
        loop {
            let stream = scene.client.watch(vec![b'k'; 1_400_000], options()).await;
            let mut stream = stream.expect("it begins");
            if !stream.message().await.expect("no error").expect("an answer").canceled() {
                return;
            }
        }
    })
    .await
    .expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_nobody_reads_are_bounded() {
    let mut scene = Scene::new().await;
    let watch = field(1, &below("/fat/"));
    let call = |_| deaf(scene.registry(), "/etcdserverpb.Watch/Watch", &watch, 40, false);
    let _deaf: Vec<_> = (0..10).map(call).collect();
    let options = WatchOptions::new().with_prefix();
    let mut keen = scene.client.watch("/fat/", Some(options)).await.expect("it begins");
    for i in 0..20 {
        scene.client.put("/fat/a", vec![i; 1_400_000], None).await.expect("there is room");
        let told = timeout(WAIT_MAX, async {
            loop {
                let response = keen.message().await.expect("no error").expect("it goes on");
                if let Some(event) = response.events().first() {
                    return event.kv().expect("a key").value()[0];
                }
            }
        });
        assert_eq!(told.await.expect("who reads is told"), i);
    }
    scene.others_are_served().await;
    scene.check_peak();
}
