//! The zones of clients' addresses, and the aliases of zones. Pure.
//!
//! In: networks with their zones, and aliases, from documents. Out: the zone of an address,
//! and the one name of a zone that several clouds or services name differently. It knows
//! nothing of backends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A range of addresses, such as `10.1.0.0/16`. IPv4-mapped IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    is_v6: bool,
    length: u8,
    /// The first address.
    first: IpAddr,
}

/// The zones of networks, and the aliases of zones. All names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneTable {
    /// Sorted by length, so that the networks of one length follow each other.
    networks: BTreeMap<Network, Arc<str>>,
    aliases: BTreeMap<Arc<str>, Arc<str>>,
}

/// The bits of an IPv4-mapped IPv6 address in front of the IPv4 address.
const MAPPED: u8 = 96;

impl Network {
    /// Parses `ADDRESS/LENGTH`, or one address.
    ///
    /// # Errors
    /// If it is no network: the problem and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let no = || format!("{text:?} is no network: write one such as 10.1.0.0/16");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no())?;
        let bits = if address.is_ipv6() { 128 } else { 32 };
        let length = match length {
            None => bits,
            Some(length) => length.parse().ok().filter(|length| *length <= bits).ok_or_else(no)?,
        };
        let (address, length) = match address.to_canonical() {
            folded if folded.is_ipv4() && address.is_ipv6() && length >= MAPPED => {
                (folded, length - MAPPED)
            }
            _ => (address, length),
        };
        let network = Self::around(address, length);
        if network.first != address {
            return Err(format!("{text:?} is no network, but an address in {network}: write that"));
        }
        Ok(network)
    }

    /// Returns the network of one address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self::around(address, if address.is_ipv6() { 128 } else { 32 })
    }

    /// Returns whether an address is in it.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv6() == self.is_v6 && Self::around(address, self.length) == *self
    }

    /// Returns the network of this length that has the address.
    fn around(address: IpAddr, length: u8) -> Self {
        let (is_v6, first) = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                (false, IpAddr::V4((v4.to_bits() & mask).into()))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                (true, IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)))
            }
        };
        Self { is_v6, length, first }
    }
}

impl ZoneTable {
    /// Makes a table of networks and aliases. Letter case is ignored.
    #[must_use]
    pub fn new(
        networks: impl IntoIterator<Item = (Network, Arc<str>)>,
        aliases: impl IntoIterator<Item = (Arc<str>, Arc<str>)>,
    ) -> Self {
        let lower = |name: Arc<str>| -> Arc<str> { name.to_lowercase().into() };
        Self {
            networks: networks.into_iter().map(|(network, zone)| (network, lower(zone))).collect(),
            aliases: aliases.into_iter().map(|(alias, zone)| (lower(alias), lower(zone))).collect(),
        }
    }

    /// Returns one table of several; a later one wins, network by network and alias by
    /// alias.
    #[must_use]
    pub fn merged<'a>(tables: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for Self { networks, aliases } in tables {
            all.networks.extend(networks.iter().map(|(network, zone)| (*network, zone.clone())));
            all.aliases.extend(aliases.iter().map(|(alias, zone)| (alias.clone(), zone.clone())));
        }
        all
    }

    /// Returns whether it has neither networks nor aliases.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.aliases.is_empty()
    }

    /// Returns the networks and their zones, the widest networks first.
    pub fn networks(&self) -> impl Iterator<Item = (&Network, &Arc<str>)> {
        self.networks.iter()
    }

    /// Returns the aliases and what they stand for.
    pub fn aliases(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.aliases.iter()
    }

    /// Returns the zone of an address: that of the smallest network that has it.
    #[must_use]
    pub fn zone_of(&self, address: IpAddr) -> Option<Arc<str>> {
        let address = address.to_canonical();
        // Each step looks for the network of one length, the longest first.
        let lowest = Network::around(address, 0);
        let mut longer = Network { length: u8::MAX, ..lowest };
        loop {
            let (Network { length, .. }, _) = self.networks.range(lowest..longer).next_back()?;
            if let Some(zone) = self.networks.get(&Network::around(address, *length)) {
                return Some(self.resolve(zone));
            }
            longer = Network { length: *length, ..lowest };
        }
    }

    /// Returns the one name of a zone: in lower case, and what an alias stands for.
    #[must_use]
    pub fn resolve(&self, zone: &str) -> Arc<str> {
        let lower = zone.to_lowercase();
        self.aliases.get(&*lower).cloned().unwrap_or_else(|| lower.into())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(networks: &[(&str, &str)], aliases: &[(&str, &str)]) -> ZoneTable {
        let network =
            |&(network, zone): &(&str, &str)| (Network::parse(network).unwrap(), Arc::from(zone));
        let alias = |&(alias, zone): &(&str, &str)| (Arc::from(alias), Arc::from(zone));
        ZoneTable::new(networks.iter().map(network), aliases.iter().map(alias))
    }

    fn zone(table: &ZoneTable, address: &str) -> String {
        let zone = table.zone_of(address.parse().unwrap());
        zone.map_or_else(|| "-".to_owned(), |zone| zone.to_string())
    }

    #[test]
    fn the_smallest_network_wins_and_aliases_meet() {
        let networks = [
            ("10.0.0.0/8", "A"),
            ("10.1.0.0/16", "eu-west-1b"),
            ("10.1.2.3", "c"),
            ("::ffff:10.2.0.0/112", "d"),
            ("2001:db8::/32", "e"),
            ("::/0", "f"),
        ];
        let table = table(&networks, &[("EU-west-1b", "B")]);
        for (address, expected) in [
            ("10.9.9.9", "a"),
            ("10.1.9.9", "b"),
            ("10.1.2.3", "c"),
            ("::ffff:10.1.2.3", "c"),
            ("10.2.0.1", "d"),
            ("11.0.0.1", "-"),
            ("2001:db8::1", "e"),
            ("2001:db9::1", "f"),
        ] {
            assert_eq!(zone(&table, address), expected, "{address}");
        }
        assert_eq!(&*table.resolve("EU-WEST-1B"), "b");
        assert_eq!(&*table.resolve("X"), "x");
        let widest: Vec<_> = table.networks().map(|(network, _)| network.to_string()).collect();
        let expected =
            ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32"];
        assert_eq!(widest, expected);
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_remedy() {
        let error = |text: &str| Network::parse(text).unwrap_err();
        assert!(error("10.1.2.3/16").contains("10.1.0.0/16"));
        assert!(error("2001:db8::1/32").contains("2001:db8::/32"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "a", "10.0.0.0/8/8"] {
            assert!(error(text).contains("is no network"), "{text}");
        }
    }

    #[test]
    fn a_later_table_wins_network_by_network() {
        let file = table(&[("10.0.0.0/8", "a"), ("10.1.0.0/16", "b")], &[("x", "a")]);
        let store = table(&[("10.0.0.0/8", "c")], &[("x", "b")]);
        let both = ZoneTable::merged([&file, &store]);
        assert_eq!((&*zone(&both, "10.2.0.1"), &*zone(&both, "10.1.0.1")), ("c", "b"));
        assert_eq!(&*both.resolve("x"), "b");
        assert!(ZoneTable::merged([]).is_empty() && !both.is_empty());
    }

    proptest! {
        /// The zone is that of the longest network that has the address, found by looking at
        /// all of them.
        #[test]
        fn a_lookup_equals_a_search(
            networks in proptest::collection::btree_map((0..4_u32, 0..=32_u8), 0..9_u8, 0..30),
            address in 0..4_u32,
        ) {
            let spread = |bits: u32| IpAddr::V4((bits << 30 | bits << 15 | bits).into());
            let all: BTreeMap<Network, Arc<str>> = networks
                .iter()
                .map(|(&(bits, length), zone)| {
                    (Network::around(spread(bits), length), zone.to_string().into())
                })
                .collect();
            let address = spread(address);
            let has = |network: &Network| Network::around(address, network.length) == *network;
            let longest = all.iter().filter(|one| has(one.0)).max_by_key(|one| one.0.length);
            let expected = longest.map(|one| one.1.clone());
            prop_assert_eq!(ZoneTable::new(all.clone(), []).zone_of(address), expected);
        }
    }
}
