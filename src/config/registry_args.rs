//! Flags for the embedded registry: where it listens.
//!
//! In: text from flags, environment and file. Out: its address, or the problems. An address
//! that other hosts reach is refused unless the operator says in words that they may.

use std::net::SocketAddr;

use super::admin_args::is_remote;
use super::{listen, on_or_off};

/// Flags for the embedded registry.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArgs {
    /// Address of the embedded registry, which speaks etcd's API
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:2379",
        env = "LOOKASIDE_REGISTRY_LISTEN"
    )]
    pub registry_listen: String,
    /// Whether the embedded registry, in which everybody may change everything, may be open to
    /// other hosts: on or off
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        env = "LOOKASIDE_REGISTRY_OPEN_TO_NETWORK"
    )]
    pub registry_open_to_network: String,
}

impl RegistryArgs {
    /// Checks the flags. `used` tells whether there is an embedded registry.
    pub(super) fn validate(&self, used: bool, problems: &mut Vec<String>) -> Option<SocketAddr> {
        let address = listen("--registry-listen", &self.registry_listen, problems);
        let open =
            on_or_off("--registry-open-to-network", &self.registry_open_to_network, problems);
        let address = address?;
        if used && is_remote(&address) && open == Some(false) {
            let (text, port) = (&self.registry_listen, address.port());
            problems.push(format!(
                "--registry-listen: {text:?} is open to other hosts, which could register, change \
                 and delete everything, because the embedded registry has no users and no TLS: \
                 use etcd (--etcd); or listen on 127.0.0.1:{port}; or, if a firewall or the \
                 network of a container keeps others out, give --registry-open-to-network on"
            ));
        }
        Some(address)
    }
}
