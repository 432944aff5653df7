//! The benchmark: the real program with a real etcd, the bare limit, and other servers,
//! all with the same clients in the same run.
//!
//! `cargo bench --bench fanout` measures. `cargo test` runs the same with few clients to
//! see that it works, and ignores times. In: flags (see `--help`). Out: tables on
//! standard output, `target/bench/fanout.json`, plots.

// The path keeps the module's parts beside it, and not one folder deeper.
#[cfg(target_os = "linux")]
#[path = "run.rs"]
mod run;
// The tests' parts name each other so.
#[cfg(target_os = "linux")]
use run::shared::support;

fn main() {
    #[cfg(target_os = "linux")]
    run::main();
    #[cfg(not(target_os = "linux"))]
    println!("the benchmark needs Linux: epoll, /proc");
}
