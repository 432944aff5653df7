//! Collects remarks: notes on oddities of a key that is still read.
//!
//! In: texts, while a key is decoded. Out: [`Remark`]s, each once, and a bounded
//! number. A remark names the value and the value that is used instead.

use std::cell::RefCell;

use crate::registry::Remark;

/// The remarks on one key.
#[derive(Debug, Default)]
pub(super) struct Remarks(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: Vec<Remark>,
    more: usize,
}

/// The most remarks on one key that are kept. More are only counted, because people
/// read the first ones.
const REMARKS_MAX: usize = 16;
/// The longest remark, in bytes. Longer ones are cut.
const REMARK_MAX: usize = 400;
/// How much of a value a remark repeats, in bytes.
const SHOWN_MAX: usize = 80;

impl Remarks {
    pub(super) fn add(&self, text: impl Into<String>) {
        let mut inner = self.0.borrow_mut();
        let text = cut(text.into(), REMARK_MAX);
        if inner.all.iter().any(|known| *known.0 == *text) {
            return;
        }
        match inner.all.len() < REMARKS_MAX {
            true => inner.all.push(Remark(text.into())),
            false => inner.more += 1,
        }
    }

    pub(super) fn into_vec(self) -> Vec<Remark> {
        let Inner { mut all, more } = self.0.into_inner();
        if more > 0 {
            all.push(Remark(format!("{more} more remarks are left out").into()));
        }
        all
    }
}

/// Returns the beginning of a value, for people.
pub(super) fn shown(value: &serde_json::Value) -> String {
    cut(value.to_string(), SHOWN_MAX)
}

/// Cuts a text to at most `most` bytes, at the border of a character.
pub(super) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_said_once_and_bounded() {
        let remarks = Remarks::default();
        for number in (0..40).chain(0..10) {
            remarks.add(format!("{number}{}", "é".repeat(1_000)));
        }
        let all = remarks.into_vec();
        assert_eq!(all.len(), REMARKS_MAX + 1);
        assert!(all.iter().all(|remark| remark.0.len() <= REMARK_MAX + 3));
        // The first ten repeat earlier remarks; the rest are equal to each other once
        // they are cut.
        assert_eq!(&*all[REMARKS_MAX].0, "24 more remarks are left out");
        assert_eq!(shown(&serde_json::json!({"a": 1})), r#"{"a":1}"#);
    }
}
