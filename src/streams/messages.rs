//! gRPC's framing of a client's messages.
//!
//! In: pieces of a request's body. Out: whole messages, or the reason why there can be no
//! more. It never holds more than one message.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use lookaside_http2::Incoming;
use tonic::Status;

/// The longest message of most protocols, in bytes. Names are under 256 bytes by grpclb, and
/// reports have a line per drop token, so no client's message comes near this.
const USUAL_MAX: usize = 64 * 1024;
/// The longest message of xDS, in bytes. Each request names all that its client wants: ten
/// thousand names of a hundred bytes. Each report has all clusters.
pub(crate) const LONG_MAX: usize = 1024 * 1024;
/// Messages of up to this many bytes are charged in full when they are read, *long* ones hardly:
/// what is done with them is charged afterwards.
pub(crate) const SHORT_MAX: usize = 4 * 1024;
/// How many bytes of a long message give its client a second more to send it: half of what a
/// connection may send.
const LONG_PER_SECOND: usize = 8 * 1024;
/// The length of a message's prefix, in bytes: flag and length.
const PREFIX: usize = 5;

/// Puts messages together from pieces.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The longest message that is read, in bytes.
    longest: usize,
    /// The bytes that have come and are not taken yet. It holds no memory while it is
    /// empty, as in an idle stream.
    waiting: BytesMut,
}

impl Default for Messages {
    fn default() -> Self {
        Self::up_to(USUAL_MAX)
    }
}

impl Messages {
    /// Puts messages of up to `longest` bytes together.
    pub(crate) fn up_to(longest: usize) -> Self {
        Self { longest, waiting: BytesMut::new() }
    }

    /// Returns the length of the long message that has begun, with its prefix; 0 if none has,
    /// or if it is too long.
    pub(crate) fn expected(&self) -> usize {
        let length = self.waiting.get(1..PREFIX).and_then(|length| length.try_into().ok());
        let length = length.map_or(0, |length| u32::from_be_bytes(length) as usize);
        if length > self.longest { 0 } else { self.long(length) }
    }

    /// Returns the length with its prefix of a message of `length` bytes; 0 if it is not long,
    /// or if the protocol has no long messages.
    pub(crate) fn long(&self, length: usize) -> usize {
        let is_long = length > SHORT_MAX && self.longest > USUAL_MAX;
        if is_long { PREFIX + length } else { 0 }
    }

    /// Returns how much longer than a short message the one that has begun may take.
    pub(crate) fn extra_time(&self) -> Duration {
        let beyond = self.expected().saturating_sub(PREFIX + USUAL_MAX) / LONG_PER_SECOND;
        Duration::from_secs(beyond.try_into().unwrap_or_default())
    }

    /// Adds bytes from the connection.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Returns how many bytes wait for the rest of a message.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the next whole message, without its prefix; `None` if it has not come yet.
    ///
    /// # Errors
    /// Returns a status if the message is too long or compressed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.waiting.get(..PREFIX) else { return Ok(None) };
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 {
            return Err(Status::unimplemented(
                "compressed messages are not supported: send identity",
            ));
        }
        let longest = self.longest;
        if length > longest {
            let text = format!("the message has {length} bytes: at most {longest} are read");
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

/// Reads a request up to the end of its first message. Fails if the client sends none. What
/// has come stays in `messages` if it is dropped before.
pub(crate) async fn first_message(
    body: &mut Incoming,
    messages: &mut Messages,
) -> Result<Bytes, Status> {
    loop {
        if let Some(message) = messages.next()? {
            body.finish(messages.long(message.len()));
            poll_fn(|cx| Poll::Ready(body.hold(messages.len(), cx))).await;
            return Ok(message);
        }
        let (held, expected) = (messages.len(), messages.expected());
        let frame = poll_fn(|cx| {
            body.hold(held, cx);
            body.expect(expected);
            Pin::new(&mut *body).poll_frame(cx)
        });
        match frame.await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    messages.push(&data);
                }
            }
            Some(Err(_)) => return Err(Status::cancelled("the client is gone")),
            None => {
                return Err(Status::invalid_argument("the stream ended before its first message"));
            }
        }
    }
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
                drop(message);
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
    fn a_long_message_is_expected_and_gets_time() {
        let mut messages = Messages::up_to(LONG_MAX);
        let said = |messages: &Messages| (messages.expected(), messages.extra_time().as_secs());
        assert_eq!(said(&messages), (0, 0));
        messages.push(&[0, 0, 8, 0]);
        assert_eq!(said(&messages), (0, 0));
        messages.push(&[0]);
        assert_eq!(said(&messages), (5 + 512 * 1024, 56));
        messages.push(&vec![0; 512 * 1024]);
        assert_eq!(messages.next().unwrap().unwrap().len(), 512 * 1024);
        messages.push(&framed(&[7; 9])[..6]);
        assert_eq!((said(&messages), messages.long(9)), ((0, 0), 0), "it is short");
        assert_eq!([messages.long(SHORT_MAX), messages.long(SHORT_MAX + 1)], [0, SHORT_MAX + 6]);
        let mut too_long = Messages::default();
        too_long.push(&[0, 0, 8, 0, 0]);
        assert_eq!((said(&too_long), too_long.long(SHORT_MAX + 1)), ((0, 0), 0));
    }
}
