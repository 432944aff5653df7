//! The parts that most rows need: an etcd, a writer of registrations, the balancer
//! and a crowd of clients, half of them with grpclb and half with xDS.
//!
//! In: how many of each. Out: moments and figures, and at the end the breaches that
//! the checker finds in the whole run.

use std::process::Command;
use std::time::{Duration, Instant};

use super::check::{self, Settled, Vitals};
use super::row::Row;
use super::scale::Scale;
use super::writer::{DEAD_PORT, Writer, server};
use crate::support::crowd::{Crowd, History, Manner, Plan};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, free_port};

/// The running parts of a row. A row may use, stop and replace them.
pub struct World<E = Etcd> {
    pub etcd: E,
    pub writer: Writer,
    pub balancer: Balancer,
    pub crowd: Crowd,
    /// The balancer's resources before the first client.
    pub before: Vitals,
    /// The flags of the balancer, for starting it again.
    args: Vec<String>,
}

/// The size of a world.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub services: usize,
    /// Backends of each service.
    pub servers: usize,
    pub clients: usize,
    /// The port of the backends. Nothing listens at the usual one, [`DEAD_PORT`].
    pub port: u16,
}

/// The number of clients that [`World::newcomers`] adds.
pub const NEWCOMERS: usize = 2;
/// How soon all clients have the newest list once there is no fault.
pub const CONVERGED: Duration = Duration::from_secs(2);
/// The most memory in KiB that a balancer takes without clients, and that each client
/// adds: a task, its buffers, HTTP/2's state.
const MEMORY_BASE: u64 = 100 * 1024;
const MEMORY_PER_CLIENT: u64 = 64;

impl Size {
    pub fn of(scale: Scale) -> Self {
        Self { services: 10, servers: 20, clients: scale.streams, port: DEAD_PORT }
    }

    /// Returns the service of a client.
    pub fn service_of(self, client: usize) -> String {
        service(client % self.services)
    }
}

/// Returns the name of service `n`.
pub fn service(n: usize) -> String {
    format!("s{n}")
}

impl World {
    /// Starts all parts with an etcd of their own. Returns once every client has a list.
    pub fn new(size: Size, flags: &[&str]) -> Self {
        Self::with_environment(size, flags, &[])
    }

    pub fn with_environment(size: Size, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let etcd = Etcd::start();
        let urls = [etcd.url()];
        Self::with(etcd, &urls, size, flags, environment)
    }
}

impl<E> World<E> {
    /// Starts the other parts with this etcd. If `flags` contain `--etcd`, the balancer
    /// uses that address, such as a proxy's, instead of `urls`.
    pub fn with(
        etcd: E,
        urls: &[String],
        size: Size,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut writer = Writer::new(urls);
        for n in 0..size.services {
            writer.put_all(&service(n), (0..size.servers).map(|i| server(n, i, size.port)));
        }
        let listen = format!("127.0.0.1:{}", free_port());
        let mut args = vec!["--listen".to_owned(), listen];
        if !flags.contains(&"--etcd") {
            args.extend(["--etcd".to_owned(), urls.join(",")]);
        }
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let balancer = start(&args, environment);
        balancer.wait_ready();
        let before = vitals(&balancer);
        let crowd = Crowd::new(Plan::mixed(balancer.grpclb()));
        crowd.add((0..size.clients).map(|client| size.service_of(client)), Manner::Usual);
        let world = Self { etcd, writer, balancer, crowd, before, args };
        world.wait_listed(size.clients);
        world
    }

    #[track_caller]
    pub fn wait_listed(&self, count: usize) {
        eventually("every client has a list", || {
            self.no_rule_is_broken();
            (self.crowd.listed() == count).then_some(())
        });
    }

    /// Panics if a response broke a rule of xDS: its client waits for ever.
    #[track_caller]
    fn no_rule_is_broken(&self) {
        let broken = self.crowd.history(|history| history.broken.clone());
        assert!(broken.is_empty(), "I7: {broken:#?}");
    }

    /// Kills the balancer as a crash does and starts it again at the same address.
    /// Returns the moment at which it listens again.
    pub fn crash(&mut self) -> Instant {
        self.balancer.kill();
        self.start_again()
    }

    pub fn start_again(&mut self) -> Instant {
        self.balancer = start(&self.args, &[]);
        Instant::now()
    }

    /// Waits until all clients have the newest list. Returns how long after `since` the
    /// last list came.
    #[track_caller]
    pub fn converge(&self, since: Instant) -> Duration {
        let newest = |name: &str, set: &_| {
            self.writer.model.steps(name).last().is_some_and(|step| step.allows(set))
        };
        eventually("all have the newest list", || {
            self.no_rule_is_broken();
            self.crowd.all_received(newest).then_some(())
        });
        let last =
            self.crowd.history(|history| history.received.last().map(|received| received.at));
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
    }

    /// Waits until a metric has a value for which `right` is true.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, right: impl Fn(f64) -> bool) {
        let what = format!("{name} is as it must be");
        eventually(&what, || self.balancer.metric(name).filter(|&value| right(value)).map(drop));
    }

    /// Ends a run: compares the history with the model, lets the clients go, and checks
    /// that the balancer keeps nothing of them.
    pub fn finish(self, row: &mut Row, settled: Option<Settled>) -> History {
        row.clients(self.crowd.len());
        let names = self.crowd.names();
        let held = vitals(&self.balancer);
        let bound = MEMORY_BASE + MEMORY_PER_CLIENT * names.len() as u64;
        row.saw(format!("memory {} MB", held.memory / 1024));
        row.breaches(check::memory(held, bound));
        let history = self.crowd.finish();
        row.breaches(check::lists(&history, &self.writer.model, &names, settled));
        let mut after = held;
        // The last reading counts, because closing takes a while.
        let _ = crate::support::try_eventually(|| {
            after = vitals(&self.balancer);
            check::leaks("", self.before, after).is_empty().then_some(())
        });
        row.breaches(check::leaks(&self.balancer.log(), self.before, after));
        history
    }

    /// Demands that since `since` no stream was closed and no list was sent.
    pub fn nobody_is_touched(&self, row: &mut Row, since: Instant) {
        let sent = |h: &History| h.received_since(since) + h.described_since(since);
        let (lost, sent) = self.crowd.history(|h| (h.lost_since(since), sent(h)));
        row.equal("streams closed", lost, 0);
        row.equal("lists sent", sent, 0);
    }

    /// Demands that after the first `before` lists only clients of `service` got lists.
    pub fn only_received(&self, row: &mut Row, before: usize, service: &str) {
        let names = self.crowd.names();
        let others = self.crowd.history(|history| {
            let new = &history.received[before..];
            new.iter().filter(|received| names[received.client as usize].0 != service).count()
        });
        row.equal("lists sent to clients of unchanged services", others, 0);
    }

    /// Adds [`NEWCOMERS`] clients, one of each protocol. Returns how long they wait for their
    /// first lists.
    #[track_caller]
    pub fn newcomers(&self, name: &str) -> Duration {
        let first = self.crowd.len();
        self.crowd.add(vec![name.to_owned(); NEWCOMERS], Manner::Usual);
        let waited = |history: &History| {
            let new = history.waits.iter().filter(|wait| wait.client as usize >= first);
            let new: Vec<_> = new.map(|wait| wait.took).collect();
            new.iter().copied().max().filter(|_| new.len() == NEWCOMERS)
        };
        eventually("newcomers have their lists", || self.crowd.history(waited))
    }
}

/// Returns the balancer's resources now. If it does not answer, it counts as having
/// no streams.
pub fn vitals(balancer: &Balancer) -> Vitals {
    let proc = format!("/proc/{}", balancer.id());
    let files = std::fs::read_dir(format!("{proc}/fd")).map_or(0, |files| files.count() as u64);
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    let streams = balancer.try_get("/metrics").map_or(0.0, |(_, page)| {
        let open = ["lookaside_streams_open{", "lookaside_xds_names_open{"];
        let is_open = |line: &&str| open.iter().any(|name| line.starts_with(name));
        let lines = page.lines().filter(is_open);
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    });
    Vitals { files, streams: streams as u64, memory: field(&status, "VmRSS:") }
}

/// Returns the processor time that a balancer has used.
pub fn cpu(balancer: &Balancer) -> Duration {
    crate::support::cpu(balancer.id())
}

/// Returns how many connections the balancer's socket has dropped because its queue
/// was full, since it began to listen.
pub fn overflows(balancer: &Balancer) -> u64 {
    let port = format!(":{}", balancer.grpclb().port());
    let output = Command::new("ss").args(["-lntmH", "sport", "=", &port]).output();
    let text = String::from_utf8(output.expect("ss runs: Debian package iproute2").stdout);
    let text = text.expect("it is text");
    // skmem:(r0,…,d0): the last number counts the dropped connections.
    let (_, dropped) = text.rsplit_once(",d").expect("it listens");
    dropped.trim().trim_end_matches(')').parse().expect("a number")
}

/// Calls `ask` until it returns a value, for at most `wait_max`.
pub fn until<T>(wait_max: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + wait_max;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(args: &[String], environment: &[(&str, &str)]) -> Balancer {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    // After a process ends, its port may stay in use for a moment.
    eventually("the balancer starts", || Balancer::try_start_with(&args, environment).ok())
}

/// Returns a value of `/proc/…/status`, in KiB.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
