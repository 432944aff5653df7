//! Answers questions by UDP.
//!
//! In: a bound socket. Out: answers, sent from the address at which their questions
//! arrived, because askers drop answers from other addresses.
//! It waits for nothing but questions.

use std::cell::Cell;
use std::io::IoSliceMut;
use std::time::Instant;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

use crate::{clock, seed};

use super::byte_limit::ByteLimit;
use super::work_limit::{self, WorkLimit};
use super::{Answers, Infallible, IpAddr, PAUSE, Transport, UdpSocket, answer, io};

/// A socket that knows the local address at which each datagram arrived.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The address it is bound to; `None` for a wildcard.
    bound: Option<IpAddr>,
}

/// Limits for askers, whose addresses may be forged.
struct Limits {
    bytes: ByteLimit,
    work_limit: WorkLimit,
}

/// How many endpoints an answer may look at and still count as cheap.
const CHEAP: usize = 256;
/// How many datagrams are received at a time.
const BATCH: usize = 8;
/// Buffer bytes for each. The kernel may join several datagrams of one asker.
const ROOM: usize = 1 << 16;

impl Port {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let bound = Some(socket.local_addr()?.ip()).filter(|ip| !ip.is_unspecified());
        Ok(Self { socket, state, bound })
    }

    pub(super) async fn answer_all(&self, answers: &Answers) -> Infallible {
        let mut memory = vec![0; BATCH * ROOM];
        let mut rooms: Vec<_> = memory.chunks_exact_mut(ROOM).map(IoSliceMut::new).collect();
        let mut metas = [RecvMeta::default(); BATCH];
        let mut limits = Limits {
            bytes: ByteLimit::new(seed::random(), clock::now()),
            work_limit: WorkLimit::new(work_limit::UDP, seed::random(), clock::now()),
        };
        loop {
            let receive = || self.state.recv((&self.socket).into(), &mut rooms, &mut metas);
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(count) => {
                    let batch = rooms.iter().zip(&metas).take(count);
                    let datagrams = batch.flat_map(|(room, meta)| {
                        let datagrams = room.get(..meta.len).unwrap_or_default();
                        datagrams.chunks(meta.stride.max(1)).map(move |one| (one, meta))
                    });
                    self.answer_batch(datagrams, answers, &mut limits);
                    // A flood of datagrams must not keep askers by TCP waiting.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot receive a question");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers the cheap questions first, so that none waits for a costly one.
    fn answer_batch<'a>(
        &self,
        datagrams: impl Iterator<Item = (&'a [u8], &'a RecvMeta)>,
        answers: &Answers,
        limits: &mut Limits,
    ) {
        let now = clock::now();
        let mut costly = Vec::new();
        let ask = |query: &[u8], meta: &RecvMeta, may_visit: &dyn Fn(usize) -> bool| {
            let asker = meta.addr.ip();
            answers.answer(query, Transport::Udp, asker, self.arrival(meta), may_visit)
        };
        for (query, meta) in datagrams {
            let postponed = Cell::new(false);
            let may_visit = |work| {
                postponed.set(work > CHEAP);
                work <= CHEAP
            };
            let reply = ask(query, meta, &may_visit);
            if postponed.get() {
                costly.push((query, meta));
            } else {
                self.send(query, meta, answers.count(reply), &mut limits.bytes, now);
            }
        }
        for (query, meta) in costly {
            let asker = meta.addr.ip();
            let done = Cell::new(0);
            let may = limits.work_limit.wait(asker, now).is_zero();
            let may_visit = |work| {
                done.set(if may { work } else { 0 });
                may
            };
            let reply = ask(query, meta, &may_visit);
            limits.work_limit.charge(asker, done.get(), now);
            self.send(query, meta, answers.count(reply), &mut limits.bytes, now);
        }
    }

    fn arrival(&self, meta: &RecvMeta) -> Option<IpAddr> {
        meta.dst_ip.or(self.bound)
    }

    /// Sends a reply at once or drops it: an asker without an answer asks again.
    fn send(
        &self,
        query: &[u8],
        meta: &RecvMeta,
        reply: Option<Vec<u8>>,
        byte_limit: &mut ByteLimit,
        now: Instant,
    ) {
        let Some(mut reply) = reply else { return };
        // An asker whose address is not forged comes back by TCP.
        if !byte_limit.take(meta.addr, query.len(), reply.len(), now) {
            let Some(short) = answer::truncated(&reply) else { return };
            reply = short;
        }
        let transmit = Transmit {
            destination: meta.addr,
            ecn: None,
            contents: &reply,
            segment_size: None,
            src_ip: meta.dst_ip,
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        if let Err(error) = self.socket.try_io(Interest::WRITABLE, send) {
            tracing::debug!(%error, asker = %meta.addr, "cannot send an answer");
        }
    }
}
