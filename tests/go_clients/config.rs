//! What a Go client's own config may ask of grpclb.

use super::*;

/// Use one backend, the first of the list that answers.
pub(crate) const PICK_FIRST: &str =
    r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;
/// Ask the balancer for another name than the target's.
const OTHER_NAME: &str = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"other"}}]}"#;

#[test]
fn a_service_name_in_the_config_wins_over_the_targets() {
    let balancer = lone_balancer(&[]);
    let _hello = Backend::registered("hello", &registry(&balancer), "hello");
    let _other = Backend::registered("other", &registry(&balancer), "other");
    // It came with grpc-go 1.39; before, the field has no meaning.
    for (release, expected) in [("go", "other"), ("go-old", "hello")] {
        let driver = Driver::start(release);
        driver.open(balancer.target("hello"), Some(OTHER_NAME)).shares(&[expected]);
    }
}
