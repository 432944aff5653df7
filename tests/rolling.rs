//! Three balancers on three hosts, each beside an etcd member, under load of real clients of
//! two languages and both protocols, and of a crowd. Each balancer is replaced in turn, and
//! an etcd member is killed meanwhile.
//!
//! In: the programs that replace each other. Out: a panic if a call fails, if a client uses
//! the fallback addresses, if more clients reconnect than those of the balancer that stops,
//! or if streams are not even in the end.

#![allow(unreachable_pub)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::cluster::Cluster;
use crate::support::crowd::{Crowd, Dns, Manner, Plan};
use crate::support::language::{Language, PYTHON, Resolver, XDS_GO, XDS_PYTHON};
use crate::support::lookaside::Balancer;
use crate::support::network::Network;
use crate::support::world::{SERVICE, metric, streams};
use crate::support::{dns, eventually, free_port, skip, try_eventually};

const HOSTS: usize = 3;
const ZONE: &str = "lookaside.internal";
const SRV: &str = "_grpclb._tcp.hello.lookaside.internal";
/// The port at which all balancers take clients.
const PORT: u16 = 12000;
/// The grpclb channels of each language, the xDS processes of each (a process has one
/// stream), and the clients of the crowd.
const CHANNELS: usize = 4;
const PROCESSES: usize = 2;
const CROWD: usize = 600;
/// How often [`try_eventually`] waits for even streams. Clients that come back are asked
/// again after 35 s, and some several times.
const PATIENCE: usize = 5;
/// How long a call may take. A lost call is never answered, and a client without a list for
/// ten seconds uses the fallback addresses. A busy machine only answers late.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A program to run as balancer.
pub struct Program {
    path: PathBuf,
    /// Whether it serves xDS.
    xds: bool,
    /// Whether it asks clients to move to balancers with fewer.
    spreads: bool,
}

/// Hosts, each with an etcd member and a balancer.
struct Hosts {
    networks: Vec<Network>,
    etcd: Cluster,
    balancers: Vec<Balancer>,
    directory: tempfile::TempDir,
}

/// Clients that make calls all the time, and a crowd that only has streams.
struct Load<'a> {
    clients: Vec<Channel<'a>>,
    crowd: Crowd,
}

/// The backends of the service, and the one that only clients in fallback call.
struct Backends {
    listed: Vec<Backend>,
    fallback: Backend,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let help = |args: &[&str]| {
            let output = Command::new(&path).args(args).output().expect("the program runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (all, serve) = (help(&["--help"]), help(&["serve", "--help"]));
        let (xds, spreads) = (all.contains("xds-bootstrap"), serve.contains("--spread"));
        Self { path, xds, spreads }
    }
}

/// Starts balancers of the first program, and replaces all of them by the next, and so on.
/// It must run inside a namespace.
pub fn replace_all(what: &str, programs: &[Program]) {
    let go = Language::named("go");
    for language in [go, PYTHON, XDS_GO, XDS_PYTHON] {
        if let Some(obstacle) = language.obstacle() {
            return skip(what, &obstacle);
        }
    }
    let xds = programs.iter().all(|program| program.xds);
    let protocols = if xds { "grpclb and xDS" } else { "grpclb alone: a program serves no xDS" };
    println!("{what}: clients in Go and Python by {protocols}");
    let (first, next) = programs.split_first().expect("there is a program");
    let mut hosts = Hosts::start(first);
    let backends = Backends::start(&hosts);
    let resolver = hosts.resolver();
    let mut drivers: Vec<_> = [go, PYTHON]
        .into_iter()
        .map(|language| {
            let target = format!("dns:///{SERVICE}.{ZONE}:{}", backends.fallback.addr().port());
            (Driver::start_with(&language, &resolver), Options::grpclb(target), CHANNELS)
        })
        .collect();
    if xds {
        let (_, bootstrap) = hosts.balancers[0].get("/api/v1/xds/bootstrap");
        for language in [XDS_GO, XDS_PYTHON].into_iter().flat_map(|one| vec![one; PROCESSES]) {
            let driver = Driver::start_xds_with(&language, &resolver, &bootstrap);
            drivers.push((driver, Options::xds(SERVICE), 1));
        }
    }
    let clients = drivers
        .iter()
        .flat_map(|(driver, options, channels)| (0..*channels).map(move |_| call(driver, options)));
    let load = Load { clients: clients.collect(), crowd: hosts.crowd() };
    hosts.until_all_have_streams(&load);
    for program in next {
        for host in 0..HOSTS {
            hosts.replace(host, program, &load);
        }
    }
    if programs.last().is_some_and(|program| program.spreads) {
        hosts.until_streams_are_even();
    }
    let reports: Vec<_> = load.clients.iter().map(Channel::stop).collect();
    for report in &reports {
        let in_order = report.succeeded() > 0 && report.failed() == 0;
        assert!(in_order && report.from("fallback") == 0, "{reports:#?}");
    }
    assert!(backends.fallback.tokens().is_empty(), "nobody calls the fallback addresses");
    assert!(backends.listed.iter().all(|backend| !backend.tokens().is_empty()));
}

/// Opens a client that makes calls until it is stopped.
fn call<'a>(driver: &'a Driver, options: &Options) -> Channel<'a> {
    let client = driver.open(options);
    client.until("it is connected", &Calls::waiting(1), |report| report.failed() == 0);
    let calls = Calls::new(0).timeout(ANSWERED_WITHIN);
    client.start(&calls.every(Duration::from_millis(20)));
    client
}

impl Load<'_> {
    fn streams(&self) -> u64 {
        (self.clients.len() + self.crowd.len()) as u64
    }
}

impl Hosts {
    fn start(program: &Program) -> Self {
        let networks: Vec<_> = (0..HOSTS).map(Network::new).collect();
        let places: Vec<_> = networks.iter().map(|n| (n.theirs(), Some(n.name()))).collect();
        let etcd = Cluster::start_in(&places);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut hosts = Self { networks, etcd, balancers: Vec::new(), directory };
        for host in 0..HOSTS {
            let balancer = hosts.balancer(host, program);
            hosts.balancers.push(balancer);
        }
        hosts.balancers.iter().for_each(Balancer::wait_ready);
        hosts.until_all_know_all();
        hosts
    }

    /// Starts a balancer on a host. It listens everywhere. Former versions must be told their
    /// own address.
    fn balancer(&self, host: usize, program: &Program) -> Balancer {
        let address = self.networks[host].theirs();
        let mut args = vec![
            ("--listen", format!("0.0.0.0:{PORT}")),
            ("--dns-listen", format!("{address}:53")),
            ("--admin-listen", format!("{address}:12001")),
            ("--etcd", self.etcd.urls().join(",")),
            ("--domain", ZONE.to_owned()),
        ];
        match program.spreads {
            true => {
                // Fast, so that the test ends.
                args.push(("--spread", "10".to_owned()));
                args.push(("--admin-open-to-network", "on".to_owned()));
            }
            false => args.push(("--advertise", format!("{address}:{PORT}"))),
        }
        let args: Vec<_> = args.iter().flat_map(|(flag, value)| [*flag, value]).collect();
        let start = || Balancer::try_start_in(&self.networks[host].name(), &program.path, &args);
        start().unwrap_or_else(|log| panic!("{}:\n{log}", program.path.display()))
    }

    /// Returns the DNS servers of all hosts.
    fn dns(&self) -> Vec<SocketAddr> {
        let of = |network: &Network| {
            let address: IpAddr = network.theirs().parse().expect("an address");
            SocketAddr::from((address, 53))
        };
        self.networks.iter().map(of).collect()
    }

    /// Writes the file that names all hosts as DNS servers.
    fn resolver(&self) -> Resolver {
        let server = |address: &SocketAddr| format!("nameserver {}\n", address.ip());
        let servers: String = self.dns().iter().map(server).collect();
        let files = self.directory.path().join("etc");
        std::fs::create_dir(&files).expect("a temporary directory");
        std::fs::write(files.join("resolv.conf"), servers).expect("a temporary file");
        Resolver::Files(files)
    }

    fn crowd(&self) -> Crowd {
        let dns = Some(Dns { servers: self.dns(), name: SRV.to_owned() });
        let crowd = Crowd::new(Plan { dns, pace: 200, ..Plan::to(self.dns()[0]) });
        crowd.add((0..CROWD).map(|_| SERVICE.to_owned()), Manner::Usual);
        crowd
    }

    /// Stops a balancer and starts another program in its place, while another host's etcd
    /// member is killed and comes back.
    fn replace(&mut self, host: usize, program: &Program, load: &Load<'_>) {
        let member = (host + 1) % HOSTS;
        self.etcd.kill(member);
        let leaving = streams(&self.balancers[host]);
        let others: Vec<_> = (0..HOSTS).filter(|other| *other != host).collect();
        let sum = |hosts: &Self, series: &str| {
            others.iter().map(|other| metric(&hosts.balancers[*other], series)).sum::<u64>()
        };
        let came = |hosts: &Self| sum(hosts, "lookaside_connections_total");
        let asked = |hosts: &Self| sum(hosts, "lookaside_connections_spread_total");
        let before = (came(self), asked(self));
        let ended = self.balancers[host].terminate();
        assert!(ended.success(), "{ended}: {}", self.balancers[host].log());
        self.until_streams_are("all clients have moved", load, &others);
        // C-core may connect to two balancers and keep one.
        let most = 2 * (leaving + asked(self) - before.1);
        let came = came(self) - before.0;
        assert!(came <= most, "{leaving} clients were sent away, and {came} came");
        self.balancers[host] = self.balancer(host, program);
        self.balancers[host].wait_ready();
        self.until_all_know_all();
        self.etcd.restart(member);
        self.until_all_have_streams(load);
    }

    fn until_all_know_all(&self) {
        let all = |server: &SocketAddr| SocketAddr::from((server.ip(), PORT));
        let all: BTreeSet<_> = self.dns().iter().map(all).collect();
        for server in self.dns() {
            eventually("it names all balancers", || {
                let named: BTreeSet<_> = dns::balancers(server, SRV)?.into_iter().collect();
                (named == all).then_some(())
            });
        }
    }

    fn until_all_have_streams(&self, load: &Load<'_>) {
        self.until_streams_are("all clients have streams", load, &[0, 1, 2]);
    }

    fn until_streams_are(&self, what: &str, load: &Load<'_>, hosts: &[usize]) {
        let mut seen = 0;
        let found = try_eventually(|| {
            seen = hosts.iter().map(|host| streams(&self.balancers[*host])).sum();
            (seen == load.streams()).then_some(())
        });
        assert!(found.is_some(), "{what}: {seen} streams, not {}", load.streams());
    }

    /// Waits until the streams of each balancer are within a tenth of the mean.
    fn until_streams_are_even(&self) {
        let mut seen = Vec::new();
        let found = (0..PATIENCE).find_map(|_| {
            try_eventually(|| {
                seen = self.balancers.iter().map(streams).collect();
                let mean = seen.iter().sum::<u64>() / HOSTS as u64;
                seen.iter().all(|streams| streams.abs_diff(mean) * 10 <= mean).then_some(())
            })
        });
        println!("streams in the end: {seen:?}");
        assert!(found.is_some(), "streams are not even: {seen:?}");
    }
}

impl Backends {
    /// Starts backends at one address and several ports. So DNS gives that address, at which
    /// a client in fallback finds the one that nobody registers.
    fn start(hosts: &Hosts) -> Self {
        let address = hosts.networks[0].ours();
        let start = |id: &str| {
            let address = format!("{address}:{}", free_port());
            Backend::start_at(id, address.parse().expect("an address"))
        };
        let mut listed: Vec<_> = ["one", "two", "three"].into_iter().map(start).collect();
        let endpoints = hosts.etcd.urls().join(",");
        for backend in &mut listed {
            backend.register(&endpoints, SERVICE);
            hosts.balancers.iter().for_each(|one| one.wait_listed(SERVICE, backend.id()));
        }
        Self { listed, fallback: start("fallback") }
    }
}
