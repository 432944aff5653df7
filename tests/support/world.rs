//! The parts that one test with real clients has for itself.
//!
//! In: an etcd, and the clients' language. Out: a prefix, a zone, a directory, and
//! balancers, backends and names that use them.
//!
//! Worlds share at most an etcd, so tests run in parallel. Some clients ask the machine's
//! resolver and not the one in their target. For them each world has an address of its
//! own, and they use port 53 of it.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use etcd_client::{Client, Txn, TxnOp};
use lookaside::model::Weight;
use tempfile::TempDir;

use super::backend::Backend;
use super::client::{Driver, Options};
use super::dns;
use super::etcd::Etcd;
use super::free_port;
use super::language::{Language, Resolver};
use super::lookaside::Balancer;

/// The service that tests use.
pub const SERVICE: &str = "hello";

/// The parts of one test.
pub struct World {
    etcd: Arc<Etcd>,
    language: Language,
    /// A number that no other world of this process has.
    number: u16,
    pub directory: TempDir,
}

impl World {
    pub fn new(etcd: Arc<Etcd>, language: &Language) -> Self {
        static WORLDS: AtomicU16 = AtomicU16::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let directory = TempDir::new().expect("a temporary directory");
        let world = Self { etcd, language: *language, number, directory };
        world.write_resolver();
        world
    }

    /// Starts a driver of the world's language with the world's resolver.
    #[track_caller]
    pub fn driver(&self) -> Driver {
        Driver::start_with(&self.language, &self.resolver())
    }

    /// Returns the resolver that programs of the world's language need.
    pub fn resolver(&self) -> Resolver {
        if !self.language.asks_system {
            return Resolver::System;
        }
        Resolver::Files(self.directory.path().join("etc"))
    }

    /// Gives the service's name an address that is found before DNS is asked.
    pub fn add_host(&self, address: &str) {
        use std::io::Write;
        let path = self.directory.path().join("etc/hosts");
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let line = format!("{address} {SERVICE}.{}", self.zone());
        writeln!(file.expect("it is ours"), "{line}").expect("it can be written");
    }

    /// Returns the zone of its balancers.
    pub fn zone(&self) -> String {
        format!("world{}.internal", self.number)
    }

    /// Returns the etcd that all worlds share.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Starts a balancer that also answers DNS, and waits until it is ready.
    #[track_caller]
    pub fn balancer(&self, args: &[&str]) -> Balancer {
        let balancer = self.balancer_unready(args).unwrap_or_else(|log| panic!("{args:?}:\n{log}"));
        balancer.wait_ready();
        balancer
    }

    /// Starts a balancer and does not wait until it is ready. Returns its log as an error if
    /// it does not start, for example because a port is taken.
    pub fn balancer_unready(&self, args: &[&str]) -> Result<Balancer, String> {
        let etcd = self.etcd.url();
        self.start(args, &[("--etcd", &etcd), ("--prefix", &self.prefix())])
    }

    /// Starts a balancer that serves the embedded registry.
    #[track_caller]
    pub fn with_embedded_registry(&self) -> Balancer {
        let balancer = self.start(&[], &[]).unwrap_or_else(|log| panic!("{log}"));
        balancer.wait_ready();
        balancer
    }

    /// Starts a balancer with these flags, and with the defaults of which the flags are not
    /// given.
    fn start(&self, args: &[&str], further: &[(&str, &str)]) -> Result<Balancer, String> {
        let dns = SocketAddr::from(match self.language.asks_system {
            true => (self.dns_ip(), 53),
            false => (Ipv4Addr::LOCALHOST, 0),
        });
        let (zone, dns) = (self.zone(), dns.to_string());
        // Only balancers that say where they are announce themselves, so that a case decides
        // whom DNS names.
        let announce = if args.contains(&"--advertise") { "on" } else { "off" };
        let usual = [
            ("--domain", &*zone),
            ("--dns-listen", &*dns),
            ("--report-interval", "1s"),
            ("--announce", announce),
        ];
        let mut all = args.to_vec();
        for (flag, value) in usual.iter().chain(further).filter(|(flag, _)| !args.contains(flag)) {
            all.extend([flag, value]);
        }
        Balancer::try_start(&all)
    }

    /// Starts a balancer that announces itself to other balancers. Clients do not use its
    /// DNS.
    #[track_caller]
    pub fn announced_balancer(&self, args: &[&str]) -> Balancer {
        let own = format!("127.0.0.1:{}", free_port());
        let ours = ["--listen", &own, "--advertise", &own, "--dns-listen", "127.0.0.1:0"];
        self.balancer(&[args, &ours].concat())
    }

    /// Starts DNS that outlives balancers. It says that a balancer is at `balancer`, and
    /// gives names the addresses that are registered with [`Self::in_dns`].
    #[track_caller]
    pub fn dns(&self, balancer: impl Display) -> Balancer {
        self.balancer(&["--advertise", &balancer.to_string(), "--prefix", &self.dns_prefix()])
    }

    /// Returns the target of the service for a client.
    pub fn target(&self, dns: &Balancer) -> String {
        self.target_of(dns, &format!("{SERVICE}.{}", self.zone()))
    }

    /// Returns the target of any name for a client.
    pub fn target_of(&self, dns: &Balancer, name: &str) -> String {
        match self.language.asks_system {
            true => format!("dns:///{name}"),
            false => format!("dns://{}/{name}", dns.dns()),
        }
    }

    /// Starts and registers a backend of the service.
    pub fn backend(&self, id: &str) -> Backend {
        let mut backend = Backend::start(id);
        self.register(&mut backend);
        backend
    }

    pub fn register(&self, backend: &mut Backend) {
        self.register_with(backend, Weight::DEFAULT);
    }

    pub fn register_with(&self, backend: &mut Backend, weight: Weight) {
        backend.register_below(&self.prefix(), &self.etcd.url(), SERVICE, weight);
    }

    /// Registers a backend in an etcd of the case's own.
    pub fn register_at(&self, etcd: &Etcd, backend: &mut Backend) {
        backend.register_below(&self.prefix(), &etcd.url(), SERVICE, Weight::DEFAULT);
    }

    /// Starts a backend that no balancer lists, and gives its address to the service's name
    /// in this DNS, which comes from [`Self::dns`].
    #[track_caller]
    pub fn in_dns(&self, dns: &Balancer, id: &str) -> Backend {
        let mut backend = Backend::start(id);
        self.put_in_dns(dns, &mut backend);
        backend
    }

    /// Gives a backend's address to the service's name in this DNS. It belongs to the name
    /// until the backend is withdrawn.
    #[track_caller]
    pub fn put_in_dns(&self, dns: &Balancer, backend: &mut Backend) {
        let prefix = self.dns_prefix();
        backend.register_below(&prefix, &self.etcd.url(), SERVICE, Weight::DEFAULT);
        dns.wait_listed(SERVICE, backend.id());
    }

    /// Returns options whose target has this backend's port: clients in fallback reach it if
    /// its address is in DNS.
    pub fn falling_back_to(&self, dns: &Balancer, backend: &Backend) -> Options {
        Options::grpclb(format!("{}:{}", self.target(dns), backend.addr().port()))
    }

    /// Returns the number of balancers that this DNS gives.
    pub fn balancers_in_dns(&self, dns: &Balancer) -> usize {
        let name = format!("_grpclb._tcp.{SERVICE}.{}", self.zone());
        dns::srv_records(dns.dns(), &name).unwrap_or(0)
    }

    /// Puts keys and values of any bytes, 100 in each transaction.
    pub fn put_all<T: AsRef<[u8]>>(&self, pairs: &[(T, T)]) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let etcd = Client::connect([self.etcd.url()], None).await;
            let mut etcd = etcd.expect("etcd is there");
            for pairs in pairs.chunks(100) {
                let puts =
                    pairs.iter().map(|(key, value)| TxnOp::put(key.as_ref(), value.as_ref(), None));
                let puts = Txn::new().and_then(puts.collect::<Vec<_>>());
                etcd.txn(puts).await.expect("etcd takes any bytes");
            }
        });
    }

    /// Returns the key of a registration of the service.
    pub fn key(&self, id: &str) -> String {
        format!("{}{SERVICE}/{id}", self.prefix())
    }

    /// Returns the prefix of its registrations.
    pub fn prefix(&self) -> String {
        format!("/world{}/", self.number)
    }

    fn dns_prefix(&self) -> String {
        format!("/dns{}/", self.number)
    }

    fn write_resolver(&self) {
        let etc = self.directory.path().join("etc");
        std::fs::create_dir(&etc).expect("it is ours");
        let write = |name, text: &str| std::fs::write(etc.join(name), text).expect("it is ours");
        write("resolv.conf", &format!("nameserver {}\n", self.dns_ip()));
        // A machine that cannot find itself makes Java's channels hang.
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        write("hosts", &format!("127.0.0.1 localhost {}\n::1 localhost\n", hostname.trim()));
        // Only files that exist can be replaced.
        if Path::new("/etc/nsswitch.conf").exists() {
            write("nsswitch.conf", "hosts: files dns\n");
        }
    }

    /// Returns an address of this world's own, which other runs on this machine are unlikely
    /// to use. Linux has all of 127.0.0.0/8.
    fn dns_ip(&self) -> Ipv4Addr {
        let [.., high, low] = std::process::id().to_be_bytes();
        let own = self.number % 254 + 1;
        Ipv4Addr::new(127, 64 + high % 64, low, u8::try_from(own).expect("at most 254"))
    }
}

/// Returns a metric's value, 0 while it is absent.
#[track_caller]
pub fn metric(balancer: &Balancer, series: &str) -> u64 {
    balancer.metric(series).unwrap_or(0.0) as u64
}

/// Returns a sum of the clients' reports for a service: `started`, `dropped`, ….
#[track_caller]
pub fn reported(balancer: &Balancer, service: &str, what: &str) -> u64 {
    let series = format!("lookaside_client_calls_{what}_total{{service=\"{service}\"}}");
    metric(balancer, &series)
}

/// Returns the number of open streams of a balancer.
#[track_caller]
pub fn streams(balancer: &Balancer) -> u64 {
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    clients["total"].as_u64().expect("a number")
}
