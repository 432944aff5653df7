//! Measures how long a new client of xDS waits for its backends, on a slow path.
//!
//! In: lookaside, and a service that nobody has asked for. Out: the time from the first byte
//! of a client's stream until it has its backends, in round trips of the same path: listener,
//! cluster and endpoints, each asked for once the one before is there, as gRPC's clients do.
//! A client's own work, its handshakes and its connection to a backend are not in it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Bench, Outcome, SERVICE, cell, ms};
use crate::run::client::{Manner, Protocols};
use crate::run::relay::relay;
use crate::run::report::percentile;
use crate::run::wire::{self, Head, xds};

const ENTRIES: usize = 100;
/// The delay of the path in one direction: as between regions, and far longer than all that
/// a machine does to a wake-up.
const ONE_WAY: Duration = Duration::from_millis(10);
/// Before an answer that has not come in this time, the scene fails.
const PATIENCE: Duration = Duration::from_secs(10);
const PINGS: usize = 5;

struct Client {
    socket: TcpStream,
    /// What has been read and is not a whole frame.
    read: Vec<u8>,
    /// What has come of a message.
    message: Vec<u8>,
    ponged: bool,
}

pub(crate) fn endpoints(bench: &mut Bench) -> Outcome {
    bench.fill(ENTRIES);
    let kinds = bench.ours_by(Protocols::Eds);
    for kind in kinds.into_iter().filter(|kind| kind.is_lookaside()) {
        let cell = cell("first", 1, ENTRIES, Manner::Plain, kind);
        let server = bench.start(kind, ENTRIES, false);
        let (mut trips, mut times) = (Vec::new(), Vec::new());
        for _ in 0..bench.pushes * 4 {
            let (trip, time) = one(server.addr).map_err(|error| format!("{kind}: {error}"))?;
            trips.push(ms(trip));
            times.push(ms(time));
        }
        let (trip, time) = (percentile(&mut trips, 50), percentile(&mut times, 50));
        bench.note(&cell, "round trip ms", trip);
        bench.note(&cell, "to endpoints ms", time);
        bench.note(&cell, "to endpoints/3 trips", time / (3.0 * trip));
    }
    Ok(())
}

/// Returns the round trip of a client's path, and its time until it has its backends.
fn one(server: SocketAddr) -> std::io::Result<(Duration, Duration)> {
    let mut client = Client::connect(relay(server, ONE_WAY)?)?;
    let begun = Instant::now();
    let mut opening = Vec::new();
    wire::put_opening(&mut opening, true);
    wire::put_call(&mut opening, 1, xds::PATH);
    wire::put_data(&mut opening, 1, &xds::request(xds::LISTENER, SERVICE, true));
    client.socket.write_all(&opening)?;
    let [a, b, c, d] = wire::address(ENTRIES - 1);
    let last_backend = format!("{a}.{b}.{c}.{d}");
    let kinds = [xds::LISTENER, xds::CLUSTER, xds::ENDPOINTS];
    let texts = [xds::LISTENER, xds::CLUSTER, &last_backend];
    for (at, (kind, text)) in kinds.into_iter().zip(texts).enumerate() {
        let response = client.response(text)?;
        let mut answer = Vec::new();
        wire::put_data(&mut answer, 1, &xds::acknowledgement(kind, SERVICE, &response));
        if let Some(next) = kinds.get(at + 1) {
            wire::put_data(&mut answer, 1, &xds::request(next, SERVICE, false));
        }
        client.socket.write_all(&answer)?;
    }
    let time = begun.elapsed();
    let mut trips = Vec::new();
    for _ in 0..PINGS {
        trips.push(client.ping()?);
    }
    trips.sort_unstable();
    Ok((trips[PINGS / 2], time))
}

impl Client {
    fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, read: Vec::new(), message: Vec::new(), ponged: false })
    }

    /// Returns the next response, which must have this text in it.
    fn response(&mut self, has: &str) -> std::io::Result<Vec<u8>> {
        let response = loop {
            if let Some(response) = self.whole_message() {
                break response;
            }
            self.frames()?;
        };
        let found = response.windows(has.len()).any(|part| part == has.as_bytes());
        let wrong = || std::io::Error::other(format!("a response without {has}"));
        if found { Ok(response) } else { Err(wrong()) }
    }

    fn whole_message(&mut self) -> Option<Vec<u8>> {
        let [_, length @ ..] = *self.message.first_chunk::<5>()?;
        let end = 5 + u32::from_be_bytes(length) as usize;
        if self.message.len() < end {
            return None;
        }
        let rest = self.message.split_off(end);
        Some(std::mem::replace(&mut self.message, rest).split_off(5))
    }

    fn ping(&mut self) -> std::io::Result<Duration> {
        let begun = Instant::now();
        let mut ping = Vec::new();
        wire::put_frame(&mut ping, wire::PING, 0, 0, &[7; 8]);
        self.socket.write_all(&ping)?;
        self.ponged = false;
        while !self.ponged {
            self.frames()?;
        }
        Ok(begun.elapsed())
    }

    /// Reads once, and handles the whole frames.
    fn frames(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self.socket.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::Error::other("the server closed the connection"));
        }
        self.read.extend_from_slice(&buffer[..count]);
        let mut at = 0;
        while let Some(head) = self.read[at..].first_chunk::<{ Head::SIZE }>().map(Head::read) {
            let start = at + Head::SIZE;
            let Some(payload) = self.read.get(start..start + head.length) else { break };
            match head.kind {
                wire::DATA => self.message.extend_from_slice(payload),
                wire::PING => self.ponged |= head.flags & wire::ACK != 0,
                wire::SETTINGS if head.flags & wire::ACK == 0 => {
                    let mut answer = Vec::new();
                    wire::put_frame(&mut answer, wire::SETTINGS, wire::ACK, 0, &[]);
                    self.socket.write_all(&answer)?;
                }
                wire::RST_STREAM | wire::GOAWAY => {
                    return Err(std::io::Error::other("the server ended the stream"));
                }
                _ => {}
            }
            at = start + head.length;
        }
        self.read.drain(..at);
        Ok(())
    }
}
