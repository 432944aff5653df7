//! Row of DNS: garbage, and questions that ask for large answers.
//!
//! In: datagrams. Out: lengths of answers, processor time and memory.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::row::{Row, short};
use crate::support::WAIT_MAX;
use crate::world::{Size, World, cpu, vitals};

/// The largest datagram in bytes that any path takes without fragments.
const UDP_MAX: usize = 1232;

#[test]
fn dns_gets_garbage_and_is_to_amplify() {
    let must = "no panic, questions are answered as ever; no datagram is longer than 1,232 bytes; \
                questions for other zones and transfers are refused with no more bytes than came";
    Row::run(26, "garbage at the DNS port; questions that ask for much", must, |row, scale| {
        let size = Size { servers: 200, clients: scale.streams / 10, ..Size::of(scale) };
        let world = World::new(size, &[]);
        let port = world.balancer.dns();
        let before = vitals(&world.balancer).memory;
        for (what, name, kind, most) in [
            ("SRV", "_grpclb._tcp.s0.lookaside.internal", 33, UDP_MAX),
            ("A of 200", "s0.lookaside.internal", 1, UDP_MAX),
            ("ANY", "s0.lookaside.internal", 255, UDP_MAX),
            ("TXT", "_grpc_config.s0.lookaside.internal", 16, UDP_MAX),
            ("zone transfer", "lookaside.internal", 252, 60),
            ("another's zone", "example.com", 255, 60),
        ] {
            let query = query(name, kind);
            let answer = ask(port, &query).expect("an answer");
            row.saw(format!("{what}: {} bytes for {}", answer, query.len()));
            row.must(answer <= most, format!("{what}: {answer} bytes, at most {most}"));
        }
        let count = scale.pick(20_000, 2_000_000);
        let (began, used) = (Instant::now(), cpu(&world.balancer));
        garbage(port, count);
        row.saw(format!(
            "{count} datagrams of garbage in {}, {} of processor time",
            short(began.elapsed()),
            short(cpu(&world.balancer) - used)
        ));
        row.must(ask(port, &query("s0.lookaside.internal", 1)).is_some(), "questions are answered");
        // Far more than one network's byte limit: most answers are truncated.
        let long = query("s0.lookaside.internal", 1);
        let began = Instant::now();
        let (answers, bytes, beyond) = insist(port, &long, 20_000);
        let factor = bytes as f64 / (answers * long.len()) as f64;
        row.saw(format!(
            "20,000 questions in a row: {answers} answers, longer than their questions by a \
             factor of {factor:.1}"
        ));
        // 64 KiB for each second, and one saved second: this holds on slow machines too.
        let due = 65_536.0 * (1.0 + began.elapsed().as_secs_f64());
        row.at_most(
            "bytes beyond three times a question, of what is due",
            beyond as f64 / due,
            1.0,
            "",
        );
        let grown = vitals(&world.balancer).memory.saturating_sub(before) as f64 / 1024.0;
        row.at_most("memory grown", grown, 8.0, " MB");
        world.finish(row, None);
    });
}

/// Sends `count` datagrams: random bytes, and questions with one random byte.
fn garbage(port: SocketAddr, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(port).expect("loopback");
    let good = query("s0.lookaside.internal", 1);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut bytes = [0_u8; 600];
    for n in 0..count {
        let length = (next() % 600) as usize;
        if n % 2 == 0 {
            bytes.chunks_mut(8).for_each(|c| c.copy_from_slice(&next().to_le_bytes()[..c.len()]));
        } else {
            bytes[..good.len()].copy_from_slice(&good);
            let at = (next() as usize) % good.len();
            bytes[at] = next() as u8;
        }
        let length = if n % 2 == 0 { length } else { good.len() };
        // Fails while the port's buffer is full.
        let _ = socket.send(&bytes[..length]);
    }
}

/// Asks `count` times without waiting. Returns the number of answers, their bytes, and
/// the bytes by which answers exceed three times their questions.
fn insist(port: SocketAddr, query: &[u8], count: usize) -> (usize, usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(port).expect("loopback");
    let mut buffer = [0; 65_536];
    let (mut answers, mut bytes, mut beyond) = (0, 0, 0);
    let mut take = || {
        while let Ok(length) = socket.recv(&mut buffer) {
            (answers, bytes) = (answers + 1, bytes + length);
            beyond += length.saturating_sub(3 * query.len());
        }
    };
    socket.set_nonblocking(true).expect("a socket");
    for n in 0..count {
        let _ = socket.send(query);
        take();
        // Not faster than the balancer reads.
        if n % 20 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
    take();
    (answers, bytes, beyond)
}

/// Asks a question. Returns the length of the answer in bytes.
fn ask(port: SocketAddr, query: &[u8]) -> Option<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(port).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("not zero");
    let deadline = Instant::now() + WAIT_MAX;
    let mut buffer = [0; 65_536];
    while Instant::now() < deadline {
        let _ = socket.send(query);
        if let Ok(length) = socket.recv(&mut buffer) {
            return Some(length);
        }
    }
    None
}

/// Returns a question with EDNS and the largest UDP size.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("labels are short"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    // OPT, 65535 bytes.
    out.extend_from_slice(&[0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    out
}
