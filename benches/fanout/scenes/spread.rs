//! Measures how clients spread over three balancers: at first, and after one of them was
//! restarted.
//!
//! In: the number of clients, which find the balancers by their DNS. Out: how far from even
//! the streams are, and how many clients moved until they were even again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Bench, Outcome, SERVICE, cell};
use crate::run::client::Manner;
use crate::run::server::Kind;
use crate::support::crowd::{self, Crowd, Dns, Plan};
use crate::support::lookaside::Balancer;
use crate::support::{dns, eventually, free_port};

const BALANCERS: usize = 3;
const ENTRIES: usize = 10;
/// The part of its streams that a balancer asks to move in a second, in percent: ten times
/// the default, so that the scene ends. Clients wait 35 s for their second turn in any case.
const SPREAD: &str = "2";
/// How long streams may take until they are even.
const PATIENCE: Duration = Duration::from_secs(900);
/// How far from the mean the streams of a balancer may be, in percent.
const EVEN: f64 = 10.0;
/// The clients that start in a second.
const PACE: usize = 2_000;
/// How often the streams are counted. Balancers write their numbers every five seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The flags of one balancer, which starts at the same ports again.
struct Place {
    listen: String,
    dns: String,
    etcd: String,
}

impl Place {
    fn start(&self) -> Balancer {
        let args = [
            ("--listen", &*self.listen),
            ("--dns-listen", &self.dns),
            ("--etcd", &self.etcd),
            ("--spread", SPREAD),
            ("--log", "error"),
        ];
        let args: Vec<_> = args.iter().flat_map(|(flag, value)| [*flag, value]).collect();
        let balancer = Balancer::start(&args);
        balancer.wait_ready();
        balancer
    }
}

/// Restarts one of three balancers, and waits until streams are even again.
pub(crate) fn restart(bench: &mut Bench) -> Outcome {
    if !bench.kinds.contains(&Kind::Lookaside) {
        return Ok(());
    }
    bench.fill(ENTRIES);
    // One port at several addresses, as on several hosts: only addresses of one name rotate.
    let port = free_port();
    let place = |number| Place {
        listen: format!("127.0.0.{}:{port}", number + 1),
        dns: format!("127.0.0.1:{}", free_port()),
        etcd: bench.registry.url(),
    };
    let places: Vec<_> = (0..BALANCERS).map(place).collect();
    let mut balancers: Vec<_> = places.iter().map(Place::start).collect();
    let name = format!("_grpclb._tcp.{SERVICE}.lookaside.internal");
    until_all_name_all(&balancers, &name);
    let servers: Vec<SocketAddr> = balancers.iter().map(Balancer::dns).collect();
    let dns = Some(Dns { servers, name: name.clone() });
    let crowd = Crowd::new(Plan { dns, pace: PACE, ..Plan::to(balancers[0].grpclb()) });
    crowd.add((0..bench.many).map(|_| SERVICE.to_owned()), crowd::Manner::Usual);
    let all_listed = || (crowd.listed() == bench.many).then_some(());
    eventually("all clients have lists", all_listed);
    let (many, wanted) = (bench.many, if bench.short { 50.0 } else { EVEN });
    let cell = cell("spread", many, ENTRIES, Manner::Plain, Kind::Lookaside);
    bench.note(&cell, "off even at first %", until_counted(&balancers, many));

    balancers.remove(0).terminate();
    eventually("all clients have lists", || (crowd.listed() == many).then_some(()));
    balancers.insert(0, places[0].start());
    until_all_name_all(&balancers, &name);
    let begun = Instant::now();
    let moved = || crowd.history(|history| history.lost_since(begun));
    let mut most_at_once = 0;
    let mut off = until_counted(&balancers, many);
    bench.note(&cell, "off even restarted %", off);
    while off > wanted {
        if begun.elapsed() > PATIENCE {
            return Err(format!("streams are {off:.0} % off even after {PATIENCE:?}"));
        }
        let before = moved();
        sleep(LOOK_EVERY);
        most_at_once = most_at_once.max(moved() - before);
        off = off_even(&balancers, many).unwrap_or(off);
    }
    bench.note(&cell, "seconds to even", begun.elapsed().as_secs_f64());
    bench.note(&cell, "off even in the end %", off);
    // A client that comes back counts too.
    bench.note(&cell, "reconnects/client", moved() as f64 / many as f64);
    bench.note(&cell, "clients at once %", most_at_once as f64 * 100.0 / many as f64);
    Ok(())
}

fn until_all_name_all(balancers: &[Balancer], name: &str) {
    let all: BTreeSet<_> = balancers.iter().map(Balancer::grpclb).collect();
    for balancer in balancers {
        eventually("it names all balancers", || {
            let named: BTreeSet<_> = dns::balancers(balancer.dns(), name)?.into_iter().collect();
            (named == all).then_some(())
        });
    }
}

/// Waits until each client is counted once. Returns how far off even they are.
fn until_counted(balancers: &[Balancer], clients: usize) -> f64 {
    eventually("all clients are counted", || off_even(balancers, clients))
}

/// Returns how far from the mean the streams of a balancer are at most, in percent; `None`
/// while clients are on their way.
fn off_even(balancers: &[Balancer], clients: usize) -> Option<f64> {
    let streams: Option<Vec<u64>> = balancers.iter().map(own_streams).collect();
    let (streams, mean) = (streams?, clients as f64 / BALANCERS as f64);
    let off = |streams: &u64| (*streams as f64 - mean).abs() * 100.0 / mean;
    let counted = streams.iter().sum::<u64>().abs_diff(clients as u64) * 50 <= clients as u64;
    counted.then(|| streams.iter().map(off).fold(0.0, f64::max))
}

fn own_streams(balancer: &Balancer) -> Option<u64> {
    let (_, page) = balancer.try_get("/api/v1/balancers")?;
    let page: Value = serde_json::from_str(&page).ok()?;
    page["balancers"][0]["streams"].as_u64()
}
