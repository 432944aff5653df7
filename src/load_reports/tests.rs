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

/// When a backend sends the head of its answer after the question, and when its report.
type Delays = (Duration, Option<Duration>);

/// Answers one question.
async fn report_after((head, report): Delays, io: tokio::io::DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    let answer = async {
        tokio::time::sleep(head).await;
        let response = http::Response::builder().header("content-type", "application/grpc");
        let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
        let Some(report) = report else { return std::future::pending().await };
        tokio::time::sleep(report).await;
        let report =
            OrcaLoadReport { cpu_utilization: 0.5, rps_fractional: 9.0, ..Default::default() };
        let report = prost::Message::encode_to_vec(&report);
        let length = u32::try_from(report.len()).unwrap().to_be_bytes();
        body.send_data([&[0], &length[..], &report].concat().into(), false).unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answer => {}
        _ = std::future::poll_fn(|context| connection.poll_closed(context)) => {}
    }
}

/// Asks one backend for each of these delays, every ten seconds. Returns the first input
/// about the last of them, and when it came.
async fn first_of_last(all: Vec<Delays>) -> (Input, Duration) {
    let last = u16::try_from(all.len()).unwrap();
    let target = |port: u16| LoadTarget {
        addr: BackendAddr::new([127, 0, 0, 1].into(), port).unwrap(),
        interval: Duration::from_secs(10),
        tls: None,
    };
    let (_targets_tx, targets) = watch::channel((1..=last).map(target).collect());
    let (inputs_tx, mut inputs) = mpsc::channel(4);
    let connect = async |addr: SocketAddr| {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(report_after(all[usize::from(addr.port()) - 1], far));
        io::Result::Ok(near)
    };
    let begun = clock::now();
    let read = async {
        loop {
            match inputs.recv().await.unwrap() {
                Input::Loaded(ref one, _) | Input::LoadSilent(ref one) if *one != target(last) => {}
                input => return input,
            }
        }
    };
    tokio::select! {
        () = run(targets, inputs_tx, Arc::default(), &connect) => panic!("it runs on"),
        input = read => (input, clock::now() - begun),
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_may_send_nothing_before_its_first_report() {
    // As grpc-js does.
    let (input, _) = first_of_last(vec![(Duration::from_secs(10), Some(Duration::ZERO))]).await;
    assert!(matches!(input, Input::Loaded(..)), "{input:?}");
    let (input, _) = first_of_last(vec![(Duration::from_secs(16), Some(Duration::ZERO))]).await;
    assert!(matches!(input, Input::LoadSilent(_)), "{input:?}");
}

#[tokio::test(start_paused = true)]
async fn backends_that_report_late_keep_no_other_from_being_asked() {
    let mut all = vec![(Duration::ZERO, None); 2 * OPENING_MAX];
    all.push((Duration::ZERO, Some(Duration::ZERO)));
    let (input, after) = first_of_last(all).await;
    assert!(matches!(input, Input::Loaded(..)), "{input:?}");
    assert!(after <= Duration::from_secs(11), "{after:?}");
}

#[test]
fn pauses_grow_to_a_minute() {
    let (least, most) = PAUSE;
    assert!((least..=2 * least).contains(&pause(1)));
    assert!((4 * least..=5 * least).contains(&pause(3)));
    assert!((most..=most + least).contains(&pause(u32::MAX)));
}
