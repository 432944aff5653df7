//! The addresses that DNS answers for a class of clients.
//!
//! In: addresses that policy found. Out: the same, sorted, each once.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses of some endpoints: sorted, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
}

impl Addresses {
    /// Returns the addresses sorted, each once.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.v4.sort_unstable();
        self.v4.dedup();
        self.v6.sort_unstable();
        self.v6.dedup();
        self
    }
}
