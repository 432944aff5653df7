//! What one case has to itself: a prefix, a zone, directories, and balancers,
//! backends and names made of them.
//!
//! Only etcd is shared, so cases run side by side. Where clients ask the
//! machine's resolver instead of the one in their target, each world has an
//! address of its own whose port 53 they are led to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lookaside::model::Weight;
use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::free_port;
use crate::support::language::{Language, Resolver};
use crate::support::lookaside::Balancer;

/// The service that cases are about.
pub const SERVICE: &str = "hello";

/// One cell's part of the world.
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

    /// Who answers this world's driver.
    pub fn resolver(&self) -> Resolver {
        if !self.asks_system {
            return Resolver::System;
        }
        let path = self.directory.path().join("resolv.conf");
        std::fs::write(&path, format!("nameserver {}\n", self.dns_ip())).expect("it is ours");
        Resolver::File(path)
    }

    /// The zone of its balancers.
    pub fn zone(&self) -> String {
        format!("world{}.internal", self.number)
    }

    /// The etcd of all worlds.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Runs a balancer that answers DNS as well, and waits until it is ready.
    #[track_caller]
    pub fn balancer(&self, args: &[&str]) -> Balancer {
        let balancer = self.balancer_unready(args).unwrap_or_else(|log| panic!("{args:?}:\n{log}"));
        balancer.wait_ready();
        balancer
    }

    /// One that need not become ready, nor find its ports free.
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

    /// One whose DNS, if it has one, is not the one that clients ask, and that
    /// announces itself to the others.
    #[track_caller]
    pub fn announced_balancer(&self, args: &[&str]) -> Balancer {
        for _ in 0..10 {
            let own = format!("127.0.0.1:{}", free_port());
            let ours = ["--listen", &own, "--advertise", &own, "--dns-listen", "127.0.0.1:0"];
            if let Ok(balancer) = self.balancer_unready(&[args, &ours].concat()) {
                balancer.wait_ready();
                return balancer;
            }
        }
        panic!("no balancer starts");
    }

    /// DNS that outlives balancers: says that one is at `balancer`, and that
    /// names have the addresses that are registered with [`Self::in_dns`].
    #[track_caller]
    pub fn dns(&self, balancer: SocketAddr) -> Balancer {
        self.balancer(&["--advertise", &balancer.to_string(), "--prefix", &self.dns_prefix()])
    }

    /// What a client is given for the service.
    pub fn target(&self, dns: &Balancer) -> String {
        self.target_of(dns, &format!("{SERVICE}.{}", self.zone()))
    }

    /// The same for any name.
    pub fn target_of(&self, dns: &Balancer, name: &str) -> String {
        match self.asks_system {
            true => format!("dns:///{name}"),
            false => format!("dns://{}/{name}", dns.dns()),
        }
    }

    /// A backend of the service.
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

    /// Registers it in an etcd of the case's own.
    pub fn register_at(&self, etcd: &Etcd, backend: &mut Backend) {
        backend.register_below(&self.prefix(), &etcd.url(), SERVICE, Weight::DEFAULT);
    }

    /// A backend that no balancer lists, but whose address is the service's
    /// name's in this DNS, got from [`Self::dns`]: clients in fallback reach it,
    /// if their target has its port.
    #[track_caller]
    pub fn in_dns(&self, dns: &Balancer, id: &str) -> Backend {
        let mut backend = Backend::start(id);
        let prefix = self.dns_prefix();
        backend.register_below(&prefix, &self.etcd.url(), SERVICE, Weight::DEFAULT);
        dns.wait_listed(SERVICE, id);
        backend
    }

    /// The key of a registration of the service.
    pub fn key(&self, id: &str) -> String {
        format!("{}{SERVICE}/{id}", self.prefix())
    }

    /// Where its services register.
    pub fn prefix(&self) -> String {
        format!("/world{}/", self.number)
    }

    fn dns_prefix(&self) -> String {
        format!("/dns{}/", self.number)
    }

    /// An address of this world's own, unlike that of other runs on this
    /// machine. Linux has all of 127.0.0.0/8.
    fn dns_ip(&self) -> Ipv4Addr {
        let [.., high, low] = std::process::id().to_be_bytes();
        let own = self.number % 254 + 1;
        Ipv4Addr::new(127, 64 + high % 64, low, u8::try_from(own).expect("at most 254"))
    }
}

/// A metric's value, 0 while it is not there.
#[track_caller]
pub fn metric(balancer: &Balancer, series: &str) -> u64 {
    balancer.metric(series).unwrap_or(0.0) as u64
}

/// What clients reported of the service's calls: `started`, `dropped`, ….
#[track_caller]
pub fn reported(balancer: &Balancer, what: &str) -> u64 {
    let series = format!("lookaside_client_calls_{what}_total{{service=\"{SERVICE}\"}}");
    metric(balancer, &series)
}

/// How many streams are open at it.
#[track_caller]
pub fn streams(balancer: &Balancer) -> u64 {
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    clients["total"].as_u64().expect("a number")
}
