//! `lookaside clients show`: prints what one client was sent last.
//!
//! In: the id of a stream, or a client's address. Out: of grpclb, the list by backend; of xDS,
//! the state of each type of resource, and the resources of each name.

use std::collections::BTreeMap;

use crate::admin::json::{self, ClientSent};
use crate::cli::admin_client::{self, AdminClient, AdminError, age, clean, encode, table};

/// The stream, and where to ask. (Its fields are those of the other subcommands.)
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The stream, as `lookaside clients` names it (xds-7), or the client's IP:PORT if it has one
    /// stream
    pub stream: String,
    /// Show only this name of an xDS stream, as the client asked for it
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Prints what the client was sent.
pub(super) fn run(args: &Args) -> Result<(), AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let mut path = format!("/api/v1/clients/{}", encode(&args.stream));
    if let Some(service) = &args.service {
        path += &format!("?service={}", encode(service));
    }
    let answer = client.get::<ClientSent>(&path)?;
    match args.admin.json {
        true => admin_client::print_json(&answer.text)?,
        false => admin_client::print(&shown(&answer.value))?,
    };
    let (total, some) = (answer.value.total, answer.value.clients.len());
    if some < total {
        admin_client::say(&format!("{some} of {total} names are shown: --service chooses one"));
    }
    Ok(())
}

/// Returns the answer as text.
fn shown(sent: &ClientSent) -> String {
    let mut lines = Vec::new();
    if let Some(client) = sent.clients.first() {
        let json::Client { id, peer, protocol, user_agent, .. } = client;
        let open = age(client.open_seconds);
        lines.push(clean(&format!("{id} {peer} {protocol} {user_agent}, open for {open}")));
    }
    if sent.types.is_empty() {
        lines.extend(sent.clients.iter().map(|client| meaning(&client.name, Some(client))));
        lines.push(list(sent.list.as_deref()));
        return lines.join("\n");
    }
    let row = |one: &json::SentType| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let words = one.refusal.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        let [version, nonce, accepted] = [&one.version, &one.nonce, &one.accepted].map(text);
        vec![one.kind.clone(), version, nonce, accepted, format!("{}{words}", one.state)]
    };
    let headings = ["TYPE", "VERSION", "NONCE", "ACCEPTED", "STATE"];
    lines.push(table(&headings, sent.types.iter().map(row)));
    for name in &sent.names {
        let client = sent.clients.iter().find(|client| client.name == name.name);
        lines.push(format!("\n{}", meaning(&name.name, client)));
        lines.push(resources(name));
    }
    lines.join("\n")
}

fn meaning(name: &str, client: Option<&json::Client>) -> String {
    let service = client.and_then(|client| client.service.as_deref());
    clean(&format!("{name} -> {}", service.unwrap_or("(waits)")))
}

/// Returns the backends of a list, in the order of their first entries.
fn list(entries: Option<&[json::SentEntry]>) -> String {
    const GONE: &str = "the list is no longer in memory: a newer one is on its way";
    let Some(entries) = entries else { return GONE.to_owned() };
    let mut counts: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        counts.entry((&entry.address, &entry.token)).or_insert((at, 0)).1 += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|(_, (first, _))| *first);
    let row = |((address, token), (_, count)): ((&Option<String>, &String), (usize, usize))| {
        let address = address.clone().unwrap_or_else(|| "(calls are dropped)".to_owned());
        vec![address, count.to_string(), token.clone()]
    };
    table(&["BACKEND", "ENTRIES", "TOKEN"], counts.into_iter().map(row))
}

fn resources(name: &json::SentName) -> String {
    let resource = |kind: &str, resource: &Option<json::SentResource>| {
        let json::SentResource { version, as_sent, says, .. } = resource.as_ref()?;
        let says = says.iter().map(|part| format!("{}={}", part.key, part.value));
        let new = if *as_sent { "" } else { "  (a newer one may be on its way)" };
        let says = says.collect::<Vec<_>>().join("  ");
        Some(clean(&format!("  {kind}  {version}  {says}{new}")))
    };
    let mut lines: Vec<_> = [("listener ", &name.listener), ("cluster  ", &name.cluster)]
        .into_iter()
        .filter_map(|(kind, one)| resource(kind, one))
        .collect();
    if let Some(endpoints) = &name.endpoints {
        let drops = endpoints.drops.iter();
        let drops = drops.map(|one| format!("  drops {} % ({})", one.percent, one.category));
        let (version, told, drops) =
            (&endpoints.version, &endpoints.told, drops.collect::<String>());
        lines.push(clean(&format!("  endpoints  {version}  {told}{drops}")));
        lines.push(match &endpoints.localities {
            Some(localities) if localities.is_empty() => "    no backends".to_owned(),
            Some(localities) => homes(localities),
            None => "    no longer in memory: newer ones are on their way".to_owned(),
        });
    }
    lines.join("\n")
}

fn homes(localities: &[json::SentLocality]) -> String {
    let row = |one: &json::SentLocality| {
        vec![String::new(), one.name.clone(), one.weight.to_string(), one.backends.join(" ")]
    };
    table(&["  ", "LOCALITY", "WEIGHT", "BACKENDS"], localities.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shown_by_backend_and_with_its_drops() {
        let entry = |address: Option<&str>| json::SentEntry {
            address: address.map(str::to_owned),
            token: "t".to_owned(),
        };
        let entries = ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"];
        let mut entries: Vec<_> = entries.iter().map(|one| entry(Some(one))).collect();
        entries.push(entry(None));
        let text = list(Some(&entries));
        let rows: Vec<Vec<_>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["10.0.0.2:80", "2", "t"]);
        assert_eq!(rows[1], ["10.0.0.1:80", "1", "t"]);
        assert_eq!(rows[2][..3], ["(calls", "are", "dropped)"]);
        assert!(list(None).contains("a newer one is on its way"));
    }
}
