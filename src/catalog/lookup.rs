//! Indexes of a snapshot's endpoints, kept with it: which endpoints a selector chooses.
//!
//! In: a snapshot's endpoints. Out: indices into them. The first question that needs an
//! index makes it, once for all callers. An index allocates nothing per endpoint. It
//! decides nothing: weights and classes belong to policy.

use std::sync::OnceLock;

use hashbrown::HashMap;

use crate::model::{Endpoint, Selector};

/// The indexes, each made when it is first needed.
#[derive(Default)]
pub(super) struct Lookup {
    ids: OnceLock<Postings>,
    meta: OnceLock<Postings>,
}

/// The endpoints that have a text. For each text, by its hash, a chain of postings with
/// its first and last.
#[derive(Debug)]
struct Postings {
    chains: HashMap<u64, Chain>,
    /// The index of an endpoint, and the next posting of the chain.
    postings: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    length: u32,
}

/// The key of selectors that choose a backend by its id.
const ID: &str = "id";
const END: u32 = u32::MAX;

impl Lookup {
    pub(super) fn chosen<'a>(
        &'a self,
        endpoints: &'a [Endpoint],
        selector: &'a Selector,
    ) -> impl Iterator<Item = usize> + 'a {
        let postings = self.postings(endpoints, selector);
        let chain = postings.chains.get(&wanted(selector));
        let next = move |at: &u32| postings.postings.get(*at as usize).map(|&(_, next)| next);
        let chain = std::iter::successors(chain.map(|chain| chain.first), next);
        // Two texts may have the same hash.
        let places = chain.map_while(|at| postings.postings.get(at as usize));
        places.map(|&(place, _)| place as usize).filter(|&at| is_chosen(&endpoints[at], selector))
    }

    pub(super) fn visits(&self, endpoints: &[Endpoint], selector: &Selector) -> usize {
        let postings = self.postings(endpoints, selector);
        postings.chains.get(&wanted(selector)).map_or(0, |chain| chain.length as usize)
    }

    pub(super) fn is_indexed(&self, selector: &Selector) -> bool {
        if selector.key == ID { self.ids.get().is_some() } else { self.meta.get().is_some() }
    }

    fn postings(&self, endpoints: &[Endpoint], selector: &Selector) -> &Postings {
        if selector.key == ID {
            return self.ids.get_or_init(|| {
                Postings::new(endpoints, |endpoint, add| add(hash([ID, &endpoint.id])))
            });
        }
        self.meta.get_or_init(|| {
            Postings::new(endpoints, |endpoint, add| {
                endpoint.meta.iter().for_each(|(key, value)| add(hash([key, value])));
            })
        })
    }
}

impl Postings {
    /// Makes an index. `hashes` reports the hashes of an endpoint's texts.
    fn new(endpoints: &[Endpoint], hashes: impl Fn(&Endpoint, &mut dyn FnMut(u64))) -> Self {
        let mut new = Self { chains: HashMap::new(), postings: Vec::new() };
        for (place, endpoint) in endpoints.iter().enumerate() {
            if endpoint.takes_calls() {
                let place = u32::try_from(place).unwrap_or(END);
                hashes(endpoint, &mut |hash| new.add(hash, place));
            }
        }
        new.postings.shrink_to_fit();
        new
    }

    fn add(&mut self, hash: u64, place: u32) {
        let at = u32::try_from(self.postings.len()).unwrap_or(END);
        let only = Chain { first: at, last: at, length: 0 };
        let chain = self.chains.entry(hash).or_insert(only);
        let last = chain.last;
        // Keys that differ only in letter case may report one hash twice.
        if chain.length > 0 && self.postings[last as usize].0 == place {
            return;
        }
        chain.length += 1;
        chain.last = at;
        if last != at {
            self.postings[last as usize].1 = at;
        }
        self.postings.push((place, END));
    }
}

/// Returns whether a selector chooses an endpoint. Letter case is ignored, because
/// selectors come in DNS names.
#[must_use]
pub fn is_chosen(endpoint: &Endpoint, selector: &Selector) -> bool {
    if selector.key == ID {
        return same(&endpoint.id, &selector.value);
    }
    let pair =
        |(key, value): (&String, &String)| same(key, &selector.key) && same(value, &selector.value);
    endpoint.meta.iter().any(pair)
}

/// Returns whether a text, in lower case, equals `lower`.
fn same(text: &str, lower: &str) -> bool {
    if text.is_ascii() { text.eq_ignore_ascii_case(lower) } else { text.to_lowercase() == lower }
}

fn wanted(selector: &Selector) -> u64 {
    hash([&selector.key, &selector.value])
}

/// Returns the FNV-1a hash of the texts in lower case.
fn hash(texts: [&str; 2]) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let text = |hash, text: &str| {
        let hash = if text.is_ascii() {
            text.bytes().fold(hash, |hash, byte| step(hash, byte.to_ascii_lowercase()))
        } else {
            text.to_lowercase().bytes().fold(hash, step)
        };
        step(hash, 0)
    };
    texts.into_iter().fold(0xcbf2_9ce4_8422_2325, text)
}
