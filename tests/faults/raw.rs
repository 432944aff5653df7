//! A raw HTTP/2 connection that sends any bytes, and floods of requests over it.
//!
//! In: bytes to send. Out: the frames that come back, and whether the connection is
//! still open.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::wire::{self, Head};

/// A connection whose bytes the test chooses.
pub struct Raw {
    socket: TcpStream,
    input: Vec<u8>,
    pub closed: bool,
}

/// The head of a frame that was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
}

/// A write that takes longer shows that the peer does not read now.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// The receive window in bytes: room for all answers.
const WINDOW: u32 = 1 << 30;

impl Raw {
    /// Connects and sends nothing.
    pub fn silent(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).expect("somebody listens");
        socket.set_nodelay(true).expect("an option of every socket");
        socket.set_write_timeout(Some(WRITE_TIMEOUT)).expect("not zero");
        Self { socket, input: Vec::new(), closed: false }
    }

    /// Connects, begins HTTP/2 and opens the window for every answer.
    pub fn open(addr: SocketAddr) -> Self {
        let mut raw = Self::silent(addr);
        let mut opening = Vec::new();
        wire::put_opening(&mut opening);
        wire::put_window_update(&mut opening, 0, WINDOW);
        raw.send(&opening);
        raw
    }

    /// Writes as much as the peer takes now. Returns the number of bytes written.
    pub fn send(&mut self, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() && !self.closed {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if busy(&error) => break,
                Err(_) => self.closed = true,
            }
        }
        all - bytes.len()
    }

    /// Sends all bytes, until the deadline at most. Returns whether all were sent.
    pub fn send_all(&mut self, mut bytes: &[u8], deadline: Instant) -> bool {
        while !bytes.is_empty() && !self.closed && Instant::now() < deadline {
            let sent = self.send(bytes);
            bytes = &bytes[sent..];
        }
        bytes.is_empty()
    }

    /// Returns the frames that were received, after waiting at most `wait`.
    pub fn frames(&mut self, wait: Duration) -> Vec<Frame> {
        self.fill(wait);
        let mut frames = Vec::new();
        let mut rest = self.input.as_slice();
        while let Some((head, after)) = rest.split_first_chunk() {
            let head = Head::read(head);
            let Some((_, after)) = after.split_at_checked(head.length) else { break };
            frames.push(Frame { kind: head.kind, flags: head.flags });
            rest = after;
        }
        self.input = rest.to_vec();
        frames
    }

    /// Returns whether the peer has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.fill(Duration::ZERO);
        self.closed
    }

    /// Waits until bytes are received, and at most `wait`.
    pub fn wait(&mut self, wait: Duration) {
        self.fill(wait);
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO))
            .expect("an option of every socket");
    }

    fn fill(&mut self, wait: Duration) {
        let mut buffer = [0; 64 * 1024];
        self.socket.set_nonblocking(wait.is_zero()).expect("a socket");
        if !wait.is_zero() {
            self.socket.set_read_timeout(Some(wait)).expect("not zero");
        }
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    if count == buffer.len() {
                        continue;
                    }
                }
                Err(error) if busy(&error) => {}
                Err(_) => self.closed = true,
            }
            break;
        }
        self.socket.set_nonblocking(false).expect("a socket");
    }
}

/// Returns the bytes of one stream that asks for a name and then ends its side.
pub fn ask_once(stream: u32, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_call(&mut out, stream, wire::BALANCE_LOAD);
    wire::put_frame(&mut out, wire::DATA, wire::END_STREAM, stream, &wire::balance_request(name));
    out
}

/// Asks once for each name over `connections` connections, with at most `AT_A_TIME`
/// streams on each. Returns how many were answered by the deadline.
pub fn ask_for_all(
    addr: SocketAddr,
    connections: usize,
    names: &mut dyn Iterator<Item = String>,
    deadline: Instant,
) -> usize {
    const AT_A_TIME: usize = 50;
    struct Asker {
        raw: Raw,
        next: u32,
        asked: usize,
    }
    let asker = |_| Asker { raw: Raw::open(addr), next: 1, asked: 0 };
    let mut askers: Vec<Asker> = (0..connections).map(asker).collect();
    let mut answered = 0;
    let mut more = true;
    while (more || askers.iter().any(|asker| asker.asked > 0)) && Instant::now() < deadline {
        let mut idle = true;
        for asker in &mut askers {
            let ended = |frame: &Frame| {
                frame.flags & wire::END_STREAM != 0
                    && matches!(frame.kind, wire::HEADERS | wire::DATA)
                    || frame.kind == wire::RST_STREAM
            };
            let count = asker.raw.frames(Duration::ZERO).iter().filter(|f| ended(f)).count();
            answered += count;
            asker.asked = asker.asked.saturating_sub(count);
            idle &= count == 0;
            if asker.raw.closed {
                *asker = Asker { raw: Raw::open(addr), next: 1, asked: 0 };
            }
            let mut out = Vec::new();
            while asker.asked < AT_A_TIME {
                let Some(name) = names.next() else {
                    more = false;
                    break;
                };
                out.extend(ask_once(asker.next, &name));
                (asker.next, asker.asked) = (asker.next + 2, asker.asked + 1);
            }
            asker.raw.send_all(&out, deadline);
        }
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    answered
}

fn busy(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
