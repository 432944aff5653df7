//! Measures a push to clients of many classes, beside the same push to one class.
//!
//! In: one service with backends in sixteen zones. Out: processor time and durations of
//! lookaside only. With the setting `zones`, the clients of each zone are a class with a list
//! of its own. Without it, all clients select the backends of one zone, so they are one
//! class. Both get lists of the same length, and one transaction changes all of these lists.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Bench, Outcome, PAUSE, SERVICE, cell, ms};
use crate::run::client::{Load, Manner, Plan, Protocols};
use crate::run::out_dir;
use crate::run::report::percentile;
use crate::run::server::{Kind, Server, on_core};
use crate::run::start::WAIT_MAX;

const CLASSES: usize = 16;
const ENTRIES: usize = 100;
/// No more lists are expected after this long without one. The demand of the zones is looked
/// at one second after the clients came.
const QUIET: Duration = Duration::from_millis(1_500);

pub(crate) fn classes(bench: &mut Bench) -> Outcome {
    // Other builds may not know the setting.
    let kind = Kind::Lookaside;
    if !bench.kinds.contains(&kind) {
        return Ok(());
    }
    let zones: Vec<_> = (0..CLASSES).map(|zone| format!("z{zone:02}")).collect();
    bench.registry.fill_zones(SERVICE, &zones, ENTRIES);
    let path = out_dir().join("zones.toml");
    let settings = format!("[service.{SERVICE}]\nzones = {{ mode = \"prefer\" }}\n");
    std::fs::write(&path, settings).map_err(|error| format!("{}: {error}", path.display()))?;
    let config = path.to_str().ok_or("the path is no UTF-8 text")?;
    for (classes, arguments) in [(1, &[][..]), (CLASSES, &["--config", config][..])] {
        let cell = cell("classes", classes, ENTRIES, Manner::Plain, kind);
        let server = Server::start_with(kind, ENTRIES, &bench.registry.url(), true, arguments);
        let plan = Plan {
            connections: bench.many,
            streams: 1,
            manner: Manner::Plain,
            protocol: Protocols::Grpclb,
            names: zones[..classes].iter().map(|zone| format!("zone--{zone}.{SERVICE}")).collect(),
            at_once: AT_ONCE,
        };
        let mut load = on_core(1, || Load::connect(server.addr, &plan, WAIT_MAX))?;
        on_core(1, || load.until_quiet(QUIET));
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
