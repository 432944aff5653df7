//! Stores equal texts of streams once, such as the user agents of thousands of clients.
//!
//! In: texts. Out: the same texts, shared. Texts that no stream uses are removed when their
//! number has grown, so that clients cannot fill the memory with new texts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Texts that are in use, each stored once.
#[derive(Default)]
pub(crate) struct SharedTexts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    texts: HashSet<Arc<str>>,
    /// The number of texts at which unused ones are looked for.
    forget_at: usize,
}

/// A longer user agent is cut, because it is only shown.
const USER_AGENT_MAX: usize = 256;
/// Fewer texts are not worth a search for unused ones.
const KEPT_MIN: usize = 64;

impl SharedTexts {
    /// Returns a text equal to this one, which all callers share.
    pub(crate) fn share(&self, text: &str) -> Arc<str> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = inner.texts.get(text) {
            return shared.clone();
        }
        if inner.texts.len() >= inner.forget_at {
            inner.texts.retain(|text| Arc::strong_count(text) > 1);
            inner.forget_at = (2 * inner.texts.len()).max(KEPT_MIN);
        }
        let shared: Arc<str> = text.into();
        inner.texts.insert(shared.clone());
        shared
    }

    /// Returns a client's user agent, which all callers share.
    pub(crate) fn share_user_agent(&self, user_agent: &str) -> Arc<str> {
        let user_agent = user_agent.trim();
        let end = user_agent.char_indices().nth(USER_AGENT_MAX).map(|(end, _)| end);
        self.share(end.map_or(user_agent, |end| &user_agent[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_are_forgotten() {
        let texts = SharedTexts::default();
        let used = texts.share("grpc-go/1.75.0");
        assert!(Arc::ptr_eq(&used, &texts.share("grpc-go/1.75.0")));
        for n in 0..10 * KEPT_MIN {
            texts.share(&n.to_string());
        }
        let inner = texts.0.lock().unwrap();
        assert!(inner.texts.len() <= KEPT_MIN, "{}", inner.texts.len());
        assert!(inner.texts.contains("grpc-go/1.75.0"));
    }

    #[test]
    fn a_long_user_agent_is_cut() {
        let texts = SharedTexts::default();
        assert_eq!(&*texts.share_user_agent("grpc-go/1.75.0 "), "grpc-go/1.75.0");
        let cut = texts.share_user_agent(&"ü".repeat(2 * USER_AGENT_MAX));
        assert_eq!(cut.chars().count(), USER_AGENT_MAX);
    }
}
