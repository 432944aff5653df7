//! `lookaside release`: drops the held backends of a service.
//!
//! In: a service. Out: a mark in etcd, written by the balancer that is asked, and the
//! number of backends that it dropped.

use super::admin_client::{self, AdminError, clean, say};
use super::drain::send_order;
use super::marks::AuthorArgs;
use crate::admin::json;

/// Drops a service's held backends, which are listed without a registration, at all replicas
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service, as registered or as its clients name it
    pub service: String,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Drops the held backends and prints their number.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn run(Args { service, author, admin }: &Args) -> Result<(), AdminError> {
    let answer = send_order::<json::Released>(admin, service, "release", &author.order())?;
    let json::Released { service, released, untold } = answer.value;
    let shown = clean(&format!("{service}: {released} released"));
    match admin.json {
        true => admin_client::print_json(&answer.text)?,
        false => admin_client::print(&shown)?,
    };
    if let Some(reason) = untold {
        say(&format!("warning: released at this balancer only: the mark is not in etcd: {reason}"));
    }
    Ok(())
}
