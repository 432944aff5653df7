//! Measures a push: processor time, time to the last client, memory of a stream.
//!
//! In: the number and manner of the clients, and the length of their list. Out: one cell
//! for each server, which has one core while the clients have the other. It fails if
//! lookaside and the limit do not send the same number of bytes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{AT_ONCE, Bench, Outcome, cell, connect, ms};
use crate::run::client::Manner;
use crate::run::report::percentile;
use crate::run::server::Kind;

/// Slow servers get fewer pushes than others once these have taken this long.
const ENOUGH: Duration = Duration::from_secs(3);
/// How much longer than the limit's a list may be: a nonce of xDS has more digits after ten
/// responses.
const DIGITS: usize = 3;

pub(crate) fn push(bench: &mut Bench, clients: usize, entries: usize, manner: Manner) -> Outcome {
    bench.fill(entries);
    let mut lengths = BTreeMap::new();
    for kind in bench.kinds.clone() {
        let cell = cell("push", clients, entries, manner, kind);
        let mut server = bench.start(kind, entries, true);
        let empty = server.rss();
        let mut load = connect(&server, kind, clients, manner, AT_ONCE)?;
        let full = server.rss();
        // The first push makes buffers that later ones use again.
        bench.push(kind, &mut server, &mut load)?;
        let (before, begun) = (server.cpu(), Instant::now());
        let mut times = Vec::new();
        while times.len() < bench.pushes && (times.is_empty() || begun.elapsed() < ENOUGH) {
            times.push(ms(bench.push(kind, &mut server, &mut load)?));
        }
        let cpu = (server.cpu() - before).as_secs_f64() * 1e6 / times.len() as f64;
        let per = |value: f64| value / clients as f64;
        let kb = |rss: u64| per(rss.saturating_sub(empty) as f64 / 1000.0);
        bench.note(&cell, "cpu us/push", per(cpu));
        bench.note(&cell, "to last ms", percentile(&mut times, 50));
        bench.note(&cell, "kB/stream", kb(full));
        bench.note(&cell, "kB/stream pushed", kb(server.rss()));
        bench.note(&cell, "list bytes", load.length() as f64);
        lengths.insert(kind, load.length());
        load.kill();
    }
    for kind in [Kind::Lookaside, Kind::LookasideXds] {
        let (Some(&ours), Some(&limit)) = (lengths.get(&kind), lengths.get(&kind.limit())) else {
            continue;
        };
        if ours.abs_diff(limit) > DIGITS {
            return Err(format!("{kind} sends {ours} bytes, and the limit {limit}"));
        }
    }
    Ok(())
}
