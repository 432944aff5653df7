//! `lookaside drain` and `undrain`: keeps backends out of all lists for a while.

use super::admin_client::{self, AdminClient, AdminError, say};
use super::marks::SignArgs;
use crate::admin::json;

/// Keeps backends out of the lists, at every balancer; calls in flight go on
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// The service, as registered or as its clients name it; '*' for all services
    pub service: String,
    /// IP:PORT, an IP address, KEY=VALUE of their metadata, or the name of one
    pub backends: String,
    /// How long, as in 30m [default: until undrain]
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Do it though no backend is meant, or none would be left
    #[arg(long)]
    pub anyway: bool,
    /// Who and why.
    #[command(flatten)]
    pub sign: SignArgs,
    /// Whom to tell.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Lets drained backends back into the lists
#[derive(Debug, Clone, clap::Args)]
pub struct UndrainArgs {
    /// The service, as drain had it
    pub service: String,
    /// The backends, as drain had them [default: all drained ones of the service]
    pub backends: Option<String>,
    /// Who and why.
    #[command(flatten)]
    pub sign: SignArgs,
    /// Whom to tell.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// # Errors
/// When the balancer does not do it.
pub fn drain(args: &DrainArgs) -> Result<(), AdminError> {
    let DrainArgs { service, backends, lasts, anyway, sign, admin } = args;
    let (backends, lasts) = (Some(backends.clone()), lasts.clone());
    let order = json::Order { backends, lasts, anyway: *anyway, ..sign.order() };
    let answer = tell::<json::DrainAnswer>(admin, service, "drain", &order)?;
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
    unless(obeyed);
    Ok(())
}

/// # Errors
/// When the balancer does not do it.
pub fn undrain(args: &UndrainArgs) -> Result<(), AdminError> {
    let UndrainArgs { service, backends, sign, admin } = args;
    let order = json::Order { backends: backends.clone(), ..sign.order() };
    let answer = tell::<json::UndrainAnswer>(admin, service, "undrain", &order)?;
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
    unless(obeyed);
    Ok(())
}

/// Sends an order about a service.
pub(super) fn tell<T: serde::de::DeserializeOwned>(
    admin: &admin_client::AdminArgs,
    service: &str,
    what: &str,
    order: &json::Order,
) -> Result<admin_client::Answer<T>, AdminError> {
    let path = format!("/api/v1/services/{}/{what}", admin_client::encode(service));
    let order = serde_json::to_string(order).unwrap_or_default();
    AdminClient::new(admin)?.tell_with(&path, &order)
}

fn unless(obeyed: bool) {
    if !obeyed {
        say("warning: it is in etcd, and this balancer has not heard of it yet");
    }
}
