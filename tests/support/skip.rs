//! For what cannot run here.
//!
//! In: who, and why. Out: a line that `scripts/test` counts.

use std::io::Write;

/// For a test that cannot run here, which must then return: says so loudly,
/// and fails where everything must run (`CI=true`).
#[track_caller]
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED: {name}: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    eprintln!("{line}");
    // Shown and counted at the end of scripts/test: cargo hides what passing
    // tests print, and counts them as passed.
    if let Some(path) = std::env::var_os("LOOKASIDE_SKIPS") {
        let mut skips =
            std::fs::OpenOptions::new().append(true).open(path).expect("scripts/test made it");
        skips.write_all(format!("{line}\n").as_bytes()).expect("a line can be written");
    }
}
