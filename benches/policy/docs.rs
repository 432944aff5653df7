//! Writes docs/policy-figures.md.
//!
//! In: the goals. Out: the document, whole.

use std::path::Path;

use super::goals::{self, Goal};

const HEAD: &str = "# Figures of traffic policy

`cargo bench --bench policy -- --docs` writes this page. The simulator (`benches/policy`) \
uses the program's own cycles, windows and passes. Clients walk their lists as the real \
ones do: grpc-java begins each list at its first entry, C-core and grpc-go at a random one. \
All follows from seeds, so every run gives the same figures. `make bench-policy` prints \
them, and fails if one is missed.

A figure without a limit is there to compare with. Max/mean is over backends, unless the \
row says otherwise.

";

pub(crate) fn write(goals: &[Goal]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy-figures.md");
    let text = format!("{HEAD}{}", goals::table(goals));
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("wrote {}", path.display());
}
