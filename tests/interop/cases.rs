//! The list of cases.
//!
//! In, for each case: a world and a driver of its own. Out: a panic if the case fails.

mod empty;
mod faults;
mod leaving;
mod lists;
mod load;
mod names;
mod orders;
mod security;
mod splits;

use crate::support::client::Driver;
use crate::support::world::World;

/// One behaviour that every client must show, in the way of its family.
pub struct Case {
    /// The name in the table.
    pub name: &'static str,
    pub run: fn(&World, &Driver),
}

/// All cases, in the order of the table and of the run.
pub const CASES: &[Case] = &[
    case("six steps, config from the client", lists::six_steps),
    case("six steps, config from DNS", lists::six_steps_by_txt),
    case("client first, servers later", lists::client_first),
    case("instances chosen by name", names::chosen_by_name),
    case("weights are exact shares", lists::weights),
    case("a newcomer starts slowly", lists::slow_start),
    case("calls stay in their zone", names::zones),
    case("a busy zone's calls go to other zones", names::spill),
    case("canary gets its share of the calls", splits::by_calls),
    case("canary gets its share of the clients", splits::by_clients),
    case("a key sticks to one backend", splits::key),
    case("a client calls a part of a large service", load::subsets),
    case("an overload is shed", load::overload),
    case("an operator sheds calls", orders::shed),
    case("an operator sends clients to DNS", orders::fallback),
    case("an unhealthy backend gets no calls, panic gives them back", lists::health),
    case("removal spares calls in flight", lists::removal_in_flight),
    case("an operator drains a backend under load", leaving::drained),
    case("a registered command stops under load", leaving::stopped),
    case("backends see lb-token", lists::tokens),
    case("reported calls equal calls made", lists::reports),
    case("without backends: wait", empty::wait),
    case("without backends: drop", empty::drop),
    case("without backends: fallback and return", empty::fallback),
    case("backends listed but unreachable", empty::unreachable),
    case("fallback before start and return", faults::fallback_before_start),
    case("fallback after loss of all and return", faults::fallback_after_loss),
    case("no balancer in DNS: fallback", faults::no_balancer_in_dns),
    case("silent balancer: fallback and return", faults::silent),
    case("two balancers, one killed", faults::two_balancers),
    case("balancer restarted, reports right", faults::restart),
    case("stream refused: backoff", faults::refused),
    case("backends restart, nothing read yet", faults::bounce),
    case("IPv6 backends", lists::ipv6),
    case("TLS, right names", security::right_names),
    case("TLS, wrong balancer name", security::wrong_balancer),
    case("TLS, wrong backend name", security::wrong_backend),
    case("port, trailing dot, mixed case", names::spellings),
    case("policies and service from the config", names::config),
    case("odd registrations reach no client", names::odd_registrations),
    case("1,000 backends", lists::thousand),
    case("pick_first spreads over clients", lists::pick_first),
    case("idle channel lets go and returns", lists::idleness),
];

const fn case(name: &'static str, run: fn(&World, &Driver)) -> Case {
    Case { name, run }
}
