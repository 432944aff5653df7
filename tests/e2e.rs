//! End-to-end tests of the program: real processes, etcd, DNS, clients and a
//! real browser.
//!
//! All of them are one binary, so it is linked once, and its tests, which mostly
//! wait, run side by side. `cargo test --test e2e dns::` runs one part.

mod support;

#[path = "admin.rs"]
mod admin;
#[path = "authorization.rs"]
mod authorization;
#[path = "check.rs"]
mod check;
#[path = "conversations.rs"]
mod conversations;
#[path = "dashboard.rs"]
mod dashboard;
#[path = "dns.rs"]
mod dns;
#[path = "envoy.rs"]
mod envoy;
#[path = "etcd_source.rs"]
mod etcd_source;
#[path = "health_checks.rs"]
mod health_checks;
#[path = "hosts.rs"]
mod hosts;
#[path = "http2.rs"]
mod http2;
#[path = "languages.rs"]
mod languages;
#[path = "large_services.rs"]
mod large_services;
#[path = "leases.rs"]
mod leases;
#[path = "load_reports.rs"]
mod load_reports;
#[path = "marks.rs"]
mod marks;
#[path = "recorded.rs"]
mod recorded;
#[path = "register.rs"]
mod register;
#[path = "registrants.rs"]
mod registrants;
#[path = "registry_behaviour.rs"]
mod registry_behaviour;
#[path = "replicas.rs"]
mod replicas;
#[cfg(target_os = "linux")]
#[path = "rolling.rs"]
mod rolling;
#[path = "security.rs"]
mod security;
#[path = "serve.rs"]
mod serve;
#[path = "settings.rs"]
mod settings;
#[path = "snippets.rs"]
mod snippets;
#[path = "xds_clients.rs"]
mod xds_clients;
