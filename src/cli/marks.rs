//! `lookaside marks`: lists the decisions of operators about backends and clients.
//!
//! In: an admin address, and optionally a service. Out: a table of marks, and on standard
//! error what is wrong.

use std::env;

use super::admin_client::{self, AdminClient, AdminError, say};
use crate::admin::json;

/// Lists the marks of operators: drains, releases, sheds and fallbacks
///
/// Marks are keys in etcd that every balancer of the zone reads.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// List only marks on this service, as registered or as its clients name it
    pub service: Option<String>,
    /// List also marks that are over
    #[arg(long)]
    pub all: bool,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// The author of a mark, and the reason.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthorArgs {
    /// The reason, for other operators
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub why: String,
    /// The author [default: the user at this machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Prints the marks.
///
/// # Errors
/// Returns an error if the balancer gives no answer or the answer cannot be printed.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let path = match &args.service {
        Some(service) => format!("/api/v1/marks?service={}", admin_client::encode(service)),
        None => "/api/v1/marks".to_owned(),
    };
    let answer = AdminClient::new(&args.admin)?.get::<json::Marks>(&path)?;
    if args.admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::Marks { mut marks, refused, refused_total, unheard, .. } = answer.value;
    marks.retain(|mark| args.all || mark.state != "over");
    match marks.is_empty() {
        true => say("no mark is set"),
        false => drop(admin_client::print(&table(&marks))?),
    }
    if refused_total > refused.len() {
        let more = refused_total - refused.len();
        say(&format!("warning: {more} keys are beyond the limit and not read: delete some"));
    }
    for json::RefusedMark { key, reason } in refused {
        say(&format!("warning: {key} is refused: {reason}"));
    }
    if let Some(reason) = unheard {
        say(&format!("warning: etcd does not answer: {reason}; marks stay in force"));
    }
    Ok(())
}

fn table(marks: &[json::Mark]) -> String {
    let row = |mark: &json::Mark| {
        let mark = mark.clone();
        vec![
            mark.kind,
            mark.service,
            mark.backends.or(mark.clients).unwrap_or_default(),
            mark.percent.map(|percent| format!("{percent} %")).unwrap_or_default(),
            mark.state,
            mark.keeps_out.to_string(),
            mark.by,
            mark.set.unwrap_or_default(),
            mark.until.unwrap_or_default(),
            mark.why,
        ]
    };
    let headings =
        ["MARK", "SERVICE", "ABOUT", "PART", "STATE", "KEEPS OUT", "BY", "SINCE", "UNTIL", "WHY"];
    admin_client::table(&headings, marks.iter().map(row))
}

impl AuthorArgs {
    /// Returns an order with author and reason; the caller adds the rest.
    pub(super) fn order(&self) -> json::Order {
        let by = self.by.clone().unwrap_or_else(user);
        json::Order { by, why: self.why.clone(), ..json::Order::default() }
    }
}

/// Returns `USER@HOST`, with the user id if the environment names no user.
fn user() -> String {
    let variable = |name| env::var(name).ok().filter(|text| !text.is_empty());
    let user = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
