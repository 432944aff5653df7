//! Patterns over service names: `hello`, `dev/*`, `*`. Pure.
//!
//! In: the text of a pattern, and canonical names. Out: whether the pattern matches,
//! how specific it is, and whether two patterns can match one name. A pattern is read
//! like a name: the path `dev/game*` is the dotted `game*.dev`, and letter case does
//! not matter. A star matches any characters, including dots and none.

use std::cmp::Ordering;
use std::fmt;

use crate::model::{NameError, ServiceName, name};

/// A pattern over service names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The text as written.
    text: String,
    /// The canonical form, in which names are compared, with the stars.
    canonical: String,
    /// The number of characters that are no star.
    literals: usize,
}

/// Why a text is no pattern, with the pattern and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no valid name, even with other text in place of its stars.
    #[error("the pattern {0:?} can match no service: {1}")]
    Name(String, NameError),
    /// It has stars and is too long.
    #[error("the pattern {0:?} has {1} bytes: with a star, at most {STARRED_MAX} are allowed")]
    TooLong(String, usize),
}

/// The longest pattern with a star, in bytes. Comparing two of them costs the product
/// of their lengths.
const STARRED_MAX: usize = 128;
const STAR: u8 = b'*';

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If no valid service name can match, or if it has a star and is too long.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let named = ServiceName::new(&text.replace('*', "x"));
        named.map_err(|error| PatternError::Name(text.to_owned(), error))?;
        if text.contains('*') && text.len() > STARRED_MAX {
            return Err(PatternError::TooLong(text.to_owned(), text.len()));
        }
        let mut canonical = name::canonical(text);
        while canonical.contains("**") {
            canonical = canonical.replace("**", "*");
        }
        let literals = canonical.chars().filter(|c| *c != '*').count();
        Ok(Self { text: text.to_owned(), canonical, literals })
    }

    /// Returns the text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the canonical form, in which names are compared.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns whether it has a star.
    #[must_use]
    pub fn is_starred(&self) -> bool {
        self.canonical.contains('*')
    }

    /// Returns whether it is `*`, which matches every name.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.canonical == "*"
    }

    /// Returns whether a canonical name matches.
    #[must_use]
    pub fn matches(&self, canonical: &str) -> bool {
        let (pattern, name) = (self.canonical.as_bytes(), canonical.as_bytes());
        let (mut at, mut read) = (0, 0);
        // The place of the last star, and the end of the text that it matches.
        let mut star: Option<(usize, usize)> = None;
        while read < name.len() {
            match pattern.get(at) {
                Some(&STAR) => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(literal) if *literal == name[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((starred, taken)) = star else { return false };
                    star = Some((starred, taken + 1));
                    (at, read) = (starred + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == STAR)
    }

    /// Orders the more specific pattern first: first patterns without a star, then
    /// those with more characters.
    #[must_use]
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let rank = |one: &Self| (one.is_starred(), std::cmp::Reverse(one.literals));
        rank(self).cmp(&rank(other))
    }

    /// Returns whether some name matches both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.canonical.as_bytes(), other.canonical.as_bytes());
        // Nearly all pairs differ before the first star or after the last one.
        let literal = |(x, y): &(&u8, &u8)| **x != STAR && **y != STAR;
        let same = |(x, y): (&u8, &u8)| x == y;
        if !a.iter().zip(b).take_while(literal).all(same)
            || !a.iter().rev().zip(b.iter().rev()).take_while(literal).all(same)
        {
            return false;
        }
        // Whether `a[i..]` overlaps `b[j..]`, for all j, from the end to the beginning.
        let mut below = vec![false; b.len() + 1];
        for i in (0..=a.len()).rev() {
            let mut row = vec![false; b.len() + 1];
            for j in (0..=b.len()).rev() {
                row[j] = match (a.get(i), b.get(j)) {
                    (None, None) => true,
                    (Some(&STAR), Some(_)) => below[j] || row[j + 1],
                    (Some(&STAR), None) => below[j],
                    (_, Some(&STAR)) => row[j + 1] || (i < a.len() && below[j]),
                    (Some(x), Some(y)) => x == y && below[j + 1],
                    (None, Some(_)) | (Some(_), None) => false,
                };
            }
            below = row;
        }
        below[0]
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
