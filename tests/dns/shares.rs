//! Tests of fairness in the DNS server: expensive questions must not delay others.
//!
//! One thread runs the DNS server and its clients, so each test runs in the same
//! order every time.

use std::sync::Arc;

use lookaside::registry::Entry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Server, entry, support};

const A: u8 = 1;
const TXT: u8 = 16;
const SRV: u8 = 33;
const LOCATOR: &str = "_grpclb._tcp.big";
/// More selections than a snapshot keeps.
const SELECTIONS: u16 = 63;

/// Returns a backend of `big` that every selection chooses.
fn big(number: u16) -> Entry {
    let [high, low] = number.to_be_bytes();
    let mut entry = entry("big", &format!("10.1.{high}.{low}:80"));
    let meta = Arc::new((0..6).map(|key| (format!("k{key}"), "x".to_owned())).collect());
    entry.decoded.as_mut().unwrap().registrations[0].meta = meta;
    entry
}

async fn server(backends: u16) -> Server {
    let server = Server::start("127.0.0.1:0").await;
    server.reset((0..backends).map(big).collect()).await;
    server
}

/// Returns one of [`SELECTIONS`] names that each choose all of `big`.
fn selection(number: u16) -> String {
    let bits = number % SELECTIONS + 1;
    let labels: String =
        (0..6).filter(|key| bits >> key & 1 == 1).map(|key| format!("k{key}--x.")).collect();
    format!("{labels}big")
}

fn question(id: u16, name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(b"\x01\0\0\x01\0\0\0\0\0\0");
    for label in name.split('.').chain(["lookaside", "internal"]) {
        bytes.push(label.len().try_into().unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

/// Returns the question's id, whether the answer is truncated, and its number of
/// records.
fn head(answer: &[u8]) -> (u16, bool, u16) {
    let two = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    (two(0), answer[2] & 2 != 0, two(6))
}

/// Sends all questions before the DNS server, on this thread, sees the first.
async fn ask_at_once(server: &Server, questions: &[Vec<u8>]) -> Vec<(u16, bool, u16)> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_nonblocking(true).unwrap();
    for question in questions {
        socket.send(question).unwrap();
    }
    let socket = UdpSocket::from_std(socket).unwrap();
    let mut answers = Vec::new();
    let mut buffer = [0; 2048];
    for _ in questions {
        let length = timeout(support::WAIT_MAX, socket.recv(&mut buffer)).await.unwrap().unwrap();
        answers.push(head(&buffer[..length]));
    }
    answers
}

#[tokio::test]
async fn what_costs_little_is_answered_first() {
    let server = server(1_000).await;
    let mut questions: Vec<_> = (0..5).map(|n| question(n, &selection(n), A)).collect();
    questions.push(question(5, LOCATOR, SRV));
    questions.push(question(6, "_grpc_config.big", TXT));
    let answers = ask_at_once(&server, &questions).await;
    let order: Vec<_> = answers.iter().map(|&(id, ..)| id).collect();
    assert_eq!(order, [5, 6, 0, 1, 2, 3, 4]);
    server.stop().await;
}

#[tokio::test]
async fn a_network_that_asks_for_too_much_is_sent_to_tcp() {
    let server = server(6_000).await;
    let questions: Vec<_> = (0..40).map(|n| question(n, &selection(n), A)).collect();
    let answers = ask_at_once(&server, &questions).await;
    assert!(answers.iter().all(|&(_, truncated, _)| truncated), "128 addresses fit in none");
    let whole = answers.iter().filter(|&&(_, _, records)| records > 0).count();
    assert!((1..40).contains(&whole), "{whole} of 40");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for n in 0..40 {
        let answer = ask_tcp(&mut stream, &question(n, &selection(n), A)).await;
        assert_eq!(head(&answer), (n, false, 128));
    }
    server.stop().await;
}

async fn ask_tcp(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    stream.write_all(&framed(question)).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

fn framed(question: &[u8]) -> Vec<u8> {
    [&u16::try_from(question.len()).unwrap().to_be_bytes(), question].concat()
}

/// A connection with many questions gets few answers before the server answers
/// others, by UDP or on another connection.
#[tokio::test]
async fn a_connection_that_pipelines_gets_its_share() {
    const PIPELINED: u16 = 300;
    let server = server(1_000).await;
    let (mut answers, mut questions) =
        TcpStream::connect(server.address).await.unwrap().into_split();
    let all: Vec<_> = (0..PIPELINED).flat_map(|n| framed(&question(n, &selection(n), A))).collect();
    let writing = tokio::spawn(async move {
        questions.write_all(&all).await.unwrap();
        questions
    });
    let reading = tokio::spawn(async move {
        for n in 0..PIPELINED {
            let mut answer = vec![0; usize::from(answers.read_u16().await.unwrap())];
            answers.read_exact(&mut answer).await.unwrap();
            assert_eq!(head(&answer), (n, false, 128));
        }
    });
    let answered = || server.counters.dns_answers.total();
    while answered() == 0 {
        tokio::task::yield_now().await;
    }
    let mut other = TcpStream::connect(server.address).await.unwrap();
    let mut most = 0;
    for n in 0..20 {
        let before = answered();
        let answers = ask_at_once(&server, &[question(n, LOCATOR, SRV)]).await;
        assert_eq!(answers[0].0, n);
        most = most.max(answered() - before - 1);
        let before = answered();
        ask_tcp(&mut other, &question(n, LOCATOR, SRV)).await;
        most = most.max(answered() - before - 1);
    }
    assert!(most <= 12, "{most} answers went before one");
    timeout(support::WAIT_MAX, reading).await.expect("all are answered").unwrap();
    drop(writing.await.unwrap());
    server.stop().await;
}
