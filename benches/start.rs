//! Measures how soon a balancer serves a large registry: 100,000 keys of 10,000
//! services, in twelve formats, read from a real etcd.
//!
//! The time is printed beside the time of only reading the same keys in the same run:
//! `cargo bench --bench start`. `make bench` runs it too, as its scene `start`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions, Txn, TxnOp};

#[allow(dead_code, unreachable_pub)]
#[path = "../tests/support/etcd.rs"]
pub(crate) mod etcd;
#[allow(unreachable_pub)]
#[path = "../tests/support/port.rs"]
mod port;
#[allow(dead_code, unreachable_pub)]
#[path = "../tests/support/signal.rs"]
mod signal;

pub(crate) use port::free_port;

/// The limit of waits, which `tests/support/etcd.rs` takes from the module above it.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Returns the key below the prefix, and the value, of backend `i` of service `s`, which
/// listens at `a`.
type Write = fn(s: usize, i: usize, a: &str) -> (String, String);

const FORMATS: [(&str, &str, Write); 12] = [
    ("/plain/", "plain", |s, i, a| (format!("s{s}/{i}"), a.into())),
    ("/qsf/", "qsf", |s, i, a| {
        (format!("s{s}/{i}"), format!(r#"{{"addr":"{a}","metadata":null}}"#))
    }),
    ("naming/", "etcd-naming", |s, _, a| {
        (format!("s{s}/{a}"), format!(r#"{{"Op":0,"Addr":"{a}","Metadata":{{"weight":"3"}}}}"#))
    }),
    ("zero/", "go-zero", |s, i, a| (format!("s{s}.rpc/75878748137{i:08}"), a.into())),
    ("/microservices/", "kratos", |s, i, a| {
        let value = format!(
            r#"{{"id":"i-{i}","name":"k{s}","version":"v1","metadata":{{}},"endpoints":["http://{a}","grpc://{a}?isSecure=false"]}}"#
        );
        (format!("k{s}/i-{i}"), value)
    }),
    ("/kratos_etcd/", "kratos-v1", |s, i, a| {
        let value = format!(
            r#"{{"region":"sh","zone":"sh001","env":"prod","appid":"a.{s}","hostname":"h{i}","addrs":["grpc://{a}"],"version":"","latest_timestamp":1,"metadata":{{"weight":"10"}},"status":1}}"#
        );
        (format!("a.{s}/h{i}"), value)
    }),
    ("/micro/registry/", "go-micro", |s, i, a| {
        let value = format!(
            r#"{{"name":"m{s}","version":"latest","metadata":null,"endpoints":[],"nodes":[{{"metadata":{{"protocol":"grpc"}},"id":"m{s}-{i}","address":"{a}"}}]}}"#
        );
        (format!("m{s}/m{s}-{i}"), value)
    }),
    ("/rpcx/", "rpcx", |s, _, a| {
        (format!("r{s}/tcp@{a}"), "group=test&weight=7&calls=1.00".into())
    }),
    ("kitex/registry-etcd/", "kitex", |s, _, a| {
        (
            format!("x{s}/{a}"),
            format!(r#"{{"network":"tcp","address":"{a}","weight":10,"tags":null}}"#),
        )
    }),
    ("hertz/registry-etcd/", "hertz", |s, _, a| {
        (
            format!("h{s}/{a}"),
            format!(r#"{{"network":"tcp","address":"{a}","weight":10,"tags":null}}"#),
        )
    }),
    ("/gokit/", "go-kit", |s, _, a| (format!("g{s}/{a}"), a.into())),
    ("/registrator/", "registrator", |s, i, a| (format!("t{s}/{i}"), a.into())),
];
const SERVICES: usize = 10_000;
const INSTANCES: usize = 10;
const ROUNDS: usize = 5;
/// etcd's limit for one transaction.
const AT_ONCE: usize = 128;
const PAGE: i64 = 10_000;

/// An etcd with registrations, which can be read again and again.
pub(crate) struct Start {
    runtime: tokio::runtime::Runtime,
    etcd: etcd::Etcd,
    services: usize,
}

/// The measurements of one start.
pub(crate) struct Round {
    /// The time of only reading the keys.
    pub(crate) alone: Duration,
    pub(crate) ready: Duration,
    /// Memory of the program when it was ready, in MB.
    pub(crate) resident: u64,
}

fn main() {
    let start = Start::new(SERVICES);
    println!("{} keys of {SERVICES} services in {} formats", SERVICES * INSTANCES, FORMATS.len());
    println!("round   read alone   start to ready   ratio   resident");
    for round in 1..=ROUNDS {
        let Round { alone, ready, resident } = start.round();
        let ratio = ready.as_secs_f64() / alone.as_secs_f64();
        let (alone, ready) = (alone.as_millis(), ready.as_millis());
        println!("{round:5} {alone:9} ms {ready:13} ms {ratio:7.2} {resident:7} MB");
    }
}

impl Start {
    pub(crate) fn new(services: usize) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let etcd = etcd::Etcd::start();
        runtime.block_on(fill(&etcd.url(), services));
        Self { runtime, etcd, services }
    }

    pub(crate) fn round(&self) -> Round {
        let alone = self.runtime.block_on(read(&self.etcd.url(), self.services));
        let (ready, resident) = start(&self.etcd.url(), self.services);
        Round { alone, ready, resident }
    }
}

async fn fill(url: &str, services: usize) {
    let mut client = Client::connect([url], None).await.expect("etcd answers");
    let mut puts = Vec::with_capacity(AT_ONCE);
    for service in 0..services {
        let (prefix, _, write) = FORMATS[service % FORMATS.len()];
        for instance in 0..INSTANCES {
            let number = service * INSTANCES + instance;
            let (high, middle, low) = (number / 62_500, number / 250 % 250, number % 250 + 1);
            let addr = format!("127.{high}.{middle}.{low}:50051");
            let (key, value) = write(service, instance, &addr);
            puts.push(TxnOp::put(format!("{prefix}{key}"), value, None));
        }
        if puts.len() + INSTANCES > AT_ONCE || service + 1 == services {
            let txn = Txn::new().and_then(std::mem::take(&mut puts));
            client.txn(txn).await.expect("etcd takes it");
        }
    }
}

/// Reads every key in pages and ignores it. Returns the time that this takes.
async fn read(url: &str, services: usize) -> Duration {
    let mut client = Client::connect([url], None).await.expect("etcd answers");
    let began = Instant::now();
    let mut count = 0;
    let mut from = vec![0];
    loop {
        let options = GetOptions::new().with_range(vec![0]).with_limit(PAGE);
        let page = client.get(from.clone(), Some(options)).await.expect("etcd answers");
        count += page.kvs().len();
        match page.kvs().last() {
            Some(last) if page.more() => from = [last.key(), &[0]].concat(),
            _ => break,
        }
    }
    assert_eq!(count, services * INSTANCES);
    began.elapsed()
}

/// Starts the program and waits until it is ready. Returns the time and the memory in MB.
fn start(url: &str, services: usize) -> (Duration, u64) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
    command.args(["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--etcd", url]);
    for (prefix, format, _) in FORMATS {
        command.arg("--prefix").arg(format!("{prefix}={format}"));
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut child = Killed(child);
    let mut line = String::new();
    let stdout = child.0.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
    let admin = line.split_whitespace().find_map(|word| word.strip_prefix("admin="));
    let admin = admin.expect("its admin address");
    while ureq::get(format!("http://{admin}/readyz")).call().is_err() {
        assert!(began.elapsed() < WAIT_MAX, "it does not become ready");
        std::thread::sleep(Duration::from_millis(2));
    }
    let ready = began.elapsed();
    let url = format!("http://{admin}/metrics");
    let metrics = ureq::get(url).call().expect("metrics").body_mut().read_to_string();
    let metrics = metrics.expect("text");
    let says = |name: &str, value: usize| {
        let found = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        assert_eq!(found, Some(format!("{value}.0").as_str()), "{name}");
    };
    says("lookaside_services", services);
    says("lookaside_registry_rejected_keys", 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id()));
    let status = status.unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    (ready, kilobytes.unwrap_or(0) / 1024)
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
