//! Whether clients prefer the backends of their own zone, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`ZoneSettings`].

use std::sync::Arc;

/// Whether the clients of a service prefer the backends of their own zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ZoneSettings {
    /// Whether they do.
    pub mode: ZoneMode,
    /// The key of the metadata that names a backend's zone, in lower case; `None`: `zone`.
    pub key: Option<Arc<str>>,
}

/// Whether clients prefer the backends of their own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZoneMode {
    /// Zones do not matter.
    Off,
    /// Calls stay in the client's zone as far as its backends can take them.
    Prefer,
}

impl ZoneSettings {
    pub(super) const DEFAULT: Self = Self { mode: ZoneMode::Off, key: None };
    const KEY: &str = "zone";

    /// Returns whether clients prefer their own zone.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.mode == ZoneMode::Prefer
    }

    /// Returns the key of the metadata that names a backend's zone, in lower case.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(Self::KEY)
    }

    pub(super) fn set_key(&mut self, key: Arc<str>) {
        self.key = Some(key).filter(|key| **key != *Self::KEY);
    }
}

impl ZoneMode {
    pub(super) const ALL: [Self; 2] = [Self::Off, Self::Prefer];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
        }
    }
}
