//! The limit: a server that only writes the bytes, which shows the kernel's cost.
//!
//! In: the length of the list and the protocol; lines on standard input, each a change. Out:
//! the same bytes, built beforehand, to every client, from one thread over epoll. It reads
//! what clients answer, and heeds nothing of it.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use super::client::Protocols;
use super::wire::{self, Head, xds};

struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    output: Vec<u8>,
    listed: bool,
}

const LISTENER: u64 = u64::MAX;
const INPUT: u64 = u64::MAX - 1;

/// Runs until standard input ends.
pub(crate) fn run(count: usize, protocol: Protocols) -> std::io::Result<()> {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(4096)?;
    listener.set_nonblocking(true)?;
    let listener = std::net::TcpListener::from(listener);
    println!("listening {}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd: &dyn std::os::fd::AsFd, data| {
        epoll::add(&epoll, fd.as_fd(), epoll::EventData::new_u64(data), epoll::EventFlags::IN)
    };
    add(&listener, LISTENER)?;
    add(&std::io::stdin(), INPUT)?;

    let (mut opening, mut pushes) = (Vec::new(), [Vec::new(), Vec::new()]);
    wire::put_response(&mut opening, 1);
    let list = |port| match protocol {
        Protocols::Grpclb => wire::server_list(count, port),
        Protocols::Eds => xds::endpoints_response(count, port),
    };
    let before = match protocol {
        Protocols::Grpclb => wire::balance_response(),
        Protocols::Eds => Vec::new(),
    };
    wire::put_data(&mut opening, 1, &[before, list(super::PORT)].concat());
    wire::put_data(&mut pushes[0], 1, &list(super::PORT));
    wire::put_data(&mut pushes[1], 1, &list(super::PORT + 1));

    let mut clients: HashMap<u64, Client> = HashMap::new();
    let (mut next, mut version) = (0, 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 256];
        let (events, _) = epoll::wait(&epoll, &mut events, None)?;
        for event in events.iter() {
            match event.data.u64() {
                LISTENER => {
                    while let Ok((socket, _)) = listener.accept() {
                        socket.set_nonblocking(true)?;
                        socket.set_nodelay(true)?;
                        add(&socket, next)?;
                        let client =
                            Client { socket, input: Vec::new(), output: Vec::new(), listed: false };
                        clients.insert(next, client);
                        next += 1;
                    }
                }
                INPUT => {
                    if std::io::stdin().read(&mut buffer)? == 0 {
                        return Ok(());
                    }
                    version = 1 - version;
                    for (&id, client) in &mut clients {
                        client.write(&epoll, id, &pushes[version]);
                    }
                }
                id => {
                    let Some(client) = clients.get_mut(&id) else { continue };
                    client.write(&epoll, id, &[]);
                    if !client.read(&mut buffer, &epoll, id, &opening) {
                        clients.remove(&id);
                    }
                }
            }
        }
    }
}

impl Client {
    /// Reads and answers. Returns false when the client has closed the connection.
    fn read(&mut self, buffer: &mut [u8], epoll: &OwnedFd, id: u64, opening: &[u8]) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => return false,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        let mut answer = Vec::new();
        let mut rest: &[u8] = &self.input;
        if !self.listed {
            // Preface, settings, call and name come in one piece.
            match rest.strip_prefix(wire::PREFACE) {
                Some(frames) => rest = frames,
                None => return true,
            }
            wire::put_frame(&mut answer, wire::SETTINGS, 0, 0, &[]);
            self.listed = true;
            answer.extend_from_slice(opening);
        }
        while let Some((head, frames)) = rest.split_first_chunk::<{ Head::SIZE }>() {
            let head = Head::read(head);
            let Some((payload, after)) = frames.split_at_checked(head.length) else { break };
            let asks = head.flags & wire::ACK == 0;
            if asks && matches!(head.kind, wire::SETTINGS | wire::PING) {
                wire::put_frame(&mut answer, head.kind, wire::ACK, 0, payload);
                if head.kind == wire::SETTINGS {
                    answer.truncate(answer.len() - payload.len());
                    let at = answer.len() - Head::SIZE;
                    answer[at..at + 3].fill(0);
                }
            }
            rest = after;
        }
        self.input = rest.to_vec();
        self.write(epoll, id, &answer);
        true
    }

    fn write(&mut self, epoll: &OwnedFd, id: u64, bytes: &[u8]) {
        let waited = !self.output.is_empty();
        if !waited {
            let written = self.socket.write(bytes).unwrap_or(0);
            self.output.extend_from_slice(&bytes[written..]);
        } else {
            self.output.extend_from_slice(bytes);
            let written = self.socket.write(&self.output).unwrap_or(0);
            self.output.drain(..written);
        }
        if waited == self.output.is_empty() {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, !self.output.is_empty());
            let _ = epoll::modify(epoll, &self.socket, epoll::EventData::new_u64(id), flags);
        }
    }
}
