//! What a Go client's own config may ask of grpclb.

use super::*;

/// Use one backend, the first of the list that answers.
pub(crate) const PICK_FIRST: &str =
    r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;
/// Ask the balancer for another name than the target's.
const OTHER_NAME: &str = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"other"}}]}"#;

/// All calls of a channel go to one backend, and many channels use them all:
/// each stream's list begins elsewhere.
#[test]
fn pick_first_as_child_policy_spreads_channels() {
    let balancer = lone_balancer(&[]);
    let ids = ["one", "two", "three"];
    let _backends = ids.map(|id| Backend::registered(id, &registry(&balancer), "hello"));
    each_release(|driver| {
        let mut channels = Vec::new();
        eventually("each backend is some channel's first", || {
            let channel = driver.open(balancer.target("hello"), Some(PICK_FIRST));
            let report = channel.call(&Calls::waiting(20));
            let first = ids.iter().position(|id| report.from(id) == 20);
            channels.push((channel, first.unwrap_or_else(|| panic!("{report:?}"))));
            (0..ids.len()).all(|id| channels.iter().any(|(_, first)| *first == id)).then_some(())
        });
    });
}

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
