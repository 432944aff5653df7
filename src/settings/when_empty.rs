//! What clients see while a service has no usable backend, as a setting. Pure.
//!
//! In: nothing. Out: [`WhenEmpty`].

/// What clients see while a service has no usable backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenEmpty {
    /// Calls with wait-for-ready wait; the others fail.
    Wait,
    /// Every call fails.
    Drop,
    /// Clients use the addresses that they got from DNS.
    Fallback,
}

impl WhenEmpty {
    pub(super) const ALL: [Self; 3] = [Self::Wait, Self::Drop, Self::Fallback];

    /// Returns the name as written in flags and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Drop => "drop",
            Self::Fallback => "fallback",
        }
    }
}
