//! Tests of the DNS server on real sockets, asked by `dig`.

use crate::support;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lookaside::catalog::{self, Catalog, Input};
use lookaside::dns::{self, Advertised, Answers};
use lookaside::model::{HostPort, ServiceName, Weight, Zone};
use lookaside::registry::{Change, Entry, Event, Key, Registration};
use lookaside::telemetry::Counters;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[path = "dns/secondaries.rs"]
mod secondaries;
#[path = "dns/shares.rs"]
mod shares;
#[path = "dns/skydns.rs"]
mod skydns;

const HELLO: &str = "hello.lookaside.internal";
const LOCATOR: &str = "_grpclb._tcp.hello.lookaside.internal";
/// A question for [`HELLO`]'s A records, as bytes.
const QUESTION: &[u8] =
    b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x05hello\x09lookaside\x08internal\0\0\x01\0\x01";

/// Returns the block of docs/dns.md that begins with this text.
fn recipe(begins: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dns.md"));
    let page = page.expect("the page is there");
    let mut blocks = page.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.starts_with(begins)).expect("it is there").to_owned()
}

struct Server {
    address: SocketAddr,
    inputs: mpsc::Sender<Input>,
    catalog: Catalog,
    counters: Arc<Counters>,
    balancers: watch::Sender<Arc<[HostPort]>>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

fn entry(service: &str, address: &str) -> Entry {
    let registration = Registration {
        service: ServiceName::new(service).unwrap(),
        id: address.into(),
        address: HostPort::parse(address).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    Entry {
        key: Key::new(format!("{service}/{address}").as_bytes()),
        decoded: Ok(vec![registration].into()),
        leased: true,
    }
}

impl Server {
    /// Starts a server that knows two balancers and has not read the registry.
    async fn start(listen: &str) -> Self {
        Self::start_with(listen, None).await
    }

    async fn start_with(listen: &str, wildcard: Option<&str>) -> Self {
        let (udp, tcp) = dns::bind(listen.parse().unwrap()).await.unwrap();
        let address = udp.local_addr().unwrap();
        assert_eq!(tcp.local_addr().unwrap(), address);
        let known = ["10.9.0.1:12000", "10.9.0.2:12000"].map(|b| HostPort::parse(b).unwrap());
        let (balancers, receiver) = watch::channel(Arc::from(known));
        let advertised = match wildcard {
            Some(listen) => Advertised::Arrival { listen: listen.parse().unwrap() },
            None => Advertised::Known(receiver),
        };
        let (inputs, receiver) = mpsc::channel(8);
        let catalog = Catalog::new();
        tokio::spawn(catalog::drive(receiver, catalog.clone(), lookaside::clock::wall));
        let counters = Arc::new(Counters::default());
        let zone = Zone::new("lookaside.internal").unwrap();
        let answers = Answers::new(zone, catalog.clone(), advertised, counters.clone());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(dns::serve(udp, tcp, answers, shutdown.clone()));
        Self { address, inputs, catalog, counters, balancers, shutdown, task }
    }

    /// Sets the registry's whole content, and waits until it is read.
    async fn reset(&self, all: Vec<Entry>) {
        let expected = all.len();
        let event = Event::Reset { revision: 1, all, went_back: false };
        self.inputs.send(Input::Registry(event)).await.unwrap();
        let mut status = self.catalog.watch_status();
        let read = status.wait_for(|status| status.synced && status.keys == expected);
        timeout(support::WAIT_MAX, read).await.expect("the registry is read").unwrap();
    }

    async fn dig(&self, arguments: &str) -> String {
        self.dig_at(self.address.ip(), arguments).await
    }

    /// Returns dig's output for these questions. Each run of blanks in a line becomes
    /// one blank.
    async fn dig_at(&self, ip: IpAddr, arguments: &str) -> String {
        let common = format!("@{ip} -p {} +tries=1 +time=20 +noall", self.address.port());
        let run = Command::new("dig").args(common.split(' ')).args(arguments.split(' ')).output();
        let output = match run.await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("dig is not installed: it is in Debian's package bind9-dnsutils")
            }
            result => result.unwrap(),
        };
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_inclusive('\n')
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
            .collect()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = timeout(support::WAIT_MAX, self.task).await.expect("ends when told to");
        ended.unwrap().unwrap();
    }
}

#[track_caller]
fn has(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "no {part:?} in:\n{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_called_like_a_selector_is_found() {
    let server = Server::start("127.0.0.1:0").await;
    let name = "album-api--first-revision.env1";
    server.reset(vec![entry(name, "10.0.0.1:80"), entry("env1", "10.0.0.9:80")]).await;
    let address = server.address;
    for (name, expected) in [
        ("album-api--first-revision.env1", "10.0.0.1"),
        ("Album-API--First-Revision.ENV1", "10.0.0.1"),
        ("env1", "10.0.0.9"),
        // These select among the backends, and no backend matches.
        ("zone--a.album-api--first-revision.env1", ""),
        ("album-api--second-revision.env1", ""),
    ] {
        let ask = move || support::dns::addresses(address, &format!("{name}.lookaside.internal"));
        let found = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        let expected: Vec<Ipv4Addr> = expected.parse().into_iter().collect();
        assert_eq!(found, expected, "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_question_by_udp_and_by_tcp() {
    let server = Server::start("127.0.0.1:0").await;
    server.reset(vec![entry("hello", "10.0.0.1:80"), entry("hello", "[2001:db8::1]:80")]).await;
    for by in ["+notcp", "+tcp", "+noedns", "+tcp +noedns"] {
        let ask = async |question: &str| {
            server.dig(&format!("{by} +comments +answer +authority +additional {question}")).await
        };
        let found = ask(&format!("-t SRV {LOCATOR}")).await;
        has(
            &found,
            &["status: NOERROR", "flags: qr aa rd;", "SRV 0 0 12000 grpclb.lookaside.internal."],
        );
        has(&found, &["grpclb.lookaside.internal. 5 IN A 10.9.0.1", "IN A 10.9.0.2"]);
        let found = ask("-t TXT _grpc_config.hello.lookaside.internal").await;
        has(
            &found,
            &[
                "status: NOERROR",
                r#"TXT "grpc_config=[{\"serviceConfig\":{\"loadBalancingConfig\":[{\"grpclb\":{}}]}}]""#,
            ],
        );
        has(&ask(&format!("-t A {HELLO}")).await, &["status: NOERROR", "5 IN A 10.0.0.1"]);
        has(&ask(&format!("-t AAAA {HELLO}")).await, &["5 IN AAAA 2001:db8::1"]);
        has(
            &ask("-t A HeLLo.lookaside.INTERNAL").await,
            &["HeLLo.lookaside.INTERNAL. 5 IN A 10.0.0.1"],
        );
        let soa =
            "5 IN SOA grpclb.lookaside.internal. hostmaster.lookaside.internal. 1 300 60 604800 5";
        has(&ask(&format!("-t MX {HELLO}")).await, &["status: NOERROR", "ANSWER: 0", soa]);
        has(&ask("-t A nobody.lookaside.internal").await, &["status: NOERROR", "ANSWER: 0", soa]);
        has(
            &ask("-t A _foo.lookaside.internal").await,
            &["status: NXDOMAIN", "flags: qr aa rd;", soa],
        );
        has(&ask("-t SOA lookaside.internal").await, &["status: NOERROR", soa]);
        has(&ask("-t NS lookaside.internal").await, &["IN NS grpclb.lookaside.internal."]);
        has(&ask("-t A example.com").await, &["status: REFUSED", "flags: qr rd;"]);
        has(&ask(&format!("-t A -c CH {HELLO}")).await, &["status: REFUSED"]);
        has(&ask(&format!("+opcode=NOTIFY -t SOA {HELLO}")).await, &["status: NOTIMP"]);
    }
    has(
        &server.dig(&format!("+comments +answer +notcp -t ANY {HELLO}")).await,
        &["ANSWER: 1", "HINFO"],
    );
    has(
        &server.dig(&format!("+comments +edns=1 +noednsnegotiation {HELLO}")).await,
        &["status: BADVERS"],
    );
    has(
        &server.dig(&format!("+comments +nocookie {HELLO}")).await,
        &["EDNS: version: 0, flags:; udp: 1232"],
    );
    assert!(server.counters.dns_answers.total() > 20 && server.counters.dns_rejected.total() > 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_follow_the_registry_and_the_balancers() {
    let server = Server::start("127.0.0.1:0").await;
    let unread = format!("+comments -t A {HELLO}");
    has(&server.dig(&unread).await, &["status: SERVFAIL"]);
    has(
        &server.dig(&format!("+comments -t SRV {LOCATOR}")).await,
        &["status: NOERROR", "ANSWER: 1"],
    );
    server.reset(Vec::new()).await;
    has(&server.dig(&unread).await, &["status: NOERROR", "ANSWER: 0"]);
    let change = Change::Put(entry("hello", "10.0.0.1:80"));
    let event = Event::Apply { revision: 2, changes: vec![change] };
    server.inputs.send(Input::Registry(event)).await.unwrap();
    let registered = async {
        while server.catalog.services().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(support::WAIT_MAX, registered).await.expect("the service is known");
    has(&server.dig(&format!("+answer -t A {HELLO}")).await, &["IN A 10.0.0.1"]);
    server.balancers.send_replace(Arc::from([HostPort::parse("lb.example:7").unwrap()]));
    has(&server.dig(&format!("+answer -t SRV {LOCATOR}")).await, &["SRV 0 0 7 lb.example."]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_cut_and_fetched_by_tcp() {
    let server = Server::start("127.0.0.1:0").await;
    let all = (0..100).map(|i| entry("hello", &format!("10.0.1.{i}:80"))).collect();
    server.reset(all).await;
    for (by, answers) in
        [("+noedns", 29), ("+bufsize=512 +nocookie", 28), ("+bufsize=4096 +nocookie", 73)]
    {
        let cut = server.dig(&format!("+comments +ignore {by} -t A {HELLO}")).await;
        has(&cut, &["flags: qr aa tc rd;", &format!("ANSWER: {answers},")]);
        let whole = server.dig(&format!("+comments +answer {by} -t A {HELLO}")).await;
        has(&whole, &["Truncated, retrying in TCP mode", "flags: qr aa rd;", "ANSWER: 100,"]);
        assert_eq!(whole.matches("IN A 10.0.1.").count(), 100);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_wildcard_the_address_asked_is_the_balancers_and_answers() {
    for (listen, grpc) in [("0.0.0.0:0", "0.0.0.0:12000"), ("[::]:0", "[::]:12000")] {
        let server = Server::start_with(listen, Some(grpc)).await;
        server.reset(Vec::new()).await;
        // Only Linux has all of 127.0.0.0/8 without configuration.
        let ips = if cfg!(target_os = "linux") { 1..=3 } else { 1..=1 };
        for ip in ips.map(|last| format!("127.0.0.{last}")) {
            for by in ["+notcp", "+tcp"] {
                let question = format!("{by} +comments +answer +additional -t SRV {LOCATOR}");
                let found = server.dig_at(ip.parse().unwrap(), &question).await;
                let a = format!("grpclb.lookaside.internal. 5 IN A {ip}");
                has(&found, &["SRV 0 0 12000 grpclb.lookaside.internal.", &a]);
            }
        }
        if listen.starts_with('[') {
            let question = format!("+comments +answer +additional -t SRV {LOCATOR}");
            let found = server.dig_at("::1".parse().unwrap(), &question).await;
            has(&found, &["SRV 0 0 12000", "grpclb.lookaside.internal. 5 IN AAAA ::1"]);
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_nobody_an_answer() {
    let server = Server::start("127.0.0.1:0").await;
    server.reset(vec![entry("hello", "10.0.0.1:80")]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let response = [&QUESTION[..2], b"\x84", &QUESTION[3..]].concat();
    let many = [&QUESTION[..4], b"\xff\xff", &QUESTION[6..]].concat();
    let huge = [QUESTION, &[0; 60_000]].concat();
    let garbage: [&[u8]; 8] =
        [b"", b"\0", &[0xFF; 512], &QUESTION[..12], &QUESTION[..30], &response, &many, &huge];
    for _ in 0..50 {
        for bytes in garbage {
            socket.send(bytes).await.unwrap();
        }
    }
    // A question still gets its answer. Datagrams may be lost, so the test asks
    // until one arrives.
    let mut buffer = [0; 2048];
    let answered = async {
        loop {
            socket.send(QUESTION).await.unwrap();
            let wait = std::time::Duration::from_millis(200);
            while let Ok(length) = timeout(wait, socket.recv(&mut buffer)).await {
                // QR and AA are set: an answer, not a rejection.
                if length.unwrap() > 40 && buffer[2] & 0x84 == 0x84 {
                    return;
                }
            }
        }
    };
    timeout(support::WAIT_MAX, answered).await.expect("a question is answered");
    assert!(server.counters.dns_rejected.total() > 0);

    for bytes in [b"\0\0".as_slice(), b"\0\x02hi", b"\xff\xff", b"\0\x0c\0\0\x80\0\0\0\0\0\0\0\0\0"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(support::WAIT_MAX, stream.read_to_end(&mut rest)).await;
        ended.expect("a connection without sense is closed").ok();
        assert_eq!(rest, b"");
    }
    has(&server.dig(&format!("+answer +tcp -t A {HELLO}")).await, &["IN A 10.0.0.1"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_connect_and_say_nothing_cost_the_others_nothing() {
    let server = Server::start("127.0.0.1:0").await;
    server.reset(vec![entry("hello", "10.0.0.1:80")]).await;
    let mut silent = Vec::new();
    for i in 0..600 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if i % 2 == 0 {
            stream.write_all(b"\0\x30\0").await.unwrap();
        }
        silent.push(stream);
    }
    has(&server.dig(&format!("+answer +tcp -t A {HELLO}")).await, &["IN A 10.0.0.1"]);
    has(&server.dig(&format!("+answer +notcp -t A {HELLO}")).await, &["IN A 10.0.0.1"]);
    // The oldest connection is closed, long before its time is over.
    let mut rest = Vec::new();
    let ended = timeout(support::WAIT_MAX, silent[0].read_to_end(&mut rest)).await;
    ended.expect("the oldest connection is closed").ok();
    // A client that keeps its connection asks several questions, in pieces and at once.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let framed = [&[0, QUESTION.len() as u8], QUESTION].concat();
    for piece in framed.chunks(3) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.write_all(&[framed.as_slice(), &framed].concat()).await.unwrap();
    for _ in 0..3 {
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [0, 7, 0x85, 0]);
    }
    server.stop().await;
}
