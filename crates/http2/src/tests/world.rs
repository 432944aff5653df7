//! A connection and its peer, which sends and takes what the test says.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use futures_util::task::{ArcWake, waker};
use tokio::io::ReadBuf;
use tokio::runtime::{Builder, Runtime};

use crate::frame::{Head, flag, kind, setting};
use crate::*;

/// The peer's side of a connection.
#[derive(Clone, Default)]
pub(super) struct Wire(pub(super) Arc<Mutex<Both>>);

#[derive(Default)]
pub(super) struct Both {
    pub(super) said: Vec<u8>,
    /// What the peer was charged beside the bytes that it sent.
    pub(super) charged: isize,
    /// How many more bytes are taken.
    pub(super) capacity: usize,
    pub(super) received: Vec<u8>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// A body that always sends its newest version.
#[derive(Clone, Default)]
pub(super) struct Source(pub(super) Arc<Mutex<Newest>>);

#[derive(Default)]
pub(super) struct Newest {
    pub(super) version: u32,
    pub(super) length: usize,
    pub(super) given: u32,
    pub(super) waits: Option<Waker>,
}

/// A connection that is polled only when it was woken.
pub(super) struct World {
    pub(super) wire: Wire,
    pub(super) sources: Vec<Source>,
    pub(super) begun: Arc<Mutex<Vec<Incoming>>>,
    pub(super) close: Arc<GracefulClose>,
    pub(super) woken: Arc<Woken>,
    connection: Pin<Box<dyn Future<Output = bool>>>,
    pub(super) over: bool,
    runtime: Runtime,
}

pub(super) struct Woken(pub(super) AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut both = self.0.lock().unwrap();
        if both.said.is_empty() {
            both.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = both.said.len().min(buffer.remaining());
        buffer.put_slice(&both.said[..count]);
        both.said.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut both = self.0.lock().unwrap();
        if both.capacity == 0 {
            both.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = both.capacity.min(bytes.len());
        both.capacity -= count;
        both.received.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Metered for Wire {
    fn charge(&mut self, cost: isize) {
        self.0.lock().unwrap().charged += cost;
    }
}

impl Outgoing for Source {
    fn request_arrived(&mut self) {}

    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>> {
        let mut newest = self.0.lock().unwrap();
        if !room {
            return Poll::Pending;
        }
        if newest.given == newest.version {
            newest.waits = Some(cx.waker().clone());
            return Poll::Pending;
        }
        newest.given = newest.version;
        let length = u32::try_from(newest.length).unwrap();
        let head = [newest.version.to_be_bytes(), length.to_be_bytes()].concat();
        let body = vec![7; newest.length];
        Poll::Ready(Some(Part::Data([head.into(), body.into(), bytes::Bytes::new()].into())))
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Source {
    pub(super) fn publish(&self, length: usize) {
        let mut newest = self.0.lock().unwrap();
        (newest.version, newest.length) = (newest.version + 1, length);
        newest.waits.take().into_iter().for_each(Waker::wake);
    }
}

impl World {
    /// A connection whose peer has sent its settings, and takes nothing yet.
    pub(super) fn new(sources: usize) -> Self {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let wire = Wire::default();
        let sources: Vec<Source> = (0..sources).map(|_| Source::default()).collect();
        let begun: Arc<Mutex<Vec<Incoming>>> = Arc::default();
        let (served, requests) = (sources.clone(), begun.clone());
        let handler = move |request: Request<Incoming>| -> ResponseFuture<Source> {
            let path = request.uri().path()[1..].to_owned();
            requests.lock().unwrap().push(request.into_body());
            match path.parse::<usize>() {
                Ok(at) => Box::pin(std::future::ready(Response::new(served[at].clone()))),
                Err(_) => Box::pin(std::future::pending()),
            }
        };
        let close: Arc<GracefulClose> = Arc::default();
        let inside = runtime.enter();
        let connection = Connection::new(wire.clone(), Common::new(), close.clone(), handler);
        let connection = Box::pin(connection);
        drop(inside);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let mut world =
            Self { wire, sources, begun, close, woken, connection, over: false, runtime };
        world.say(PREFACE);
        world.frame(kind::SETTINGS, 0, 0, &[]);
        world
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        let mut both = self.wire.0.lock().unwrap();
        both.said.extend_from_slice(bytes);
        both.reader.take().into_iter().for_each(Waker::wake);
        drop(both);
        self.run();
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.say(&frame(kind, flags, stream, payload));
    }

    pub(super) fn open(&mut self, stream: u32, path: &str) {
        self.say(&opening(stream, path));
    }

    pub(super) fn take(&mut self, bytes: usize) {
        let mut both = self.wire.0.lock().unwrap();
        both.capacity += bytes;
        both.writer.take().into_iter().for_each(Waker::wake);
        drop(both);
        self.run();
    }

    pub(super) fn publish(&mut self, at: usize, length: usize) {
        self.sources[at].publish(length);
        self.run();
    }

    pub(super) fn windows(&mut self, initial: u32) {
        let id = setting::INITIAL_WINDOW_SIZE.to_be_bytes();
        let payload = [&id[..], &initial.to_be_bytes()].concat();
        self.frame(kind::SETTINGS, 0, 0, &payload);
    }

    pub(super) fn grow(&mut self, stream: u32, by: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    }

    /// Polls the connection for as long as it is woken.
    pub(super) fn run(&mut self) {
        while !self.over && self.woken.0.load(Ordering::Relaxed) {
            self.poll();
        }
    }

    pub(super) fn poll(&mut self) {
        let _inside = self.runtime.enter();
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = waker(self.woken.clone());
        self.over |= self.connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    }

    pub(super) fn sleep(&mut self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
        self.run();
    }

    /// Lets up to `seconds` pass, and calls `meanwhile` after each. Returns after how
    /// many seconds the connection ended, or `None` if it did not.
    pub(super) fn wait(
        &mut self,
        seconds: u64,
        mut meanwhile: impl FnMut(&mut Self, u64),
    ) -> Option<u64> {
        for second in 1..=seconds {
            self.sleep(Duration::from_secs(1));
            meanwhile(self, second);
            if self.over {
                return Some(second);
            }
        }
        None
    }

    pub(super) fn received(&self) -> Vec<(Head, Vec<u8>)> {
        let both = self.wire.0.lock().unwrap();
        let mut rest = &both.received[..];
        let mut frames = Vec::new();
        while let Some(head) = Head::read(rest) {
            let Some(payload) = rest.get(Head::SIZE..Head::SIZE + head.length) else { break };
            frames.push((head, payload.to_vec()));
            rest = &rest[Head::SIZE + head.length..];
        }
        frames
    }

    /// Returns the frames of a kind: the stream and the number at the end of the payload.
    pub(super) fn sent(&self, kind: u8) -> Vec<(u32, u32)> {
        let of_kind = self.received().into_iter().filter(|(head, _)| head.kind == kind);
        let number = |payload: &[u8]| payload.last_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        of_kind.map(|(head, payload)| (head.stream, number(&payload))).collect()
    }

    /// Returns the versions that each stream was sent completely.
    pub(super) fn given(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut bodies = BTreeMap::<u32, Vec<u8>>::new();
        for (head, payload) in self.received() {
            if head.kind == kind::DATA {
                bodies.entry(head.stream).or_default().extend(payload);
            }
        }
        bodies.into_iter().map(|(stream, body)| (stream, versions(&body))).collect()
    }
}

fn versions(mut body: &[u8]) -> Vec<u32> {
    let mut versions = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<8>() {
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let length = number(4) as usize;
        let Some(message) = rest.get(..length) else { break };
        assert!(message.iter().all(|byte| *byte == 7), "torn");
        versions.push(number(0));
        body = &rest[length..];
    }
    versions
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head::bytes(payload.len(), kind, flags, stream)[..], payload].concat()
}

pub(super) fn opening(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    hpack::put(&mut block, b":path", path.as_bytes());
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block)
}

pub(super) const PING: &[u8] = &[0, 0, 8, kind::PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
