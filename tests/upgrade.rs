//! An upgrade from the previous release to this one, and back, under load: like a rolling
//! restart (tests/rolling.rs), but with another program in each place.
//!
//! In: the previous program, which `LOOKASIDE_PREVIOUS` names. `make upgrade` builds it and
//! runs this; `cargo test` alone does not, because a build of the previous release takes too
//! long.
#![cfg(target_os = "linux")]

mod support;

#[path = "rolling.rs"]
mod rolling;

use std::path::PathBuf;

use rolling::Program;
use support::lookaside::program;
use support::namespace::isolated;

#[test]
fn an_upgrade_under_load_and_back() {
    isolated(|| {
        let previous = std::env::var_os("LOOKASIDE_PREVIOUS");
        let previous = previous.expect("LOOKASIDE_PREVIOUS names the former program: make upgrade");
        let programs: [PathBuf; 3] = [previous.clone().into(), program(), previous.into()];
        rolling::replace_all("an upgrade", &programs.map(Program::new));
    });
}
