//! Asks clients to go to other balancers while this one has more streams than they.
//!
//! In: the balancers of the zone, with their streams. Out: requests to leave, at a set rate.
//! It never asks anybody while the numbers may be out of date.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::connections::Connections;
use crate::replica::known::Replicas;
use crate::replica::spread::{self, PerSecond};
use crate::telemetry::Counters;

/// How streams are spread over balancers.
#[derive(Clone)]
pub struct Spread {
    /// The balancers of the zone; the newest value counts.
    pub replicas: watch::Receiver<Arc<Replicas>>,
    /// The most streams that are asked to leave in a second.
    pub per_second: PerSecond,
}

/// The interval at which some clients are asked. The others' numbers are up to five seconds
/// old, in which less than a hundredth of the streams moves.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks clients to leave whenever this balancer has too many. Never returns.
pub(super) async fn run(spread: Option<Spread>, connections: &Connections, counters: &Counters) {
    let Some(Spread { replicas, per_second }) = spread.filter(|spread| spread.per_second > 0)
    else {
        return std::future::pending().await;
    };
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spreading = false;
    loop {
        tick.tick().await;
        let loads = replicas.borrow().loads();
        let (own, others) = loads.unwrap_or_default();
        let leaving = spread::leaving(own, &others);
        if (leaving > 0) != spreading {
            spreading = leaving > 0;
            match spreading {
                true => tracing::info!(
                    streams = own,
                    leaving,
                    "more streams here than at other balancers: clients are asked to move"
                ),
                false => tracing::info!(streams = own, "clients are no longer asked to move"),
            }
        }
        counters.connections_spread.add(connections.spread(leaving, own, per_second, INTERVAL));
    }
}
