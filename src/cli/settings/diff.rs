//! `lookaside settings diff`: prints what a document would change at a running balancer.
//!
//! In: a document, and the balancer's admin address. Out: a table of settings and a table of
//! lists on standard output, and the totals on standard error.

use super::{from, warn};
use crate::admin::json::{self, FromTo};
use crate::cli::admin_client::{self, AdminArgs, AdminClient, AdminError, Fetched};

/// What the tables show in place of a value that is not there.
const NONE: &str = "-";

/// Prints what a document would change.
pub(super) fn run(text: &str, admin: &AdminArgs) -> Result<(), AdminError> {
    let answer = ask(text, admin)?;
    if admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::Diff { revision, total, zones, changes, unmatched, lists } = answer.value;
    warn(&unmatched);
    let shown = changes.len();
    let rows = changes.into_iter().map(|change| {
        let json::Changed { service, key, before, after } = change;
        vec![service, key, before.value.clone(), after.value.clone(), from(&before), from(&after)]
    });
    if shown > 0 {
        let headings = ["SERVICE", "KEY", "NOW", "THEN", "NOW FROM", "THEN FROM"];
        admin_client::print(&admin_client::table(&headings, rows))?;
    }
    if shown < total {
        admin_client::say(&format!("… and {} more settings", total - shown));
    }
    if zones > 0 {
        admin_client::say(&format!("{zones} networks or aliases of zones would change"));
    }
    match &lists {
        Some(lists) => print_lists(lists)?,
        None => admin_client::say("the balancer is of a former version, and compares no lists"),
    }
    let compared = match revision {
        Some(revision) => format!("revision {revision} in etcd"),
        None => "no document in etcd".to_owned(),
    };
    admin_client::say(&format!("{total} settings would change, compared with {compared}"));
    if let Some(lists) = lists {
        let json::ListChanges { services, changed, .. } = lists;
        admin_client::say(&format!("the lists of {changed} of {services} services would change"));
    }
    Ok(())
}

/// Asks a balancer what a document would change.
pub(super) fn ask(text: &str, admin: &AdminArgs) -> Result<Fetched<json::Diff>, AdminError> {
    AdminClient::new(admin)?.post_with_body("/api/v1/settings/diff", text)
}

fn print_lists(lists: &json::ListChanges) -> Result<(), AdminError> {
    if !lists.first.is_empty() {
        let headings = ["SERVICE", "CLIENTS", "LIST", "BACKEND", "NOW", "THEN"];
        let rows = lists.first.iter().flat_map(service_rows);
        admin_client::print(&admin_client::table(&headings, rows))?;
    }
    let more = lists.services.saturating_sub(lists.not_compared + lists.first.len());
    if more > 0 {
        admin_client::say(&format!("… and {more} more services"));
    }
    if lists.not_compared > 0 {
        let count = lists.not_compared;
        admin_client::say(&format!("{count} more services were not compared: they are too many"));
    }
    if lists.registrants {
        admin_client::say(
            "rules of [registrants] would change: the backends that they add or leave out are not \
             shown",
        );
    }
    Ok(())
}

/// Returns the rows of one service: a row for each change, or one that says that there is none.
fn service_rows(one: &json::ServiceLists) -> Vec<Vec<String>> {
    let mut rows: Vec<[String; 5]> = one.lists.iter().flat_map(list_rows).collect();
    let note = |what: &str, text: String| {
        [String::new(), what.to_owned(), String::new(), String::new(), text]
    };
    if one.denied > 0 {
        rows.push(note("denied", format!("{} clients", one.denied)));
    }
    if rows.is_empty() {
        rows.push(note("no list changes", String::new()));
    }
    if one.more_classes > 0 {
        rows.push(note("not compared", format!("{} more classes of clients", one.more_classes)));
    }
    rows.extend(one.unknown.iter().map(|why| note("unknown", why.clone())));
    let row = |row: [String; 5]| std::iter::once(one.service.clone()).chain(row).collect();
    rows.into_iter().map(row).collect()
}

fn list_rows(list: &json::ListChange) -> Vec<[String; 5]> {
    let class = format!("{} ({})", list.class, list.clients);
    let row = |what: &str, backend: &str, before: String, after: String| {
        [class.clone(), what.to_owned(), backend.to_owned(), before, after]
    };
    let mut rows = Vec::new();
    for json::ShareChange { backend, before, after } in &list.shares {
        let what = match (before, after) {
            (None, _) => "joins",
            (_, None) => "leaves",
            _ => "share",
        };
        rows.push(row(what, backend, share(*before), share(*after)));
    }
    let more = (list.joins + list.leaves + list.moves).saturating_sub(list.shares.len());
    if more > 0 {
        let json::ListChange { joins, leaves, moves, .. } = list;
        let all = format!("in all {joins} join, {leaves} leave, {moves} get another share");
        rows.push(row(&format!("… {more} more"), "", String::new(), all));
    }
    if let Some(FromTo { before, after }) = list.drops {
        rows.push(row("drops", "", format!("{before} %"), format!("{after} %")));
    }
    if let Some(FromTo { before, after }) = &list.when_empty {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| NONE.to_owned());
        rows.push(row("when-empty", "", shown(before), shown(after)));
    }
    rows
}

/// Returns a share in percent, with three digits.
fn share(share: Option<f64>) -> String {
    let Some(percent) = share.map(|share| 100.0 * share) else { return NONE.to_owned() };
    let decimals = match percent {
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 5,
    };
    let text = format!("{percent:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_three_digits() {
        let shown =
            [1.0, 0.5, 1.0 / 3.0, 0.012_345, 0.001_25, 0.000_05].map(|one| share(Some(one)));
        assert_eq!(shown, ["100 %", "50 %", "33.3 %", "1.23 %", "0.125 %", "0.005 %"]);
        assert_eq!(share(None), NONE);
    }
}
