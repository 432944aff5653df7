//! One gRPC call to the real program, of which the test chooses every message: a client that
//! refuses what real clients accept.
//!
//! In: messages with gRPC's prefix. Out: the messages that come back. It shares no code with
//! the balancer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::WAIT_MAX;
use super::wire::{self, Head};

/// An open call on a connection of its own. It ends when this value is dropped.
pub struct RawCall {
    socket: TcpStream,
    /// What was received: frames, and the content of DATA frames.
    frames: Vec<u8>,
    data: Vec<u8>,
}

/// The number of the call's stream.
const STREAM: u32 = 1;
/// The receive window in bytes: room for all answers.
const WINDOW: u32 = 1 << 30;

impl RawCall {
    pub fn open(addr: SocketAddr, path: &str) -> Self {
        let socket = TcpStream::connect(addr).expect("somebody listens");
        socket.set_read_timeout(Some(WAIT_MAX)).expect("not zero");
        let mut call = Self { socket, frames: Vec::new(), data: Vec::new() };
        let mut opening = Vec::new();
        wire::put_opening(&mut opening);
        wire::put_window_update(&mut opening, 0, WINDOW);
        wire::put_call(&mut opening, STREAM, path);
        call.write(&opening);
        call
    }

    pub fn send(&mut self, message: &[u8]) {
        let mut out = Vec::new();
        wire::put_data(&mut out, STREAM, message);
        self.write(&out);
    }

    /// Returns the next message, without gRPC's prefix.
    #[track_caller]
    pub fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(&[a, b, c, d]) = self.data.get(1..5) {
                let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
                if self.data.len() >= end {
                    return self.data.drain(..end).skip(5).collect();
                }
            }
            self.read();
        }
    }

    #[track_caller]
    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let count = self.socket.read(&mut buffer).expect("an answer in time");
        assert!(count > 0, "the connection ended");
        self.frames.extend_from_slice(&buffer[..count]);
        while let Some(head) = self.frames.first_chunk::<{ Head::SIZE }>() {
            let head = Head::read(head);
            let end = Head::SIZE + head.length;
            if self.frames.len() < end {
                break;
            }
            let payload: Vec<u8> = self.frames.drain(..end).skip(Head::SIZE).collect();
            match (head.kind, head.flags & wire::ACK) {
                (wire::DATA, _) => self.data.extend(payload),
                (wire::SETTINGS, 0) => self.acknowledge(wire::SETTINGS, &[]),
                (wire::PING, 0) => self.acknowledge(wire::PING, &payload),
                (wire::GOAWAY | wire::RST_STREAM, _) => panic!("the call ended: {head:?}"),
                _ => {}
            }
        }
    }

    fn acknowledge(&mut self, kind: u8, payload: &[u8]) {
        let mut out = Vec::new();
        wire::put_frame(&mut out, kind, wire::ACK, 0, payload);
        self.write(&out);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the balancer reads");
    }
}
