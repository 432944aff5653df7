//! Tests that hostile clients of the admin server harm no other client.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admin::world::{World, bad};
use crate::support::WAIT_MAX;

#[tokio::test]
async fn garbage_costs_only_its_connection() {
    let world = World::with(Vec::new()).await;
    let long = "a".repeat(100_000);
    let requests = [
        "\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"),
        "GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let mut stream = TcpStream::connect(world.addr).await.unwrap();
        // The server may close the connection before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:.40} {answer}");
        assert_eq!(world.get("/livez").await.status, 200);
    }
}

#[tokio::test]
async fn a_panic_costs_only_its_connection() {
    let world = World::with(Vec::new()).await;
    let clients = world.clients.clone();
    let poisoning = std::thread::spawn(move || {
        let _guard = clients.lock().unwrap();
        panic!("on purpose: from here on, listing clients panics");
    });
    assert!(poisoning.join().is_err());
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    stream.write_all(b"GET /api/v1/clients HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let read = tokio::time::timeout(WAIT_MAX, stream.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0, "no answer");
    assert_eq!(world.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_change_without_its_body_holds_no_answer_up() {
    let world = World::with(Vec::new()).await;
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    let head = "POST /api/v1/services/hello/drain HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 2\r\n\
                expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is read up to its body.
    let mut answer = [0; 1_000];
    let length = tokio::time::timeout(WAIT_MAX, stream.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
    for path in ["/api/v1/status", "/metrics"] {
        assert_eq!(world.get(path).await.status, 200);
    }
    let more = stream.try_read(&mut [0; 1]);
    assert!(more.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn the_silent_and_the_slow_hold_nobody_up() {
    let many: Vec<_> =
        (0..1_000).map(|i| bad(format!("/x/{i}").as_bytes(), &"r".repeat(10_000), "v")).collect();
    let world = World::with(many).await;
    let mut held = Vec::new();
    for request in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(world.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        held.push(stream);
    }
    // This client asks for 10 MB and reads only the first byte.
    let mut slow = TcpStream::connect(world.addr).await.unwrap();
    slow.write_all(b"GET /api/v1/rejected HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    slow.read_exact(&mut [0]).await.unwrap();
    assert_eq!(world.get("/livez").await.status, 200);
    world.shutdown.cancel();
    let ended = tokio::time::timeout(WAIT_MAX, world.served).await;
    ended.expect("serve ends though clients hold on").unwrap().unwrap();
    assert!(TcpStream::connect(world.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn connections_are_kept_alive_and_closed_at_the_end() {
    let world = World::with(Vec::new()).await;
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            answer.push(tokio::time::timeout(WAIT_MAX, stream.read_u8()).await.unwrap().unwrap());
        }
    }
    world.shutdown.cancel();
    let read = tokio::time::timeout(WAIT_MAX, stream.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap(), 0, "an idle connection is closed");
    tokio::time::timeout(WAIT_MAX, world.served).await.unwrap().unwrap().unwrap();
}

/// Opens more silent connections than there is room for, and asks for more answers,
/// without reading them, than memory is reserved for.
#[tokio::test]
async fn crowds_that_say_nothing_or_read_nothing_keep_nobody_out() {
    let many: Vec<_> =
        (0..1_000).map(|i| bad(format!("/x/{i}").as_bytes(), &"r".repeat(10_000), "v")).collect();
    let world = World::with(many).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(world.addr).await.unwrap());
    }
    // Silent connections are closed only after a longer time than this.
    let probed = tokio::time::timeout(Duration::from_secs(4), world.get("/livez")).await;
    assert_eq!(probed.expect("a probe is answered").status, 200);
    let newest = silent.last_mut().unwrap();
    let open = tokio::time::timeout(Duration::from_millis(1), newest.read(&mut [0])).await;
    assert!(open.is_err(), "the newest is still welcome");
    let ended = tokio::time::timeout(WAIT_MAX, silent[0].read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "the oldest made room");

    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut slow = TcpStream::connect(world.addr).await.unwrap();
        slow.write_all(b"GET /api/v1/rejected HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        tokio::time::timeout(WAIT_MAX, slow.read_exact(&mut status)).await.unwrap().unwrap();
        assert!(matches!(&status, b"HTTP/1.1 200" | b"HTTP/1.1 503"));
        unread.push(slow);
    }
    for path in ["/livez", "/readyz", "/api/v1/status"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let bytes = world.metrics().await.value("admin_answer_bytes");
    assert!((9e6..=48.0 * 1024.0 * 1024.0).contains(&bytes), "{bytes} bytes are on their way");
    // A client that reads gets its turn, because answers that are not read give way.
    let read = async {
        while world.get("/api/v1/rejected").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, read).await.expect("a reader is answered");
}

/// A page of another site may have a DNS name that leads to this address (rebinding).
#[tokio::test]
async fn names_that_another_site_could_have_are_not_answered() {
    let world = World::with(Vec::new()).await;
    let ask = async |line: &str, host: &str| {
        world.send(&format!("{line} HTTP/1.1\r\n{host}connection: close\r\n\r\n")).await
    };
    for path in [
        "/",
        "/dashboard.js",
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/services",
        "/api/v1/clients",
        "/nowhere",
    ] {
        let answer = ask(&format!("GET {path}"), "host: evil.example:12001\r\n").await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.body.contains("evil.example:12001") && answer.body.contains("--admin-host"));
    }
    for (line, host) in [
        ("POST /api/v1/services/hello/release", "host: evil.example\r\n"),
        ("GET http://evil.example/livez", "host: localhost\r\n"),
        ("GET /livez", "host: localhost\r\nhost: evil.example\r\n"),
        ("GET /livez", "host: \r\n"),
    ] {
        let status = ask(line, host).await.status;
        assert!(matches!(status, 400 | 421), "{line} {host} {status}");
    }
    for host in ["127.0.0.1", "[::1]:80", "LOCALHOST:12001", "balancer.test", "Balancer.Test.:1"] {
        assert_eq!(ask("GET /livez", &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
    let old = world.send("GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200, "no browser asks without a name");
}
