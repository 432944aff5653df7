//! `lookaside dns-records`: prints the zone's records for an existing DNS server.
//!
//! In: flags. Out: lines of a zone file (RFC 1035, section 5), or all problems. It never
//! asks a registry or DNS: the output depends on the flags only.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use crate::dns::zone::{self, LOCATOR, SERVICE_CONFIG, SETTINGS, SrvTarget};
use crate::model::{HostPort, ServiceName, Zone};

/// Prints the records by which clients find the balancers, for an existing DNS
/// server
///
/// Without --service, it prints a wildcard that stands for every service. Comments in the
/// output say which names it covers, and how lookaside can answer for the zone itself
/// instead.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DnsRecordsArgs {
    /// The DNS zone whose names stand for services
    #[arg(
        long,
        value_name = "ZONE",
        default_value = "lookaside.internal",
        env = "LOOKASIDE_DOMAIN"
    )]
    pub domain: String,
    /// The address at which clients reach a balancer; repeatable, or separated by commas
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', env = "LOOKASIDE_ADVERTISE")]
    pub advertise: Vec<String>,
    /// A service to print records for; repeatable [default: a wildcard]
    #[arg(long, value_name = "NAME")]
    pub service: Vec<String>,
}

/// How long resolvers may keep a static record, in seconds. Clients wait as long between
/// two questions.
const TTL: u32 = 30;
/// The longest DNS name as text, in bytes (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
/// Bad flags (`EX_USAGE` of sysexits.h).
const BAD_FLAGS: u8 = 64;

const COVERED: &str = "\
; Each * stands for _grpclb._tcp.NAME and _grpc_config.NAME of every service
; NAME (RFC 4592), but only while the zone holds nothing else at or below NAME:
; an A record of hello hides both from clients of hello. Print the records of
; such services with --service. dnsmasq knows no wildcards of these types.
";
const FALLBACK: &str = "\
; Clients that cannot reach any balancer use NAME's own A and AAAA records, which
; cannot be printed here, because they change as backends come and go.
";

/// Prints the records, or the problems.
#[must_use]
pub fn run(args: &DnsRecordsArgs) -> ExitCode {
    match args.records() {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(problems) => {
            for problem in problems {
                let _ = writeln!(std::io::stderr(), "error: {problem}");
            }
            ExitCode::from(BAD_FLAGS)
        }
    }
}

impl DnsRecordsArgs {
    /// Returns the records as text.
    ///
    /// # Errors
    /// Returns the problems of all flags.
    pub fn records(&self) -> Result<String, Vec<String>> {
        let mut problems = Vec::new();
        let zone = Zone::new(&self.domain)
            .map_err(|error| problems.push(format!("--domain: {error}")))
            .ok();
        let mut balancers = Vec::new();
        for text in &self.advertise {
            match HostPort::parse(text) {
                Ok(balancer) => balancers.push(balancer),
                Err(error) => problems.push(format!("--advertise: {error}")),
            }
        }
        if self.advertise.is_empty() {
            problems.push("--advertise is missing: give each balancer's host:port".to_owned());
        }
        let mut services = Vec::new();
        for text in &self.service {
            match dns_name(text, zone.as_ref()) {
                Ok(name) => services.push(name),
                Err(error) => problems.push(format!("--service: {error}")),
            }
        }
        match zone {
            Some(zone) if problems.is_empty() => Ok(print(&zone, &balancers, &services)),
            _ => Err(problems),
        }
    }
}

/// Returns the name below the zone under which clients ask for the service.
fn dns_name(text: &str, zone: Option<&Zone>) -> Result<String, String> {
    let service = ServiceName::new(text).map_err(|error| error.to_string())?;
    let mut name = service.dns_name().to_ascii_lowercase();
    let zone = zone.map_or("", Zone::as_str);
    if let Some(inner) = name.strip_suffix(zone).and_then(|front| front.strip_suffix('.')) {
        name.truncate(inner.len());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('_')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !name.split('.').all(label) {
        return Err(format!(
            "{text:?} cannot be asked for by DNS: labels have 1 to 63 letters, digits, '-' and '_', \
             and begin with no '_'"
        ));
    }
    let longest = LOCATOR.join(".").len() + name.len() + zone.len() + 2;
    if longest > NAME_MAX {
        return Err(format!("{text:?} is too long for DNS by {} bytes", longest - NAME_MAX));
    }
    Ok(name)
}

fn print(zone: &Zone, balancers: &[HostPort], services: &[String]) -> String {
    let mut targets = zone::srv_targets(balancers, zone);
    targets.iter_mut().for_each(|target| target.addresses.sort_unstable());
    let mut out = format!("; The balancers of {zone}, for the zone file that holds this name.\n");
    for target in &targets {
        out.extend(target.addresses.iter().map(|ip| address(&target.name, *ip)));
    }
    if services.is_empty() {
        out.push_str(COVERED);
        let any = format!("*.{zone}");
        out.push_str(&found(&any, &any, &targets));
    }
    for service in services {
        let locator = format!("{}.{service}.{zone}", LOCATOR.join("."));
        let settings = format!("{SETTINGS}.{service}.{zone}");
        out.push_str(&found(&locator, &settings, &targets));
    }
    out.push_str(FALLBACK);
    out.push_str(&delegation(zone, &targets));
    out
}

/// Returns the records by which clients find a service's balancers.
fn found(locator: &str, settings: &str, targets: &[SrvTarget]) -> String {
    let srv = |target: &SrvTarget| {
        format!("{locator}. {TTL} IN SRV 0 0 {} {}.\n", target.port, target.name)
    };
    let quoted = SERVICE_CONFIG.replace('\\', "\\\\").replace('"', "\\\"");
    let txt = format!("{settings}. {TTL} IN TXT \"{quoted}\"\n");
    targets.iter().map(srv).chain([txt]).collect()
}

/// Returns the alternative, a delegation, as comments: its records belong in the parent
/// zone.
fn delegation(zone: &Zone, targets: &[SrvTarget]) -> String {
    let mut out = format!(
        "; Or let lookaside answer for the zone (serve --dns-listen ADDR:53): it knows\n\
         ; those too. Then the records above are not needed; the parent zone of {zone}\n\
         ; gets these:\n"
    );
    let servers = zone::name_servers(targets, zone);
    let ns = |server: &String| format!("; {zone}. {TTL} IN NS {server}.\n");
    out.extend(servers.iter().map(ns));
    let mut addresses: Vec<_> = targets.iter().flat_map(|target| &target.addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let server = zone::balancer_name(zone);
    out.extend(addresses.into_iter().map(|ip| format!("; {}", address(&server, *ip))));
    out
}

fn address(name: &str, ip: IpAddr) -> String {
    let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
    format!("{name}. {TTL} IN {kind} {ip}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::serialize::txt::Parser;

    fn args(domain: &str, advertise: &[&str], service: &[&str]) -> DnsRecordsArgs {
        let own = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        DnsRecordsArgs {
            domain: domain.to_owned(),
            advertise: own(advertise),
            service: own(service),
        }
    }

    /// Parses a zone file as a DNS server does. Returns one line per record, sorted.
    #[track_caller]
    fn read(text: &str) -> Vec<String> {
        let origin = hickory_proto::rr::Name::from_ascii("z.").unwrap();
        let (_, sets) = Parser::new(text, None, Some(origin)).parse().unwrap();
        let records = sets.values().flat_map(|set| set.records_without_rrsigs());
        let mut lines: Vec<_> = records.map(ToString::to_string).collect();
        lines.sort_unstable();
        lines
    }

    #[track_caller]
    fn check(advertise: &[&str], service: &[&str], expected: &[&str]) -> String {
        let text = args("Z.", advertise, service).records().unwrap();
        let expected: Vec<_> =
            expected.iter().map(|line| line.replace("CONFIG!", SERVICE_CONFIG)).collect();
        assert_eq!(read(&text), expected);
        text
    }

    #[test]
    fn records_of_services_and_of_any() {
        check(
            &["10.0.0.1:1", "[2001:db8::1]:1"],
            &["dev/game", "Hello.Z"],
            &[
                "_grpc_config.game.dev.z. 30 IN TXT CONFIG!",
                "_grpc_config.hello.z. 30 IN TXT CONFIG!",
                "_grpclb._tcp.game.dev.z. 30 IN SRV 0 0 1 grpclb.z.",
                "_grpclb._tcp.hello.z. 30 IN SRV 0 0 1 grpclb.z.",
                "grpclb.z. 30 IN A 10.0.0.1",
                "grpclb.z. 30 IN AAAA 2001:db8::1",
            ],
        );
        check(
            &["10.0.0.1:1", "lb.example:2"],
            &[],
            &[
                "*.z. 30 IN SRV 0 0 1 grpclb.z.",
                "*.z. 30 IN SRV 0 0 2 lb.example.",
                "*.z. 30 IN TXT CONFIG!",
                "grpclb.z. 30 IN A 10.0.0.1",
            ],
        );
    }

    #[test]
    fn the_other_way_is_a_delegation() {
        let delegation = |text: &str| {
            let (_, tail) = text.split_once("; gets these:\n").unwrap();
            read(&tail.replace("; ", ""))
        };
        let text = args("z", &["10.0.0.1:1", "10.0.0.2:2"], &["a"]).records().unwrap();
        let ns = "z. 30 IN NS grpclb.z.";
        let glue = ["grpclb.z. 30 IN A 10.0.0.1", "grpclb.z. 30 IN A 10.0.0.2", ns];
        assert_eq!(delegation(&text), glue);
        let text = args("z", &["lb.example:2"], &["a"]).records().unwrap();
        assert_eq!(delegation(&text), ["z. 30 IN NS lb.example."]);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let long = format!("{}.{}", "a".repeat(63), "b.".repeat(90) + "c");
        let services = ["", "a b", "a..b", "_a", "a/_b", "ok", "ü", &long];
        let problems = args("a..b", &["10.0.0.1", "10.0.0.1:0", "h:1"], &services).records();
        let problems = problems.unwrap_err();
        assert_eq!(problems.len(), 3 + 7, "{problems:#?}");
        let missing = args("z", &[], &["ok"]).records().unwrap_err();
        assert_eq!(missing, ["--advertise is missing: give each balancer's host:port"]);
        let long = args(&format!("{0}.{0}", "z".repeat(60)), &["h:1"], &[&long]).records();
        assert!(long.unwrap_err()[0].contains("too long"));
    }
}
