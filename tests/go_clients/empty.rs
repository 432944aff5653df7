//! Tests of Go clients with a service without backends, in each mode, by the first
//! list of a stream and by a later one, with either child policy.

use super::*;
use config::PICK_FIRST;

const MODES: [&str; 3] = ["wait", "drop", "fallback"];

/// Checks that a fail-fast call fails at once and that a call which waits goes on
/// waiting. This holds in every mode: with `drop`, grpc-go lets calls wait too (drop
/// entries count once it is connected), and with `fallback` there is no address to
/// fall back to.
#[track_caller]
fn assert_empty(client: &Channel<'_>, case: &str) {
    let now = client.begin(&Calls::new(1).timeout(Duration::from_secs(20)));
    let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(2)));
    for (pending, code) in [(now, "UNAVAILABLE"), (waiting, "DEADLINE_EXCEEDED")] {
        let report = pending.wait();
        assert!(report.errors.keys().all(|error| error.starts_with(code)), "{case}: {report:?}");
        assert_eq!(report.failed(), 1, "{case}: {report:?}");
    }
}

/// Returns what the balancer last sent on the stream of this service's client.
fn told(balancer: &Balancer, name: &str) -> Option<String> {
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).unwrap();
    let mut clients = clients["clients"].as_array()?.iter();
    Some(clients.find(|client| client["service"] == name)?["told"].as_str()?.to_owned())
}

/// Starts with a service without backends, which then gets one, loses it, and gets
/// another.
fn comes_and_goes(driver: &Driver, mode: &str, child: &str, config: &str) {
    let balancer = lone_balancer(&["--when-empty", mode]);
    let registry = registry(&balancer);
    let case = |when| format!("{mode}, {child}, {when} list, {}", driver.version());
    let client = driver.open(balancer.target("hello"), Some(config));
    // With pick_first and no fallback address, grpc-go stays in its state before
    // the first list: every call waits.
    if (mode, child) != ("fallback", "pick_first") {
        assert_empty(&client, &case("first"));
    }
    let waiting = client.begin(&Calls::waiting(1));
    let one = Backend::registered("one", &registry, "hello");
    assert_eq!(waiting.wait().from("one"), 1, "{}", case("second"));
    one.stop();
    eventually("calls that do not wait fail", || {
        let report = client.call(&Calls::new(1));
        let told = told(&balancer, "hello").filter(|told| told != "list");
        (report.failed() == 1).then_some(told)
    });
    assert_empty(&client, &case("third"));
    let waiting = client.begin(&Calls::waiting(1));
    let two = Backend::registered("two", &registry, "hello");
    assert_eq!(waiting.wait().from("two"), 1, "{}", case("fourth"));
    client.shares(&["two"]);
    two.stop();
}

#[test]
fn without_backends_calls_fail_at_once_or_wait_as_they_chose() {
    each_release(|driver| {
        thread::scope(|scope| {
            for mode in MODES {
                for (child, config) in [("round_robin", GRPCLB), ("pick_first", PICK_FIRST)] {
                    scope.spawn(move || comes_and_goes(driver, mode, child, config));
                }
            }
        });
    });
}
