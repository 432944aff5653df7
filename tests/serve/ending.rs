//! Tests of signals, and of how a balancer shuts down.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;

/// Asks DNS for the balancers' addresses; returns `None` without an answer.
fn ask(dns: SocketAddr) -> Option<Vec<u8>> {
    // A question for the address of grpclb.lookaside.internal.
    let mut question = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in ["grpclb", "lookaside", "internal"] {
        question.push(u8::try_from(label.len()).expect("a label is short"));
        question.extend(label.as_bytes());
    }
    question.extend(b"\0\0\x01\0\x01");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    socket.send_to(&question, dns).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    Some(answer[..length].to_vec())
}

fn names(answer: &[u8], address: [u8; 4]) -> bool {
    answer.windows(4).any(|bytes| bytes == address)
}

#[test]
fn one_that_is_told_to_stop_is_withdrawn_before_clients_are_sent_away() {
    let etcd = Etcd::start();
    let url = etcd.url();
    let start = |advertise| Balancer::start(&["--etcd", &url, "--advertise", advertise]);
    let (mut leaving, staying) = (start("10.0.0.1:12000"), start("10.0.0.2:12000"));
    let (own, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    for balancer in [&leaving, &staying] {
        eventually("both are known", || {
            ask(balancer.dns()).filter(|answer| names(answer, own) && names(answer, other))
        });
    }
    // The balancer's key cannot be removed, so the balancer stays a while.
    etcd.freeze();
    leaving.signal(Signal::TERM);
    let dns = leaving.dns();
    let answer = eventually("it names itself no more", || {
        let answer = ask(dns).expect("it answers to the end");
        (!names(&answer, own)).then_some(answer)
    });
    assert!(names(&answer, other), "{answer:?}");
    // Connections are not told to leave yet, because the other balancer's DNS could send
    // clients back.
    assert!(std::net::TcpStream::connect(leaving.grpclb()).is_ok());
    etcd.thaw();
    eventually("the other does not name it", || {
        ask(staying.dns()).filter(|answer| !names(answer, own) && names(answer, other))
    });
    assert!(leaving.wait().success());
}

#[test]
fn other_signals_do_not_end_it() {
    let mut balancer = Balancer::start(&[]);
    let signals = [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::WINCH,
    ];
    for signal in signals {
        balancer.signal(signal);
        assert_eq!(balancer.get("/livez").0, 200, "{signal:?}");
    }
    eventually("the word that files were looked at", || {
        balancer.log().contains("looked at all files").then_some(())
    });
    assert!(balancer.terminate().success());
}
