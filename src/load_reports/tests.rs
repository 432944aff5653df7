//! Tests of what happens to backends that cannot be asked, and of what a report means.

use super::*;
use crate::model::BackendAddr;
use crate::settings::CheckTls;

#[test]
fn a_report_means_calls_and_the_utilisation_of_the_application_first() {
    let report = OrcaLoadReport {
        cpu_utilization: 0.5,
        rps_fractional: 100.0,
        eps: 20.0,
        ..OrcaLoadReport::default()
    };
    let check = |report: &OrcaLoadReport, expected: Option<(f64, f64)>| {
        let found = meaning(report).map(|one| (one.calls, one.utilisation));
        assert_eq!(found, expected, "{report:?}");
    };
    check(&report, Some((80.0, 0.5)));
    check(&OrcaLoadReport { application_utilization: 0.8, ..report }, Some((80.0, 0.8)));
    check(&OrcaLoadReport { rps_fractional: 0.0, rps: 7, eps: 0.0, ..report }, Some((7.0, 0.5)));
    check(&OrcaLoadReport { eps: 200.0, ..report }, Some((0.0, 0.5)));
    check(&OrcaLoadReport { eps: f64::NAN, ..report }, Some((100.0, 0.5)));
    for useless in [
        OrcaLoadReport { cpu_utilization: 0.0, ..report },
        OrcaLoadReport { rps_fractional: 0.0, ..report },
        OrcaLoadReport { rps_fractional: -1.0, ..report },
        OrcaLoadReport { cpu_utilization: f64::INFINITY, ..report },
        OrcaLoadReport::default(),
    ] {
        check(&useless, None);
    }
}

/// Runs with targets that nobody answers, up to so many at a time. Returns the backends
/// that are first told to be silent, and the failures that are counted by then.
async fn silent(most: usize, ca: Option<&str>, ports: &[u16]) -> (Vec<u16>, u64) {
    let tls = ca.map(|file| CheckTls { ca: Some(file.into()), name: None });
    let target = |port: &u16| LoadTarget {
        addr: BackendAddr::new([127, 0, 0, 1].into(), *port).unwrap(),
        interval: Duration::from_secs(1),
        tls: tls.clone(),
    };
    let (_targets_tx, targets) = watch::channel(ports.iter().map(target).collect());
    let (inputs_tx, mut inputs) = mpsc::channel(4);
    let counters: Arc<Counters> = Arc::default();
    let connect = async |_| std::future::pending::<io::Result<tokio::io::DuplexStream>>().await;
    let run = run_up_to(most, targets, inputs_tx, counters.clone(), connect);
    let read = async {
        let mut silent = Vec::new();
        for _ in 0..ports.len() - most.min(ports.len() - 1) {
            match inputs.recv().await {
                Some(Input::LoadSilent(target)) => silent.push(target.addr.port()),
                other => panic!("{other:?}"),
            }
        }
        silent
    };
    let silent = tokio::select! {
        () = run => panic!("it runs on"),
        silent = read => silent,
    };
    (silent, counters.load_report_failures.total())
}

#[tokio::test(start_paused = true)]
async fn nothing_that_cannot_be_asked_goes_unnoticed() {
    // One of three has the only place, and takes five seconds to fail.
    let (silent_ones, failures) = silent(1, None, &[1, 2, 3]).await;
    assert_eq!((silent_ones.len(), failures), (2, 0));
    assert_ne!(silent_ones[0], silent_ones[1]);
    let (silent_ones, failures) = silent(1, Some("/nonexistent"), &[7]).await;
    assert_eq!((silent_ones, failures), (vec![7], 1));
}

#[test]
fn pauses_grow_to_a_minute() {
    let (least, most) = PAUSE;
    assert!((least..=2 * least).contains(&pause(1)));
    assert!((4 * least..=5 * least).contains(&pause(3)));
    assert!((most..=most + least).contains(&pause(u32::MAX)));
}
