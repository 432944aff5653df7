//! `lookaside release`: lets go the backends that a service lists without
//! registration.

use super::admin_client::{self, AdminError, clean, say};
use super::drain::tell;
use super::marks::SignArgs;
use crate::admin::json;

/// Lets go what a service still lists though its registrations are gone, at every balancer
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service, as registered or as its clients name it
    pub service: String,
    /// Who and why.
    #[command(flatten)]
    pub sign: SignArgs,
    /// Whom to tell.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// # Errors
/// When the balancer does not do it.
pub fn run(Args { service, sign, admin }: &Args) -> Result<(), AdminError> {
    let answer = tell::<json::Released>(admin, service, "release", &sign.order())?;
    let json::Released { service, released, untold } = answer.value;
    let shown = clean(&format!("{service}: {released} released"));
    match admin.json {
        true => admin_client::print_json(&answer.text)?,
        false => admin_client::print(&shown)?,
    };
    if let Some(reason) = untold {
        say(&format!("warning: only at this balancer: etcd does not take the mark: {reason}"));
    }
    Ok(())
}
