//! `lookaside release`: lets go the backends that a service lists without
//! registration.

use super::admin_client::{self, AdminClient, AdminError, clean};
use crate::admin::json;

/// Lets go what a service still lists though its registrations are gone.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The service, as registered or as its clients name it
    pub service: String,
    /// Whom to tell.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// # Errors
/// When the balancer does not do it.
pub fn run(args: &Args) -> Result<(), AdminError> {
    let client = AdminClient::new(&args.admin)?;
    let path = format!("/api/v1/services/{}/release", admin_client::encode(&args.service));
    let answer = client.tell::<json::Released>(&path)?;
    let json::Released { service, released } = answer.value;
    let shown = clean(&format!("{service}: {released} released"));
    match args.admin.json {
        true => admin_client::print_json(&answer.text)?,
        false => admin_client::print(&shown)?,
    };
    Ok(())
}
