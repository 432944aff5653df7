//! Flags for the admin address: where it is, and who gets in.
//!
//! In: text from flags, environment and file, and the files that they name. Out: an
//! [`AdminConfig`], or the problems. An address that other hosts reach is refused unless
//! tokens and TLS protect it, or the operator says in words that nothing does.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls;
use super::{listen, on_or_off};
use crate::admin::{Access, Address, Tls, Tokens};
use crate::model::Host;
use crate::reload::{File, Loaded, Reloading};

/// Flags for the admin address. The files are read again whenever they change.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdminServerArgs {
    /// Address of the admin HTTP server: dashboard, API and Prometheus metrics
    #[arg(
        long,
        value_name = "IP:PORT|unix:PATH",
        default_value = "127.0.0.1:12001",
        env = "LOOKASIDE_ADMIN_LISTEN"
    )]
    pub admin_listen: String,
    /// A host name that requests to the admin server may use, beside IP addresses and localhost;
    /// repeatable
    // If any name were accepted, a page of another site could read everything (DNS rebinding).
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "LOOKASIDE_ADMIN_HOST")]
    pub admin_host: Vec<String>,
    /// The certificate of the admin server, in PEM; turns TLS on there
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_CERT")]
    pub admin_cert: Option<String>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_KEY")]
    pub admin_key: Option<String>,
    /// Bearer tokens, one a line, of those who may read at the admin server
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_READER_TOKENS")]
    pub admin_reader_tokens: Option<String>,
    /// Bearer tokens, one a line, of those who may read and change at the admin server
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_OPERATOR_TOKENS")]
    pub admin_operator_tokens: Option<String>,
    /// Whether the admin server may be open to other hosts without tokens and TLS: on or off
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        env = "LOOKASIDE_ADMIN_OPEN_TO_NETWORK"
    )]
    pub admin_open_to_network: String,
}

/// The admin address, and who gets in.
#[derive(Clone)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: Address,
    /// Host names that requests may use, beside IP addresses and localhost.
    pub hosts: Vec<String>,
    /// Its certificate; `None`: plaintext.
    pub tls: Option<Tls>,
    /// The tokens of those who get in.
    pub access: Access,
}

/// How the path of a Unix socket begins.
const UNIX: &str = "unix:";

impl AdminConfig {
    /// Returns a configuration for programs of this host, without tokens.
    #[must_use]
    pub fn local(listen: SocketAddr) -> Self {
        let (listen, access) = (Address::Tcp(listen), Access::default());
        Self { listen, hosts: Vec::new(), tls: None, access }
    }
}

impl AdminServerArgs {
    /// Checks the flags.
    pub(super) fn validate(&self, problems: &mut Vec<String>) -> Option<AdminConfig> {
        let address = self.address(problems);
        let hosts = self.hosts(problems);
        let tls = tls::Server {
            used_for: "admin",
            cert: ("--admin-cert", self.admin_cert.as_deref()),
            key: ("--admin-key", self.admin_key.as_deref()),
            clients: None,
            protocol: b"http/1.1",
        };
        let tls = tls.config(problems);
        let tokens = [
            ("admin_reader", "--admin-reader-tokens", &self.admin_reader_tokens),
            ("admin_operator", "--admin-operator-tokens", &self.admin_operator_tokens),
        ];
        let [reader, operator] =
            tokens.map(|(used_for, flag, path)| read(used_for, flag, path.as_deref(), problems));
        let access = Access { reader, operator };
        let open = on_or_off("--admin-open-to-network", &self.admin_open_to_network, problems);
        let listen = address?;
        match &listen {
            Address::Unix(_) if self.admin_cert.is_some() => {
                let remedy = "leave it out, as a Unix socket needs no TLS, or listen on IP:PORT";
                problems.push(format!("--admin-cert: --admin-listen is {listen}: {remedy}"));
            }
            Address::Tcp(address) if is_remote(address) && open == Some(false) => {
                problems.extend(self.too_open(address));
            }
            _ => {}
        }
        Some(AdminConfig { listen, hosts, tls, access })
    }

    fn address(&self, problems: &mut Vec<String>) -> Option<Address> {
        let Some(path) = self.admin_listen.strip_prefix(UNIX) else {
            return listen("--admin-listen", &self.admin_listen, problems).map(Address::Tcp);
        };
        if path.starts_with('/') {
            return Some(Address::Unix(PathBuf::from(path)));
        }
        let text = &self.admin_listen;
        problems.push(format!(
            "--admin-listen: {text:?} names no absolute path, such as unix:/run/lookaside/admin"
        ));
        None
    }

    /// Returns why an address that other hosts reach is refused, and the remedies.
    fn too_open(&self, address: &SocketAddr) -> Option<String> {
        let tls = self.admin_cert.is_some() || self.admin_key.is_some();
        let tokens = self.admin_reader_tokens.is_some() || self.admin_operator_tokens.is_some();
        let missing = match (tls, tokens) {
            (true, true) => return None,
            (false, false) => {
                "without tokens and TLS: give --admin-operator-tokens or --admin-reader-tokens, \
                 and --admin-cert with --admin-key"
            }
            (false, true) => {
                "without TLS, so that tokens can be read on the way: give --admin-cert \
                              and --admin-key"
            }
            (true, false) => {
                "without tokens: give --admin-operator-tokens or --admin-reader-tokens"
            }
        };
        let (text, port) = (&self.admin_listen, address.port());
        Some(format!(
            "--admin-listen: {text:?} is open to other hosts {missing}; or listen on \
             127.0.0.1:{port} or unix:/run/lookaside/admin; or, if a firewall or a proxy keeps \
             others out, give --admin-open-to-network on"
        ))
    }

    fn hosts(&self, problems: &mut Vec<String>) -> Vec<String> {
        let mut hosts = Vec::new();
        for text in &self.admin_host {
            match Host::parse(text) {
                Some(Host::Name(name)) => hosts.push(name),
                // IP addresses are always accepted.
                Some(Host::Ip(_)) => {}
                None => problems.push(format!(
                    "--admin-host: {text:?} is no host name: give it without scheme and port, \
                     such as lb.example.com"
                )),
            }
        }
        hosts
    }
}

/// Returns whether other hosts can reach an address.
pub(super) fn is_remote(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Reads a file of tokens.
fn read(
    used_for: &'static str,
    flag: &'static str,
    path: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<Reloading<Tokens>> {
    let path = PathBuf::from(path?);
    let files = vec![File { flag, path: path.clone() }];
    let tokens = Reloading::open(used_for, files, move |contents| {
        let value = Tokens::parse(flag, &path, &contents[0])?;
        Ok(Loaded { value, expiries: Vec::new() })
    });
    tokens.map_err(|found| problems.extend(found)).ok()
}
