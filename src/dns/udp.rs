//! Questions that come as datagrams.
//!
//! In: a bound socket. Out: answers, sent from the address at which their
//! questions came, for askers drop what comes from elsewhere. It never waits
//! for anything but questions.

use std::io::IoSliceMut;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

use crate::{clock, seed};

use super::allowance::Allowance;
use super::{Answers, Carrier, Infallible, IpAddr, PAUSE, UdpSocket, answer, io};

/// A socket that knows at which address each datagram came.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The address it is bound to, unless that is a wildcard.
    bound: Option<IpAddr>,
}

/// Datagrams taken at a time.
const BATCH: usize = 8;
/// Room for each: the kernel may hand over several of one asker's as one.
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
        let mut allowance = Allowance::new(seed::random(), clock::now());
        loop {
            let receive = || self.state.recv((&self.socket).into(), &mut rooms, &mut metas);
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(count) => {
                    let now = clock::now();
                    for (room, meta) in rooms.iter().zip(&metas).take(count) {
                        let datagrams = room.get(..meta.len).unwrap_or_default();
                        for datagram in datagrams.chunks(meta.stride.max(1)) {
                            let mut may_send = |reply: usize| {
                                allowance.take(meta.addr, datagram.len(), reply, now)
                            };
                            self.answer(datagram, meta, answers, &mut may_send);
                        }
                    }
                    // A flood here must not keep those who come by TCP waiting.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no question can be received");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sends at once or not at all: who gets no answer asks again.
    fn answer(
        &self,
        query: &[u8],
        meta: &RecvMeta,
        answers: &Answers,
        may_send: &mut dyn FnMut(usize) -> bool,
    ) {
        let Some(mut reply) = answers.reply(query, Carrier::Udp, meta.dst_ip.or(self.bound)) else {
            return;
        };
        // Who is what it says it is comes back by TCP.
        if !may_send(reply.len()) {
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
            tracing::debug!(%error, asker = %meta.addr, "answer cannot be sent");
        }
    }
}
