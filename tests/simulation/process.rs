//! Runs each seed in a process of its own, in which nothing else happens.
//!
//! In: a seed. Out: the outcome of its run, or its whole history. Tokio numbers its tasks and
//! its sources of chance throughout a process, so a seed that shares one with others depends
//! on what they do meanwhile.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use crate::coverage::Scene;

/// How this program is told to run a seed and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub seed: u64,
    /// Whether the whole history is printed.
    pub whole: bool,
}

/// The result of a seed's process.
pub struct Ended {
    /// The text of the breaches, if there are any.
    pub breaches: Option<String>,
    pub reached: BTreeSet<Scene>,
}

const SEED: &str = "--seed";
const WHOLE: &str = "--whole";
/// The line of the output that names the scenes.
const REACHED: &str = "reached:";

impl Order {
    /// Returns the order that this process was started with, if any.
    pub fn given() -> Option<Self> {
        if let Ok(seed) = std::env::var("LOOKASIDE_SEED") {
            let seed = seed.parse().expect("LOOKASIDE_SEED is a number");
            return Some(Self { seed, whole: true });
        }
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let (first, rest) = arguments.split_first()?;
        let (seed, flags) = rest.split_first().filter(|_| first == SEED)?;
        let seed = seed.parse().expect("a seed is a number");
        Some(Self { seed, whole: flags.iter().any(|flag| flag == WHOLE) })
    }

    fn run(self) -> Output {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([SEED, &self.seed.to_string()]).args(self.whole.then_some(WHOLE));
        command.output().expect("this program can be started again")
    }
}

/// Runs a seed.
pub fn run(seed: u64) -> Ended {
    let output = Order { seed, whole: false }.run();
    let text = String::from_utf8_lossy(&output.stdout);
    let reached = text.lines().find_map(|line| line.trim().strip_prefix(REACHED));
    let breaches = !output.status.success() || reached.is_none();
    Ended {
        reached: reached.map(scenes).unwrap_or_default(),
        breaches: breaches.then(|| format!("{}{text}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Returns the first difference between the histories of two runs of a seed; `None` if they are
/// the same, byte for byte.
pub fn difference(seed: u64) -> Option<String> {
    let history = || {
        let output = Order { seed, whole: true }.run();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (first, second) = (history(), history());
    if !first.is_empty() && first == second {
        return None;
    }
    let same = first.lines().zip(second.lines()).take_while(|(one, other)| one == other).count();
    let place = |text: &str| text.lines().skip(same).take(3).collect::<Vec<_>>().join("\n");
    let before = first.lines().nth(same.saturating_sub(1)).unwrap_or_default();
    let (first, second) = (place(&first), place(&second));
    Some(format!(
        "seed {seed}: after line {same}\n{before}\none run has\n{first}\nthe other\n{second}"
    ))
}

/// Returns the line that names scenes.
pub fn line(reached: &BTreeSet<Scene>) -> String {
    let names: Vec<_> = reached.iter().map(|scene| format!("{scene:?}")).collect();
    format!("{REACHED} {}", names.join(" "))
}

fn scenes(names: &str) -> BTreeSet<Scene> {
    names.split_whitespace().map(|name| Scene::named(name).expect("a scene")).collect()
}
