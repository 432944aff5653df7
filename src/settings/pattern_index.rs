//! Finds the patterns with a star that may match a name, without trying all. Pure.
//!
//! In: patterns, and names. Out: the indexes of a few patterns, which include all that
//! match. Ten thousand services times some hundred patterns would be millions of
//! comparisons, but nearly all pairs differ in any three bytes of the pattern.

use hashbrown::HashMap;

use super::Pattern;

/// Three bytes of a pattern without a star between them. Every name that matches the
/// pattern contains them.
type Trigram = [u8; 3];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PatternIndex {
    /// The indexes of the patterns, each under one of its trigrams.
    trigrams: HashMap<Trigram, Vec<usize>>,
    /// The indexes of the patterns without a trigram.
    without_trigram: Vec<usize>,
}

impl PatternIndex {
    pub(super) fn new<'a>(patterns: impl Iterator<Item = &'a Pattern> + Clone) -> Self {
        let mut times: HashMap<Trigram, usize> = HashMap::new();
        for trigram in patterns.clone().flat_map(trigrams) {
            *times.entry(trigram).or_default() += 1;
        }
        let mut index = Self::default();
        for (place, pattern) in patterns.enumerate() {
            // The trigram that the fewest patterns share.
            match trigrams(pattern).min_by_key(|trigram| (times[trigram], *trigram)) {
                Some(trigram) => index.trigrams.entry(trigram).or_default().push(place),
                None => index.without_trigram.push(place),
            }
        }
        index
    }

    /// Returns the indexes of the patterns that may match a canonical name, ascending.
    pub(super) fn candidates(&self, canonical: &str) -> Vec<usize> {
        let mut found = self.without_trigram.clone();
        if !self.trigrams.is_empty() {
            for trigram in windows(canonical) {
                found.extend(self.trigrams.get(&trigram).into_iter().flatten());
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn trigrams(pattern: &Pattern) -> impl Iterator<Item = Trigram> {
    windows(pattern.canonical()).filter(|trigram| !trigram.contains(&b'*'))
}

fn windows(text: &str) -> impl Iterator<Item = Trigram> {
    text.as_bytes().windows(3).map(|bytes| [bytes[0], bytes[1], bytes[2]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_matches_is_a_candidate(
            patterns in proptest::collection::vec("[ab*]{1,3}[ab]{1,3}[ab*]{1,2}", 0..12),
            name in "[ab]{1,8}",
        ) {
            let patterns: Vec<_> =
                patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            let candidates = PatternIndex::new(patterns.iter()).candidates(&name);
            prop_assert!(candidates.is_sorted());
            for (place, pattern) in patterns.iter().enumerate() {
                prop_assert!(!pattern.matches(&name) || candidates.contains(&place));
            }
        }
    }
}
