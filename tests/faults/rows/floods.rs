//! Rows of overload: huge messages, unknown names, too few file descriptors, and a
//! flood of reports.
//!
//! In: the load. Out: memory, processor time, and how soon updates reach clients.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::check::Settled;
use crate::raw::{Raw, ask_for_all};
use crate::row::{Row, short};
use crate::support::crowd::{Crowd, Manner, Plan};
use crate::support::{WAIT_MAX, eventually};
use crate::support::{ads, wire};
use crate::world::{Size, World, cpu, until, vitals};
use crate::writer::{DEAD_PORT, server};

#[test]
fn messages_are_huge() {
    let must = "refused beyond 64 KiB, before an initial response; all messages of a connection \
                take ≤ 8 MB";
    let fault = "messages of 4 MiB on 100 streams of one connection, names of 64 KiB";
    Row::run(17, fault, must, |row, scale| {
        let size = Size { clients: scale.streams / 10, ..Size::of(scale) };
        let world = World::new(size, &[]);
        let before = vitals(&world.balancer).memory;
        let refused = || {
            let names = ["lookaside_streams_refused_total", "lookaside_xds_streams_refused_total"];
            names.iter().map(|name| world.balancer.metric(name).expect("shown")).sum::<f64>()
        };
        let refused_before = refused();
        let (mut raw, began) = (Raw::open(world.balancer.grpclb()), Instant::now());
        let mut peak = before;
        let deadline = Instant::now() + WAIT_MAX;
        for (stream, path) in
            (1..200).step_by(2).zip([wire::BALANCE_LOAD, ads::PATH].iter().cycle())
        {
            let mut out = Vec::new();
            wire::put_call(&mut out, stream, path);
            // Announces 4 MiB and sends the beginning: more than the window takes.
            let message = [&[0][..], &(4_u32 << 20).to_be_bytes(), &[0; 16_000]].concat();
            wire::put_data(&mut out, stream, &message);
            raw.send_all(&out, deadline);
            peak = peak.max(vitals(&world.balancer).memory);
        }
        eventually("all are refused", || {
            peak = peak.max(vitals(&world.balancer).memory);
            (refused() >= refused_before + 100.0).then_some(())
        });
        row.saw(format!("100 streams refused after {}", short(began.elapsed())));
        let mut named = Raw::open(world.balancer.grpclb());
        let mut out = Vec::new();
        wire::put_call(&mut out, 1, wire::BALANCE_LOAD);
        wire::put_data(&mut out, 1, &wire::balance_request(&"x".repeat(64 * 1024 - 16)));
        named.send_all(&out, deadline);
        eventually("the name is refused", || (refused() >= refused_before + 101.0).then_some(()));
        row.at_most("memory", (peak - before) as f64 / 1024.0, 8.0, " MB");
        drop((raw, named));
        world.finish(row, Some(Settled { at: began, within: WAIT_MAX }));
    });
}

#[test]
fn unknown_names_come_by_the_million() {
    let must = "every stream is answered, and nothing is kept of it: memory is back to within 10 \
                MB";
    Row::run(18, "streams for unregistered names, each another", must, |row, scale| {
        let size = Size { clients: scale.streams / 10, ..Size::of(scale) };
        let mut world = World::new(size, &[]);
        let (warm, many) = scale.pick((2_000, 20_000), (50_000, 1_000_000));
        let addr = world.balancer.grpclb();
        let ask = |from: usize, count: usize| {
            let mut names = (from..from + count).map(|n| format!("nobody-has-{n}"));
            // Each connection may ask about 30 times a second.
            ask_for_all(addr, 200, &mut names, Instant::now() + WAIT_MAX * 5)
        };
        // Memory that the allocator keeps after any load is not a leak.
        row.equal("answered at first", ask(0, warm), warm);
        let (before, began) = (vitals(&world.balancer).memory, Instant::now());
        row.equal("answered", ask(warm, many), many);
        row.saw(format!("{:.0} a second", many as f64 / began.elapsed().as_secs_f64()));
        let mut after = 0;
        let _ = until(WAIT_MAX, || {
            after = vitals(&world.balancer).memory;
            (after <= before + 10 * 1024).then_some(())
        });
        let grown = after.saturating_sub(before) as f64 / 1024.0;
        row.at_most("memory kept", grown, 10.0, " MB");
        let services = world.balancer.metric("lookaside_services");
        row.equal("services known", services, Some(size.services as f64));
        let put = world.writer.put("s0", server(0, size.servers, DEAD_PORT));
        row.within("an update afterwards", world.converge(put), Duration::from_secs(2));
        world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
    });
}

#[test]
fn descriptors_run_out() {
    let must = "≤ 5 % of a core while none is left; clients with a stream get lists as ever; new \
                clients are served < 1 s after descriptors are free";
    Row::run(19, "no descriptor is left", must, |row, scale| {
        let size = Size { clients: scale.streams / 2, ..Size::of(scale) };
        let mut world = World::new(size, &[]);
        let id = i32::try_from(world.balancer.id()).expect("a process's number");
        let process = Pid::from_raw(id);
        let usual = getrlimit(Resource::Nofile);
        let open = vitals(&world.balancer).files;
        let limit = |current| {
            let wanted = Rlimit { current, maximum: usual.maximum };
            prlimit(process, Resource::Nofile, wanted).expect("the process is ours")
        };
        // One descriptor stays free for the request for metrics.
        let before = limit(Some(open + 2));
        let late = Crowd::new(Plan::mixed(world.balancer.grpclb()));
        late.add((0..100).map(|_| "s0".to_owned()), Manner::Usual);
        let log = || world.balancer.log().contains("cannot accept connections");
        eventually("none is left", || log().then_some(()));
        let (began, used) = (Instant::now(), cpu(&world.balancer));
        let put = world.writer.put("s0", server(0, size.servers, DEAD_PORT));
        row.within("an update meanwhile", world.converge(put), Duration::from_secs(2));
        let time = scale.pick(Duration::from_secs(3), Duration::from_secs(30));
        std::thread::sleep(time.saturating_sub(began.elapsed()));
        let share = (cpu(&world.balancer) - used).as_secs_f64() / began.elapsed().as_secs_f64();
        row.at_most("of a core", share * 100.0, scale.pick(30.0, 5.0), " %");
        limit(before.current);
        let free = Instant::now();
        eventually("newcomers are served", || (late.listed() == 100).then_some(()));
        row.within("newcomers served after", free.elapsed(), Duration::from_secs(1));
        row.equal("streams closed", world.crowd.history(|h| h.lost.len()), 0);
        drop(late);
        world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
    });
}

#[test]
fn clients_report_all_the_time() {
    let must = "no connection is ended for it, no update lost, memory flat";
    Row::run(20, "reports every 10 ms from 100 clients", must, |row, scale| {
        let size = Size { clients: scale.streams / 10, ..Size::of(scale) };
        let mut world = World::new(size, &[]);
        let report = Some(Duration::from_millis(10));
        let talkers = Crowd::new(Plan { report, ..Plan::to(world.balancer.grpclb()) });
        talkers.add((0..100).map(|_| "s0".to_owned()), Manner::Usual);
        eventually("they are connected", || (talkers.listed() == 100).then_some(()));
        let reports = || world.balancer.metric("lookaside_reports_total").expect("it is shown");
        let (began, first) = (Instant::now(), reports());
        let time = scale.pick(Duration::from_secs(5), scale.soak.min(Duration::from_secs(600)));
        std::thread::sleep(time / 5);
        let warm = vitals(&world.balancer).memory;
        std::thread::sleep(time * 4 / 5);
        let rate = (reports() - first) / began.elapsed().as_secs_f64();
        row.saw(format!("{rate:.0} reports a second for {}", short(began.elapsed())));
        row.must(rate > scale.pick(100.0, 5_000.0), "all are read");
        let put = world.writer.put("s0", server(0, size.servers, DEAD_PORT));
        row.within("an update", world.converge(put), Duration::from_secs(2));
        let newest =
            |_: &str, set: &_| world.writer.model.steps("s0").last().is_some_and(|s| s.allows(set));
        eventually("they are told, too", || talkers.all_received(newest).then_some(()));
        row.equal("connections ended", talkers.history(|h| h.lost.len()), 0);
        let grown = vitals(&world.balancer).memory.saturating_sub(warm) as f64 / 1024.0;
        row.at_most("memory grown", grown, 2.0, " MB");
        drop(talkers);
        world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
    });
}
