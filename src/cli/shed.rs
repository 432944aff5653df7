//! `lookaside shed`, `fallback`, and the commands that end them: what clients do besides
//! calling the backends of their lists.
//!
//! In: a service, and a percentage. Out: a mark in etcd, written by the balancer that is
//! asked, and a line for each mark.

use super::admin_client::{self, AdminError};
use super::drain::{send_order, warn_unless};
use super::marks::AuthorArgs;
use crate::admin::json;

/// Makes clients drop a part of their calls, at all replicas; 100 is the kill switch
///
/// A dropped call fails at once with UNAVAILABLE and reaches no backend.
#[derive(Debug, Clone, clap::Args)]
pub struct ShedArgs {
    /// The service, as registered or as its clients name it; '*' for all services
    pub service: String,
    /// The part of the calls, 1 to 100
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub percent: u32,
    /// Only clients whose name selects KEY=VALUE, as zone--a.hello selects zone=a
    #[arg(long, value_name = "KEY=VALUE")]
    pub clients: Option<String>,
    /// How long it lasts, such as 10m [default: until unshed]
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Set the mark even if no such service is registered
    #[arg(long)]
    pub anyway: bool,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Ends sheds: clients call backends with all their calls again
#[derive(Debug, Clone, clap::Args)]
pub struct UnshedArgs {
    /// The service, as given to shed
    pub service: String,
    /// The clients, as given to shed [default: all sheds of the service]
    #[arg(long, value_name = "KEY=VALUE")]
    pub clients: Option<String>,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Makes clients use the addresses that they have from DNS, at all replicas
///
/// For a service whose lists cannot be trusted: its clients do what they would do without any
/// balancer. Clients whose DNS has no addresses of the service fail their calls.
#[derive(Debug, Clone, clap::Args)]
pub struct FallbackArgs {
    /// The service, as registered or as its clients name it; '*' for all services
    pub service: String,
    /// How long it lasts, such as 10m [default: until unfallback]
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Set the mark even if no such service is registered
    #[arg(long)]
    pub anyway: bool,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Ends a fallback: clients use their lists again
#[derive(Debug, Clone, clap::Args)]
pub struct UnfallbackArgs {
    /// The service, as given to fallback
    pub service: String,
    /// The author and the reason.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// The balancer to ask.
    #[command(flatten)]
    pub admin: admin_client::AdminArgs,
}

/// Sheds calls and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn shed(args: &ShedArgs) -> Result<(), AdminError> {
    let ShedArgs { service, percent, clients, lasts, anyway, author, admin } = args;
    let (clients, lasts) = (clients.clone(), lasts.clone());
    let order =
        json::Order { percent: Some(*percent), clients, lasts, anyway: *anyway, ..author.order() };
    set(admin, service, "shed", &order, &format!("{percent} % of the calls are shed"))
}

/// Ends sheds and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn unshed(
    UnshedArgs { service, clients, author, admin }: &UnshedArgs,
) -> Result<(), AdminError> {
    let order = json::Order { clients: clients.clone(), ..author.order() };
    end(admin, service, "unshed", &order, "no longer shed")
}

/// Sends clients to their fallback and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn fallback(args: &FallbackArgs) -> Result<(), AdminError> {
    let FallbackArgs { service, lasts, anyway, author, admin } = args;
    let order = json::Order { lasts: lasts.clone(), anyway: *anyway, ..author.order() };
    set(admin, service, "fallback", &order, "clients use the addresses from DNS")
}

/// Ends a fallback and prints the result.
///
/// # Errors
/// Returns an error if the balancer gives no answer or refuses.
pub fn unfallback(
    UnfallbackArgs { service, author, admin }: &UnfallbackArgs,
) -> Result<(), AdminError> {
    end(admin, service, "unfallback", &author.order(), "clients use their lists again")
}

fn set(
    admin: &admin_client::AdminArgs,
    service: &str,
    command: &str,
    order: &json::Order,
    done: &str,
) -> Result<(), AdminError> {
    let answer = send_order::<json::ClientMarkAnswer>(admin, service, command, order)?;
    if admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::ClientMarkAnswer { mark, streams, obeyed } = answer.value;
    let until = mark.until.map_or(format!("until un{command}"), |until| format!("until {until}"));
    let clients = mark.clients.map(|clients| format!(" for {clients}")).unwrap_or_default();
    admin_client::print(&admin_client::clean(&format!(
        "{}: {done}{clients} {until}, {streams} streams here",
        mark.service
    )))?;
    warn_unless(obeyed);
    Ok(())
}

fn end(
    admin: &admin_client::AdminArgs,
    service: &str,
    command: &str,
    order: &json::Order,
    done: &str,
) -> Result<(), AdminError> {
    let answer = send_order::<json::UndrainAnswer>(admin, service, command, order)?;
    if admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::UndrainAnswer { ended, obeyed, .. } = answer.value;
    for mark in ended {
        let clients = mark.clients.map(|clients| format!(" for {clients}")).unwrap_or_default();
        let line = format!("{}: {done}{clients}", mark.service);
        admin_client::print(&admin_client::clean(&line))?;
    }
    warn_unless(obeyed);
    Ok(())
}
