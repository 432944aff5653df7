//! `lookaside marks`: what operators decided about backends, and who did.

use std::env;

use super::admin_client::{self, AdminClient, AdminError, say};
use crate::admin::json;

/// Lists what operators decided about backends: drains and releases
///
/// Marks lie in etcd, where every balancer of the zone reads them.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only those about this service, as registered or as its clients name it
    pub service: Option<String>,
    /// Also those that are over
    #[arg(long)]
    pub all: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Who makes a mark, and why.
#[derive(Debug, Clone, clap::Args)]
pub struct SignArgs {
    /// Why, for whoever comes across it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub why: String,
    /// Who [default: the user at this machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// # Errors
/// When there is no answer to show.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let path = match &args.service {
        Some(service) => format!("/api/v1/marks?service={}", admin_client::encode(service)),
        None => "/api/v1/marks".to_owned(),
    };
    let answer = AdminClient::new(&args.admin)?.ask::<json::Marks>(&path)?;
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
        say(&format!("warning: {more} keys are too many and not read: delete some"));
    }
    for json::RefusedMark { key, reason } in refused {
        say(&format!("warning: {key} is refused: {reason}"));
    }
    if let Some(reason) = unheard {
        say(&format!("warning: etcd is not heard: {reason}; marks stay in force"));
    }
    Ok(())
}

fn table(marks: &[json::Mark]) -> String {
    let row = |mark: &json::Mark| {
        let mark = mark.clone();
        vec![
            mark.kind,
            mark.service,
            mark.backends.unwrap_or_default(),
            mark.state,
            mark.keeps_out.to_string(),
            mark.by,
            mark.set.unwrap_or_default(),
            mark.until.unwrap_or_default(),
            mark.why,
        ]
    };
    let headings =
        ["MARK", "SERVICE", "BACKENDS", "STATE", "KEEPS OUT", "BY", "SINCE", "UNTIL", "WHY"];
    admin_client::table(&headings, marks.iter().map(row))
}

impl SignArgs {
    /// The order that is sent, without what it is about.
    pub(super) fn order(&self) -> json::Order {
        let by = self.by.clone().unwrap_or_else(user);
        json::Order { by, why: self.why.clone(), ..json::Order::default() }
    }
}

/// `USER@HOST`, as far as the system tells.
fn user() -> String {
    let variable = |name| env::var(name).ok().filter(|text| !text.is_empty());
    let user = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
