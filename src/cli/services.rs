//! `lookaside services`: lists the services as the balancer sees them.
//!
//! In: an admin address. Out: a table, and on standard error what is wrong.

use super::admin_client::{self, AdminClient, AdminError, age};
use crate::admin::json;

/// Lists the services that have a backend.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Prints the services.
///
/// # Errors
/// Returns an error if the balancer gives no answer or the answer cannot be printed.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let answer = client.get::<json::Services>("/api/v1/services")?;
    if args.admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    match shown(&answer.value) {
        Some(table) => drop(admin_client::print(&table)?),
        None => admin_client::say("no service has a backend yet"),
    }
    // The table alone does not show that the registry is stale.
    let registry = client.get::<json::Registry>("/api/v1/registry")?.value;
    registry.notices().iter().for_each(|notice| admin_client::say(notice));
    for json::Unknown { name, clients, since_seconds } in answer.value.unknown {
        let since = age(since_seconds);
        admin_client::say(&format!(
            "{clients} streams ask for {name:?}, which has been unknown for {since}"
        ));
    }
    Ok(())
}

/// Returns a table with a line for each service, or `None` if there is no service.
fn shown(services: &json::Services) -> Option<String> {
    if services.services.is_empty() {
        return None;
    }
    let row = |service: &json::Service| {
        let json::Service { name, dns_name, endpoints, revision, clients, calls, .. } = service;
        let json::ByProtocol { grpclb, xds } = service.clients_by_protocol;
        vec![
            name.clone(),
            endpoints.to_string(),
            clients.to_string(),
            grpclb.to_string(),
            xds.to_string(),
            calls.finished.to_string(),
            revision.to_string(),
            dns_name.clone(),
            state(service),
        ]
    };
    let headings = [
        "SERVICE",
        "ENDPOINTS",
        "CLIENTS",
        "GRPCLB",
        "XDS",
        "CALLS",
        "REVISION",
        "DNS NAME",
        "STATE",
    ];
    Some(admin_client::table(&headings, services.services.iter().map(row)))
}

/// Returns the state of a service with the numbers behind it.
fn state(service: &json::Service) -> String {
    let json::Service {
        endpoints,
        held,
        down,
        unresolved,
        drained,
        shed,
        fallback,
        state,
        since_seconds,
        ..
    } = service;
    let json::Service { unhealthy, panic, overload_shed, load_silent, .. } = service;
    let mut text = state.as_str().to_owned();
    if let (json::State::Empty, Some(seconds)) = (state, since_seconds) {
        text.push_str(&format!(" for {}", age(*seconds)));
    }
    let mut parts = Vec::new();
    if *held > 0 {
        let since = since_seconds.map(|seconds| format!(" for {}", age(seconds)));
        parts.push(format!("{held} of {endpoints} held{}", since.unwrap_or_default()));
    }
    if *down > 0 {
        parts.push(format!("{down} down"));
    }
    if *shed > 0 {
        let why = if overload_shed == shed { ", overload" } else { "" };
        parts.push(format!("{shed} % of calls shed{why}"));
    }
    if *load_silent > 0 {
        parts.push(format!("{load_silent} of {endpoints} do not report their load"));
    }
    if *fallback {
        parts.push("clients use DNS".to_owned());
    }
    if *unhealthy > 0 {
        let panic = if *panic { ", panic" } else { "" };
        parts.push(format!("{unhealthy} of {endpoints} unhealthy{panic}"));
    }
    if *drained > 0 {
        parts.push(format!("{drained} of {endpoints} drained"));
    }
    if *unresolved > 0 {
        parts.push(format!("{unresolved} unresolved"));
    }
    if !parts.is_empty() {
        text.push_str(&format!(" ({})", parts.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_service_with_its_state() {
        let held = json::Service {
            name: "dev/game".to_owned(),
            dns_name: "game.dev.lookaside.internal".to_owned(),
            endpoints: 3,
            held: 1,
            guarded: false,
            down: 2,
            unresolved: 0,
            drained: 0,
            shed: 0,
            overload_shed: 0,
            load_silent: 0,
            fallback: false,
            unhealthy: 0,
            panic: false,
            state: json::State::Held,
            since_seconds: Some(61.0),
            revision: 42,
            clients: 2,
            clients_by_protocol: json::ByProtocol { grpclb: 1, xds: 1 },
            calls: json::Calls { finished: 1_000, ..json::Calls::default() },
        };
        let empty = json::Service {
            endpoints: 0,
            held: 0,
            down: 0,
            revision: 0,
            state: json::State::Empty,
            ..held.clone()
        };
        let well = json::Service { state: json::State::Ok, since_seconds: None, ..empty.clone() };
        let services = vec![held, empty, well];
        let services =
            json::Services { total: 3, services, ..serde_json::from_str(NOTHING).unwrap() };
        let states: Vec<_> = services.services.iter().map(state).collect();
        assert_eq!(states, ["held (1 of 3 held for 1m 1s, 2 down)", "empty for 1m 1s", "ok"]);
        let shown = shown(&services).unwrap();
        assert_eq!(
            shown.lines().nth(1).unwrap(),
            " dev/game  3          2        1       1    1000   42        game.dev.lookaside.internal  \
             held (1 of 3 held for 1m 1s, 2 down)"
        );
    }

    const NOTHING: &str = r#"{"total": 0, "services": []}"#;

    #[test]
    fn nothing_registered_is_no_data() {
        assert_eq!(shown(&serde_json::from_str(NOTHING).unwrap()), None);
    }
}
