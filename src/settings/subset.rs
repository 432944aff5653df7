//! Whether clients of a large service get a part of its backends, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`SubsetSettings`].

/// Whether clients of a large service get a part of its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubsetSettings {
    /// Whether they do.
    pub mode: SubsetMode,
    /// The fewest backends that a client gets, roughly. A service with fewer than four times
    /// as many is not divided.
    pub least: u32,
}

/// Whether clients of a large service get a part of its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubsetMode {
    /// Every client gets all backends.
    Off,
    /// The backends are divided into cells, and a client gets one cell or some adjacent ones.
    Cells,
}

impl SubsetSettings {
    pub(super) const DEFAULT: Self = Self {
        mode: SubsetMode::Off,
        // With 20, a backend that joins moves nearly twice as many others.
        least: 32,
    };
}

impl SubsetMode {
    pub(super) const ALL: [Self; 2] = [Self::Off, Self::Cells];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Cells => "cells",
        }
    }
}
