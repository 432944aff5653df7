//! One run: which scenes, how large, how often.
//!
//! In: flags. Out: a report, written to files. A scene that fails is named, and fails
//! the run at its end.

#[path = "../support/chart.rs"]
mod chart;
mod client;
mod goals;
mod limit;
mod naive;
mod plot;
mod registry;
mod relay;
mod report;
mod scenes;
mod server;
#[path = "../../tests"]
pub(crate) mod shared {
    pub(crate) mod support;
}
#[path = "../start.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "it is a program of its own, too")]
mod start;
mod wire;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use client::Manner::{Grpc, Plain};
use client::Protocols;
use registry::Registry;
use report::Report;
use scenes::{Bench, Outcome, change, classes, first, loss, memory, push, scale, spread};
use server::Kind;

/// The name by which cargo calls this program.
const NAME: &str = "fanout";
/// The port of every backend. The first has the next port in every other version.
const PORT: u16 = 50_051;

/// Measures lookaside beside the limit and other servers.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Options {
    /// Run with few clients to see that it works, as cargo test does.
    #[arg(long)]
    short: bool,
    /// Number of rounds; the servers take turns within each.
    #[arg(long)]
    rounds: Option<usize>,
    /// Run these scenes only.
    #[arg(long, value_delimiter = ',', value_parser = SCENES)]
    only: Vec<String>,
    /// Run these servers only: limit, lookaside, other, tonic, grpc-go; by xDS limit-xds,
    /// lookaside-xds, other-xds, go-xds.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Number of clients in scenes with many clients.
    #[arg(long)]
    clients: Option<usize>,
    /// In the scene push, use lists of this length only.
    #[arg(long)]
    entries: Option<usize>,
    /// Number of pushes in a measurement.
    #[arg(long)]
    pushes: Option<usize>,
    /// Write plots and tables into docs/ too. With --only, the other scenes keep what the last
    /// run measured.
    #[arg(long)]
    docs: bool,
    /// The flag that cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
}

type Step = fn(&mut Bench) -> Outcome;

const SCENES: [&str; 15] = [
    "push", "classes", "memory", "storm", "idle", "burst", "put", "growth", "fairness", "updates",
    "start", "loss", "probes", "spread", "first",
];
/// The steps besides the pushes, each with the scenes that it belongs to.
const STEPS: [(&[&str], Step); 16] = [
    (&["classes"], classes::classes),
    (&["storm", "memory"], memory::storm),
    (&["memory"], memory::stalled),
    (&["idle", "memory"], memory::idle),
    (&["burst"], change::burst),
    (&["put"], change::put_to_last),
    (&["put"], change::put_to_one),
    (&["fairness"], change::fairness),
    (&["growth"], scale::growth),
    (&["updates"], scale::updates),
    (&["start"], scale::start),
    (&["loss"], loss::lists),
    (&["loss"], loss::held),
    (&["probes"], loss::probes),
    (&["spread"], spread::restart),
    (&["first"], first::endpoints),
];
/// The marks between which docs/performance.md has the tables.
const MARKS: [&str; 2] = ["<!-- written by scripts/bench --docs -->\n", "<!-- until here -->"];
/// Descriptors for everything but the clients.
const SPARE: usize = 500;

pub(crate) fn main() {
    let files = raise_open_files();
    let role = |name| std::env::args().skip_while(|argument| argument != name).nth(1);
    let count = |text: String| text.parse().expect("the length of the list");
    let limits = [("role-limit", Protocols::Grpclb), ("role-limit-xds", Protocols::Eds)];
    for (name, protocol) in limits {
        if let Some(text) = role(name) {
            return limit::run(count(text), protocol).expect("the limit runs");
        }
    }
    if let Some(text) = role("role-tonic") {
        return naive::run(count(text)).expect("the tonic server runs");
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--bench") {
        return run(&Options::parse(), files);
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
    run(&Options::parse_from([NAME, "--short"]), files);
}

fn run(options: &Options, files: usize) {
    let short = options.short;
    let wanted = options.clients.unwrap_or(if short { 200 } else { 10_000 });
    let many = wanted.min(files.saturating_sub(SPARE));
    if many < wanted {
        println!("{files} descriptors: {many} clients rather than {wanted}");
    }
    let mut bench = Bench {
        registry: Registry::start(),
        report: Report::default(),
        kinds: Kind::these(&options.servers),
        many,
        pushes: options.pushes.unwrap_or(if short { 1 } else { 5 }),
        services: if short { 100 } else { 10_000 },
        rate: if short { 500 } else { 10_000 },
        streams: if short { 200 } else { 40_000 },
        lost: if short { 400 } else { 20_000 },
        held_addresses: if short { 200 } else { 100_000 },
        time: Duration::from_secs(if short { 1 } else { 10 }),
        short,
    };
    let mut failures = Vec::new();
    for round in 1..=options.rounds.unwrap_or(if short { 1 } else { 3 }) {
        println!("round {round}");
        failures.extend(self::round(&mut bench, options));
    }
    // The test ignores times, so it leaves the files of a real run alone.
    if !short {
        if options.docs
            && let Some(former) = former()
        {
            bench.report.keep(&former);
        }
        write(&bench, options.docs);
    }
    assert!(failures.is_empty(), "{}", failures.join("; "));
    // The line of the test harness, because scripts/test counts such lines.
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored");
}

/// Runs one round, and returns its failures.
fn round(bench: &mut Bench, options: &Options) -> Vec<String> {
    let wanted = |scene| options.only.is_empty() || options.only.iter().any(|only| only == scene);
    let many = bench.many;
    let mut pushes = BTreeSet::from([(many, 100, Plain), (many, 100, Grpc)]);
    if !options.short {
        pushes.extend([(many, 10, Plain), (many, 1_000, Plain)]);
        pushes.extend([(1_000, 10, Plain), (1_000, 100, Plain), (1_000, 1_000, Plain)]);
        pushes.insert((3_000, 100, Plain));
    }
    let mut outcomes = Vec::new();
    for (clients, entries, manner) in pushes {
        // The scene memory includes the memory of a stream for each length of the list.
        let memory = wanted("memory") && clients == many && manner == Plain;
        let asked = clients <= many && options.entries.is_none_or(|only| only == entries);
        if asked && (wanted("push") || memory) {
            outcomes.push(("push", push::push(bench, clients, entries, manner)));
        }
    }
    for (scenes, step) in STEPS {
        if scenes.iter().any(|scene| wanted(scene)) {
            outcomes.push((scenes[0], step(bench)));
        }
    }
    let failed = |(scene, outcome): (&str, Outcome)| {
        outcome.err().map(|failure| format!("{scene}: {failure}"))
    };
    let failures: Vec<_> = outcomes.into_iter().filter_map(failed).collect();
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    failures
}

/// The numbers of docs/performance.md, in the folder of the results.
const DOCUMENTED: &str = "documented.json";

/// Returns what the last run with `--docs` wrote.
fn former() -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(out_dir().join(DOCUMENTED)).ok()?).ok()
}

fn write(bench: &Bench, docs: bool) {
    let report = &bench.report;
    let goals = goals::judge(bench);
    let text = format!("{}{}", goals::table(&goals), report.tables());
    println!("\n{text}");
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let out = out_dir();
    let json = format!("{:#}\n", report.json(&goals));
    write(&out.join("fanout.json"), &json);
    let plots = plot::plots(report, bench.many);
    plots.iter().for_each(|(name, svg)| write(&out.join(format!("{name}.svg")), svg));
    if !docs {
        return;
    }
    write(&out.join(DOCUMENTED), &json);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(root.join("performance")).expect("docs/ can be written");
    let mut block = text;
    for (name, svg) in &plots {
        write(&root.join(format!("performance/{name}.svg")), svg);
        block += &format!("\n![{name}](performance/{name}.svg)");
    }
    let page = root.join("performance.md");
    let old = std::fs::read_to_string(&page).expect("docs/performance.md is there");
    let parts = old
        .split_once(MARKS[0])
        .and_then(|(before, rest)| rest.split_once(MARKS[1]).map(|(_, after)| (before, after)));
    let (before, after) = parts.expect("docs/performance.md has the two marks");
    write(&page, &format!("{before}{}{block}\n\n{}{after}", MARKS[0], MARKS[1]));
}

/// Returns the folder of the results.
fn out_dir() -> PathBuf {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&out).expect("target/ can be written");
    out
}

/// Raises the limit of descriptors, for this process and the servers that it starts, and
/// returns it.
fn raise_open_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |count| count as usize)
}
