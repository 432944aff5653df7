//! Shared by the tests of these clients: a balancer that can be lost while DNS
//! stays, registrations without a lease, and a reader of metrics.

use std::net::SocketAddr;

use crate::support::backend::Backend;
use crate::support::core::{Calls, Channel};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, free_port};

/// A balancer, and a process of its own that answers DNS, so that each can be lost
/// alone.
pub struct World {
    pub etcd: Etcd,
    /// Reads `/fallback/`, so that it gives other addresses for a name than those
    /// that the balancer lists.
    pub dns: Balancer,
    pub balancer: Balancer,
    flags: Vec<String>,
}

impl World {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts both, with further flags for the balancer. An `--etcd` flag replaces
    /// the test's own.
    pub fn start_with(flags: &[&str]) -> Self {
        let etcd = Etcd::start();
        let mut flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        if !flags.iter().any(|flag| flag == "--etcd") {
            flags.extend(["--etcd".to_owned(), etcd.url()]);
        }
        flags.extend(["--report-interval".to_owned(), "1s".to_owned()]);
        flags.extend(["--listen".to_owned(), format!("127.0.0.1:{}", free_port())]);
        let balancer = Balancer::start(&texts(&flags));
        let advertise = balancer.grpclb().to_string();
        let dns = ["--etcd", &etcd.url(), "--prefix", "/fallback/", "--advertise", &advertise];
        let dns = Balancer::start(&dns);
        dns.wait_ready();
        Self { etcd, dns, balancer, flags }
    }

    /// Returns the target of a service, with the port of its fallback addresses.
    pub fn target(&self, service: &str, port: u16) -> String {
        format!("{}:{port}", self.dns.target(service))
    }

    /// Starts the balancer again at its former address.
    pub fn restart_balancer(&mut self) {
        self.balancer.kill();
        self.balancer = Balancer::start(&texts(&self.flags));
        self.balancer.wait_ready();
    }

    /// Registers an address by a key without a lease, which survives every restart,
    /// and waits until it is listed.
    #[track_caller]
    pub fn list(&self, service: &str, id: &str, addr: SocketAddr) {
        put(&self.etcd, "/etcd3_naming/", service, id, addr);
        self.balancer.wait_listed(service, id);
    }

    #[track_caller]
    pub fn unlist(&self, service: &str, id: &str) {
        self.etcd.ctl(&["del", &format!("/etcd3_naming/{service}/{id}")]);
        self.balancer.wait_unlisted(service, id);
    }

    /// Makes DNS give an address for the service's name.
    #[track_caller]
    pub fn fallback_to(&self, service: &str, id: &str, addr: SocketAddr) {
        put(&self.etcd, "/fallback/", service, id, addr);
        self.dns.wait_listed(service, id);
    }

    #[track_caller]
    pub fn no_fallback_to(&self, service: &str, id: &str) {
        self.etcd.ctl(&["del", &format!("/fallback/{service}/{id}")]);
        self.dns.wait_unlisted(service, id);
    }
}

pub fn backend_on(id: &str, ip: &str, port: u16) -> Backend {
    Backend::start_at(id, SocketAddr::new(ip.parse().expect("an address"), port))
}

fn put(etcd: &Etcd, prefix: &str, service: &str, id: &str, addr: SocketAddr) {
    etcd.ctl(&["put", &format!("{prefix}{service}/{id}"), &addr.to_string()]);
}

/// Returns a metric's value, or 0 while the metric is missing.
#[track_caller]
pub fn metric(balancer: &Balancer, name: &str) -> u64 {
    balancer.metric(name).unwrap_or(0.0) as u64
}

/// Waits until this backend alone answers the client's calls.
#[track_caller]
pub fn answered_by(channel: &Channel<'_>, id: &str) {
    eventually(&format!("{id} answers"), || {
        (channel.call(&Calls::new(5)).from(id) == 5).then_some(())
    });
}

/// Waits until calls fail at once with an error that starts with this text.
#[track_caller]
pub fn fails_with(channel: &Channel<'_>, error: &str) {
    eventually(&format!("calls fail with {error}"), || {
        let report = channel.call(&Calls::new(1));
        report.errors.keys().any(|text| text.starts_with(error)).then_some(())
    });
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}
