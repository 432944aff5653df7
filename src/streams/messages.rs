//! gRPC's framing of a client's messages.
//!
//! In: pieces of a request's body. Out: whole messages, or the reason why there can be no
//! more. It never holds more than one message.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use lookaside_http2::Incoming;
use tonic::Status;

/// The longest message, in bytes. Names are under 256 bytes by the protocol, and reports
/// have a line per drop token, so no client's message comes near this.
const MESSAGE_MAX: usize = 64 * 1024;
/// The length of a message's prefix, in bytes: flag and length.
const PREFIX: usize = 5;

/// Puts messages together from pieces.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// The bytes that have come and are not taken yet. It holds no memory while it is
    /// empty, as in an idle stream.
    waiting: BytesMut,
}

impl Messages {
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

/// Reads a request up to the end of its first message. Fails if the client sends none.
pub(crate) async fn first_message(
    body: &mut Incoming,
    messages: &mut Messages,
) -> Result<Bytes, Status> {
    loop {
        if let Some(message) = messages.next()? {
            return Ok(message);
        }
        let held = messages.len();
        let frame = poll_fn(|cx| {
            body.hold(held, cx);
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
}
