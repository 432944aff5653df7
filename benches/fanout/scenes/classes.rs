//! Measures a push to clients of many classes, beside the same push to one class.
//!
//! In: one service with backends in sixteen zones. Out: processor time and durations of
//! lookaside only. Clients select the backends of a zone by name: all of them those of one
//! zone, or a sixteenth of the clients those of each. All lists have the same length, and one
//! transaction changes them all.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Bench, Outcome, PAUSE, SERVICE, cell, ms};
use crate::run::client::{Load, Manner, Plan, Protocols};
use crate::run::report::percentile;
use crate::run::server::on_core;
use crate::run::start::WAIT_MAX;

const CLASSES: usize = 16;
const ENTRIES: usize = 100;

pub(crate) fn classes(bench: &mut Bench) -> Outcome {
    let zones: Vec<_> = (0..CLASSES).map(|zone| format!("z{zone:02}")).collect();
    bench.registry.fill_zones(SERVICE, &zones, ENTRIES);
    let kinds = bench.ours(false);
    let each = |classes| kinds.iter().map(move |kind| (classes, *kind));
    for (classes, kind) in [1, CLASSES].into_iter().flat_map(each) {
        let cell = cell("classes", classes, ENTRIES, Manner::Plain, kind);
        let server = bench.start(kind, ENTRIES, true);
        let plan = Plan {
            connections: bench.many,
            streams: 1,
            manner: Manner::Plain,
            protocol: Protocols::Grpclb,
            names: zones[..classes].iter().map(|zone| format!("zone--{zone}.{SERVICE}")).collect(),
            at_once: AT_ONCE,
        };
        let mut load = on_core(1, || Load::connect(server.addr, &plan, WAIT_MAX))?;
        let (mut cpu, mut times) = (Duration::ZERO, Vec::new());
        // The first push makes buffers that later ones use again.
        for push in 0..=bench.pushes {
            let before = server.cpu();
            load.expect_one();
            let begun = Instant::now();
            let put = bench.registry.change_zones(SERVICE, &zones, ENTRIES);
            let end = on_core(1, || {
                let end = load.until_caught_up(WAIT_MAX);
                load.run_for(PAUSE);
                end
            })?;
            bench.registry.acknowledged(put);
            if push > 0 {
                cpu += server.cpu() - before;
                times.push(ms(end - begun));
            }
        }
        let pushes = (bench.pushes * bench.many) as f64;
        bench.note(&cell, "cpu us/push", cpu.as_secs_f64() * 1e6 / pushes);
        bench.note(&cell, "to last ms", percentile(&mut times, 50));
        bench.note(&cell, "list bytes", load.length() as f64);
        load.kill();
    }
    Ok(())
}
