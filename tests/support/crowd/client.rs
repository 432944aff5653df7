//! One client of a crowd: a connection with one stream, spoken as grpc-go does.
//!
//! In: what the socket gave. Out: what it is to be given, and each message of
//! the balancer.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::{Manner, What};
use crate::support::wire::{self, Head};

/// One of many.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) manner: Manner,
    /// It has gone, and does not come back.
    pub(super) gone: bool,
    /// The addresses it knows of balancers, tried in turn from the first.
    pub(super) address: usize,
    pub(super) socket: Option<OwnedFd>,
    /// Its socket has been written to at least once.
    pub(super) connected: bool,
    pub(super) out: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
    measuring: bool,
    unread: u32,
    unread_connection: u32,
    /// Which of its streams this is.
    pub(super) stream: u32,
    pub(super) initial: bool,
    pub(super) has_list: bool,
    /// What it was told last, on any stream.
    pub(super) told: Option<What>,
    /// When it lost what it had; when it began.
    pub(super) since: Instant,
    /// So many attempts failed in turn.
    pub(super) failures: u32,
}

/// What came of some bytes.
pub(super) enum Came {
    Message(Vec<u8>),
    /// The stream or the connection is over.
    End,
}

/// grpc-go opens a window again once a quarter of it is used.
const QUARTER: u32 = wire::WINDOW_DEFAULT / 4;
/// What grpc-go pings with to learn how much is on its way.
const MEASURE: [u8; 8] = [2, 4, 16, 16, 9, 14, 7, 7];
const STREAM: u32 = 1;

impl Client {
    pub(super) fn new(name: String, manner: Manner) -> Self {
        Self {
            name,
            manner,
            gone: false,
            address: 0,
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
            told: None,
            since: Instant::now(),
            failures: 0,
        }
    }

    /// Begins anew on another socket.
    pub(super) fn begin(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        (self.connected, self.initial, self.has_list, self.measuring) =
            (false, false, false, false);
        (self.unread, self.unread_connection) = (0, 0);
        (self.out, self.input, self.body) = (Vec::new(), Vec::new(), Vec::new());
        wire::put_opening(&mut self.out);
        wire::put_call(&mut self.out, STREAM, wire::BALANCE_LOAD);
        wire::put_data(&mut self.out, STREAM, &wire::balance_request(&self.name));
    }

    pub(super) fn report(&mut self) {
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
    }

    /// Takes in what the socket gave, and says what came of it.
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

    /// Opens the windows again, as grpc-go does.
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
