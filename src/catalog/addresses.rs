//! Caches the DNS addresses of classes of clients.
//!
//! In: addresses that policy found. Out: these addresses, while they are cached. The cache
//! has the addresses for clients that select nothing, and those of a few other classes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::model::Class;

/// The addresses of some endpoints: sorted, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
}

/// The addresses that are kept with a service.
#[derive(Default)]
pub(super) struct AddressCache {
    whole: OnceLock<Arc<Addresses>>,
    selected: Mutex<Selected>,
}

/// The addresses of a few classes. A new class replaces the oldest.
#[derive(Default)]
struct Selected {
    oldest: usize,
    all: Vec<(Class, Arc<Addresses>)>,
}

/// The most classes whose addresses are kept: more than people name in DNS, and at most
/// some hundred kilobytes.
const CLASSES_MAX: usize = 16;

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

impl AddressCache {
    pub(super) fn get(&self, class: &Class) -> Option<Arc<Addresses>> {
        if class.is_whole() {
            return self.whole.get().cloned();
        }
        let kept = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all.iter().find(|(of, _)| of == class).map(|(_, addresses)| addresses.clone())
    }

    pub(super) fn put(&self, class: &Class, addresses: &Arc<Addresses>) {
        if class.is_whole() {
            let _ = self.whole.set(addresses.clone());
            return;
        }
        let mut kept = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        let Selected { oldest, all } = &mut *kept;
        let new = (class.clone(), addresses.clone());
        if all.len() < CLASSES_MAX {
            all.push(new);
        } else {
            all[*oldest] = new;
            *oldest = (*oldest + 1) % CLASSES_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Selector;

    #[test]
    fn addresses_are_kept_for_a_few_classes() {
        let kept = AddressCache::default();
        let class = |n: u8| Class::new(&[Selector { key: "zone".into(), value: n.to_string() }]);
        let addresses = |n: u8| Addresses { v4: vec![[10, 0, 0, n].into()], v6: Vec::new() };
        for n in 0..100 {
            kept.put(&class(n), &Arc::new(addresses(n)));
            assert_eq!(kept.get(&class(n)).as_deref(), Some(&addresses(n)));
        }
        let are = (0..100).filter(|&n| kept.get(&class(n)).is_some());
        assert_eq!(are.collect::<Vec<_>>(), (84..100).collect::<Vec<_>>());
        assert_eq!(kept.get(&Class::default()), None);
    }
}
