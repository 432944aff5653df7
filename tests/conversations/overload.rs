//! Tests that clients drop calls while they start more than the backends can serve.
//!
//! In: reports of clients and of backends. Out: the drop entries of open streams.

use std::time::Duration;

use lookaside::catalog::{Input, LoadTarget};
use lookaside::facts::capacity::Report;
use lookaside::model::BackendAddr;
use lookaside::settings::WhenEmpty;

use crate::conversations::wire::{Balanced, PYTHON, Stream, pb};

const SHED: &str = "[service.hello]\nload.kind = 'orca'\nshed = { mode = 'overload' }\n";

/// A service of two backends that can serve 100 calls a second together, and its only client.
struct World {
    balanced: Balanced,
    client: Stream,
    /// The part of its calls that the client drops by its newest list.
    dropped: f64,
}

impl World {
    async fn start(document: &str) -> Self {
        let mut balanced = Balanced::start(WhenEmpty::Wait).await;
        balanced.settle(document).await;
        for n in 1..=2 {
            balanced.put(&format!("hello {n} 10.0.0.{n}:{n}")).await;
        }
        tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
        let mut client = balanced.open(PYTHON, "hello").await;
        assert_eq!(drops(&client.first_servers().await), 0.0);
        Self { balanced, client, dropped: 0.0 }
    }

    /// Lets the client start so many calls a second, for some spans of ten seconds. Returns
    /// the part that it drops after each.
    async fn run(&mut self, spans: usize, started: f64) -> Vec<f64> {
        let mut all = Vec::new();
        for _ in 0..spans {
            let dropped = started * self.dropped;
            let load = (started - dropped) / 100.0;
            for n in 1..=2 {
                let addr = BackendAddr::new([10, 0, 0, n].into(), u16::from(n)).unwrap();
                let target = LoadTarget { addr, interval: Duration::from_secs(10), tls: None };
                let calls = 50.0 * load.min(1.0);
                let report = Report { calls, utilisation: load.min(1.0) };
                self.balanced.inputs.send(Input::Loaded(target, report)).await.unwrap();
            }
            self.client.report(pb::ClientStats {
                num_calls_started: (10.0 * started) as i64,
                num_calls_finished: (10.0 * started) as i64,
                calls_finished_with_drop: vec![pb::ClientStatsPerToken {
                    load_balance_token: "drop".to_owned(),
                    num_calls: (10.0 * dropped) as i64,
                }],
                ..Default::default()
            });
            let until = tokio::time::Instant::now() + Duration::from_secs(10);
            while let Ok(list) = tokio::time::timeout_at(until, self.client.servers()).await {
                self.dropped = drops(&list);
            }
            all.push(self.dropped);
        }
        all
    }
}

/// Returns the part of the entries that are drop entries.
fn drops(servers: &[pb::Server]) -> f64 {
    servers.iter().filter(|server| server.drop).count() as f64 / servers.len() as f64
}

#[tokio::test(start_paused = true)]
async fn clients_drop_what_is_over_the_capacity_and_no_more() {
    let mut world = World::start(SHED).await;
    assert!(world.run(6, 70.0).await.iter().all(|dropped| *dropped == 0.0), "there is room");
    let lists = world.balanced.counters.lists_encoded.total();
    world.run(6, 200.0).await;
    let shed = world.run(6, 200.0).await;
    // 95 of 200 calls a second are sent, more or less.
    assert!(shed.iter().all(|dropped| (0.48..=0.58).contains(dropped)), "{shed:?}");
    let lists = world.balanced.counters.lists_encoded.total() - lists;
    assert!(lists <= 12, "{lists} lists in two minutes");
    let service = world.balanced.catalog.services().remove(0);
    assert!((48..=58).contains(&service.facts.overload_shed.unwrap()));
    // The overload ends.
    let after = world.run(3, 60.0).await;
    assert_eq!(after[2], 0.0, "{after:?}");
    assert_eq!(world.balanced.catalog.services()[0].facts.overload_shed, None);
}

#[tokio::test(start_paused = true)]
async fn the_setting_bounds_the_part_and_ends_it() {
    let most = SHED.replace("'overload'", "'overload', most = 20");
    let mut world = World::start(&most).await;
    world.run(6, 70.0).await;
    let shed = world.run(6, 200.0).await;
    assert!((shed[5] - 0.2).abs() < 0.01, "{shed:?}");
    world.balanced.settle("[service.hello]\nload.kind = 'orca'\n").await;
    assert_eq!(drops(&world.client.servers().await), 0.0);
}
