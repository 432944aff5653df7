//! `lookaside drain` and `undrain`: keep backends out of all lists, and end that.
//!
//! In: a service and backends. Out: a mark in etcd, written by the balancer that is asked,
//! and a line for each mark.

use super::admin_client::{self, AdminClient, AdminError, say};
use super::marks::AuthorArgs;
use crate::admin::json;

/// Keeps backends out of the lists of all replicas; calls in flight continue
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// The service, as registered or as its clients name it; '*' for all services
    pub service: String,
    /// IP:PORT, an IP address, KEY=VALUE of their metadata, or the name of one
    pub backends: String,
    /// How long the drain lasts, such as 30m [default: until undrain]
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Drain even if no backend matches or no backend would be left
    #[arg(long)]
    pub anyway: bool,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Ends drains: the backends return to the lists
#[derive(Debug, Clone, clap::Args)]
pub struct UndrainArgs {
    /// The service, as given to drain
    pub service: String,
    /// The backends, as given to drain [default: all drained backends of the service]
    pub backends: Option<String>,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Drains backends and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn drain(args: &DrainArgs) -> Result<(), AdminError> {
    let DrainArgs { service, backends, lasts, anyway, author, admin } = args;
    let (backends, lasts) = (Some(backends.clone()), lasts.clone());
    let order = json::Order { backends, lasts, anyway: *anyway, ..author.order() };
    let answer = send_order::<json::DrainAnswer>(admin, service, "drain", &order)?;
    if admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::DrainAnswer { mark, matched, left, obeyed } = answer.value;
    let until = mark.until.map_or("until undrain".to_owned(), |until| format!("until {until}"));
    admin_client::print(&admin_client::clean(&format!(
        "{} of {}: {matched} drained {until}, {left} left",
        mark.backends.unwrap_or_default(),
        mark.service,
    )))?;
    warn_unless(obeyed);
    Ok(())
}

/// Ends drains and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn undrain(args: &UndrainArgs) -> Result<(), AdminError> {
    let UndrainArgs { service, backends, author, admin } = args;
    let order = json::Order { backends: backends.clone(), ..author.order() };
    let answer = send_order::<json::UndrainAnswer>(admin, service, "undrain", &order)?;
    if admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::UndrainAnswer { ended, obeyed, still } = answer.value;
    for mark in ended {
        let backends = mark.backends.unwrap_or_default();
        let line = format!("{backends} of {}: no longer drained", mark.service);
        admin_client::print(&admin_client::clean(&line))?;
    }
    for mark in still {
        let (service, backends) = (mark.service, mark.backends.unwrap_or_default());
        let count = mark.keeps_out;
        say(&format!("warning: {count} of them stay drained, by {backends} of {service}"));
    }
    warn_unless(obeyed);
    Ok(())
}

/// Sends an order for a service to the balancer. `what` is the last part of its path.
pub(super) fn send_order<T: serde::de::DeserializeOwned>(
    admin: &admin_client::AdminArgs,
    service: &str,
    what: &str,
    order: &json::Order,
) -> Result<admin_client::Fetched<T>, AdminError> {
    let path = format!("/api/v1/services/{}/{what}", admin_client::encode(service));
    let order = serde_json::to_string(order).unwrap_or_default();
    AdminClient::new(admin)?.post_with_body(&path, &order)
}

/// Warns unless the balancer follows the change already.
pub(super) fn warn_unless(obeyed: bool) {
    if !obeyed {
        say("warning: the change is in etcd, but this balancer has not read it yet");
    }
}
