//! Every mark and its state, for display. Pure.
//!
//! In: nothing; `source` fills it. Out: values for the admin port and the metrics.

use std::sync::Arc;

use super::Mark;
use crate::registry::Key;

/// Every mark, for display.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The decoded marks, sorted by key.
    pub marks: Vec<MarkStatus>,
    /// Keys whose newest value cannot be used, with the reason; sorted.
    pub refused: Vec<(Key, String)>,
    /// How many keys are refused because there are too many.
    pub beyond: usize,
    /// Why etcd does not answer now; `None` if it does.
    pub outage: Option<String>,
}

/// A mark, and whether it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkStatus {
    /// The mark.
    pub mark: Arc<Mark>,
    /// Whether it is in force.
    pub state: State,
}

/// Whether a mark is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is in etcd and in force.
    InForce,
    /// Its end has passed.
    Over,
    /// It is in force, although etcd has lost it.
    Kept,
}

impl MarkStatus {
    /// Returns whether it is in force.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.state != State::Over
    }
}

impl State {
    /// Returns the name for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Over => "over",
            Self::Kept => "kept",
        }
    }
}
