//! The measured figures, and the limits that they must keep.
//!
//! In: goals. Out: a table, and whether all are met.

use std::fmt::{self, Write as _};

/// One measured figure.
pub(crate) struct Goal {
    pub(crate) scene: &'static str,
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) must: Must,
}

#[derive(Clone, Copy)]
pub(crate) enum Must {
    AtMost(f64),
    AtLeast(f64),
    /// A limit that is not met, and one that must be met all the same. The page says why.
    NotMet {
        limit: f64,
        at_most: f64,
    },
    /// No limit: a figure for comparison.
    Reported,
}

impl Goal {
    pub(crate) fn new(
        scene: &'static str,
        what: impl Into<String>,
        measured: f64,
        must: Must,
    ) -> Self {
        Self { scene, what: what.into(), measured, must }
    }

    pub(crate) fn is_met(&self) -> bool {
        match self.must {
            Must::AtMost(most) => self.measured <= most,
            Must::AtLeast(least) => self.measured >= least,
            Must::NotMet { at_most, .. } => self.measured <= at_most,
            Must::Reported => true,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.must {
            Must::Reported => "",
            Must::NotMet { limit, .. } if self.measured > limit => "**missed**: see below",
            _ if self.is_met() => "met",
            _ => "**missed**",
        }
    }
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) | Self::NotMet { limit: most, .. } => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::Reported => f.write_str("–"),
        }
    }
}

/// Returns the goals as a Markdown table.
pub(crate) fn table(goals: &[Goal]) -> String {
    let mut text = String::from("| scene | figure | measured | must | |\n|---|---|---|---|---|\n");
    for goal in goals {
        let Goal { scene, what, measured, must } = goal;
        let verdict = goal.verdict();
        let _ = writeln!(text, "| {scene} | {what} | {measured:.3} | {must} | {verdict} |");
    }
    text
}
