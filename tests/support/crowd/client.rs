//! One client of a crowd: a connection with one stream of grpclb or xDS. It behaves like
//! grpc-go.
//!
//! In: bytes from the socket. Out: bytes for the socket, and each message of the balancer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::xds::{News, Xds};
use super::{Content, History, Manner};
use crate::support::ads;
use crate::support::wire::{self, Head, Response};

/// One client.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) manner: Manner,
    /// Its xDS; `None`: it speaks grpclb.
    pub(super) xds: Option<Box<Xds>>,
    /// The client left for good.
    pub(super) gone: bool,
    /// The index of the balancer that it tries. It starts at the first.
    pub(super) address: usize,
    /// The balancers that DNS told it last, when it asked, and whether it will ask again.
    pub(super) balancers: Vec<SocketAddr>,
    pub(super) asked: Option<Instant>,
    pub(super) will_ask: bool,
    pub(super) socket: Option<OwnedFd>,
    /// Whether the socket was written to at least once.
    pub(super) connected: bool,
    pub(super) out: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
    measuring: bool,
    unread: u32,
    unread_connection: u32,
    /// The number of its current stream, from 1.
    pub(super) stream: u32,
    pub(super) initial: bool,
    pub(super) has_list: bool,
    /// The last list or fallback response, on any stream.
    pub(super) received: Option<Content>,
    /// The time since which it has had no list: its start, or the end of its last stream.
    pub(super) since: Instant,
    /// The number of failed attempts in a row.
    pub(super) failures: u32,
}

/// An event from the socket's bytes.
pub(super) enum Came {
    Message(Vec<u8>),
    /// The stream or the connection ended.
    End,
}

/// grpc-go reopens a window once a quarter of it is used.
const QUARTER: u32 = wire::WINDOW_DEFAULT / 4;
/// The payload of grpc-go's pings that measure the bandwidth.
const MEASURE: [u8; 8] = [2, 4, 16, 16, 9, 14, 7, 7];
const STREAM: u32 = 1;

impl Client {
    pub(super) fn new(name: String, manner: Manner, speaks_xds: bool) -> Self {
        Self {
            name,
            manner,
            xds: speaks_xds.then(Box::default),
            gone: false,
            address: 0,
            balancers: Vec::new(),
            asked: None,
            will_ask: false,
            socket: None,
            connected: false,
            out: Vec::new(),
            input: Vec::new(),
            body: Vec::new(),
            measuring: false,
            unread: 0,
            unread_connection: 0,
            stream: 0,
            initial: false,
            has_list: false,
            received: None,
            since: Instant::now(),
            failures: 0,
        }
    }

    /// Starts again on a new socket.
    pub(super) fn begin(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        (self.connected, self.initial, self.has_list, self.measuring) =
            (false, false, false, false);
        (self.unread, self.unread_connection) = (0, 0);
        (self.out, self.input, self.body) = (Vec::new(), Vec::new(), Vec::new());
        wire::put_opening(&mut self.out);
        let mut first = Vec::new();
        if let Some(xds) = &mut self.xds {
            wire::put_call(&mut self.out, STREAM, ads::PATH);
            xds.begin(&self.name, &mut first);
        } else {
            wire::put_call(&mut self.out, STREAM, wire::BALANCE_LOAD);
            first = wire::balance_request(&self.name);
        }
        wire::put_data(&mut self.out, STREAM, &first);
    }

    /// Handles a message of the balancer. Returns what it tells of backends, if anything.
    pub(super) fn understand(&mut self, message: &[u8], history: &mut History) -> Option<Content> {
        let mut answer = Vec::new();
        let Some(xds) = &mut self.xds else {
            return match wire::parse_response(message) {
                Response::Initial => {
                    self.answered();
                    None
                }
                Response::List(list) => Some(history.what(|| wire::servers(list))),
                Response::Fallback => Some(Content::Fallback),
                Response::Nonsense => Some(Content::Nothing),
            };
        };
        let news = xds.take(&self.name, message, &mut history.resources, &mut answer);
        wire::put_data(&mut self.out, STREAM, &answer);
        if !self.initial {
            self.answered();
        }
        match news {
            News::Described => history.described.push(Instant::now()),
            News::Assigned(assignment) => {
                return Some(history.what(|| assignment.servers.iter().copied()));
            }
            News::Broken(what) => history.breaks(&self.name, &what),
        }
        None
    }

    /// Returns whether its request was written, and nothing was answered.
    pub(super) fn is_unanswered(&self) -> bool {
        self.connected && self.socket.is_some() && self.out.is_empty() && !self.initial
    }

    /// Notes that the stream was accepted.
    fn answered(&mut self) {
        self.initial = true;
        self.stream += 1;
    }

    /// Sends a report, if it speaks grpclb.
    pub(super) fn report(&mut self) {
        if self.xds.is_some() {
            return;
        }
        wire::put_data(&mut self.out, STREAM, &wire::client_stats());
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.out.is_empty() {
            match rustix::net::send(socket, &self.out, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.connected = true;
                    drop(self.out.drain(..count));
                }
                Err(_) => return,
            }
        }
        self.out = Vec::new();
        if let Some(xds) = &mut self.xds {
            xds.written();
        }
    }

    /// Handles bytes from the socket, and adds their events to `came`.
    pub(super) fn take(&mut self, bytes: &[u8], came: &mut Vec<Came>) {
        let mut input = std::mem::take(&mut self.input);
        let whole: &[u8] = if input.is_empty() {
            bytes
        } else {
            input.extend_from_slice(bytes);
            &input
        };
        let mut rest = whole;
        while let Some((head, after)) = rest.split_first_chunk() {
            let head = Head::read(head);
            let Some((payload, after)) = after.split_at_checked(head.length) else { break };
            rest = after;
            self.frame(head, payload, came);
        }
        self.input = rest.to_vec();
    }

    fn frame(&mut self, head: Head, payload: &[u8], came: &mut Vec<Came>) {
        let acknowledges = head.flags & wire::ACK != 0;
        match head.kind {
            wire::DATA => self.data(payload, came),
            wire::SETTINGS if !acknowledges => {
                wire::put_frame(&mut self.out, wire::SETTINGS, wire::ACK, 0, &[]);
            }
            wire::PING if acknowledges => self.measuring = false,
            wire::PING => wire::put_frame(&mut self.out, wire::PING, wire::ACK, 0, payload),
            wire::RST_STREAM => came.push(Came::End),
            _ => {}
        }
        if matches!(head.kind, wire::DATA | wire::HEADERS) && head.flags & wire::END_STREAM != 0 {
            came.push(Came::End);
        }
    }

    fn data(&mut self, payload: &[u8], came: &mut Vec<Came>) {
        self.credit(payload.len());
        self.body.extend_from_slice(payload);
        while let Some((prefix, after)) = self.body.split_first_chunk() {
            let [_, length @ ..]: [u8; 5] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            let Some((message, rest)) = after.split_at_checked(length) else { break };
            came.push(Came::Message(message.to_vec()));
            self.body = rest.to_vec();
        }
    }

    /// Reopens the windows, as grpc-go does.
    fn credit(&mut self, count: usize) {
        if self.manner != Manner::Usual {
            return;
        }
        let count = u32::try_from(count).expect("frames are short");
        (self.unread, self.unread_connection) =
            (self.unread + count, self.unread_connection + count);
        if self.unread >= QUARTER {
            wire::put_window_update(&mut self.out, STREAM, std::mem::take(&mut self.unread));
        }
        let measure = !std::mem::replace(&mut self.measuring, true);
        if measure || self.unread_connection >= QUARTER {
            let unread = std::mem::take(&mut self.unread_connection);
            wire::put_window_update(&mut self.out, 0, unread);
        }
        if measure {
            wire::put_frame(&mut self.out, wire::PING, 0, 0, &MEASURE);
        }
    }
}
