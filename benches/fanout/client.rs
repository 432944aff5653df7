//! The load of the benchmark: many clients in one thread, over bare epoll.
//!
//! In: an address and a [`Plan`]. Out: how many messages each stream has received, and
//! when the last one came. Clients do so little work that one core of them keeps up with
//! any server.

mod connection;

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use connection::{Connection, Stream};

/// The clients and what they ask for.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Streams of each connection; real clients have one.
    pub(crate) streams: usize,
    pub(crate) manner: Manner,
    pub(crate) protocol: Protocols,
    /// The services that streams ask for, in turn.
    pub(crate) names: Vec<String>,
    /// The largest number of connections that are being opened at once.
    pub(crate) at_once: usize,
}

/// How clients treat their flow-control windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Manner {
    /// The largest windows, which are never updated.
    Plain,
    /// As grpc-go does: windows of 64 KiB, and with each push a PING to measure the path
    /// and updates of both windows.
    Grpc,
    /// Windows of 64 KiB that never open again.
    Stalled,
}

impl Manner {
    /// Returns its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Grpc => "grpc",
            Self::Stalled => "stalled",
        }
    }

    /// Returns the one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Grpc, Self::Stalled].into_iter().find(|one| one.name() == name)
    }
}

/// The protocol of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocols {
    Grpclb,
    /// Endpoints (EDS) on a stream of xDS. The client acknowledges each response.
    Eds,
}

/// The connected clients.
pub(crate) struct Load {
    epoll: OwnedFd,
    clients: Vec<Connection>,
    buffer: Vec<u8>,
    counts: Counts,
}

struct Counts {
    /// Streams that have fewer messages than wanted.
    behind: usize,
    /// Streams without any message.
    silent: usize,
    /// Connections that have ended, or one of whose streams has.
    ended: usize,
    /// When the last stream caught up.
    caught_up: Instant,
    /// All messages of all streams, and when the last one came.
    messages: u64,
    newest: Instant,
}

impl Protocols {
    /// Returns the number of messages that every stream begins with.
    fn opening(self) -> u32 {
        match self {
            Self::Grpclb => 2,
            Self::Eds => 1,
        }
    }
}

impl Load {
    /// Connects all clients, and waits until each stream has its first messages. `patience`
    /// begins with the first SYN.
    pub(crate) fn connect(
        addr: SocketAddr,
        plan: &Plan,
        patience: Duration,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let (behind, deadline) = (plan.connections * plan.streams, now + patience);
        let counts =
            Counts { behind, silent: 0, ended: 0, caught_up: now, messages: 0, newest: now };
        let mut load = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?,
            clients: Vec::with_capacity(plan.connections),
            buffer: vec![0; 256 * 1024],
            counts,
        };
        for index in 0..plan.connections {
            load.open(addr, index, plan).map_err(|error| format!("connection {index}: {error}"))?;
            if index % 64 == 63 {
                load.turn(Duration::ZERO);
            }
            while load.counts.silent >= plan.at_once * plan.streams && Instant::now() < deadline {
                load.turn(Duration::from_millis(100));
            }
        }
        load.until_caught_up(deadline.saturating_duration_since(Instant::now()))?;
        Ok(load)
    }

    /// Expects one more message on each stream.
    pub(crate) fn expect_one(&mut self) {
        // Messages that are already under way must not count as the expected ones.
        while self.turn(Duration::ZERO) > 0 {}
        self.counts.behind = 0;
        for stream in self.clients.iter_mut().flat_map(|client| &mut client.streams) {
            stream.wanted = stream.messages + 1;
            self.counts.behind += 1;
        }
    }

    /// Reads until no stream is behind, and returns when the last message came.
    pub(crate) fn until_caught_up(&mut self, patience: Duration) -> Result<Instant, String> {
        let deadline = Instant::now() + patience;
        while self.counts.behind > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.counts.ended > 0 {
                let Counts { behind, ended, .. } = self.counts;
                return Err(format!("{behind} streams wait for a message, {ended} ended"));
            }
            self.turn(left.min(Duration::from_millis(100)));
        }
        Ok(self.counts.caught_up)
    }

    /// Reads for this long.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.turn(left);
        }
    }

    /// Reads until no message has come for this long, and returns when the last one came.
    pub(crate) fn until_quiet(&mut self, quiet: Duration) -> Instant {
        let begun = Instant::now();
        while begun.max(self.counts.newest).elapsed() < quiet {
            self.turn(quiet / 8);
        }
        self.counts.newest
    }

    /// Returns the number of messages of all streams so far.
    pub(crate) fn messages(&self) -> u64 {
        self.counts.messages
    }

    /// Returns the number of messages of each stream.
    pub(crate) fn messages_of_each(&self) -> Vec<u32> {
        let streams = self.clients.iter().flat_map(|client| &client.streams);
        streams.map(|stream| stream.messages).collect()
    }

    /// Returns the length of the last message on the first stream, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.clients[0].streams[0].length
    }

    /// Sends a PING or a report on one connection, as idle clients do.
    pub(crate) fn chat(&mut self, index: usize, report: bool) {
        self.clients[index].chat(report);
    }

    /// Ends all connections at once, as in a crash.
    pub(crate) fn kill(self) {
        self.clients.into_iter().for_each(Connection::kill);
    }

    fn open(&mut self, addr: SocketAddr, index: usize, plan: &Plan) -> std::io::Result<()> {
        let client = Connection::open(addr, index, plan)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &client.socket, data, flags)?;
        self.counts.silent += plan.streams;
        self.clients.push(client);
        Ok(())
    }

    /// Waits at most this long for events, and handles them. Returns the number of
    /// connections that had events.
    fn turn(&mut self, wait: Duration) -> usize {
        let mut events = [const { MaybeUninit::uninit() }; 256];
        let wait = Timespec::try_from(wait).ok();
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, wait.as_ref()) else {
            return 0;
        };
        for event in events.iter() {
            let index = usize::try_from(event.data.u64()).expect("it was one");
            let client = &mut self.clients[index];
            client.turn(&mut self.buffer, |stream| self.counts.message(stream));
            if client.ended {
                self.counts.ended += 1;
                let _ = epoll::delete(&self.epoll, &client.socket);
            }
        }
        events.len()
    }
}

impl Counts {
    fn message(&mut self, stream: &Stream) {
        self.messages += 1;
        self.newest = Instant::now();
        self.silent -= usize::from(stream.messages == 1);
        if stream.messages == stream.wanted {
            self.behind -= 1;
            self.caught_up = self.newest;
        }
    }
}
