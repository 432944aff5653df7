//! `lookaside watch SERVICE`: prints each change of the service's listed backends.
//!
//! In: the service's endpoints, asked for once a second. Out: `+` and `-` lines. It ends
//! with Ctrl-C or when the reader of its output is gone. While the balancer does not
//! answer, it waits and prints no backend as removed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::admin_client::{self, AdminClient, AdminError, clean};
use crate::admin::json::{Endpoint, ServiceDetail};
use crate::model::text;

/// Prints each change of a service's backends until Ctrl-C.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
    /// The service, named as clients name it
    pub service: String,
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Change<'a> {
    change: &'static str,
    #[serde(flatten)]
    endpoint: &'a Endpoint,
}

/// Endpoints by id and address.
type Backends = BTreeMap<(String, String), Endpoint>;

const EVERY: Duration = Duration::from_secs(1);
const NOT_FOUND: u16 = 404;

/// Prints changes until the reader of the output closes it.
///
/// # Errors
/// Returns an error if the address or the name is wrong, or if the output cannot be written.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let path = format!("/api/v1/services/{}", admin_client::encode(&args.service));
    let mut known = Backends::new();
    let mut trouble = None;
    loop {
        match client.get::<ServiceDetail>(&path).map(|answer| answer.value) {
            Ok(detail) => {
                say(&mut trouble, None);
                if !update(&mut known, listed_endpoints(detail), args.admin.json)? {
                    return Ok(());
                }
            }
            Err(AdminError::Refused { status: NOT_FOUND, error }) => {
                if !update(&mut known, Backends::new(), args.admin.json)? {
                    return Ok(());
                }
                say(&mut trouble, Some(error));
            }
            Err(error) if error.exit_code() != 1 => return Err(error),
            Err(error) => say(&mut trouble, Some(error.to_string())),
        }
        std::thread::sleep(EVERY);
    }
}

/// Returns the endpoints that are in the lists of the service's clients.
fn listed_endpoints(detail: ServiceDetail) -> Backends {
    let listed = detail.endpoints.into_iter().filter(|endpoint| endpoint.turns > 0);
    listed.map(|endpoint| ((endpoint.id.clone(), endpoint.address.clone()), endpoint)).collect()
}

/// Prints the differences. Returns `false` if the reader of the output is gone.
fn update(known: &mut Backends, new: Backends, json: bool) -> Result<bool, AdminError> {
    let lines = differences(known, &new, json);
    *known = new;
    if lines.is_empty() { Ok(true) } else { admin_client::print(&lines.join("\n")) }
}

fn differences(old: &Backends, new: &Backends, json: bool) -> Vec<String> {
    let gone = old.iter().filter(|(key, endpoint)| !same(new.get(*key), endpoint));
    let come = new.iter().filter(|(key, endpoint)| !same(old.get(*key), endpoint));
    let gone = gone.map(|(_, endpoint)| Change { change: "-", endpoint });
    let come = come.map(|(_, endpoint)| Change { change: "+", endpoint });
    gone.chain(come).map(|change| line(&change, json)).collect()
}

/// Returns whether weight and metadata are equal. The number of entries depends on other
/// backends' weights too, so it does not count.
fn same(other: Option<&Endpoint>, one: &Endpoint) -> bool {
    other.is_some_and(|other| (other.weight, &other.meta) == (one.weight, &one.meta))
}

fn line(change: &Change<'_>, json: bool) -> String {
    if json {
        return text::shown_json(&serde_json::to_string(change).unwrap_or_default());
    }
    let Change { change, endpoint } = change;
    let Endpoint { id, address, weight, meta, .. } = endpoint;
    let meta: String = meta.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    clean(&format!("{change} {address} id={id} weight={weight}{meta}"))
}

/// Writes a problem to standard error, once for each change of it.
fn say(trouble: &mut Option<String>, now: Option<String>) {
    if *trouble == now {
        return;
    }
    match &now {
        Some(now) => eprintln!("{}", clean(now)),
        None => eprintln!("the balancer answers again"),
    }
    *trouble = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(all: &[(&str, u32)]) -> Backends {
        let endpoint = |&(id, weight): &(&str, u32)| Endpoint {
            id: id.to_owned(),
            address: format!("10.0.0.{id}:80"),
            weight,
            turns: 1,
            due: 0.5,
            share: 0.5,
            token: "t".to_owned(),
            drained: None,
            delayed_seconds: None,
            slow_start: None,
            load_factor: None,
            reported: None,
            unhealthy: None,
            meta: BTreeMap::from([("zone".to_owned(), "a\u{7}\u{9b}".to_owned())]),
            held: None,
            down: false,
        };
        let pair = |endpoint: Endpoint| ((endpoint.id.clone(), endpoint.address.clone()), endpoint);
        all.iter().map(endpoint).map(pair).collect()
    }

    #[test]
    fn a_line_for_each_that_came_or_went() {
        let (old, new) = (backends(&[("1", 1), ("2", 1)]), backends(&[("2", 1), ("3", 5)]));
        assert_eq!(
            differences(&old, &new, false),
            [
                "- 10.0.0.1:80 id=1 weight=1 zone=a\\u{7}\\u{9b}",
                "+ 10.0.0.3:80 id=3 weight=5 zone=a\\u{7}\\u{9b}"
            ]
        );
        assert_eq!(differences(&new, &new, false), Vec::<String>::new());
    }

    #[test]
    fn a_new_weight_is_a_change_and_new_entries_are_none() {
        let mut turned = backends(&[("1", 1)]);
        turned.values_mut().for_each(|endpoint| (endpoint.turns, endpoint.share) = (9, 0.9));
        assert_eq!(differences(&backends(&[("1", 1)]), &turned, false), Vec::<String>::new());
        assert_eq!(differences(&backends(&[("1", 2)]), &turned, false).len(), 2);
    }

    #[test]
    fn programs_get_json() {
        let lines = differences(&Backends::new(), &backends(&[("1", 1)]), true);
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["change"], "+");
        assert_eq!(value["address"], "10.0.0.1:80");
        assert!(lines[0].contains("a\\u0007\\u009b"), "{}", lines[0]);
    }
}
