//! gRPC's framing of a client's messages, and the limits of its reports.
//!
//! In: pieces of a request's body. Out: whole messages, or the reason why there can be no
//! more. Pure. It never holds more than one message.

use bytes::{Buf, Bytes, BytesMut};
use tonic::Status;

use crate::load::Calls;

use super::pb;

/// The longest message, in bytes. Names are under 256 bytes by the protocol, and reports
/// have a line per drop token, so no client's message comes near this.
const MESSAGE_MAX: usize = 64 * 1024;
/// The length of a message's prefix, in bytes: flag and length.
const PREFIX: usize = 5;
/// The most calls in one report: a million a second, for a quarter of an hour.
const CALLS_MAX: i64 = 1_000_000_000;

/// Puts messages together from pieces.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The bytes that have come and are not taken yet. It holds no memory while it is
    /// empty, as in an idle stream.
    waiting: BytesMut,
}

impl Messages {
    /// Adds bytes from the connection.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Returns how many bytes wait for the rest of a message.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the next whole message, without its prefix; `None` if it has not come yet.
    ///
    /// # Errors
    /// Returns a status if the message is too long or compressed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.waiting.get(..PREFIX) else { return Ok(None) };
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 {
            return Err(Status::unimplemented(
                "compressed messages are not supported: send identity",
            ));
        }
        if length > MESSAGE_MAX {
            let text = format!("the message has {length} bytes: at most {MESSAGE_MAX} are read");
            return Err(Status::resource_exhausted(text));
        }
        if self.waiting.len() < PREFIX + length {
            return Ok(None);
        }
        self.waiting.advance(PREFIX);
        let message = self.waiting.split_to(length).freeze();
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// Returns the calls of a report; `None` if a count is negative or too large.
pub(super) fn calls(stats: &pb::ClientStats) -> Option<Calls> {
    let count = |number: i64| match number {
        0..=CALLS_MAX => u64::try_from(number).ok(),
        _ => None,
    };
    // The limit is for the whole report, however many tokens it names.
    let dropped = stats.calls_finished_with_drop.iter().try_fold(0_i64, |sum, token| {
        count(token.num_calls)?;
        sum.checked_add(token.num_calls)
    });
    Some(Calls {
        started: count(stats.num_calls_started)?,
        finished: count(stats.num_calls_finished)?,
        failed_to_send: count(stats.num_calls_finished_with_client_failed_to_send)?,
        known_received: count(stats.num_calls_finished_known_received)?,
        dropped: count(dropped?)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], length.as_slice(), message].concat()
    }

    proptest! {
        #[test]
        fn messages_come_whole_whatever_the_pieces(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6),
            piece in 1..60_usize,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|message| framed(message)).collect();
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                messages.push(piece);
                while let Some(message) = messages.next().unwrap() {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, sent);
            prop_assert_eq!(messages.waiting.capacity(), 0);
        }

        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut messages = Messages::default();
            messages.push(&bytes);
            while let Ok(Some(message)) = messages.next() {
                let _ = <pb::LoadBalanceRequest as prost::Message>::decode(message);
            }
        }
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_at_its_prefix() {
        let code = |prefix: [u8; 5]| {
            let mut messages = Messages::default();
            messages.push(&prefix);
            messages.next().map(|_| ()).map_err(|status| status.code())
        };
        assert_eq!(code([0, 0, 1, 0, 0]), Ok(()));
        assert_eq!(code([0, 0, 1, 0, 1]), Err(Code::ResourceExhausted));
        assert_eq!(code([0, 255, 255, 255, 255]), Err(Code::ResourceExhausted));
        assert_eq!(code([1, 0, 0, 0, 1]), Err(Code::Unimplemented));
    }

    #[test]
    fn reports_that_make_sense_are_counted_and_others_not() {
        let drops = |calls: &[i64]| {
            let token =
                |&num_calls: &i64| pb::ClientStatsPerToken { num_calls, ..Default::default() };
            calls.iter().map(token).collect()
        };
        let sane = pb::ClientStats {
            num_calls_started: 5,
            num_calls_finished: 9,
            num_calls_finished_with_client_failed_to_send: 1,
            num_calls_finished_known_received: 3,
            calls_finished_with_drop: drops(&[2, 3]),
            ..Default::default()
        };
        let expected =
            Calls { started: 5, finished: 9, failed_to_send: 1, known_received: 3, dropped: 5 };
        assert_eq!(calls(&sane), Some(expected));
        assert_eq!(calls(&pb::ClientStats::default()), Some(Calls::default()));
        let dropped = |each: &[i64]| {
            let stats =
                pb::ClientStats { calls_finished_with_drop: drops(each), ..Default::default() };
            calls(&stats).map(|calls| calls.dropped)
        };
        // The tokens together have the limit of one.
        assert_eq!(dropped(&[CALLS_MAX / 2; 2]), Some(1_000_000_000));
        assert_eq!(dropped(&[CALLS_MAX / 2, CALLS_MAX / 2, 1]), None);
        assert_eq!(dropped(&[CALLS_MAX; 5_000]), None);
        assert_eq!(dropped(&[CALLS_MAX, -1]), None);
        for bad in [-1, i64::MIN, i64::MAX, CALLS_MAX + 1] {
            let with = |change: fn(&mut pb::ClientStats, i64)| {
                let mut stats = sane.clone();
                change(&mut stats, bad);
                calls(&stats)
            };
            assert_eq!(with(|stats, bad| stats.num_calls_started = bad), None);
            assert_eq!(with(|stats, bad| stats.num_calls_finished = bad), None);
            assert_eq!(with(|stats, bad| stats.num_calls_finished_known_received = bad), None);
            assert_eq!(with(|stats, bad| stats.calls_finished_with_drop[1].num_calls = bad), None);
        }
    }
}
