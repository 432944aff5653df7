//! Whether backends' own reports of their load change their shares, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`LoadSettings`].

use std::time::Duration;

/// Whether and how backends report their load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoadSettings {
    /// How they report it, if at all.
    pub kind: LoadKind,
    /// How often they are asked to report.
    pub interval: Duration,
}

/// How backends report their load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadKind {
    /// Their reports are not read.
    Off,
    /// By ORCA's out-of-band reports (`xds.service.orca.v3.OpenRcaService`, gRFC A51).
    Orca,
}

impl LoadSettings {
    pub(super) const DEFAULT: Self = Self {
        kind: LoadKind::Off,
        // With longer intervals, shares take minutes to follow a changed machine.
        interval: Duration::from_secs(10),
    };
}

impl LoadKind {
    pub(super) const ALL: [Self; 2] = [Self::Off, Self::Orca];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Orca => "orca",
        }
    }
}
