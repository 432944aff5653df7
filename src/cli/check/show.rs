//! Formats a report as text for people and as JSON for programs.
//!
//! In: a [`Report`]. Out: text. Text shows the beginning of long lists and how many rows
//! were left out; JSON has all rows.

use super::report::{Endpoint, PrefixReport, Report, Service};
use crate::cli::admin_client::{clean, table};
use crate::model::text;

/// The most rows of a table for people.
const ROWS_MAX: usize = 100;

pub(super) fn json(report: &Report) -> String {
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let lines: Vec<_> = json.lines().map(text::shown_json).collect();
    lines.join("\n")
}

/// Returns the text of a check without `--live`.
pub(super) fn valid(report: &Report) -> String {
    let row = |found: &PrefixReport| vec![found.prefix.clone(), found.format.clone()];
    let prefixes = table(&["PREFIX", "FORMAT"], report.prefixes.iter().map(row));
    format!("the settings are right; --live also reads the keys in etcd\n\n{prefixes}")
}

/// Returns the text of a check with `--live`.
pub(super) fn live(report: &Report) -> String {
    let mut parts = vec![prefixes(report)];
    parts.extend(report.prefixes.iter().filter_map(hint));
    if !report.services.is_empty() {
        parts.push(services(&report.services));
    }
    if report.prefixes.iter().any(|found| !found.nothing.is_empty()) {
        parts.push(format!("These keys register no backend, by design:\n{}", nothing(report)));
    }
    match report.remarks.len() {
        0 => {}
        1 => parts.push(format!("1 key is read with a remark:\n{}", remarks(report))),
        odd => parts.push(format!("{odd} keys are read with remarks:\n{}", remarks(report))),
    }
    let without = report.prefixes.iter().filter(|found| found.keys_below == 0).count();
    parts.push(match report.not_understood {
        0 if without == report.prefixes.len() => "there is no key".to_owned(),
        0 => "no key was rejected".to_owned(),
        1 => format!("1 key was rejected:\n{}", rejected(report)),
        count => format!("{count} keys were rejected:\n{}", rejected(report)),
    });
    if let Some(problem) = &report.settings_problem {
        parts.push(format!("the shared settings do not count here: {}", clean(problem)));
    }
    parts.join("\n\n")
}

fn prefixes(report: &Report) -> String {
    let row = |found: &PrefixReport| {
        let nothing: usize = found.nothing.iter().map(|nothing| nothing.keys).sum();
        let counts = [found.keys, found.understood, nothing, found.not_understood];
        let mut row = vec![found.prefix.clone(), found.format.clone()];
        row.extend(counts.map(|count| count.to_string()));
        row
    };
    let headings = ["PREFIX", "FORMAT", "KEYS", "REGISTRATIONS", "NO BACKEND", "REJECTED"];
    table(&headings, report.prefixes.iter().map(row))
}

fn hint(found: &PrefixReport) -> Option<String> {
    let hint = found.hint.as_deref();
    let hint = hint.or((found.keys_below == 0).then_some("no key lies below it"))?;
    Some(format!("{}: {}", clean(&found.prefix), clean(hint)))
}

fn services(services: &[Service]) -> String {
    let row = |service: &Service, endpoint: &Endpoint| {
        let meta: Vec<_> =
            endpoint.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let Endpoint { id, address, weight, .. } = endpoint;
        vec![service.name.clone(), id.clone(), address.clone(), weight.to_string(), meta.join(" ")]
    };
    let all = services
        .iter()
        .flat_map(|service| service.endpoints.iter().map(move |endpoint| row(service, endpoint)));
    let headings = ["SERVICE", "ID", "ADDRESS", "WEIGHT", "METADATA"];
    cut(&headings, all.collect())
}

fn nothing(report: &Report) -> String {
    let rows = report.prefixes.iter().flat_map(|found| {
        found.nothing.iter().map(|nothing| {
            let keys = nothing.keys.to_string();
            vec![found.prefix.clone(), keys, nothing.reason.clone(), nothing.example.clone()]
        })
    });
    cut(&["PREFIX", "KEYS", "REASON", "SUCH AS"], rows.collect())
}

fn remarks(report: &Report) -> String {
    let rows = report.remarks.iter().flat_map(|found| {
        found.remarks.iter().map(|remark| vec![found.key.clone(), remark.clone()])
    });
    cut(&["KEY", "REMARK"], rows.collect())
}

fn rejected(report: &Report) -> String {
    let row = |found: &super::report::RejectedKey| {
        let nearest = found.formats.first().map_or("none", |name| name);
        vec![found.key.clone(), nearest.to_owned(), found.reason.clone()]
    };
    cut(&["KEY", "READ BY", "REASON"], report.rejected.iter().map(row).collect())
}

fn cut(headings: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let left_out = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    let shown = table(headings, rows.into_iter());
    if left_out == 0 { shown } else { format!("{shown}\n and {left_out} more: --json has all") }
}
