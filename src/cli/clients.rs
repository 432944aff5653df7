//! `lookaside clients`: lists the clients, their lists and the age of these; `clients show`:
//! prints what one of them was sent last.
//!
//! In: an admin address. Out: a table with a line for each stream, or what a stream was sent.

use super::admin_client::{self, AdminClient, AdminError, age};
use crate::admin::json;

mod show;

/// Lists the open streams of clients.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to show of one stream.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
    /// List only clients of this service, named as clients name it
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// What `clients` does instead of listing the streams.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Shows what a client was sent last: its list, or its xDS resources
    Show(show::Args),
}

/// Prints the clients, or what one was sent.
///
/// # Errors
/// Returns an error if the balancer gives no answer or the answer cannot be printed.
pub fn run(args: &Args) -> Result<(), AdminError> {
    if let Some(Command::Show(args)) = &args.command {
        return show::run(args);
    }
    let client = AdminClient::new(&args.admin)?;
    let path = match &args.service {
        Some(service) => format!("/api/v1/clients?service={}", admin_client::encode(service)),
        None => "/api/v1/clients".to_owned(),
    };
    let answer = client.get::<json::Clients>(&path)?;
    match (args.admin.json, shown(&answer.value)) {
        (true, _) => drop(admin_client::print_json(&answer.text)?),
        (false, Some(table)) => drop(admin_client::print(&table)?),
        (false, None) => admin_client::say("no client is connected"),
    }
    Ok(())
}

/// Returns a table with a line for each stream, or `None` if there is no stream.
fn shown(clients: &json::Clients) -> Option<String> {
    if clients.clients.is_empty() {
        return None;
    }
    let row = |client: &json::Client| {
        // grpclb has no versions: a client acknowledges nothing.
        let xds = client.xds.as_ref();
        let version = |version: Option<&String>| version.cloned().unwrap_or_else(|| "-".to_owned());
        vec![
            client.id.clone(),
            client.peer.clone(),
            client.name.clone(),
            client.service.clone().unwrap_or_else(|| "(waits)".to_owned()),
            told(client),
            version(xds.and_then(|xds| xds.sent.as_ref())),
            version(xds.and_then(|xds| xds.accepted.as_ref())),
            age(client.list_age_seconds),
            age(client.open_seconds),
            client.revision.to_string(),
            client.calls.finished.to_string(),
            client.protocol.clone(),
            client.user_agent.clone(),
        ]
    };
    let headings = [
        "STREAM",
        "PEER",
        "NAME",
        "SERVICE",
        "TOLD",
        "SENT",
        "ACCEPTED",
        "AGO",
        "OPEN",
        "REVISION",
        "CALLS",
        "PROTOCOL",
        "USER AGENT",
    ];
    Some(admin_client::table(&headings, clients.clients.iter().map(row)))
}

/// Returns the newest response to a client, or its words about one that it refused.
fn told(client: &json::Client) -> String {
    match (client.told.as_str(), &client.xds) {
        (_, Some(json::Xds { refusal: Some(words), .. })) => format!("refused: {words}"),
        ("list", _) => format!("list of {}", client.entries),
        (other, _) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_stream() {
        let holds = json::Client {
            id: "grpclb-4".to_owned(),
            peer: "10.0.0.9:4000".to_owned(),
            certificate: Vec::new(),
            user_agent: "grpc-go/1.85.0\n".to_owned(),
            protocol: "grpclb".to_owned(),
            kind: "go".to_owned(),
            name: "hello".to_owned(),
            zone: None,
            subset: None,
            service: Some("hello".to_owned()),
            told: "list".to_owned(),
            entries: 3,
            revision: 42,
            list_age_seconds: 0.25,
            open_seconds: 61.0,
            calls: json::Calls { finished: 7, ..json::Calls::default() },
            xds: None,
        };
        let waits = json::Client { service: None, told: "empty".to_owned(), ..holds.clone() };
        let xds = json::Xds {
            sent: Some("00000000000000a2".to_owned()),
            accepted: Some("00000000000000a1".to_owned()),
            refusal: Some("do not like it".to_owned()),
        };
        let refuses = json::Client { protocol: "xds".to_owned(), xds: Some(xds), ..holds.clone() };
        let clients = vec![holds, waits, refuses];
        let shown = shown(&json::Clients { total: 3, clients }).unwrap();
        let lines: Vec<Vec<_>> =
            shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| {
            lines[line].iter().copied().filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(lines.len(), 4);
        let [agent, open] = ["grpc-go/1.85.0\\u{a}", "1m 1s"];
        assert_eq!(
            cells(1),
            [
                "grpclb-4",
                "10.0.0.9:4000",
                "hello",
                "hello",
                "list of 3",
                "-",
                "-",
                "0.2s",
                open,
                "42",
                "7",
                "grpclb",
                agent
            ]
        );
        assert_eq!(cells(2)[3..5], ["(waits)", "empty"]);
        let versions = ["00000000000000a2", "00000000000000a1"];
        assert_eq!(cells(3)[4..7], ["refused: do not like it", versions[0], versions[1]]);
    }

    #[test]
    fn nobody_connected_is_no_data() {
        let none = json::Clients { total: 0, clients: Vec::new() };
        assert_eq!(shown(&none), None);
    }
}
