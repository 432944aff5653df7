//! The parts that one case has for itself.
//!
//! In: the shared etcd, and the number of a cell. Out: a prefix, a zone, a directory,
//! and balancers, backends and names that use them.
//!
//! Only etcd is shared, so cases run in parallel. Some clients ask the machine's
//! resolver and not the one in their target. For them each world has an address of its
//! own, and they use port 53 of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lookaside::model::Weight;
use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::free_port;
use crate::support::language::{Language, Resolver};
use crate::support::lookaside::Balancer;

/// The service that cases use.
pub const SERVICE: &str = "hello";

/// The parts of one cell.
pub struct World {
    etcd: Arc<Etcd>,
    number: u16,
    asks_system: bool,
    pub directory: TempDir,
}

impl World {
    pub fn new(etcd: Arc<Etcd>, number: u16, language: &Language) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self { etcd, number, asks_system: language.asks_system, directory }
    }

    /// Returns the resolver that this world's driver uses.
    pub fn resolver(&self) -> Resolver {
        if !self.asks_system {
            return Resolver::System;
        }
        let path = self.directory.path().join("resolv.conf");
        std::fs::write(&path, format!("nameserver {}\n", self.dns_ip())).expect("it is ours");
        Resolver::File(path)
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
        let given = |flag: &&str| args.contains(flag);
        let dns = SocketAddr::from(match self.asks_system {
            true => (self.dns_ip(), 53),
            false => (Ipv4Addr::LOCALHOST, 0),
        });
        let (zone, prefix, dns, etcd) =
            (self.zone(), self.prefix(), dns.to_string(), self.etcd.url());
        let defaults = [
            ("--etcd", &*etcd),
            ("--prefix", &*prefix),
            ("--domain", &*zone),
            ("--dns-listen", &*dns),
            ("--report-interval", "1s"),
        ];
        let mut all = args.to_vec();
        for (flag, value) in defaults.into_iter().filter(|(flag, _)| !given(flag)) {
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
    pub fn dns(&self, balancer: SocketAddr) -> Balancer {
        self.balancer(&["--advertise", &balancer.to_string(), "--prefix", &self.dns_prefix()])
    }

    /// Returns the target of the service for a client.
    pub fn target(&self, dns: &Balancer) -> String {
        self.target_of(dns, &format!("{SERVICE}.{}", self.zone()))
    }

    /// Returns the target of any name for a client.
    pub fn target_of(&self, dns: &Balancer, name: &str) -> String {
        match self.asks_system {
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

    /// Starts a backend that no balancer lists. Its address belongs to the service's name in
    /// this DNS, which comes from [`Self::dns`]. Clients in fallback reach it if their
    /// target has its port.
    #[track_caller]
    pub fn in_dns(&self, dns: &Balancer, id: &str) -> Backend {
        let mut backend = Backend::start(id);
        let prefix = self.dns_prefix();
        backend.register_below(&prefix, &self.etcd.url(), SERVICE, Weight::DEFAULT);
        dns.wait_listed(SERVICE, id);
        backend
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

/// Returns a sum of the clients' reports for the service: `started`, `dropped`, ….
#[track_caller]
pub fn reported(balancer: &Balancer, what: &str) -> u64 {
    let series = format!("lookaside_client_calls_{what}_total{{service=\"{SERVICE}\"}}");
    metric(balancer, &series)
}

/// Returns the number of open streams of a balancer.
#[track_caller]
pub fn streams(balancer: &Balancer) -> u64 {
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    clients["total"].as_u64().expect("a number")
}
