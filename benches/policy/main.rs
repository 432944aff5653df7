//! The simulator of traffic policy. It uses the real cycles, windows and passes, and
//! simulated clients that go through lists as real clients do.
//!
//! `cargo bench --bench policy` prints each figure beside its limit, and fails if a limit is
//! missed. `cargo test` runs a small version to check that it works, and ignores the
//! figures. In: flags (see `--help`). Out: a table, and the document with `--docs`.
//! Everything follows from seeds, so two runs give the same figures and plots.

mod chance;
#[path = "../support/chart.rs"]
mod chart;
mod docs;
mod goals;
mod plots;
mod scenes;
mod walker;

use clap::Parser;

use scenes::{SCENES, Scale};

/// The name by which cargo calls this program.
const NAME: &str = "policy";

/// Simulates traffic policy, and compares the figures with their limits.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Options {
    /// Run in small to see that it works, as cargo test does.
    #[arg(long)]
    short: bool,
    /// Run these scenes only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write docs/policy-figures.md and its plots too.
    #[arg(long, conflicts_with_all = ["short", "only"])]
    docs: bool,
    /// The flag that cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--bench") {
        return run(&Options::parse());
    }
    // cargo test passes the same arguments to all its programs: names of tests, and
    // flags that mean nothing here. This program is one test.
    let is_name = |text: &&String| !text.starts_with('-') && text.parse::<u32>().is_err();
    let mut names = arguments.iter().filter(is_name).peekable();
    if names.peek().is_some() && !names.any(|name| NAME.contains(name.as_str())) {
        return println!("test result: ok. 0 passed; 0 failed; 0 ignored; 1 filtered out");
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return println!("{NAME}: test");
    }
    run(&Options::parse_from([NAME, "--short"]));
}

fn run(options: &Options) {
    let scale = Scale { short: options.short };
    let mut goals = Vec::new();
    for (name, scene) in SCENES {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            goals.extend(scene(scale));
        }
    }
    println!("{}", goals::table(&goals));
    if options.docs {
        docs::write(&goals, &plots::all(scale));
    } else if options.short {
        check_plots(scale);
    }
    let missed = goals.iter().filter(|goal| !goal.is_met()).count();
    if missed > 0 && !options.short {
        eprintln!("{missed} figures are missed");
        std::process::exit(1);
    }
    // The test harness prints this line, and scripts/test counts such lines.
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored");
}

/// Draws the plots twice, and fails if they differ or show nothing.
fn check_plots(scale: Scale) {
    for (plot, again) in plots::all(scale).into_iter().zip(plots::all(scale)) {
        assert!(plot.svg == again.svg, "{}: the same seeds give another plot", plot.name);
        let shapes = plot.svg.matches("<polyline").count() + plot.svg.matches("<rect").count();
        assert!(shapes > 2 && !plot.svg.contains("NaN"), "{}: {}", plot.name, plot.svg);
    }
}
