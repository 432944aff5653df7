//! Rows of connections that send nothing, broken frames or floods.
//!
//! In: such connections. Out: what they cost, and when they are closed.

use std::time::{Duration, Instant};

use tokio_rustls::rustls;

use crate::check::Settled;
use crate::raw::{Raw, ask_once};
use crate::row::{Row, short, spread};
use crate::support::WAIT_MAX;
use crate::support::lookaside::Balancer;
use crate::support::wire;
use crate::world::{Size, World, cpu, until, vitals};
use crate::writer::{DEAD_PORT, server};

/// A connection that has not sent its preface or TLS hello by then is closed.
const SPEAK_WITHIN: Duration = Duration::from_secs(5);
/// The most that one attacking connection may cost: percent of a core, and MB.
const CORE: f64 = 25.0;
const ATTACKER_MEMORY: f64 = 5.0;

#[test]
fn connections_say_nothing_or_say_it_slowly() {
    let must = "closed after 5 s, each costs ≤ 20 kB until then; a new client is served as ever";
    let fault = "1,000 connections say nothing, or their preface or TLS hello a byte at a time";
    Row::run(15, fault, must, |row, scale| {
        let size = Size { clients: scale.streams / 10, ..Size::of(scale) };
        let world = World::new(size, &[]);
        let files = Certificate::new();
        let secure = Balancer::start(&["--tls-cert", &files.cert, "--tls-key", &files.key]);
        let (plain, tls) = (world.balancer.grpclb(), secure.grpclb());
        let before = vitals(&world.balancer).memory + vitals(&secure).memory;
        let began = Instant::now();
        let mut silent: Vec<Raw> =
            (0..1_000).map(|n| Raw::silent(if n % 2 == 0 { plain } else { tls })).collect();
        // The first bytes of a valid TLS hello.
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        let mut said = 0;
        row.within("newcomers wait", world.newcomers("s0"), Duration::from_millis(100));
        let after = vitals(&world.balancer).memory + vitals(&secure).memory;
        let each = after.saturating_sub(before) as f64 / silent.len() as f64;
        row.at_most("memory of each", each, scale.pick(40.0, 20.0), " kB");
        let mut closed = Vec::new();
        let all_closed = until(SPEAK_WITHIN * 4, || {
            if began.elapsed() > Duration::from_millis(400) * (said + 1) && said < 10 {
                for (n, raw) in silent.iter_mut().enumerate().filter(|(n, _)| n % 4 < 2) {
                    let words: &[u8] = if n % 2 == 0 { wire::PREFACE } else { &hello };
                    raw.send(&words[said as usize..=said as usize]);
                }
                said += 1;
            }
            silent.retain_mut(|raw| {
                let gone = raw.is_closed();
                closed.extend(gone.then(|| began.elapsed()));
                !gone
            });
            silent.is_empty().then_some(())
        });
        row.must(all_closed.is_some(), format!("{} are open still", silent.len()));
        row.saw(format!("closed after: {}", spread(&closed)));
        let longest = closed.last().copied().unwrap_or(SPEAK_WITHIN * 4);
        row.within("the last closed after", longest, SPEAK_WITHIN * 3 / 2);
        world.finish(row, Some(Settled { at: began, within: WAIT_MAX }));
    });
}

#[test]
fn connections_flood_and_break_the_protocol() {
    let must = "a connection that breaks the protocol is closed; one attacker takes ≤ 25 % of a \
                core and ≤ 5 MB; updates reach the others as before";
    Row::run(16, "floods and broken frames, one connection at a time", must, |row, scale| {
        let size = Size { clients: scale.streams / 2, ..Size::of(scale) };
        let mut world = World::new(size, &[]);
        let time = scale.pick(Duration::from_secs(1), Duration::from_secs(10));
        let mut next = size.servers;
        let calm = fresh(&mut world, &mut next);
        row.saw(format!("an update without an attack: {}", short(calm)));
        let addr = world.balancer.grpclb();
        for Attack { what, opening, repeated, broken, at_a_time } in attacks() {
            let (memory, processor) = (vitals(&world.balancer).memory, cpu(&world.balancer));
            let began = Instant::now();
            let attack =
                std::thread::spawn(move || attack(addr, &opening, &repeated, at_a_time, time));
            let mut slowest = Duration::ZERO;
            while began.elapsed() < time {
                slowest = slowest.max(fresh(&mut world, &mut next));
                std::thread::sleep(Duration::from_millis(100));
            }
            let closings = attack.join().expect("the attacker ends");
            let share =
                (cpu(&world.balancer) - processor).as_secs_f64() / began.elapsed().as_secs_f64();
            let grown = vitals(&world.balancer).memory.saturating_sub(memory) as f64 / 1024.0;
            row.at_most(
                &format!("{what}: closed {closings} times, of a core"),
                share * 100.0,
                scale.pick(40.0, CORE),
                " %",
            );
            row.at_most("memory", grown, ATTACKER_MEMORY, " MB");
            row.within("slowest update", slowest, scale.pick(CALM, CALM.max(calm * 3 / 2)));
            row.must(!broken || closings > 0, format!("{what}: it is not closed"));
        }
        let files = Certificate::new();
        let secure = Balancer::start(&["--tls-cert", &files.cert, "--tls-key", &files.key]);
        let (began, processor) = (Instant::now(), cpu(&secure));
        let hellos = greet_and_reset(secure.grpclb(), time.max(Duration::from_secs(3)));
        let share = (cpu(&secure) - processor).as_secs_f64() / began.elapsed().as_secs_f64();
        row.at_most(
            &format!("TLS hellos, {hellos} of them, each then reset: of a core"),
            share * 100.0,
            scale.pick(40.0, CORE),
            " %",
        );
        world.finish(row, Some(Settled { at: Instant::now(), within: WAIT_MAX }));
    });
}

/// How long an update may take.
const CALM: Duration = Duration::from_secs(1);

struct Attack {
    what: &'static str,
    /// Sent once, after the preface.
    opening: Vec<u8>,
    /// Sent again and again. Takes the number of a new stream.
    repeated: fn(u32) -> Vec<u8>,
    /// Whether it violates the protocol, so that the connection must be closed.
    broken: bool,
    /// How many bytes are sent in one packet.
    at_a_time: usize,
}

fn attacks() -> Vec<Attack> {
    let new = |what, repeated, broken| Attack {
        what,
        opening: Vec::new(),
        repeated,
        broken,
        at_a_time: usize::MAX,
    };
    let flood = |what, repeated| new(what, repeated, false);
    let broken = |what, repeated| new(what, repeated, true);
    vec![
        flood("PINGs", |_| frames(wire::PING, 0, 0, &[7; 8])),
        Attack {
            at_a_time: 1,
            ..flood("PINGs, each byte in a packet of its own", |_| {
                frames(wire::PING, 0, 0, &[7; 8])
            })
        },
        flood("SETTINGS", |_| frames(wire::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        flood("streams opened and reset at once", |stream| {
            let mut out = ask_once(stream, "s0");
            wire::put_frame(&mut out, wire::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            out
        }),
        flood("empty DATA frames", |_| frames(wire::DATA, 0, 1, &[])),
        Attack {
            what: "CONTINUATION without an end",
            opening: frame(wire::HEADERS, 0, 1, &wire::call_headers(wire::BALANCE_LOAD)),
            repeated: |_| frames(wire::CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']),
            broken: true,
            at_a_time: usize::MAX,
        },
        Attack {
            what: "a header repeated by its index (HPACK bomb)",
            opening: Vec::new(),
            repeated: |stream| {
                let mut block = wire::call_headers(wire::BALANCE_LOAD);
                // One header of 3,000 bytes enters the table and is referred to 4,000 times.
                block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
                block.extend(std::iter::repeat_n(b'y', 127 + 0x39 + (0x16 << 7)));
                block.extend(std::iter::repeat_n(0x80 | 62, 4_000));
                frame(wire::HEADERS, wire::END_HEADERS, stream, &block)
            },
            broken: false,
            at_a_time: usize::MAX,
        },
        broken("frames of no kind, too long", |_| frames(0x2a, 0xff, 0, &[0x55; 20_000])),
        broken("DATA of streams that never were", |stream| frame(wire::DATA, 0, stream + 99, b"x")),
        broken("windows beyond all bounds", |_| {
            frames(wire::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])
        }),
        broken("headers that no table has", |stream| {
            frame(wire::HEADERS, wire::END_HEADERS, stream, &[0xff, 0xff, 0xff, 0x7f])
        }),
    ]
}

/// Sends an attack for `time` and connects again whenever the connection is closed.
/// Returns how often it was closed.
fn attack(
    addr: std::net::SocketAddr,
    opening: &[u8],
    repeated: &dyn Fn(u32) -> Vec<u8>,
    at_a_time: usize,
    time: Duration,
) -> usize {
    let deadline = Instant::now() + time;
    let mut closings = 0;
    while Instant::now() < deadline {
        let mut raw = Raw::open(addr);
        raw.send(opening);
        let mut stream = 1;
        while Instant::now() < deadline && !raw.closed {
            for packet in repeated(stream).chunks(at_a_time) {
                raw.send_all(packet, deadline);
            }
            raw.frames(Duration::ZERO);
            stream += 2;
        }
        if raw.closed {
            closings += 1;
            // Connecting over and over is another attack.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    closings
}

/// For `time`, sends a TLS hello, waits for the answer and resets the connection,
/// again and again. Returns how often.
fn greet_and_reset(addr: std::net::SocketAddr, time: Duration) -> usize {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "balancer.test".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes all");
    let deadline = Instant::now() + time;
    let mut hellos = 0;
    while Instant::now() < deadline {
        let mut raw = Raw::silent(addr);
        raw.send(&hello);
        raw.wait(Duration::from_millis(20));
        raw.reset();
        hellos += 1;
    }
    hellos
}

/// Registers a backend. Returns how long the last client waits for the list.
fn fresh(world: &mut World, next: &mut usize) -> Duration {
    *next += 1;
    let at = world.writer.put("s0", server(0, *next, DEAD_PORT));
    world.converge(at)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_frame(&mut out, kind, flags, stream, payload);
    out
}

/// Returns the bytes of 100 equal frames.
fn frames(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind, flags, stream, payload).repeat(100)
}

/// A self-signed certificate and its key, as files.
struct Certificate {
    _directory: tempfile::TempDir,
    cert: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["balancer.test".to_owned()]);
        let cert = params.expect("a name").self_signed(&key).expect("a certificate");
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a temporary file");
            path.to_str().expect("its name is text").to_owned()
        };
        let (cert, key) = (write("cert", cert.pem()), write("key", key.serialize_pem()));
        Self { _directory: directory, cert, key }
    }
}
