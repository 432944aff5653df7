//! Formats the steps of a walk as text for people and as JSON for programs.
//!
//! In: steps. Out: text.

use serde::Serialize;

use super::steps::{Step, Verdict};
use crate::cli::admin_client::clean;
use crate::model::text;

/// The most findings of a step that are shown to people.
const FOUND_MAX: usize = 16;

#[derive(Serialize)]
struct Walk<'a> {
    name: &'a str,
    well: bool,
    steps: &'a [Step],
}

pub(super) fn json(name: &str, well: bool, steps: &[Step]) -> String {
    let json = serde_json::to_string_pretty(&Walk { name, well, steps }).unwrap_or_default();
    let lines: Vec<_> = json.lines().map(text::shown_json).collect();
    lines.join("\n")
}

pub(super) fn text(steps: &[Step]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for step in steps {
        let verdict = match step.verdict {
            Verdict::Ok => "ok",
            Verdict::Remark => "remark",
            Verdict::Broken => "BROKEN",
        };
        lines.push(format!("{verdict:<7} {:<9} {}", step.step, clean(&step.asked)));
        let beyond = step.found.len().saturating_sub(FOUND_MAX);
        let mut found = step.found.iter().take(FOUND_MAX).cloned().collect::<Vec<_>>().join(", ");
        if beyond > 0 {
            found.push_str(&format!(" and {beyond} more"));
        }
        for (what, said) in [
            ("found", Some(&found).filter(|found| !found.is_empty())),
            ("problem", step.problem.as_ref()),
            ("remedy", step.remedy.as_ref().filter(|remedy| !remedy.is_empty())),
        ] {
            if let Some(said) = said {
                lines.push(format!("        {what:<9} {}", clean(said)));
            }
        }
    }
    let broken = steps.iter().filter(|step| step.verdict == Verdict::Broken).count();
    lines.push(match broken {
        0 => "a client gets a list from every balancer that DNS names".to_owned(),
        1 => "the way of a client breaks at 1 step".to_owned(),
        more => format!("the way of a client breaks at {more} steps"),
    });
    lines.join("\n")
}
