//! `lookaside clients`: lists the clients, their lists and the age of these.
//!
//! In: an admin address. Out: a table with a line for each stream.

use super::admin_client::{self, AdminClient, AdminError, age};
use crate::admin::json;

/// Lists the open streams of clients.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
    /// List only clients of this service, named as clients name it
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Prints the clients.
///
/// # Errors
/// Returns an error if the balancer gives no answer or the answer cannot be printed.
pub fn run(args: &Args) -> Result<(), AdminError> {
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
        let told = match (client.told.as_str(), &client.xds) {
            (_, Some(json::Xds { refusal: Some(words), .. })) => format!("refused: {words}"),
            ("list", _) => format!("list of {}", client.entries),
            (other, _) => other.to_owned(),
        };
        vec![
            client.peer.clone(),
            client.name.clone(),
            client.service.clone().unwrap_or_else(|| "(waits)".to_owned()),
            told,
            age(client.list_age_seconds),
            age(client.open_seconds),
            client.revision.to_string(),
            client.calls.finished.to_string(),
            client.protocol.clone(),
            client.user_agent.clone(),
        ]
    };
    let headings = [
        "PEER",
        "NAME",
        "SERVICE",
        "TOLD",
        "AGO",
        "OPEN",
        "REVISION",
        "CALLS",
        "PROTOCOL",
        "USER AGENT",
    ];
    Some(admin_client::table(&headings, clients.clients.iter().map(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_stream() {
        let holds = json::Client {
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
        let shown = shown(&json::Clients { total: 2, clients: vec![holds, waits] }).unwrap();
        let lines: Vec<Vec<_>> =
            shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| {
            lines[line].iter().copied().filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(lines.len(), 3);
        let [agent, open] = ["grpc-go/1.85.0\\u{a}", "1m 1s"];
        assert_eq!(
            cells(1),
            [
                "10.0.0.9:4000",
                "hello",
                "hello",
                "list of 3",
                "0.2s",
                open,
                "42",
                "7",
                "grpclb",
                agent
            ]
        );
        assert_eq!(cells(2)[2..4], ["(waits)", "empty"]);
    }

    #[test]
    fn nobody_connected_is_no_data() {
        let none = json::Clients { total: 0, clients: Vec::new() };
        assert_eq!(shown(&none), None);
    }
}
