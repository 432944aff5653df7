//! The size of a run: short under `cargo test`, long under `make soak`.
//!
//! In: the environment. Out: numbers of clients and durations.

use std::path::PathBuf;
use std::time::Duration;

/// The sizes and durations that rows use.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    long: bool,
    /// Number of clients of a row that sets no number of its own.
    pub streams: usize,
    /// How long etcd is away.
    pub outage: Duration,
    /// How long the run under churn takes.
    pub soak: Duration,
}

impl Scale {
    pub fn of_this_run() -> Self {
        let long = Self::table().is_some();
        let number = |name: &str, short: u64, long_default: u64| {
            let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
            if long { given.unwrap_or(long_default) } else { short }
        };
        Self {
            long,
            streams: usize::try_from(number("SOAK_STREAMS", 1_000, 10_000)).expect("a number"),
            outage: Duration::from_secs(number("SOAK_OUTAGE", 8, 600)),
            soak: Duration::from_secs(number("SOAK_MINUTES", 0, 20) * 60)
                .max(Duration::from_secs(20)),
        }
    }

    /// Returns the value for a short run or the one for a long run.
    pub fn pick<T>(self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    /// Returns the file that gets the rows of a long run. `None` means a short run.
    pub fn table() -> Option<PathBuf> {
        std::env::var_os("LOOKASIDE_SOAK").map(PathBuf::from)
    }
}
