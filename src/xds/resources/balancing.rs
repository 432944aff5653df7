//! The parts of a cluster that follow from settings: how a client chooses a backend, how many
//! calls may be under way, and when a backend is left out.
//!
//! In: settings. Out: messages. Pure. It sends nothing where the settings say what gRPC's
//! clients do anyway.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

use crate::settings::{
    LbKind, LbSettings, OutlierKind, OutlierSettings, REQUESTS_DEFAULT, XdsSettings,
};

use super::super::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use super::super::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use super::super::pb::envoy::config::cluster::v3::{
    CircuitBreakers, LoadBalancingPolicy, OutlierDetection,
};
use super::super::pb::envoy::config::core::v3::TypedExtensionConfig;
use super::super::pb::envoy::extensions::load_balancing_policies as policies;
use super::any;
use policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use policies::ring_hash::v3::{RingHash, ring_hash::HashFunction};
use policies::round_robin::v3::RoundRobin;
use policies::wrr_locality::v3::WrrLocality;

/// The longest time for which a backend is left out, in first times.
const EJECTION_MAX: u32 = 10;

/// Returns how many calls may be under way; `None`: as many as clients allow anyway.
pub(super) fn circuit_breakers(settings: &XdsSettings) -> Option<CircuitBreakers> {
    let max_requests = Some(settings.requests);
    (settings.requests != REQUESTS_DEFAULT)
        .then(|| CircuitBreakers { thresholds: vec![Thresholds { max_requests }] })
}

/// Returns when a client leaves out a backend; `None`: never.
pub(super) fn outlier_detection(settings: &OutlierSettings) -> Option<OutlierDetection> {
    let (by_rate, by_failures) = match settings.kind {
        OutlierKind::Off => return None,
        OutlierKind::SuccessRate => (true, false),
        OutlierKind::FailurePercentage => (false, true),
    };
    let enforced = |on: bool| Some(if on { 100 } else { 0 });
    let if_on = |on: bool, value: u32| on.then_some(value);
    Some(OutlierDetection {
        interval: Some(time(settings.interval)),
        base_ejection_time: Some(time(settings.ejection)),
        max_ejection_time: Some(time(settings.ejection.saturating_mul(EJECTION_MAX))),
        max_ejection_percent: Some(settings.most),
        enforcing_success_rate: enforced(by_rate),
        success_rate_minimum_hosts: if_on(by_rate, settings.backends),
        success_rate_request_volume: if_on(by_rate, settings.requests),
        success_rate_stdev_factor: if_on(by_rate, settings.deviation),
        enforcing_failure_percentage: enforced(by_failures),
        failure_percentage_threshold: if_on(by_failures, settings.threshold),
        failure_percentage_minimum_hosts: if_on(by_failures, settings.backends),
        failure_percentage_request_volume: if_on(by_failures, settings.requests),
    })
}

/// Returns how a client chooses a backend; `None`: localities by weight, and round robin
/// within each. A client takes the first policy that it knows.
pub(super) fn policy(settings: &LbSettings) -> Option<LoadBalancingPolicy> {
    match settings.kind {
        LbKind::RoundRobin => None,
        LbKind::RingHash => {
            let ring = RingHash { hash_function: HashFunction::XxHash.into() };
            Some(one_of(vec![typed("ring_hash.v3.RingHash", &ring)]))
        }
        LbKind::Weighted => {
            let asks = !settings.interval.is_zero();
            let weighted = ClientSideWeightedRoundRobin {
                enable_oob_load_report: asks.then_some(true),
                oob_reporting_period: asks.then(|| time(settings.interval)),
            };
            let within = one_of(vec![
                typed(
                    "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
                    &weighted,
                ),
                // Node has the first only behind a variable of the environment.
                typed("round_robin.v3.RoundRobin", &RoundRobin {}),
            ]);
            let localities = WrrLocality { endpoint_picking_policy: Some(within) };
            Some(one_of(vec![typed("wrr_locality.v3.WrrLocality", &localities)]))
        }
    }
}

fn one_of(policies: Vec<Any>) -> LoadBalancingPolicy {
    let policy = |config: Any| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: config.type_url.rsplit('.').next().unwrap_or_default().to_owned(),
            typed_config: Some(config),
        }),
    };
    LoadBalancingPolicy { policies: policies.into_iter().map(policy).collect() }
}

fn typed(name: &str, message: &impl Message) -> Any {
    let url = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
    any(&url, message)
}

/// Returns a time as a message.
pub(in crate::xds) fn time(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}
