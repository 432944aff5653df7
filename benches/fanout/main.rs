//! The benchmark: the real program against real etcd, beside the bare limit
//! and what others build, under the same clients in the same run.
//!
//! `cargo bench --bench fanout` measures; `cargo test` runs the same in small,
//! to see that it works, and looks at no time. In: flags (see `--help`). Out:
//! tables on standard output, `target/bench/fanout.json`, plots.

// By its path, so that its parts lie beside it, and not one folder deeper.
#[cfg(target_os = "linux")]
#[path = "run.rs"]
mod run;

fn main() {
    #[cfg(target_os = "linux")]
    run::main();
    #[cfg(not(target_os = "linux"))]
    println!("the benchmark needs Linux: epoll, /proc");
}
