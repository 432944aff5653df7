//! What docs/embedded-registry.md says, done as it is written.

use std::process::Command;

use crate::support::eventually;
use crate::support::lookaside::Balancer;

const PAGE: &str = include_str!("../../docs/embedded-registry.md");

#[test]
fn the_first_example_works_as_written() {
    let balancer = Balancer::start(&[]);
    let example = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.expect("there is an example");
    assert!(example.contains("127.0.0.1:2379"), "the default address: {example}");
    // A watch goes on for ever.
    let lines = example.lines().filter(|line| !line.starts_with("etcdctl watch"));
    let script = lines.collect::<Vec<_>>().join("\n");
    let script = script.replace("127.0.0.1:2379", &balancer.registry().to_string());
    let ran = Command::new("sh").args(["-ec", &script]).output().expect("a shell");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("127.0.0.1:50051"), "{said}");
    eventually("the service is listed", || {
        let (status, service) = balancer.try_get("/api/v1/services/hello")?;
        (status == 200 && service.contains("50051")).then_some(())
    });
}
