//! Tests of what a Go client's own service config may ask of grpclb.

use super::*;

/// Makes a client use one backend, the first of the list that answers.
pub(crate) const PICK_FIRST: &str =
    r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;
/// Makes a client ask the balancer for another name than the target's.
const OTHER_NAME: &str = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"other"}}]}"#;

#[test]
fn a_service_name_in_the_config_wins_over_the_targets() {
    let balancer = lone_balancer(&[]);
    let _hello = Backend::registered("hello", &registry(&balancer), "hello");
    let _other = Backend::registered("other", &registry(&balancer), "other");
    // grpc-go 1.39 introduced the field; older releases ignore it.
    for (release, expected) in [("go", "other"), ("go-old", "hello")] {
        let driver = Driver::start(release);
        driver.open(balancer.target("hello"), Some(OTHER_NAME)).shares(&[expected]);
    }
}
