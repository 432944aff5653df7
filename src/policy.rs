//! Who gets which backends, in which order, how often.
//!
//! In: a service's snapshot and what a client asked for. Out: an
//! [`Assignment`]. Pure and deterministic: every replica says the same. The
//! passes are plain calls in one written order.

use crate::catalog::ServiceSnapshot;
use crate::model::{Endpoint, Selector, Weight};

mod weight;

/// The backends a client is to use, as indices into the snapshot's endpoints,
/// heavier ones more often, evenly interleaved. Empty: nobody can serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment(pub Vec<usize>);

/// Decides for one client.
#[must_use]
pub fn assign(snapshot: &ServiceSnapshot, selectors: &[Selector]) -> Assignment {
    let chosen: Vec<usize> = eligible(snapshot, selectors).map(|(index, _)| index).collect();
    let weights: Vec<u32> =
        chosen.iter().map(|&index| snapshot.endpoints[index].weight.0).collect();
    Assignment(weight::interleave(&weights).into_iter().map(|turn| chosen[turn]).collect())
}

/// The endpoints that may serve a client at all, in the snapshot's order, with
/// their indices.
pub fn eligible<'a>(
    snapshot: &'a ServiceSnapshot,
    selectors: &'a [Selector],
) -> impl Iterator<Item = (usize, &'a Endpoint)> {
    let serves = move |endpoint: &Endpoint| {
        // Weight 0 means no traffic, never a little.
        endpoint.weight != Weight(0) && selectors.iter().all(|selector| matches(selector, endpoint))
    };
    snapshot.endpoints.iter().enumerate().filter(move |(_, endpoint)| serves(endpoint))
}

/// Letter case does not matter: selectors come in DNS names.
fn matches(selector: &Selector, endpoint: &Endpoint) -> bool {
    let same = |text: &str| text.to_lowercase() == selector.value;
    if selector.key == "id" {
        return same(&endpoint.id);
    }
    endpoint.meta.iter().any(|(key, value)| key.to_lowercase() == selector.key && same(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{BackendAddr, Meta, ServiceName};

    /// Each endpoint is `ID WEIGHT [key=value…]`.
    fn snapshot(endpoints: &[&str]) -> ServiceSnapshot {
        let endpoint = |(port, text): (usize, &&str)| {
            let mut words = text.split(' ');
            let id = words.next().unwrap().into();
            let weight = Weight(words.next().unwrap().parse().unwrap());
            let pair = |word: &str| {
                let (key, value) = word.split_once('=').unwrap();
                (key.to_owned(), value.to_owned())
            };
            let meta: Meta = words.map(pair).collect();
            let port = u16::try_from(port).unwrap() + 1;
            let addr = BackendAddr::new([10, 0, 0, 1].into(), port).unwrap();
            Endpoint { id, addr, weight, meta: Arc::new(meta) }
        };
        let endpoints = endpoints.iter().enumerate().map(endpoint).collect();
        ServiceSnapshot { name: ServiceName::new("s").unwrap(), revision: 1, endpoints }
    }

    #[track_caller]
    fn check(endpoints: &[&str], selectors: &[(&str, &str)], expected: &str) {
        let snapshot = snapshot(endpoints);
        let selector =
            |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
        let selectors: Vec<_> = selectors.iter().map(selector).collect();
        let Assignment(turns) = assign(&snapshot, &selectors);
        let found: String = turns.iter().map(|&turn| &*snapshot.endpoints[turn].id).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn all_equal_is_the_order_of_ids() {
        check(&["a 1", "b 1", "c 1"], &[], "abc");
        check(&["a 100", "b 100"], &[], "ab");
    }

    #[test]
    fn weights_are_interleaved_repeats() {
        check(&["a 3", "b 1"], &[], "aaba");
        check(&["a 2", "b 4"], &[], "bab");
        check(&["a 5", "b 1", "c 1"], &[], "abaaaca");
    }

    #[test]
    fn weight_zero_is_no_traffic() {
        check(&["a 0", "b 1"], &[], "b");
        check(&["a 0"], &[], "");
    }

    #[test]
    fn selectors_choose_among_instances() {
        let all = ["7 1 zone=A version=v2", "8 1 zone=B version=v2", "9 1 Zone=a"];
        check(&all, &[("id", "7")], "7");
        check(&all, &[("zone", "a")], "79");
        check(&all, &[("zone", "a"), ("version", "v2")], "7");
        check(&all, &[("version", "v3")], "");
        check(&all, &[("colour", "red")], "");
    }
}
