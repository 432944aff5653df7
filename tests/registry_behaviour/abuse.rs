//! Tests that hostile clients of the embedded registry harm no other client.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{Client, Error, WatchOptions, WatchStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::registry_behaviour::embedded::Embedded;
use crate::registry_behaviour::scene::receive;
use crate::support::WAIT_MAX;

async fn client(server: &Embedded) -> Client {
    Client::connect([server.url()], None).await.expect("the server is there")
}

async fn watch(client: &mut Client, key: &str) -> WatchStream {
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch(key, Some(options)).await.expect("a watch begins");
    assert!(receive(&mut stream).await.created());
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_costs_only_its_own_connection() {
    let server = Embedded::start().await;
    let garbage: [&[u8]; 4] = [
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 10_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        let mut socket =
            TcpStream::connect(("127.0.0.1", server.port())).await.expect("it listens");
        // The server may close the connection before all is written.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let ended = timeout(WAIT_MAX, socket.read_to_end(&mut answer)).await;
        ended.expect("the connection is ended").ok();
        client(&server).await.put("a", "1", None).await.expect("others are served");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_message_is_not_even_read() {
    let server = Embedded::start().await;
    let mut client = client(&server).await;
    let refused = client.put("a", vec![0; 50_000_000], None).await.expect_err("it is huge");
    let Error::GRpcStatus(status) = refused else { panic!("a status was expected: {refused}") };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    client.put("a", "1", None).await.expect("the same client is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_ended() {
    let server = Embedded::start().await;
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await.expect("it listens");
    // HTTP/2 servers send data first, so this reads until the end.
    let ended = timeout(WAIT_MAX, async {
        let mut buffer = [0; 1024];
        while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    ended.await.expect("the connection is ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_watchers_on_one_stream_and_not_one_too_many() {
    let server = Embedded::start().await;
    let mut client = client(&server).await;
    let mut stream = watch(&mut client, "/w/").await;
    let (mut requests, mut responses) = stream_halves(stream.watch("/w/", None).await, stream);
    let asking = tokio::spawn(async move {
        for _ in 0..9_999 {
            let options = WatchOptions::new().with_prefix();
            requests.watch("/w/", Some(options)).await.expect("the stream is open");
        }
        requests
    });
    let mut refused = 0;
    for _ in 0..10_000 {
        let response = timeout(WAIT_MAX, responses.message()).await.expect("in time");
        let response = response.expect("no error").expect("the stream goes on");
        assert!(response.created());
        refused += u32::from(response.canceled());
    }
    assert_eq!(refused, 1, "the ten thousand and first");
    let requests = asking.await.expect("all are asked for");
    client.put("/w/a", "1", None).await.expect("there is room");
    let mut told = BTreeSet::new();
    // One of the watchers watches only the key "/w/".
    while told.len() < 9_999 {
        let response = timeout(WAIT_MAX, responses.message()).await.expect("in time");
        let response = response.expect("no error").expect("the stream goes on");
        assert!(told.insert(response.watch_id()), "told twice");
    }
    drop(requests);
}

fn stream_halves(
    asked: Result<(), Error>,
    stream: WatchStream,
) -> (etcd_client::WatchRequestSender, etcd_client::WatchResponseStream) {
    asked.expect("the stream is open");
    stream.split()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_on_one_connection() {
    let server = Embedded::start().await;
    let mut client = client(&server).await;
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(watch(&mut client, "/s/").await);
    }
    client.put("/s/a", "1", None).await.expect("there is room");
    for stream in &mut streams {
        assert_eq!(receive(stream).await.events().len(), 1);
    }
}

/// A watcher that does not read costs only its place in the history. Other watchers see
/// every event, and this one learns that it missed some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_told_that_it_missed_something() {
    let server = Embedded::start().await;
    let mut lazy = watch(&mut client(&server).await, "/big/").await;
    let mut client = client(&server).await;
    let mut keen = watch(&mut client, "/big/").await;
    for i in 0..100 {
        client.put("/big/a", vec![i; 1_000_000], None).await.expect("there is room");
        let response = receive(&mut keen).await;
        assert_eq!(response.events()[0].kv().expect("a key").value()[0], i);
    }
    let mut read = 0;
    let missed = loop {
        let response = receive(&mut lazy).await;
        if response.canceled() {
            break response;
        }
        read += response.events().len();
    };
    assert!(missed.compact_revision() > 1 && read < 50, "{read} read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_at_once_whoever_is_there() {
    let server = Embedded::start().await;
    let port = server.port();
    let mut client = client(&server).await;
    let mut idle = watch(&mut client, "/idle/").await;
    let full = watch(&mut client, "/full/").await;
    for _ in 0..20 {
        client.put("/full/a", vec![1; 1_000_000], None).await.expect("there is room");
    }
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let (keeper, mut kept) = client.lease_keep_alive(lease).await.expect("it is kept");
    let mut silent = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");

    let stopped = timeout(Duration::from_secs(10), server.stop()).await;
    stopped.expect("it stops at once").expect("and without an error");

    let status = |error: Error| match error {
        Error::GRpcStatus(status) => status.code(),
        other => panic!("a status was expected: {other}"),
    };
    let end = timeout(WAIT_MAX, idle.message()).await.expect("the watch is ended");
    assert_eq!(status(end.expect_err("with an error")), tonic::Code::Unavailable);
    let end = timeout(WAIT_MAX, kept.message()).await.expect("the renewals are ended");
    assert_eq!(status(end.expect_err("with an error")), tonic::Code::Unavailable);
    let mut buffer = Vec::new();
    let end = timeout(WAIT_MAX, silent.read_to_end(&mut buffer)).await;
    end.expect("the silent connection is ended").ok();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the port is free");
    drop((full, keeper));
}
