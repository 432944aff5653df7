//! `lookaside explain`: shows why a backend is or is not in a client's list.
//!
//! In: a service, and optionally a client and a backend. Out: for one backend, the result
//! of each pass, from its key in etcd to its entries in the list; else one line for each
//! backend. The exit code is 3 if the given backend is not in the list.

use super::admin_client::{self, AdminClient, AdminError, age, clean, encode};
use crate::admin::json::{self, Explained, Explanation};

/// Shows why a backend is in the list of a service's clients, or is not.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service, named as clients name it
    pub service: String,
    /// Explain the list of this client: its IP, or IP:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<String>,
    /// Explain only this backend: its name, its IP, or IP:PORT
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// The exit code if the given backend is not in the list.
pub const NOT_LISTED: u8 = 3;

/// Prints the explanation. Returns `false` if a given backend is not in the list, else
/// `true`.
///
/// # Errors
/// Returns an error if the balancer gives no answer or the answer cannot be printed.
pub fn run(args: &Args) -> Result<bool, AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let mut path = format!("/api/v1/explain?service={}", encode(&args.service));
    for (name, value) in [("client", &args.client), ("backend", &args.backend)] {
        if let Some(value) = value {
            path += &format!("&{name}={}", encode(value));
        }
    }
    let answer = client.get::<Explanation>(&path)?;
    match args.admin.json {
        true => admin_client::print_json(&answer.text)?,
        false => admin_client::print(&shown(&answer.value, args.backend.is_some()))?,
    };
    // Without a backend, no answer can be "not listed".
    Ok(args.backend.is_none() || answer.value.listed)
}

fn shown(explanation: &Explanation, one: bool) -> String {
    let Explanation { name, service, absent, revision, silent_seconds, .. } = explanation;
    let read = silent_seconds.map_or_else(|| "never".to_owned(), |seconds| age(seconds) + " ago");
    let meaning = match (service, absent) {
        (Some(service), _) => format!("{service} (revision {revision}, registry answered {read})"),
        (None, why) => why.clone().unwrap_or_default(),
    };
    let mut lines = vec![format!("{name} -> {meaning}")];
    for selector in &explanation.selectors {
        lines.push(format!("  the name selects {}={}", selector.key, selector.value));
    }
    lines.extend(explanation.settings.iter().filter_map(setting));
    lines.extend(explanation.marks.iter().map(mark));
    lines.extend(explanation.clients.iter().map(client));
    lines.extend(explanation.no_client.clone());
    let mut text = clean_lines(&lines);
    if one {
        for backend in &explanation.backends {
            text += "\n";
            text += &clean_lines(&details(backend));
        }
    } else if !explanation.backends.is_empty() {
        text += "\n";
        text += &admin_client::table(
            &["BACKEND", "ADDRESS", "LISTED", "SHARE", "DUE", "WHY"],
            explanation.backends.iter().map(row),
        );
    }
    text
}

/// Returns a line for a setting that a document sets for the service.
fn setting((key, setting): (&String, &json::InForce)) -> Option<String> {
    let json::InForce { value, source, pattern } = setting;
    let pattern = pattern.as_ref()?;
    Some(format!("  setting {key} = {value}, by {pattern} in {source}"))
}

/// Returns a line for a mark about the clients.
fn mark(mark: &json::Mark) -> String {
    let what = match mark.percent {
        Some(percent) => format!("these clients drop {percent} % of their calls"),
        None => "these clients use the addresses from DNS, not this list".to_owned(),
    };
    let by = if mark.by.is_empty() { String::new() } else { format!(", by {}", mark.by) };
    let until = mark.until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
    let why = if mark.why.is_empty() { String::new() } else { format!(": {}", mark.why) };
    format!("  {what}{by}{until}{why}")
}

fn client(client: &json::Client) -> String {
    let json::Client { peer, user_agent, name, told, entries, revision, list_age_seconds, .. } =
        client;
    let told = match told.as_str() {
        "list" => format!("a list of {entries}"),
        other => other.to_owned(),
    };
    let sent = age(*list_age_seconds);
    format!(
        "client {peer} ({user_agent}) asks for {name}: {told} of revision {revision}, sent {sent} ago"
    )
}

/// Returns a line for each pass and marks the first that the backend does not pass.
fn details(backend: &Explained) -> Vec<String> {
    let address = backend.address.as_deref().unwrap_or("without address");
    let mut lines = vec![format!("backend {} {address}", backend.id)];
    let first_no = backend.passes.iter().position(|pass| !pass.kept);
    for (at, pass) in backend.passes.iter().enumerate() {
        let mark = if Some(at) == first_no { "   <- why it is not in the list" } else { "" };
        let kept = if pass.kept { "yes" } else { "NO" };
        lines.push(format!("  {:<11} {kept:<4} {}{mark}", pass.pass, pass.why));
    }
    let listed = if backend.listed { "yes" } else { "NO" };
    let share = match backend.listed {
        true => format!(
            "{} of {} entries: {} of the calls, {} are due",
            backend.turns,
            backend.cycle,
            percent(backend.share),
            percent(backend.due)
        ),
        false => String::new(),
    };
    lines.push(format!("  {:<11} {listed:<4} {share}", "listed").trim_end().to_owned());
    lines
}

fn row(backend: &Explained) -> Vec<String> {
    let no = backend.passes.iter().find(|pass| !pass.kept);
    let held = backend.held.as_ref().map(|held| format!("held: {}", held.why));
    vec![
        backend.id.clone(),
        backend.address.clone().unwrap_or_default(),
        if backend.listed { "yes" } else { "NO" }.to_owned(),
        percent(backend.share),
        percent(backend.due),
        no.map(|pass| format!("{}: {}", pass.pass, pass.why)).or(held).unwrap_or_default(),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Joins lines. Escapes control characters, so text from elsewhere stays within its line.
fn clean_lines(lines: &[String]) -> String {
    lines.iter().map(|line| clean(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::json::Pass;

    fn explanation(passes: &[(&str, bool, &str)], listed: bool) -> Explanation {
        let pass = |&(pass, kept, why): &(&str, bool, &str)| Pass {
            pass: pass.to_owned(),
            kept,
            why: why.to_owned(),
        };
        let (value, source) = ("30".to_owned(), "etcd".to_owned());
        let set = json::InForce { value, source, pattern: Some("dev/*".to_owned()) };
        Explanation {
            name: "hello".to_owned(),
            service: Some("dev/hello".to_owned()),
            absent: None,
            selectors: Vec::new(),
            zone: None,
            settings: [("guard".to_owned(), set)].into(),
            revision: 42,
            silent_seconds: Some(0.4),
            clients: Vec::new(),
            no_client: None,
            marks: Vec::new(),
            listed,
            backends: vec![Explained {
                id: "i-9".to_owned(),
                address: Some("10.0.0.9:50051".to_owned()),
                listed,
                passes: passes.iter().map(pass).collect(),
                held: None,
                turns: if listed { 2 } else { 0 },
                cycle: 64,
                due: 0.03,
                share: 0.031_25,
            }],
        }
    }

    #[test]
    fn the_first_no_is_marked() {
        let passes = [
            ("registered", true, "by /a/b\u{1b}, with a lease"),
            ("weight", false, "it is registered with weight 0: no traffic"),
            ("selected", false, "the name selects zone=b, and it has no such metadata"),
        ];
        assert_eq!(
            shown(&explanation(&passes, false), true),
            "hello -> dev/hello (revision 42, registry answered 0.4s ago)\n\
             \x20 setting guard = 30, by dev/* in etcd\n\
             backend i-9 10.0.0.9:50051\n\
             \x20 registered  yes  by /a/b\\u{1b}, with a lease\n\
             \x20 weight      NO   it is registered with weight 0: no traffic   <- why it is not in the list\n\
             \x20 selected    NO   the name selects zone=b, and it has no such metadata\n\
             \x20 listed      NO"
        );
    }

    #[test]
    fn a_share_is_told_beside_what_is_due() {
        let shown = shown(&explanation(&[("weight", true, "weight 3")], true), true);
        let end = "  listed      yes  2 of 64 entries: 3.12 % of the calls, 3.00 % are due";
        assert!(shown.ends_with(end), "{shown}");
    }

    #[test]
    fn all_are_a_table() {
        let shown = shown(&explanation(&[("weight", false, "weight 0")], false), false);
        let last = shown.lines().last().unwrap().split("  ").map(str::trim);
        let cells: Vec<_> = last.filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["i-9", "10.0.0.9:50051", "NO", "3.12 %", "3.00 %", "weight: weight 0"]);
    }
}
