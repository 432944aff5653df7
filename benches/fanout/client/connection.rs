//! One client's connection: HTTP/2 and gRPC as clients speak them.
//!
//! In: a socket with events. Out: each stream that has received a message. It answers
//! as clients do, and decodes no list.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Manner, Plan, Protocols};
use crate::run::wire::{self, Head, xds};

pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) streams: Vec<Stream>,
    pub(crate) ended: bool,
    protocol: Protocols,
    manner: Manner,
    /// Bytes that the socket has not taken yet.
    out: Vec<u8>,
    /// The head of a frame, as far as it has been read.
    head: [u8; Head::SIZE],
    head_have: usize,
    /// The frame that is being read, and the number of its bytes that are missing.
    frame: Option<Head>,
    left: usize,
    ping: Vec<u8>,
    /// Whether a PING is on its way.
    measuring: bool,
    unacknowledged: u32,
}

#[derive(Default)]
pub(crate) struct Stream {
    /// The number of whole messages so far.
    pub(crate) messages: u32,
    /// The number of messages at which the stream has caught up.
    pub(crate) wanted: u32,
    /// The length of the last message, in bytes.
    pub(crate) length: usize,
    /// The service that the stream asks for.
    name: String,
    prefix: [u8; 5],
    prefix_have: usize,
    left: usize,
    unacknowledged: u32,
    /// The part of an EDS response read so far, which must be acknowledged.
    body: Vec<u8>,
}

const BALANCE_LOAD: &str = "/grpc.lb.v1.LoadBalancer/BalanceLoad";
/// grpc-go opens a window again once a quarter of it is used.
const QUARTER: u32 = wire::WINDOW_DEFAULT / 4;
/// The payload of grpc-go's PING for its estimate of the path.
const ESTIMATE: [u8; 8] = [2, 4, 16, 16, 9, 14, 7, 7];
/// One local address has 28,000 ports, so further connections come from the next
/// address.
const PER_SOURCE: usize = 20_000;

impl Connection {
    /// Begins to connect. The calls are sent once the connection is open.
    pub(crate) fn open(addr: SocketAddr, index: usize, plan: &Plan) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if index >= PER_SOURCE {
            let last = 1 + u8::try_from(index / PER_SOURCE).expect("there are not so many");
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
        }
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut out = Vec::new();
        wire::put_opening(&mut out, plan.manner == Manner::Plain);
        let opening = plan.protocol.opening();
        let mut streams = Vec::with_capacity(plan.streams);
        for at in 0..plan.streams {
            // The streams of one connection ask for different services.
            let name = plan.names[(index + at * 7) % plan.names.len()].clone();
            let (path, first) = match plan.protocol {
                Protocols::Grpclb => (BALANCE_LOAD, wire::balance_request(&name)),
                Protocols::Eds => (xds::PATH, xds::request(xds::ENDPOINTS, &name, true)),
            };
            wire::put_call(&mut out, id(at), path);
            wire::put_data(&mut out, id(at), &first);
            streams.push(Stream { name, wanted: opening, ..Stream::default() });
        }
        Ok(Self {
            socket: TcpStream::from(socket),
            streams,
            ended: false,
            protocol: plan.protocol,
            manner: plan.manner,
            out,
            head: [0; Head::SIZE],
            head_have: 0,
            frame: None,
            left: 0,
            ping: Vec::new(),
            measuring: false,
            unacknowledged: 0,
        })
    }

    /// Reads all available bytes and answers them. Calls `arrived` for each message.
    pub(crate) fn turn(&mut self, buffer: &mut [u8], mut arrived: impl FnMut(&Stream)) {
        self.flush();
        loop {
            match self.socket.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.take(&buffer[..count], &mut arrived);
                    // epoll is edge triggered: only a short read has emptied the socket.
                    if count == buffer.len() {
                        continue;
                    }
                }
                Err(error) => {
                    let later = [ErrorKind::WouldBlock, ErrorKind::NotConnected];
                    self.ended |= !later.contains(&error.kind());
                }
            }
            break;
        }
        self.flush();
    }

    /// Sends a PING, or the report of an idle client.
    pub(crate) fn chat(&mut self, report: bool) {
        match report {
            true => wire::put_data(&mut self.out, 1, &wire::client_stats()),
            false => wire::put_frame(&mut self.out, wire::PING, 0, 0, &[0; 8]),
        }
        self.flush();
    }

    /// Resets the connection, as a crash does: TIME_WAIT would keep the port.
    pub(crate) fn kill(self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    fn take(&mut self, mut bytes: &[u8], arrived: &mut impl FnMut(&Stream)) {
        while !bytes.is_empty() {
            if self.frame.is_none() {
                if !fill(&mut self.head, &mut self.head_have, &mut bytes) {
                    return;
                }
                let head = Head::read(&self.head);
                self.left = head.length;
                self.frame = Some(head);
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
            bytes = rest;
            self.left -= payload.len();
            let head = self.frame.as_ref().expect("it was set");
            match (head.kind, head.stream) {
                (wire::DATA, stream) if !payload.is_empty() => self.data(stream, payload, arrived),
                (wire::PING, _) => self.ping.extend_from_slice(payload),
                _ => {}
            }
            if self.left == 0 {
                let head = self.frame.take().expect("it was set");
                self.ended |= self.control(&head);
            }
        }
    }

    fn data(&mut self, stream: u32, mut bytes: &[u8], arrived: &mut impl FnMut(&Stream)) {
        let at = (stream as usize - 1) / 2;
        self.credit(at, bytes.len());
        let stream = &mut self.streams[at];
        while !bytes.is_empty() {
            if stream.left == 0 {
                if !fill(&mut stream.prefix, &mut stream.prefix_have, &mut bytes) {
                    return;
                }
                let [_, length @ ..] = stream.prefix;
                stream.length = u32::from_be_bytes(length) as usize;
                stream.left = stream.length;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(stream.left));
            bytes = rest;
            stream.left -= part.len();
            if self.protocol == Protocols::Eds {
                stream.body.extend_from_slice(part);
            }
            if stream.left > 0 {
                return;
            }
            stream.messages += 1;
            arrived(stream);
            if self.protocol == Protocols::Eds {
                let acknowledge = xds::acknowledgement(xds::ENDPOINTS, &stream.name, &stream.body);
                stream.body.clear();
                wire::put_data(&mut self.out, id(at), &acknowledge);
            }
        }
    }

    /// Opens the windows again, as clients of this manner do.
    fn credit(&mut self, at: usize, count: usize) {
        if self.manner != Manner::Grpc {
            return;
        }
        let count = u32::try_from(count).expect("frames are short");
        self.unacknowledged += count;
        let stream = &mut self.streams[at];
        stream.unacknowledged += count;
        if stream.unacknowledged >= QUARTER {
            wire::put_window_update(&mut self.out, id(at), stream.unacknowledged);
            stream.unacknowledged = 0;
        }
        let measure = !std::mem::replace(&mut self.measuring, true);
        if measure || self.unacknowledged >= QUARTER {
            wire::put_window_update(&mut self.out, 0, self.unacknowledged);
            self.unacknowledged = 0;
        }
        if measure {
            wire::put_frame(&mut self.out, wire::PING, 0, 0, &ESTIMATE);
        }
    }

    /// Handles a complete frame. Returns whether it ends a stream or the connection.
    fn control(&mut self, head: &Head) -> bool {
        let acknowledged = head.flags & wire::ACK != 0;
        match head.kind {
            wire::SETTINGS if !acknowledged => {
                wire::put_frame(&mut self.out, wire::SETTINGS, wire::ACK, 0, &[]);
            }
            wire::PING => {
                let payload = std::mem::take(&mut self.ping);
                if !acknowledged {
                    wire::put_frame(&mut self.out, wire::PING, wire::ACK, 0, &payload);
                } else if payload == ESTIMATE {
                    self.measuring = false;
                }
            }
            wire::RST_STREAM | wire::GOAWAY => return true,
            wire::HEADERS | wire::DATA => return head.flags & wire::END_STREAM != 0,
            _ => {}
        }
        false
    }

    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(_) => return,
            }
        }
    }
}

/// Completes `whole` from the beginning of `bytes`. Returns false if bytes are missing.
fn fill(whole: &mut [u8], have: &mut usize, bytes: &mut &[u8]) -> bool {
    let (part, rest) = bytes.split_at(bytes.len().min(whole.len() - *have));
    whole[*have..*have + part.len()].copy_from_slice(part);
    *have = (*have + part.len()) % whole.len();
    *bytes = rest;
    *have == 0
}

/// Returns the identifier of a connection's nth stream.
fn id(stream: usize) -> u32 {
    u32::try_from(stream * 2 + 1).expect("there are not so many")
}
