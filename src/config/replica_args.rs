//! Flags that place a balancer among others of its DNS zone.
//!
//! In: text from flags, environment and file. Out: a [`ReplicaConfig`], or the problems.

use super::{on_or_off, take};
use crate::model::{Host, HostPort, Zone};
use crate::replica::hosts::BalancerHosts;
use crate::replica::record;
use crate::replica::spread::PerSecond;

/// Flags that place a balancer among others.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReplicaArgs {
    /// The address of this balancer in DNS answers; it is also announced to the other replicas in
    /// etcd [default: the listen address; for a wildcard, DNS gives the address that received the
    /// question, and etcd that of the interface that reaches it]
    #[arg(long, value_name = "HOST:PORT", env = "LOOKASIDE_ADVERTISE")]
    pub advertise: Option<String>,
    /// A host at which other balancers may announce themselves: a name, *.DOMAIN for all below a
    /// domain, an address, or a network such as 10.1.0.0/16; repeatable [default: the names of the
    /// domain in which --advertise is, and all addresses]
    // If any host were named, whoever may write balancers' keys could send clients anywhere. No
    // default for addresses is right everywhere: balancers in several datacenters share no network.
    #[arg(long, value_name = "HOST", value_delimiter = ',', env = "LOOKASIDE_BALANCER_HOSTS")]
    pub balancer_hosts: Vec<String>,
    /// Whether balancers that share an etcd announce themselves there, so that the DNS of each
    /// names all: on or off
    // On, because a balancer that the others do not know gets too few clients, and its own
    // clients find no other one when it stops.
    #[arg(long, value_name = "on|off", default_value = "on", env = "LOOKASIDE_ANNOUNCE")]
    pub announce: String,
    /// The most streams that a balancer which has more than the others asks to move to them, in
    /// percent of its streams a second; 0: none
    // A restart of a balancer moves 10,000 streams in some seconds; this takes a quarter of an
    // hour, so nobody sees it.
    #[arg(long, value_name = "PERCENT", default_value = "0.2", env = "LOOKASIDE_SPREAD")]
    pub spread: String,
    /// The zone in which this balancer runs, such as a datacenter; balancers of one zone name each
    /// other first [default: none]
    #[arg(long, value_name = "ZONE", env = "LOOKASIDE_ZONE")]
    pub zone: Option<String>,
}

/// A balancer among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// The address of this balancer in DNS answers, if the operator sets it.
    pub advertise: Option<HostPort>,
    /// The hosts that count in other balancers' announcements.
    pub hosts: BalancerHosts,
    /// Whether it announces itself in an etcd that it shares with others.
    pub announce: bool,
    /// The most streams that it asks to move to others in a second, if it has more than they.
    pub spread: PerSecond,
    /// The zone in which it runs, if the operator names one.
    pub zone: Option<String>,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            hosts: BalancerHosts::default(),
            announce: true,
            spread: 2_000,
            zone: None,
        }
    }
}

impl ReplicaArgs {
    /// Checks the flags. `zone` is the DNS zone, if it is valid.
    pub(super) fn validate(
        &self,
        zone: Option<&Zone>,
        problems: &mut Vec<String>,
    ) -> Option<ReplicaConfig> {
        let announce = on_or_off("--announce", &self.announce, problems);
        let advertise = self.advertise(zone, problems);
        let hosts = self.hosts(advertise.as_ref(), problems);
        if let Some(Err(problem)) = self.zone.as_deref().map(record::check_zone) {
            problems.push(format!("--zone: {problem}"));
        }
        let spread = take("--spread", per_second(&self.spread), problems);
        Some(ReplicaConfig {
            advertise,
            hosts,
            announce: announce?,
            spread: spread?,
            zone: self.zone.clone(),
        })
    }

    fn hosts(&self, own: Option<&HostPort>, problems: &mut Vec<String>) -> BalancerHosts {
        if self.balancer_hosts.is_empty() {
            return BalancerHosts::beside(own);
        }
        let mut found = Vec::new();
        let hosts = BalancerHosts::parse(&self.balancer_hosts, &mut found).with(own);
        problems.extend(found.into_iter().map(|problem| format!("--balancer-hosts: {problem}")));
        hosts
    }

    fn advertise(&self, zone: Option<&Zone>, problems: &mut Vec<String>) -> Option<HostPort> {
        let advertise = take("--advertise", HostPort::parse(self.advertise.as_deref()?), problems)?;
        if let (Host::Name(name), Some(zone)) = (&advertise.host, zone)
            && (name == zone.as_str() || name.ends_with(&format!(".{zone}")))
        {
            problems.push(format!(
                "--advertise: {name:?} lies in the zone {zone}, whose names stand for \
                 services: give an IP address, which DNS then serves as grpclb.{zone}"
            ));
        }
        Some(advertise)
    }
}

/// Reads a part of the streams in a second, in percent.
fn per_second(text: &str) -> Result<PerSecond, String> {
    let percent = text.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    let percent = percent.ok_or_else(|| format!("{text:?} is no percentage: give 0 to 100"))?;
    Ok((percent * 10_000.0).round() as PerSecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_streams_is_a_percentage() {
        for (text, expected) in [("0", 0), ("0.2", 2_000), ("100", 1_000_000), ("0.0001", 1)] {
            assert_eq!(per_second(text), Ok(expected));
        }
        for text in ["", "-1", "100.1", "NaN", "inf", "2%"] {
            assert!(per_second(text).unwrap_err().contains(text));
        }
    }
}
