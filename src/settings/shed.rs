//! Whether clients drop calls while a service is overloaded, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`ShedSettings`].

/// Whether clients drop calls while a service is overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShedSettings {
    /// Whether they do.
    pub mode: ShedMode,
    /// The largest part of the calls that they drop, in percent.
    pub most: u32,
}

/// Whether clients drop calls while a service is overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedMode {
    /// Only marks of operators make clients drop calls.
    Off,
    /// Clients also drop calls while they start more than the backends can serve.
    Overload,
}

impl ShedSettings {
    pub(super) const DEFAULT: Self = Self {
        mode: ShedMode::Off,
        // The remaining calls show when the service has recovered.
        most: 95,
    };

    /// Returns whether clients drop calls while the service is overloaded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode == ShedMode::Overload
    }
}

impl ShedMode {
    pub(super) const ALL: [Self; 2] = [Self::Off, Self::Overload];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Overload => "overload",
        }
    }
}
