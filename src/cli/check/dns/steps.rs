//! The steps of a client's way to its list, and what each finding means.
//!
//! In: DNS answers, and what balancers said. Out: steps, each with a verdict, and the remedy
//! where the way breaks.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use serde::Serialize;

use crate::balancer::ask::FirstList;

/// Whether a client gets further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Some clients do not get further, or not as well.
    Remark,
    /// The way ends here.
    Broken,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// `srv`, `address`, `txt`, `fallback`, `balancer` or `list`.
    pub(super) step: &'static str,
    /// What was asked, and whom.
    pub(super) asked: String,
    pub(super) verdict: Verdict,
    pub(super) found: Vec<String>,
    pub(super) problem: Option<String>,
    pub(super) remedy: Option<String>,
}

/// A balancer, as an SRV record names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Without a trailing dot.
    pub(super) name: String,
    pub(super) port: u16,
}

impl Step {
    pub(super) fn ok(step: &'static str, asked: String, found: Vec<String>) -> Self {
        Self { step, asked, verdict: Verdict::Ok, found, problem: None, remedy: None }
    }

    pub(super) fn broken(
        step: &'static str,
        asked: String,
        problem: impl Into<String>,
        remedy: &str,
    ) -> Self {
        let (problem, remedy) = (Some(problem.into()), Some(remedy.to_owned()));
        Self { step, asked, verdict: Verdict::Broken, found: Vec::new(), problem, remedy }
    }

    fn remark(self, problem: impl Into<String>, remedy: &str) -> Self {
        let (problem, remedy) = (Some(problem.into()), Some(remedy.to_owned()));
        Self { verdict: Verdict::Remark, problem, remedy, ..self }
    }
}

/// Says that no server answered.
pub(super) fn silence(step: &'static str, asked: String, problem: String) -> Step {
    let remedy = "start lookaside with --dns-listen, and let UDP and TCP through to that port; \
                  --dns-server names another DNS server";
    Step::broken(step, asked, problem, remedy)
}

/// Returns the targets of an SRV answer, or the step that says why there is none.
pub(super) fn targets(asked: String, answer: &Message) -> (Step, Vec<Target>) {
    let targets: Vec<_> = answer.answers.iter().filter_map(|record| target(&record.data)).collect();
    if targets.is_empty() {
        return (no_records("srv", asked, answer), targets);
    }
    let shown = targets.iter().map(|target| format!("{}:{}", target.name, target.port));
    (Step::ok("srv", asked, shown.collect()), targets)
}

fn target(data: &RData) -> Option<Target> {
    let RData::SRV(srv) = data else { return None };
    let name = srv.target.to_ascii().trim_end_matches('.').to_owned();
    Some(Target { name, port: srv.port })
}

/// Returns the step about a name without the records that were asked for.
fn no_records(step: &'static str, asked: String, answer: &Message) -> Step {
    let (problem, remedy) = match answer.metadata.response_code {
        ResponseCode::NoError => (
            "the name exists, and has no such record",
            "a DNS server on the way may drop SRV records (dnsmasq's filterwin2k), or hold a \
             record of the name that hides a wildcard: see docs/dns.md",
        ),
        ResponseCode::NXDomain => (
            "the name does not exist (NXDOMAIN)",
            "forward or delegate the zone to lookaside, or add the records that `lookaside \
             dns-records` prints: see docs/dns.md",
        ),
        ResponseCode::Refused => (
            "the DNS server does not answer for this name (REFUSED)",
            "the name must end in lookaside's --domain, and the zone must be forwarded or \
             delegated to lookaside: see docs/dns.md",
        ),
        ResponseCode::ServFail => (
            "the DNS server has no answer (SERVFAIL)",
            "a resolver may not reach lookaside, or lookaside does not know its own address: \
             give it --advertise",
        ),
        other => return Step::broken(step, asked, format!("the answer is {other}"), ""),
    };
    Step::broken(step, asked, problem, remedy)
}

/// Returns the addresses of a target, or the step that says why there is none.
pub(super) fn addresses(asked: String, answers: &[Message], server: IpAddr) -> (Step, Vec<IpAddr>) {
    let records = answers.iter().flat_map(|answer| &answer.answers);
    let all: Vec<_> = records.filter_map(|record| ip(&record.data)).collect();
    if all.is_empty() {
        let remedy = "add an address record for the target, or give each balancer --advertise \
                      with a name or an address that clients reach";
        return (Step::broken("address", asked, "the target has no address", remedy), all);
    }
    let step = Step::ok("address", asked, all.iter().map(ToString::to_string).collect());
    if all.iter().any(IpAddr::is_loopback) && !server.is_loopback() {
        let remedy = "give each balancer --advertise with an address that other hosts reach";
        return (step.remark("a client on another host would call itself", remedy), all);
    }
    (step, all)
}

pub(super) fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(ip) => Some(ip.0.into()),
        RData::AAAA(ip) => Some(ip.0.into()),
        _ => None,
    }
}

/// Returns the step about the service config. Without it, clients must select grpclb by
/// themselves, as most do.
pub(super) fn config(asked: String, answer: &Message) -> Step {
    let texts = answer.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => {
            let bytes: Vec<u8> =
                txt.txt_data.iter().flat_map(|part| part.iter()).copied().collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    });
    let configs: Vec<_> = texts.filter(|text| text.starts_with("grpc_config=")).collect();
    let remedy = "clients must select grpclb by themselves: see docs/connect.md";
    let step = |found| Step::ok("txt", asked.clone(), found);
    match configs.first() {
        None => step(Vec::new()).remark("there is no service config in DNS", remedy),
        Some(text) if selects_grpclb(text) => step(vec!["the policy is grpclb".to_owned()]),
        Some(text) => {
            step(vec![text.clone()]).remark("the service config does not select grpclb", remedy)
        }
    }
}

/// Returns whether a list of choices (gRFC A2) has one that selects grpclb.
fn selects_grpclb(text: &str) -> bool {
    let json = text.trim_start_matches("grpc_config=");
    let Ok(choices) = serde_json::from_str::<serde_json::Value>(json) else { return false };
    let policies =
        choices.as_array().into_iter().flatten().filter_map(|choice| {
            choice.get("serviceConfig")?.get("loadBalancingConfig")?.as_array()
        });
    policies.flatten().any(|policy| policy.get("grpclb").is_some())
}

/// Returns the step about the name's own addresses, which clients use in fallback.
pub(super) fn fallback(asked: String, answers: &[Message]) -> Step {
    let records = answers.iter().flat_map(|answer| &answer.answers);
    let all: Vec<_> = records.filter_map(|record| Some(ip(&record.data)?.to_string())).collect();
    let empty = all.is_empty();
    let step = Step::ok("fallback", asked, all);
    if empty {
        let remedy = "a client that reaches no balancer has no address to fall back to: answer \
                      for the zone by lookaside's own DNS";
        return step.remark("the name has no addresses of its own", remedy);
    }
    step
}

/// Returns the step about the first list.
pub(super) fn list(asked: String, list: &FirstList) -> Step {
    let explain = "ask `lookaside services` and `lookaside explain SERVICE`: is a backend \
                   registered under this name, and may it get calls?";
    match list {
        FirstList::Servers { backends, entries, drops } if backends.is_empty() => {
            let problem = format!("the list has no backend ({entries} entries, {drops} drop)");
            Step::broken("list", asked, problem, explain)
        }
        FirstList::Servers { backends, drops, .. } => {
            let step = Step::ok("list", asked, backends.iter().map(ToString::to_string).collect());
            if *drops > 0 {
                let remedy = "`lookaside marks` says who sheds the service's calls";
                return step.remark(format!("clients drop calls at {drops} entries"), remedy);
            }
            step
        }
        FirstList::Fallback => {
            let problem = "the balancer sends clients to the addresses that DNS gives";
            Step::ok("list", asked, Vec::new()).remark(problem, explain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_counts_if_one_of_its_choices_selects_grpclb() {
        for (text, selects) in [
            (crate::dns::zone::SERVICE_CONFIG, true),
            (
                r#"grpc_config=[{"percentage":0,"serviceConfig":{}},{"serviceConfig":{"loadBalancingConfig":[{"new":{}},{"grpclb":{}}]}}]"#,
                true,
            ),
            (r#"grpc_config=[{"serviceConfig":{"loadBalancingPolicy":"round_robin"}}]"#, false),
            ("grpc_config=[", false),
            ("grpc_config={}", false),
        ] {
            assert_eq!(selects_grpclb(text), selects, "{text}");
        }
    }
}
