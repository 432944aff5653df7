//! Validates the flags of `serve` and builds the configuration.
//!
//! In: flags, environment and a TOML file (`config::file` merges them). Out: a
//! [`Config`], or all problems, each with the setting, the value and the remedy.
//! It reads the files that settings name and never opens a connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Zone;
use crate::registry::etcd::{Connect, Credentials};
use crate::registry::record::Prefix;
use crate::reload::{File, Reloadables, Reloading, ServerTls};
use crate::settings::source::FileSource;
use crate::settings::{Key, ServiceSettings, Setting, Settings};
use access_args::AccessArgs;
use admin_args::{AdminConfig, AdminServerArgs};
use dns_args::{DnsConfig, DnsServerArgs};
use etcd_args::EtcdArgs;
use fault_args::FaultArgs;
use file::Sources;
use policy_args::PolicyArgs;
use registry_args::RegistryArgs;
use replica_args::{ReplicaArgs, ReplicaConfig};

pub mod access_args;
pub mod admin_args;
pub mod dns_args;
pub mod etcd_args;
pub mod fault_args;
pub mod file;
mod formats;
pub mod policy_args;
pub mod registry_args;
pub mod replica_args;
mod tls;

/// Flags of `serve`. All values are text until [`ServeArgs::validate`], so that every
/// problem is reported at once.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(args_override_self = true)]
pub struct ServeArgs {
    /// A TOML file of settings, named like these flags; a flag wins over the file
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_CONFIG")]
    pub config: Option<String>,
    /// The origin of each setting.
    #[arg(skip)]
    pub sources: Sources,
    /// Address of the grpclb server, which sends clients their server lists
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:12000", env = "LOOKASIDE_LISTEN")]
    pub listen: String,
    /// The connection to etcd; without one, the embedded registry is used
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// The embedded registry
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// The beginning of the keys to read, and their format; repeatable [formats: auto, plain,
    /// etcd-naming, kratos… or custom:NAME; see docs/formats.md]
    #[arg(
        long,
        value_name = "PREFIX[=FORMAT]",
        default_value = "/etcd3_naming/",
        value_delimiter = ',',
        env = "LOOKASIDE_PREFIX"
    )]
    pub prefix: Vec<String>,
    /// The DNS zone whose names stand for services
    #[arg(
        long,
        value_name = "ZONE",
        default_value = "lookaside.internal",
        env = "LOOKASIDE_DOMAIN"
    )]
    pub domain: String,
    /// The DNS server.
    #[command(flatten)]
    pub dns: DnsServerArgs,
    /// This balancer among others.
    #[command(flatten)]
    pub replica: ReplicaArgs,
    /// The admin address, and who gets in.
    #[command(flatten)]
    pub admin: AdminServerArgs,
    /// What clients do while a service has no usable backend: wait, drop or fallback
    #[arg(long, value_name = "MODE", default_value = "wait", env = "LOOKASIDE_WHEN_EMPTY")]
    pub when_empty: String,
    /// gRPC server reflection: on or off
    #[arg(long, value_name = "on|off", default_value = "on", env = "LOOKASIDE_REFLECTION")]
    pub reflection: String,
    /// The most connections to the gRPC port from one IPv4 address or one IPv6 /64; 0: no limit,
    /// because many clients may share one address
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0",
        env = "LOOKASIDE_CONNECTIONS_PER_PEER"
    )]
    pub connections_per_peer: String,
    /// The time between two reports of a client's calls; 0s: no reports
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "LOOKASIDE_REPORT_INTERVAL")]
    pub report_interval: String,
    /// The treatment of backends whose registration is lost
    #[command(flatten)]
    pub faults: FaultArgs,
    /// Flags for traffic policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The certificate that gRPC clients see, in PEM; turns TLS on
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_TLS_CERT")]
    pub tls_cert: Option<String>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_TLS_KEY")]
    pub tls_key: Option<String>,
    /// The authority that must have signed gRPC clients' certificates, in PEM; turns mutual TLS on
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<String>,
    /// Certificates of clients, the age of connections, and the audit log.
    #[command(flatten)]
    pub access: AccessArgs,
}

/// The validated configuration of `serve`.
#[derive(Clone)]
pub struct Config {
    /// Address of the gRPC server.
    pub listen: SocketAddr,
    /// The registry to read.
    pub registry: Registry,
    /// The prefixes of the registrations; at least one.
    pub prefixes: Vec<Prefix>,
    /// The DNS server.
    pub dns: DnsConfig,
    /// This balancer among others.
    pub replica: ReplicaConfig,
    /// The admin address, and who gets in.
    pub admin: AdminConfig,
    /// The DNS zone whose names stand for services.
    pub zone: Zone,
    /// The settings of a service that no table changes.
    pub defaults: ServiceSettings,
    /// The file with tables of services.
    pub services: Option<FileSource>,
    /// The directory of the saved state; `None`: no saved state.
    pub state_dir: Option<PathBuf>,
    /// Whether server reflection is on.
    pub reflection: bool,
    /// The most connections from one network; zero: no limit.
    pub connections_per_peer: u64,
    /// The age at which a connection is ended; `None`: none.
    pub max_connection_age: Option<Duration>,
    /// Whether gRPC clients must show certificates.
    pub client_certificates: bool,
    /// The TLS configuration of the gRPC server; `None`: plaintext.
    pub tls: Option<Reloading<ServerTls>>,
}

/// The store that holds the registrations.
#[derive(Debug, Clone)]
pub enum Registry {
    /// The operator's etcd.
    Etcd(Connect),
    /// The embedded registry, which serves etcd's API at this address.
    Embedded(SocketAddr),
}

impl ServeArgs {
    /// Returns the configuration that these flags describe.
    ///
    /// # Errors
    /// Returns all problems, one per item, each with its place if it comes from the file
    /// or a variable.
    pub fn validate(&self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let all = &mut problems;
        let listen = listen("--listen", &self.listen, all);
        let admin = self.admin.validate(all);
        let dns = self.dns.validate(self.etcd.etcd.is_some(), all);
        let registry_listen = self.registry.validate(self.etcd.etcd.is_none(), all);
        let connect = self.etcd.validate(all);
        let registry = match (&self.etcd.etcd, connect) {
            (None, _) => registry_listen.map(Registry::Embedded),
            (Some(_), connect) => connect.map(Registry::Etcd),
        };
        let prefixes = self.prefixes(all);
        let zone = take("--domain", Zone::new(&self.domain), all);
        let replica = self.replica.validate(zone.as_ref(), all);
        let defaults = self.service_defaults(all);
        let reflection = on_or_off("--reflection", &self.reflection, all);
        let connections_per_peer =
            access_args::connections_per_peer(&self.connections_per_peer, all);
        let max_connection_age = self.access.connection_age(all);
        let file = self.sources.file.as_ref().map(|file| file.services.clone());
        let settings = Settings::new(defaults.clone()).with(file, None);
        tls::client_certificates(self.tls_client_ca.is_some(), &settings, all);
        let tls = tls::Server {
            used_for: "serve",
            cert: ("--tls-cert", self.tls_cert.as_deref()),
            key: ("--tls-key", self.tls_key.as_deref()),
            clients: Some(tls::Clients {
                ca: ("--tls-client-ca", self.tls_client_ca.as_deref()),
                crl: ("--tls-client-crl", self.access.tls_client_crl.as_deref()),
            }),
            // gRPC clients require ALPN.
            protocol: b"h2",
        };
        let tls = tls.config(all);
        match (listen, registry, admin, zone, dns) {
            (Some(listen), Some(registry), Some(admin), Some(zone), Some(dns))
                if problems.is_empty() && self.sources.problems.is_empty() =>
            {
                Ok(Config {
                    listen,
                    registry,
                    prefixes,
                    dns,
                    replica: replica.unwrap_or_default(),
                    admin,
                    zone,
                    defaults,
                    services: self.services(),
                    reflection: reflection.unwrap_or_default(),
                    connections_per_peer: connections_per_peer.unwrap_or_default(),
                    max_connection_age,
                    state_dir: self.faults.state_dir.as_ref().map(PathBuf::from),
                    client_certificates: self.tls_client_ca.is_some(),
                    tls,
                })
            }
            _ => {
                let located = problems.into_iter().map(|problem| self.sources.located(problem));
                Err(self.sources.problems.iter().cloned().chain(located).collect())
            }
        }
    }

    fn prefixes(&self, problems: &mut Vec<String>) -> Vec<Prefix> {
        if self.prefix.is_empty() {
            problems.push("--prefix: the list is empty: give one at least".to_owned());
        }
        let mut prefixes: Vec<Prefix> = Vec::new();
        for text in &self.prefix {
            let prefix = Prefix::parse_with(text, &self.sources.customs);
            let Some(prefix) = take("--prefix", prefix, problems) else { continue };
            if prefixes.iter().any(|known| known.path == prefix.path) {
                problems.push(format!("--prefix: {:?} is given twice", prefix.path));
            }
            prefixes.push(prefix);
        }
        prefixes
    }

    /// Returns the settings of a service that no table changes.
    fn service_defaults(&self, problems: &mut Vec<String>) -> ServiceSettings {
        let mut defaults = ServiceSettings::DEFAULT;
        let own =
            [(Key::WhenEmpty, &self.when_empty), (Key::ReportInterval, &self.report_interval)];
        for (key, text) in
            own.into_iter().chain(self.faults.settings()).chain(self.policy.settings())
        {
            let setting = Setting::parse(key, text);
            if let Some(setting) = take(&format!("--{}", key.as_str()), setting, problems) {
                defaults.set(setting);
            }
        }
        defaults
    }

    fn services(&self) -> Option<FileSource> {
        let running = self.sources.file.clone()?;
        let path = running.path.clone();
        let file = File { flag: "--config", path: path.clone() };
        let (text, document) = (running.text.clone(), running.services.clone());
        let make = move |contents: &[u8]| {
            let text = std::str::from_utf8(contents)
                .map_err(|_| vec![format!("--config: {:?} is no UTF-8 text", running.path)])?;
            running.reparse(text)
        };
        let document = Reloading::already_read("settings", file, text.into_bytes(), document, make);
        Some(FileSource { path, document })
    }
}

impl Config {
    /// Returns the per-service settings at the start.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let file = self.services.as_ref().map(|services| services.document.value());
        Settings::new(self.defaults.clone()).with(file, None)
    }

    /// Returns everything made of files that the balancer reads again while it runs.
    #[must_use]
    pub fn reloadables(&self) -> Reloadables {
        let mut all = Reloadables::default();
        if let Some(tls) = &self.tls {
            all.add(tls);
        }
        let AdminConfig { tls, access, .. } = &self.admin;
        if let Some(tls) = tls {
            all.add(tls);
        }
        for tokens in [&access.reader, &access.operator].into_iter().flatten() {
            all.add(tokens);
        }
        if let Some(services) = &self.services {
            all.add(&services.document);
        }
        if let Registry::Etcd(connect) = &self.registry {
            let Credentials { user, tls } = connect.credentials();
            if let Some((_, password)) = user {
                all.add(password);
            }
            if let Some(tls) = tls {
                all.add(tls);
            }
        }
        all
    }
}

fn on_or_off(flag: &str, text: &str, problems: &mut Vec<String>) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        other => {
            problems.push(format!("{flag}: {other:?} is neither on nor off"));
            None
        }
    }
}

fn listen(flag: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    let addr = text.parse().ok();
    if addr.is_none() {
        problems.push(format!("{flag}: {text:?} is no IP:PORT, {}", suggestion(flag, text)));
    }
    addr
}

/// Returns the end of an error message: an example that fits what was given, such as
/// all interfaces for a port alone.
fn suggestion(flag: &str, text: &str) -> String {
    let usual = match flag {
        "--listen" => SocketAddr::from(([0, 0, 0, 0], 12000)),
        "--dns-listen" => SocketAddr::from(([0, 0, 0, 0], 53)),
        "--registry-listen" => SocketAddr::from(([127, 0, 0, 1], 2379)),
        _ => SocketAddr::from(([127, 0, 0, 1], 12001)),
    };
    if let Ok(ip) = text.parse() {
        return format!("such as {}", SocketAddr::new(ip, usual.port()));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match (port.parse::<u16>(), host) {
        (Ok(port), "" | "*") => format!("such as 0.0.0.0:{port} or 127.0.0.1:{port}"),
        (Ok(port), "localhost") => format!("such as 127.0.0.1:{port}"),
        (Ok(_), _) => "and names are not looked up: give an IP address".to_owned(),
        (Err(_), _) => format!("such as {usual}"),
    }
}

/// Returns the value, or adds its error to `problems`.
pub(crate) fn take<T, E: std::fmt::Display>(
    flag: &str,
    result: Result<T, E>,
    problems: &mut Vec<String>,
) -> Option<T> {
    result.map_err(|error| problems.push(format!("{flag}: {error}"))).ok()
}

#[cfg(test)]
mod tests;
