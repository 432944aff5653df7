//! `lookaside services`: what is registered, as the balancer sees it.

use super::admin_client::{self, AdminClient, AdminError};
use crate::admin::json;

/// Lists the services that have a backend.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Whom to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// # Errors
/// When there is no answer to show.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let answer = client.ask::<json::Services>("/api/v1/services")?;
    admin_client::print(&if args.admin.json { answer.text } else { shown(&answer.value) })?;
    Ok(())
}

fn shown(services: &json::Services) -> String {
    if services.services.is_empty() {
        return "no service has a backend yet".to_owned();
    }
    let row = |service: &json::Service| {
        let json::Service { name, dns_name, endpoints, held, revision, clients, calls, .. } =
            service;
        let (mut endpoints, clients) = (endpoints.to_string(), clients.to_string());
        if *held > 0 {
            endpoints.push_str(&format!(" ({held} held)"));
        }
        let calls = calls.finished.to_string();
        vec![name.clone(), endpoints, clients, calls, revision.to_string(), dns_name.clone()]
    };
    let headings = ["SERVICE", "ENDPOINTS", "CLIENTS", "CALLS", "REVISION", "DNS NAME"];
    admin_client::table(&headings, services.services.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_service() {
        let service = json::Service {
            name: "dev/game".to_owned(),
            dns_name: "game.dev.lookaside.internal".to_owned(),
            endpoints: 3,
            held: 1,
            guarded: false,
            revision: 42,
            clients: 2,
            calls: json::Calls { finished: 1_000, ..json::Calls::default() },
        };
        let shown = shown(&json::Services { total: 1, services: vec![service] });
        assert_eq!(
            shown,
            " SERVICE   ENDPOINTS   CLIENTS  CALLS  REVISION  DNS NAME\n \
             dev/game  3 (1 held)  2        1000   42        game.dev.lookaside.internal"
        );
    }

    #[test]
    fn nothing_registered_is_said() {
        let none = json::Services { total: 0, services: Vec::new() };
        assert_eq!(shown(&none), "no service has a backend yet");
    }
}
