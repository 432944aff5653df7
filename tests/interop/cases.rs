//! The list of cases.
//!
//! In, for each case: a world and a driver of its own, or a scene with xDS. Out: a panic if
//! the case fails.

mod empty;
mod faults;
mod leaving;
mod lists;
mod load;
pub mod names;
mod orders;
mod security;
mod splits;

use Shown::{By, In, Not};

use crate::support::client::Driver;
use crate::support::language::{Language, XDS_CPP, XDS_JAVA, XDS_NODE, XDS_RUST};
use crate::support::world::World;
use crate::xds::{self, Scene};

/// One behaviour that every client must show, in the way of its family.
pub struct Case {
    /// The name in the table.
    pub name: &'static str,
    pub grpclb: Shown<fn(&World, &Driver)>,
    pub xds: Shown<fn(&Scene)>,
    /// The clients of xDS that cannot show it, and why.
    without: &'static [(Language, &'static str)],
}

/// How the clients of one protocol show a case.
pub enum Shown<F> {
    /// In a cell of its own, by this function.
    By(F),
    /// In the cell of another case, whose function shows several.
    In(&'static str),
    /// Not, for this reason.
    Not(&'static str),
}

const NO_FALLBACK: &str = "xDS has no fallback to addresses from DNS";
const NO_CONFIG: &str = "a client of xDS takes no service config, neither its own nor one in DNS";
const NO_TOKEN: &str = "xDS carries no token to backends";
const NO_PICK_FIRST: &str = "lookaside gives clients of xDS no pick_first";
const NO_SETTING: &str = "lists of grpclb carry no such setting";
const NO_VERSION: &str = "grpclb has no versions, and a client cannot refuse a list";
const ONE_NAME: &str = "a stream of grpclb has one name";
const OTHER_LISTS: &str = "shown by “without backends: …”";
const SIX_STEPS: &str = "shown by “six steps, …”";
const MIGRATION: &str = "shown in the columns of xDS, by clients of both protocols";
const CLIENTS: &str = "tests/authorization/clients.rs shows it";
const XDS_REPORTS: &str = "tests/conversations/xds_reports.rs shows it";
const RECONNECTS: &str = "grpclb's clients keep the connections to all backends in both lists";
const ONE_TARGET: &str = "a channel of grpclb has a connection of its own to the balancer";
const NO_AUTHORITY: &str = "names of grpclb have no authority";

const NO_WEIGHTS: &str = "tonic-xds ignores weights";
const NO_PART: &str = "tonic-xds drops all calls or none";
const NO_REPORTS: &str = "tonic-xds does not report its calls";
const NO_IDLENESS: &str = "tonic-xds does not become idle";
const ONLY_RETRIES: &str = "of the settings, tonic-xds obeys retry alone";
const NO_RUST_AUTHORITY: &str = "tonic-xds ignores the authority";
const NO_OLD_AUTHORITY: &str = "C-core 1.51 has it behind a variable of the environment only";
const NO_OLD_POLICIES: &str = "C-core 1.51 does not read the field with the policy";
const NO_NODE_WEIGHING: &str = "grpc-js has it behind a variable of the environment only";
const NO_TLS: &str = "it cannot speak TLS to an xDS server";
const NO_JAVA_CA: &str = "grpc-java heeds no authority in the bootstrap file, only that of its JVM";
const NO_BACKEND_TLS: &str = "only xDS could tell tonic-xds that backends speak TLS";
const NO_GRPCLB: &str = "this gRPC has no grpclb";

/// All cases, in the order of the table and of the run.
pub const CASES: &[Case] = &[
    case("six steps, config from the client", By(lists::six_steps), By(xds::steps::six_steps)),
    case("six steps, config from DNS", By(lists::six_steps_by_txt), Not(NO_CONFIG)),
    case("client first, servers later", By(lists::client_first), By(xds::cases::client_first)),
    case(
        "instances chosen by name",
        By(names::chosen_by_name),
        In("port, trailing dot, mixed case"),
    ),
    case("weights are exact shares", By(lists::weights), In("other weights cost no connection"))
        .without(&[(XDS_RUST, NO_WEIGHTS)]),
    case("a newcomer starts slowly", By(lists::slow_start), In("other weights cost no connection"))
        .without(&[(XDS_RUST, NO_WEIGHTS)]),
    case("other weights cost no connection", Not(RECONNECTS), By(xds::cases::weights)),
    case("calls stay in their zone", By(names::zones), By(xds::policy::zones)),
    case("a busy zone's calls go to other zones", By(names::spill), Not(XDS_REPORTS)),
    case("canary gets its share of the calls", By(splits::by_calls), By(xds::policy::splits))
        .without(&[(XDS_RUST, NO_WEIGHTS)]),
    case(
        "canary gets its share of the clients",
        By(splits::by_clients),
        By(xds::policy::splits_by_client),
    ),
    case("a key sticks to one backend", By(splits::key), In("port, trailing dot, mixed case")),
    case(
        "a client calls a part of a large service",
        By(load::subsets),
        By(xds::large::a_part_and_all),
    ),
    case(
        "an overload is shed",
        By(load::overload),
        In("an unhealthy backend gets no calls, panic gives them back"),
    )
    .without(&[(XDS_RUST, NO_REPORTS)]),
    case("an operator sheds calls", By(orders::shed), In("an operator sheds all calls"))
        .without(&[(XDS_RUST, NO_PART)]),
    case(
        "an operator sheds all calls",
        In("an operator sheds calls"),
        By(xds::cases::shed_by_a_mark),
    ),
    case("an operator sends clients to DNS", By(orders::fallback), Not(NO_FALLBACK)),
    case(
        "an operator drains a backend under load",
        By(leaving::drained),
        By(xds::cases::drained_by_a_mark),
    ),
    case(
        "a registered command stops under load",
        By(leaving::stopped),
        In("removal spares calls in flight"),
    ),
    case(
        "an unhealthy backend gets no calls, panic gives them back",
        By(lists::health),
        By(xds::load::unhealthy_and_overloaded),
    ),
    case(
        "removal spares calls in flight",
        By(lists::removal_in_flight),
        By(xds::cases::a_backend_comes_and_goes),
    ),
    case("backends see lb-token", By(lists::tokens), Not(NO_TOKEN)),
    case("reported calls equal calls made", By(lists::reports), By(xds::settings::reports))
        .without(&[(XDS_RUST, NO_REPORTS)]),
    case("without backends: wait", By(empty::wait), By(xds::cases::going_empty_and_returning)),
    case("without backends: drop", By(empty::drop), By(xds::cases::when_empty_drop)),
    case("without backends: fallback and return", By(empty::fallback), Not(NO_FALLBACK)),
    case(
        "backends listed but unreachable",
        By(empty::unreachable),
        In("client first, servers later"),
    ),
    case(
        "an unknown name fails at once",
        Not(OTHER_LISTS),
        By(xds::cases::unknown_names_fail_at_once),
    ),
    case("fallback before start and return", By(faults::fallback_before_start), Not(NO_FALLBACK)),
    case(
        "fallback after loss of all and return",
        By(faults::fallback_after_loss),
        Not(NO_FALLBACK),
    ),
    case("no balancer in DNS: fallback", By(faults::no_balancer_in_dns), Not(NO_FALLBACK)),
    case("silent balancer: fallback and return", By(faults::silent), Not(NO_FALLBACK)),
    case("two balancers, one killed", By(faults::two_balancers), By(xds::faults::two_balancers)),
    case(
        "balancer restarted, reports right",
        By(faults::restart),
        In("balancer restarted, calls go on"),
    )
    .without(&[(XDS_RUST, NO_REPORTS)]),
    case(
        "balancer restarted, calls go on",
        In("balancer restarted, reports right"),
        By(xds::faults::the_balancer_restarts),
    ),
    case("etcd is away", Not(SIX_STEPS), By(xds::faults::etcd_is_away)),
    case("stream refused: backoff", By(faults::refused), In("a response is refused")),
    case(
        "backends restart, nothing read yet",
        By(faults::bounce),
        By(xds::faults::the_balancer_comes_later),
    ),
    case("IPv6 backends", By(lists::ipv6), In("client first, servers later")),
    case("TLS, right names", By(security::right_names), By(xds::security::names)).without(TLS),
    case("TLS, wrong balancer name", By(security::wrong_balancer), In("TLS, right names"))
        .without(TLS),
    case("TLS, wrong backend name", By(security::wrong_backend), In("TLS, right names"))
        .without(TLS),
    case(
        "port, trailing dot, mixed case",
        By(names::spellings),
        By(xds::cases::names_have_all_spellings),
    ),
    case("a name with an authority", Not(NO_AUTHORITY), By(xds::cases::names_with_an_authority))
        .without(&[(XDS_CPP, NO_OLD_AUTHORITY), (XDS_RUST, NO_RUST_AUTHORITY)]),
    case("policies and service from the config", By(names::config), Not(NO_CONFIG)),
    case("a client is denied, then admitted", Not(CLIENTS), By(xds::cases::denied_and_admitted)),
    case(
        "odd registrations reach no client",
        By(names::odd_registrations),
        In("removal spares calls in flight"),
    ),
    case("1,000 backends", By(lists::thousand), In("a client calls a part of a large service")),
    case("120 targets of one process", Not(ONE_TARGET), By(xds::cases::many_targets)),
    case("pick_first spreads over clients", By(lists::pick_first), Not(NO_PICK_FIRST)),
    case("idle channel lets go and returns", By(lists::idleness), By(xds::cases::idle_and_back))
        .without(&[(XDS_RUST, NO_IDLENESS)]),
    case("calls are tried again", Not(NO_SETTING), By(xds::settings::retries)),
    case("calls have a time limit", Not(NO_SETTING), By(xds::settings::timeouts))
        .without(&[(XDS_RUST, ONLY_RETRIES)]),
    case("calls under way are limited", Not(NO_SETTING), By(xds::settings::circuits))
        .without(&[(XDS_RUST, ONLY_RETRIES)]),
    case("outliers get no calls", Not(NO_SETTING), By(xds::settings::outliers))
        .without(&[(XDS_RUST, ONLY_RETRIES)]),
    case("a header sticks to one backend", Not(NO_SETTING), By(xds::settings::hashes))
        .without(&[(XDS_CPP, NO_OLD_POLICIES), (XDS_RUST, ONLY_RETRIES)]),
    case(
        "clients weigh backends by their load",
        Not(NO_SETTING),
        By(xds::settings::client_weights),
    )
    .without(&[
        (XDS_CPP, NO_OLD_POLICIES),
        (XDS_NODE, NO_NODE_WEIGHING),
        (XDS_RUST, ONLY_RETRIES),
    ]),
    case(
        "settings that a client ignores harm no call",
        Not(NO_SETTING),
        By(xds::settings::not_obeyed),
    ),
    case("clients move from grpclb, and back", Not(MIGRATION), By(xds::migration::moves))
        .without(&[(XDS_NODE, NO_GRPCLB), (XDS_RUST, NO_GRPCLB)]),
    case("a response is refused", Not(NO_VERSION), By(xds::relayed::refused_and_restarted)),
    case("a restart with an old version", Not(NO_VERSION), In("a response is refused")),
    case("idle while the balancer restarts", Not(NO_VERSION), In("a response is refused"))
        .without(&[(XDS_RUST, NO_IDLENESS)]),
    case("two clients, overlapping names", Not(ONE_NAME), By(xds::relayed::overlapping)),
    case(
        "listeners and clusters are complete",
        Not(ONE_NAME),
        In("two clients, overlapping names"),
    ),
    case("a locality is at one priority", Not(ONE_NAME), In("two clients, overlapping names")),
];

const TLS: &[(Language, &str)] =
    &[(XDS_JAVA, NO_JAVA_CA), (XDS_CPP, NO_TLS), (XDS_NODE, NO_TLS), (XDS_RUST, NO_BACKEND_TLS)];

const fn case(
    name: &'static str,
    grpclb: Shown<fn(&World, &Driver)>,
    xds: Shown<fn(&Scene)>,
) -> Case {
    Case { name, grpclb, xds, without: &[] }
}

impl Case {
    /// Names clients of xDS that cannot show the case, and why.
    const fn without(self, without: &'static [(Language, &'static str)]) -> Self {
        Self { without, ..self }
    }

    /// Returns why this client of xDS cannot show the case.
    pub fn lacking(&self, language: &Language) -> Option<&'static str> {
        self.without.iter().find(|(without, _)| without == language).map(|(_, why)| *why)
    }
}
