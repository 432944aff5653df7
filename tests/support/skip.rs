//! Skips tests that cannot run on this machine.
//!
//! In: the test and the reason. Out: a line that `scripts/test` counts.

use std::io::Write;

/// Reports that a test cannot run on this machine; the test must then return. Panics where
/// every test must run (`CI=true`).
#[track_caller]
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED: {name}: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    eprintln!("{line}");
    // scripts/test shows and counts these lines at its end, because cargo hides the output of
    // passing tests and counts them as passed.
    if let Some(path) = std::env::var_os("LOOKASIDE_SKIPS") {
        let mut skips =
            std::fs::OpenOptions::new().append(true).open(path).expect("scripts/test made it");
        skips.write_all(format!("{line}\n").as_bytes()).expect("a line can be written");
    }
}
